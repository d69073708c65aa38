"""Running a snapshot's pipeline again, and comparing what comes out with the record."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from flows.audit_record import ComparedOut, ComparedStage
from flows.dvclock import Cache, LockedStage, read_lock
from flows.pipeline import dvc_env, worth_showing
from flows.process import follow
from flows.snapshot import Snapshot
from mammo import params
from mammo.comparison import Comparison, compare_files, worst

DETAILS = 5  # files of an out that are named


def run_again(folder: Path, data: str, say: Callable[[str], None]) -> None:
    """Run every stage by force in `folder`, a materialised snapshot; only raw data are pulled.

    Raises:
        CommandError: if a stage fails, with its last lines.
    """
    _dvc(folder, say, "pull", f"{data}.dvc")
    _dvc(folder, say, "repro", "--force", "--no-run-cache")


def compare_stages(
    folder: Path,
    locked: Sequence[LockedStage],
    cache: Cache,
    tolerances: params.Audit,
    say: Callable[[str], None],
) -> list[ComparedStage]:
    """Every out of every stage, then and now.

    The first stage to differ, all of whose inputs were the same, is run a second time: if that
    gives yet other bytes, its code is not deterministic.
    """
    again = {stage.name: stage for stage in _read_lock(folder)}
    compared: list[ComparedStage] = []
    for then in locked:
        now = again.get(then.name)
        outs = [
            _compare_out(folder, path, md5, now.outs.get(path) if now else None, cache, tolerances)
            for path, md5 in then.outs.items()
        ]
        likeness = worst([Comparison(out.likeness or "different") for out in outs])
        deterministic = None
        if likeness != "identical" and now is not None and now.deps == then.deps:
            say(f"{then.name} differs though its inputs did not: running it once more")
            deterministic = _gives_the_same_again(folder, now, say)
        compared.append(
            ComparedStage(
                stage=then.name, likeness=likeness, deterministic=deterministic, outs=outs
            )
        )
    return compared


def _compare_out(
    folder: Path,
    path: str,
    then: str,
    now: str | None,
    cache: Cache,
    tolerances: params.Audit,
) -> ComparedOut:
    if now is None:
        return ComparedOut(
            path=path,
            hash_then=then,
            hash_now=None,
            likeness="different",
            details=["it was not made again"],
        )
    found = {} if then == now else _differences(folder, path, then, cache, tolerances)
    return ComparedOut(
        path=path,
        hash_then=then,
        hash_now=now,
        likeness=worst(list(found.values())),
        details=[
            f"{name}: {comparison.detail}"
            for name, comparison in sorted(found.items(), key=lambda x: x[1].likeness)
        ][:DETAILS],
    )


def _differences(
    folder: Path, path: str, then: str, cache: Cache, tolerances: params.Audit
) -> dict[str, Comparison]:
    """The files of an out that are not identical, and how far they differ."""
    if not then.endswith(".dir"):
        old = cache.path(then)
        return {Path(path).name: compare_files(old, folder / path, Path(path).suffix, tolerances)}
    before = cache.listing(then)
    here = {str(p.relative_to(folder / path)) for p in (folder / path).rglob("*") if p.is_file()}
    found = {
        name: Comparison("different", "was there and is not" if name in before else "is new")
        for name in sorted(here ^ set(before))
    }
    for name in sorted(here & set(before)):
        comparison = compare_files(
            cache.path(before[name]), folder / path / name, Path(name).suffix, tolerances
        )
        if comparison.likeness != "identical":
            found[name] = comparison
    return found


def _gives_the_same_again(folder: Path, stage: LockedStage, say: Callable[[str], None]) -> bool:
    _dvc(folder, say, "repro", "--force", "--no-run-cache", "--single-item", stage.name)
    third = {stage.name: stage for stage in _read_lock(folder)}
    return third[stage.name].outs == stage.outs


def _read_lock(folder: Path) -> list[LockedStage]:
    return read_lock(Snapshot("", {"dvc.lock": (folder / "dvc.lock").read_text()}))


def _dvc(folder: Path, say: Callable[[str], None], *arguments: str) -> None:
    follow(
        [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments],
        folder,
        lambda line: say(line) if worth_showing(line) else None,
        # The snapshot's own code, not the auditor's; no run of MLflow to log to; nothing that is
        # remembered, taken from where a training was before, or done by machines of other code.
        {
            **dvc_env(),
            "PYTHONPATH": str(folder),
            "MLFLOW_RUN_ID": "",
            "MAMMOFLOW_STORE": "off",
            "DASK_SCHEDULER": "",
            "OPTUNA_STORAGE": "",
            "MAMMOFLOW_CHECKPOINTS": "checkpoints",
        },
    )
