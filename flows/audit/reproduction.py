"""Running a snapshot's pipeline again, and comparing what comes out with the record."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.audit.record import ComparedOut, ComparedStage, OutLikeness
from flows.pipeline.first_weights import tracked
from flows.pipeline.graph import dvc_env, worth_showing
from flows.pipeline.lock_and_cache import Cache, LockedStage, read_lock
from flows.processes.follow import follow
from flows.processes.run_dvc import DVC
from flows.processes.words import Say
from flows.snapshots.snapshot import Snapshot
from mammo.assurance.tolerance import Comparison, compare_files, find_least_alike

DETAILS = 5  # files of an out that are named
_LEAST_ALIKE: Sequence[OutLikeness] = ("identical", "follows from training", "alike", "different")


@dataclass(frozen=True)
class Tolerance:
    """What may differ where the arithmetic does."""

    follow_training: Container[str]  # stages whose outs are not judged
    pixels: int  # grey levels, of images that other stages made


def run_again(folder: Path, data: str, say: Say) -> None:
    """Run every stage by force in `folder`, a materialised snapshot.

    Only raw data are pulled, and weights that a training starts from.

    Raises:
        CommandError: if a stage fails, with its last lines.
    """
    _dvc(folder, say, "pull", f"{data}.dvc", *(f"{path}.dvc" for path in tracked(folder)))
    _dvc(folder, say, "repro", "--force", "--no-run-cache")


def score_recorded(folder: Path, stage: LockedStage, made: Container[str], say: Say) -> None:
    """Let a stage do once more what it did then, with the inputs that were recorded.

    Args:
        folder: a materialised snapshot in which nothing has run.
        stage: the one that scores the classifier.
        made: the paths of all outs of the pipeline: what the stage reads of these comes from the
            cache, not from a re-run.
        say: told of the progress, line by line.

    Raises:
        CommandError: if an input cannot be restored, or the stage fails.
    """
    _dvc(folder, say, "checkout", "--", *(path for path in stage.deps if path in made))
    _dvc(folder, say, "repro", "--force", "--no-run-cache", "--single-item", "--", stage.name)


def compare_stages(
    folder: Path,
    locked: Sequence[LockedStage],
    cache: Cache,
    tolerance: Tolerance | None,
    say: Say,
) -> list[ComparedStage]:
    """Every out of every stage, then and now.

    A stage that differs though its inputs were the same is run a second time: if that gives yet
    other bytes, its code is not deterministic.

    Args:
        folder: where the pipeline ran again.
        locked: the stages as they were.
        cache: has the outs as they were.
        tolerance: None if bytes must be the same.
        say: told of the progress, line by line.
    """
    again = {stage.name: stage for stage in _read_lock(folder)}
    compared: list[ComparedStage] = []
    for then in locked:
        now = again.get(then.name)
        follows = tolerance is not None and then.name in tolerance.follow_training
        outs = [
            _compare_out(folder, path, md5, now.outs.get(path), cache, tolerance, follows)
            if now is not None
            else _not_made(path, md5)
            for path, md5 in then.outs.items()
        ]
        likeness = _LEAST_ALIKE[max((_LEAST_ALIKE.index(out.likeness) for out in outs), default=0)]
        deterministic = None
        if likeness in ("alike", "different") and now is not None and now.deps == then.deps:
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
    tolerance: Tolerance | None,
    follows: bool,
) -> ComparedOut:
    if now is None:
        return _not_made(path, then)
    if then != now and follows:
        return ComparedOut(
            path=path, hash_then=then, hash_now=now, likeness="follows from training", details=[]
        )
    pixels = tolerance.pixels if tolerance is not None else 0
    found = {} if then == now else _differences(folder, path, then, cache, pixels)
    likeness = find_least_alike(list(found.values()))
    return ComparedOut(
        path=path,
        hash_then=then,
        hash_now=now,
        likeness="different" if likeness == "alike" and tolerance is None else likeness,
        details=[
            f"{name}: {comparison.detail}"
            for name, comparison in sorted(
                found.items(), key=lambda x: _LEAST_ALIKE.index(x[1].likeness), reverse=True
            )
        ][:DETAILS],
    )


def _not_made(path: str, then: str) -> ComparedOut:
    return ComparedOut(
        path=path,
        hash_then=then,
        hash_now=None,
        likeness="different",
        details=["it was not made again"],
    )


def _differences(
    folder: Path, path: str, then: str, cache: Cache, pixels: int
) -> dict[str, Comparison]:
    """The files of an out that are not identical, and how far they differ."""
    if not then.endswith(".dir"):
        old = cache.path(then)
        return {Path(path).name: compare_files(old, folder / path, Path(path).suffix, pixels)}
    before = cache.listing(then)
    here = {str(p.relative_to(folder / path)) for p in (folder / path).rglob("*") if p.is_file()}
    found = {
        name: Comparison("different", "was there and is not" if name in before else "is new")
        for name in sorted(here ^ set(before))
    }
    for name in sorted(here & set(before)):
        comparison = compare_files(
            cache.path(before[name]), folder / path / name, Path(name).suffix, pixels
        )
        if comparison.likeness != "identical":
            found[name] = comparison
    return found


def _gives_the_same_again(folder: Path, stage: LockedStage, say: Say) -> bool:
    _dvc(folder, say, "repro", "--force", "--no-run-cache", "--single-item", "--", stage.name)
    third = {stage.name: stage for stage in _read_lock(folder)}
    return third[stage.name].outs == stage.outs


def _read_lock(folder: Path) -> list[LockedStage]:
    return read_lock(Snapshot("", {"dvc.lock": (folder / "dvc.lock").read_text()}))


def _dvc(folder: Path, say: Say, *arguments: str) -> None:
    follow(
        [*DVC, "--wait-for-lock", *arguments],
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
