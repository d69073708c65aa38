"""What each stage costs before and after its real work: on a tiny project, nearly all is start-up.

    python -m benchmarks.startup                          # about two minutes on two cores at rest
    python -m benchmarks.startup --before ../old --rounds 5

Each stage runs as DVC runs it, in a process of its own. Processor time of the user is counted,
which other work on the machine changes little, and the lowest of the rounds is given: of the
imports alone, of the whole stage, and the seconds until the stage says its first line. With
--before, the code of another folder, such as a clone of an earlier commit, takes turns.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
import yaml

from mammo.datasets.phantom.draw import write_phantoms

ROOT = Path(__file__).parents[1]
TINY: dict[str, dict[str, Any]] = {
    "preprocess": {"long_side": 160},
    "split": {"validation": 0.33, "test": 0.34, "salt": "processors-70"},
    "detector": {"image_size": 64, "epochs": 1, "batch_size": 2},
    "classifier": {"image_height": 64, "image_width": 48, "epochs": 1, "batch_size": 8},
    "tune": {"trials": 1, "epochs": 1},
    "evaluate": {"bootstrap": 100},
    "explain": {"images": 1},
}


class Cost(NamedTuple):
    """Seconds of one run of a stage."""

    imports: float  # of the user, for the stage's module alone
    whole: float  # of the user, its workers included
    first_line: float  # by the clock, from the start


def main(
    before: Annotated[Path | None, typer.Option(help="A folder with other code.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Print one row a stage, and the sums."""
    stages = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    codes = [ROOT] if before is None else [before.resolve(), ROOT]
    print(f"{'':18}{'imports, user s':>20}{'whole, user s':>20}{'first line, s':>20}")
    totals = [[0.0] * 3 for _ in codes]
    with tempfile.TemporaryDirectory(prefix="startup-") as scratch:
        write_phantoms(Path(scratch) / "data", women=9, seed=9, long_side=256)
        projects = [make_project(Path(scratch) / str(n), code) for n, code in enumerate(codes)]
        for stage in stages:
            costs: list[list[Cost]] = [[] for _ in codes]
            for _ in range(rounds):
                for found, project in zip(costs, projects, strict=True):
                    found.append(measure(project, stage))
            lowest = [list(map(min, zip(*found, strict=True))) for found in costs]
            print_row(stage, lowest)
            for total, row in zip(totals, lowest, strict=True):
                total[:] = [a + b for a, b in zip(total, row, strict=True)]
    print_row("all stages", totals)


def print_row(name: str, rows: list[list[float]]) -> None:
    """Print the numbers of a stage: where there are two codes, of both."""
    cells = (" -> ".join(f"{value:.1f}" for value in values) for values in zip(*rows, strict=True))
    print(f"{name:18}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


def make_project(folder: Path, code: Path) -> Path:
    """A folder to run stages in, with tiny settings, beside `data/`."""
    folder.mkdir()
    for floor in ("mammo", "stages"):
        (folder / floor).symlink_to(code / floor)
    shutil.copytree(folder.parent / "data", folder / "data")
    settings = yaml.safe_load((code / "params.yaml").read_text())
    settings["threads"] = 1
    for section, changes in TINY.items():
        settings[section].update(changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return folder


def measure(project: Path, stage: str) -> Cost:
    """Run a stage once, after its imports alone."""
    imports, _ = run(project, ["-c", f"import stages.{stage}"])
    whole, first_line = run(project, ["-m", f"stages.{stage}"])
    return Cost(imports, whole, first_line)


def run(project: Path, arguments: list[str]) -> tuple[float, float]:
    """Run Python; its user's seconds, and those until its first line; a failure shows its words."""
    hidden = ("MLFLOW_", "MAMMOFLOW_", "OPTUNA_", "PYTHONPATH")
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    start, first = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=project,
            env={**env, "MAMMOFLOW_STORE": "off"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert child.stdout is not None
        with child.stdout as said:
            for _ in said:
                first = first or time.perf_counter() - start
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            errors.seek(0)
            sys.exit(f"{' '.join(arguments)} failed:\n{errors.read()}")
    return used.ru_utime, first


if __name__ == "__main__":
    typer.run(main)
