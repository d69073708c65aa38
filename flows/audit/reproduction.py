"""Runs a snapshot's pipeline again, and compares the outs with the recorded ones."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.audit.record import ComparedOut, ComparedStage, OutLikeness
from flows.pipeline.first_weights import has_dvc_file, read_tracked_weights
from flows.pipeline.graph import skip_hints
from flows.pipeline.lock_and_cache import Cache, LockedStage, parse_lock
from flows.pipeline.pretraining import read_pretraining, read_pretraining_data
from flows.processes.follow import follow
from flows.processes.run_dvc import DVC, make_environment
from flows.processes.words import Say
from mammo.assurance.tolerance import FileComparison, compare_files, find_least_alike

DETAILS = 5  # files of an out that are named
_LEAST_ALIKE: Sequence[OutLikeness] = ("identical", "follows from training", "alike", "different")


@dataclass(frozen=True)
class Tolerance:
    """What may differ where the arithmetic differs."""

    follow_training: Container[str]  # stages whose outs are not judged
    pixels: int  # grey levels, of images that other stages made


def run_again(folder: Path, data: str, say: Say) -> None:
    """Run every stage by force in `folder`, a materialised snapshot.

    Only the raw data are pulled, those of a pretraining too, which then runs again as well; and the
    weights that a training starts from, but those that the pretraining makes.

    Raises:
        CommandError: if a stage fails, with its last lines.
    """
    _dvc(
        folder,
        say,
        "pull",
        f"{data}.dvc",
        *(f"{path}.dvc" for path in read_pretraining_data(folder)),
        *(f"{path}.dvc" for path in read_tracked_weights(folder) if has_dvc_file(folder, path)),
    )
    _dvc(folder, say, "repro", "--force", "--no-run-cache")


def score_recorded(folder: Path, stage: LockedStage, made: Container[str], say: Say) -> None:
    """Run a stage again with the inputs that were recorded.

    Args:
        folder: a materialised snapshot in which nothing has run.
        stage: the one that scores the classifier.
        made: the paths of all outs of the pipeline: what the stage reads of these comes from the
            cache, not from a re-run.
        say: reports the progress.

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
        say: reports the progress.
    """
    again = {stage.name: stage for stage in _read_lock(folder)}
    compared: list[ComparedStage] = []
    for then in locked:
        now = again.get(then.name)
        made = now.outs if now is not None else {}
        outs = _compare_outs(folder, then, made, cache, tolerance)
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


def _compare_outs(
    folder: Path,
    then: LockedStage,
    made: Mapping[str, str],
    cache: Cache,
    tolerance: Tolerance | None,
) -> list[ComparedOut]:
    """Every out of a stage, then and now.

    Args:
        folder: where the pipeline ran again.
        then: the stage as it was.
        made: paths and hashes of the outs that were made again.
        cache: has the outs as they were.
        tolerance: None if bytes must be the same.
    """
    follows = tolerance is not None and then.name in tolerance.follow_training
    compared = []
    for path, md5 in then.outs.items():
        now = made.get(path)
        if now is None:
            likeness: OutLikeness = "different"
            details = ["it was not made again"]
        elif now == md5:
            likeness, details = "identical", []
        elif follows:
            likeness, details = "follows from training", []
        else:
            likeness, details = _compare_files(folder, path, md5, cache, tolerance)
        compared.append(
            ComparedOut(path=path, hash_then=md5, hash_now=now, likeness=likeness, details=details)
        )
    return compared


def _compare_files(
    folder: Path, path: str, then: str, cache: Cache, tolerance: Tolerance | None
) -> tuple[OutLikeness, list[str]]:
    """How alike an out is to the recorded one, and its files that differ, least alike first."""
    found = _compare_folders(folder, path, then, cache, tolerance.pixels if tolerance else 0)
    likeness = find_least_alike(list(found.values()))
    details = [
        f"{name}: {comparison.detail}"
        for name, comparison in sorted(
            found.items(), key=lambda x: _LEAST_ALIKE.index(x[1].likeness), reverse=True
        )
    ]
    strict = tolerance is None
    return "different" if strict and likeness == "alike" else likeness, details[:DETAILS]


def _compare_folders(
    folder: Path, path: str, then: str, cache: Cache, pixels: int
) -> dict[str, FileComparison]:
    """The files of an out that are not identical, and how far they differ."""
    if not then.endswith(".dir"):
        old = cache.path(then)
        return {Path(path).name: compare_files(old, folder / path, Path(path).suffix, pixels)}
    before = cache.listing(then)
    files = (file for file in (folder / path).rglob("*") if file.is_file())
    now = {str(file.relative_to(folder / path)) for file in files}
    found = {
        name: FileComparison("different", "was there and is not" if name in before else "is new")
        for name in sorted(now ^ set(before))
    }
    for name in sorted(now & set(before)):
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
    """The stages of a folder's dvc.lock, and of its pretraining's."""
    own = parse_lock((folder / "dvc.lock").read_text(), "dvc.lock")
    return [*read_pretraining(folder), *own]


def _dvc(folder: Path, say: Say, *arguments: str) -> None:
    follow(
        [*DVC, "--wait-for-lock", *arguments],
        folder,
        skip_hints(say),
        # The snapshot's own code, not the auditor's. No run of MLflow to log to, no stored results,
        # no earlier checkpoints, and no workers, which may have other code.
        {
            **make_environment(),
            "PYTHONPATH": str(folder),
            "MLFLOW_RUN_ID": "",
            "MAMMOFLOW_STORE": "off",
            "DASK_SCHEDULER": "",
            "OPTUNA_STORAGE": "",
            "MAMMOFLOW_CHECKPOINTS": "checkpoints",
        },
    )
