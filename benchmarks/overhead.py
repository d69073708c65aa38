"""What the flow costs on top of DVC: `mammoflow retrain` against bare `dvc repro`.

    python -m benchmarks.overhead            # the sample: about twenty minutes on two cores
    python -m benchmarks.overhead --small    # a few tiny phantoms: minutes

Two clones of the commit checked out, each with a cache of its own, do the same three things: make
everything, find that nothing has to be done, restore everything from the cache. Each is timed, one
after the other, on a machine that should do nothing else. The empty stores of Prefect and MLflow,
which are made once and not by each run, are timed before and apart. Exits with 1 beyond a limit.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from mammo.datasets.phantom.draw import write_phantoms

ROOT = Path(__file__).parents[1]
RATIO, SECONDS = 1.10, 15.0  # of a full run; on top where all is cached
SMALL: dict[str, dict[str, Any]] = {
    "preprocess": {"long_side": 192},
    "split": {"validation": 0.3, "test": 0.3},
    "detector": {"image_size": 64, "epochs": 2},
    "classifier": {"image_height": 96, "image_width": 64, "epochs": 1, "batch_size": 8},
    "tune": {"trials": 2, "epochs": 1},
    "evaluate": {"bootstrap": 100},
    "explain": {"images": 1},
}


def main(
    small: Annotated[bool, typer.Option(help="Tiny images and trainings, for a try.")] = False,
) -> None:
    """Print the times of both, and whether the limits are kept."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as scratch:
        bare, flow = Path(scratch) / "bare", Path(scratch) / "flow"
        make_clone(bare, small)
        shutil.copytree(bare, flow)
        repro = [sys.executable, "-m", "dvc", "repro"]
        retrain = [sys.executable, "-m", "flows.cli", "retrain"]
        print(f"empty stores, once: {make_stores(flow):.1f} s")
        print(f"{'':28}{'dvc repro':>12}{'retrain':>12}", flush=True)
        full = compare("everything", (bare, repro), (flow, retrain))
        idle = compare("nothing to do", (bare, repro), (flow, retrain))
        for clone in (bare, flow):
            shutil.rmtree(clone / "outputs")
        cached = compare("restored from the cache", (bare, repro), (flow, retrain))
    ratio, more = full[1] / full[0], max(idle[1] - idle[0], cached[1] - cached[0])
    print(f"ratio {ratio:.3f} (at most {RATIO}); cached {more:.1f} s more (at most {SECONDS:g})")
    raise typer.Exit(int(ratio > RATIO or more > SECONDS))


def make_clone(folder: Path, small: bool, data: Path | None = None) -> None:
    """The commit in a clone, with its data and nothing else; small settings are committed there.

    Args:
        folder: made by this call.
        small: tiny images and trainings.
        data: a folder to take instead of the sample.
    """
    run(["git", "clone", "--quiet", str(ROOT), str(folder)], ROOT)
    (folder / "dvc.lock").unlink(missing_ok=True)
    if data is not None:
        shutil.copytree(data, folder / "data")
        run([sys.executable, "-m", "dvc", "add", "--quiet", "data"], folder)
        return
    if not small:
        write_phantoms(folder / "data")
        return
    write_phantoms(folder / "data", women=24, seed=5, long_side=256)
    settings = yaml.safe_load((folder / "params.yaml").read_text())
    for section, changes in SMALL.items():
        settings[section].update(changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    run([sys.executable, "-m", "dvc", "add", "--quiet", "data"], folder)


def make_stores(folder: Path) -> float:
    """Make the stores that a retrain would make; return the seconds it took."""
    start = time.perf_counter()
    run([sys.executable, "-m", "flows.cli", "aliases"], folder)
    upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    run(upgrade, folder, {"PREFECT_HOME": str(folder / ".prefect")})
    return time.perf_counter() - start


def compare(what: str, *sides: tuple[Path, list[str]]) -> list[float]:
    """Run each side's command in its clone; print and return the seconds they took."""
    seconds = []
    for folder, command in sides:
        start = time.perf_counter()
        run(command, folder)
        seconds.append(time.perf_counter() - start)
    print(f"{what:28}" + "".join(f"{x:10.1f} s" for x in seconds), flush=True)
    return seconds


def run(command: list[str], folder: Path, extra: dict[str, str] | None = None) -> None:
    """Run a command of the clone's own code; a failure shows what it printed."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_"))}
    env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}", "PYTHONPATH": str(folder)}
    env |= extra or {}
    result = subprocess.run(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{result.stdout}")


if __name__ == "__main__":
    typer.run(main)
