"""The audit of a model version: do its records agree, and does doing it again give the same model?

    mammoflow audit 3

It reads the registry, git and DVC's cache, runs the snapshot's pipeline again in a clean directory,
and compares. Nothing of the auditor's changes but the audit's own tags and report on the version.
"""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from flows.audit import integrity, provenance
from flows.audit.account import Materials, compare_metrics, put_together
from flows.audit.effect import unlike_recorded, unlike_remade
from flows.audit.findings import Evidence
from flows.audit.record import Audit, ComparedStage, Finding
from flows.audit.reproduction import Tolerance, compare_stages, run_again
from flows.audit.standard import find_standard
from flows.pipeline.first_weights import tracked
from flows.pipeline.graph import follows_training, read_pipeline
from flows.pipeline.lock_and_cache import Cache, data_out, open_cache, outs_of, read_lock, sizes
from flows.processes.follow import CommandError
from flows.processes.reach import require_mlflow
from flows.processes.run_git import file_at
from flows.processes.words import Say
from flows.publishing.publish import fetch_objects
from flows.snapshots import environment
from flows.snapshots.snapshot import Snapshot, materialise
from flows.tracking import addresses, arithmetic
from flows.tracking.find_version import find_version
from flows.tracking.preflight import check_disk, format_bytes
from flows.tracking.registry import MODEL, environment_of
from mammo.assurance.leakage import find_leaks
from mammo.base.errors import UserError
from mammo.base.settings import Params


def audit(root: Path, reference: str, params: Params, quick: bool, say: Say) -> Audit:
    """Audit a model version; `history.keep` writes what came of it to the registry.

    Args:
        root: the auditor's clone.
        reference: a version's number, or an alias as in `mammogram-classifier@champion`.
        params: the auditor's settings, for their bounds.
        quick: leave out the re-run and the comparison.
        say: told of the progress, line by line.

    Raises:
        UserError: if there is no such version, its run is gone, or MLflow does not answer.
    """
    require_mlflow()
    addresses.mend(root)
    version = find_version(reference)
    run = provenance.find_run(version)
    say(f"auditing {MODEL} version {version.version}")
    seen, got = Evidence(), Materials(environment.here(), environment_of(version))
    seen.look("provenance", "the version carries its tags", provenance.missing_tags(version))
    got.snapshot, disagreements = provenance.agreement(root, version, run)
    seen.look("provenance", "registry, run and git tag hold one snapshot", disagreements)
    if got.snapshot is not None:
        lock = environment.locked_packages(
            _at(root, got.snapshot.commit, "requirements.lock") or ""
        )
        got.differences = environment.compare(got.then, got.now, lock)
        with materialise(root, got.snapshot) as folder:
            _find_standard(folder, seen, got, say)
            for difference in got.differences:
                effect = "can move bits" if difference.moves_bits else "moves no bits"
                change = f"was {difference.then}, is {difference.now}"
                say(f"environment: {difference.what} {change}: {effect}")
            if not any(finding.kind != "note" for finding in seen.findings):
                _examine(root, folder, version, run, params, quick, seen, got, say)
    return put_together(root, version, seen, got, quick)


def _find_standard(folder: Path, seen: Evidence, got: Materials, say: Say) -> None:
    """Which standard applies, by this machine's arithmetic and that of those that made the version.

    Args:
        folder: the snapshot, materialised: its own code measures.
    """
    assert got.snapshot is not None
    found = []
    try:
        stages = [stage.name for stage in read_lock(got.snapshot)]
        got.now = got.now.model_copy(update={"arithmetic": arithmetic.measure(folder)})
    except UserError:
        return  # told by `_examine`
    except CommandError as error:
        sentence = f"this machine's arithmetic could not be measured: {error}"
        found = [Finding(step="standard", kind="note", sentence=sentence)]
    got.standard = find_standard(got.then, got.now.arithmetic, stages)
    say(f"standard: {got.standard.name}: {got.standard.sentence}")
    seen.look("standard", "this machine's arithmetic is measured by the version's code", found)


def _examine(
    root: Path,
    folder: Path,
    version: ModelVersion,
    run: Run,
    params: Params,
    quick: bool,
    seen: Evidence,
    got: Materials,
    say: Say,
) -> None:
    """Everything that needs the snapshot's files; stops where going on would prove nothing."""
    assert got.snapshot is not None
    try:
        locked = read_lock(got.snapshot)
        data, data_hash = data_out(got.snapshot)
        pipeline = read_pipeline(folder)
        first_weights = tracked(folder)
    except UserError as error:
        wrong = Finding(step="provenance", kind="wrong", sentence=str(error))
        seen.look("provenance", "dvc.lock and dvc.yaml can be read", [wrong])
        return
    seen.look(
        "provenance",
        "dvc.lock fits the commit's code, params.yaml and itself",
        provenance.lock_agrees(folder, got.snapshot, locked),
    )
    cache = open_cache(root)
    outs = outs_of(locked)
    wanted = {data: data_hash, **first_weights, **outs}
    _say_needs(root, got.snapshot, run, cache, quick, say)
    unusable = "" if _all_cached(cache, wanted) else fetch_objects(folder, [], say)
    say("checking the bytes of data and outs in DVC's cache")
    good = seen.look(
        "provenance",
        "the cache holds data and outs, with the bytes of their hashes",
        provenance.cached_bytes(
            cache,
            version,
            (data, data_hash),
            {**first_weights, **outs},
            _counter(say),
            unusable,
        ),
    )
    seen.look(
        "provenance",
        "data/ of this clone, if it is that version's, is what data.dvc names",
        provenance.workspace_data(root, got.snapshot, cache),
    )
    if not good:
        return
    seen.look(
        "integrity",
        "the registered model holds the outs of the train stages, and the commit's code",
        integrity.model_bytes(version, folder, got.snapshot, locked),
    )
    seen.look(
        "integrity",
        "params and metrics in MLflow are those of the snapshot and its outs",
        integrity.logged_numbers(run, got.snapshot, locked, pipeline, cache),
    )
    got.metrics = compare_metrics(pipeline, outs, cache, None)
    got.splits, leaks = _leakage(cache, outs, data_hash)
    seen.look(
        "leakage",
        "no woman and no picture is in two splits, and the sets add up to the data",
        [Finding(step="leakage", kind="unsound", sentence=leak) for leak in leaks],
    )
    if quick or any(finding.kind in ("missing", "wrong") for finding in seen.findings):
        return
    say("running every stage again in a clean directory")
    try:
        run_again(folder, data, say)
    except CommandError as error:
        seen.look(
            "reproduction",
            "every stage runs again",
            [Finding(step="reproduction", kind="wrong", sentence=f"the re-run failed: {error}")],
        )
        return
    seen.look("reproduction", "every stage runs again", [])
    strict = got.standard is not None and got.standard.name == "bit for bit"
    tolerance = Tolerance(follows_training(pipeline), params.audit.pixels)
    got.stages = compare_stages(folder, locked, cache, None if strict else tolerance, say)
    got.metrics = compare_metrics(pipeline, outs, cache, folder)
    what = "every out is" if strict else "what does not follow from training is"
    seen.look("comparison", f"{what} as it was", _comparison_findings(got.stages))
    likenesses = {stage.likeness for stage in got.stages}
    if strict or "different" in likenesses or likenesses <= {"identical"}:
        return
    say("scoring the recorded weights on this machine")
    got.rescoring, unlike = unlike_recorded(
        root, got.snapshot, locked, cache, params.audit.probability, say
    )
    if seen.look("rescoring", "the recorded weights give the recorded predictions", unlike):
        say("comparing what both models say of the test women")
        got.equivalence, got.points, unlike = unlike_remade(folder, outs, cache, params.audit)
        seen.look("equivalence", "the re-made model does the same for the test women", unlike)


def _comparison_findings(stages: Sequence[ComparedStage]) -> list[Finding]:
    found = []
    for stage in stages:
        if stage.deterministic is False:
            found.append(
                f"the stage {stage.stage} gives other bytes each time it is run: its code is not "
                f"deterministic"
            )
        different = [out for out in stage.outs if out.likeness == "different"]
        if different:
            detail = next((f" ({out.details[0]})" for out in different if out.details), "")
            paths = ", ".join(out.path for out in different)
            found.append(f"the stage {stage.stage} made another {paths}{detail}")
    kind: Any = "wrong" if any(stage.likeness == "different" for stage in stages) else "note"
    return [Finding(step="comparison", kind=kind, sentence=sentence) for sentence in found]


def _say_needs(
    root: Path, snapshot: Snapshot, run: Run, cache: Cache, quick: bool, say: Say
) -> None:
    """What is about to be fetched and computed, before it is.

    Raises:
        UserError: if the disk has no room for it.
    """
    known = sizes(snapshot)
    absent = sum(size for md5, size in known.items() if not cache.path(md5).exists())
    if absent:
        say(f"needs {format_bytes(absent)} from DVC's remote")
    again = 0 if quick else sum(known.values())
    check_disk(root, absent + again)
    if not quick and (minutes := provenance.minutes_of(run)):
        say(f"needs about {minutes:.0f} minutes: so long the stages ran that made the version")


def _all_cached(cache: Cache, outs: Mapping[str, str]) -> bool:
    return all(
        cache.path(md5).exists()
        for path, top in outs.items()
        for _, md5 in cache.objects(path, top)
    )


def _counter(say: Say) -> Callable[[], None]:
    """Tells of every ten thousandth file: a real data set takes a while."""
    count = 0

    def one_more() -> None:
        nonlocal count
        count += 1
        if count % 10_000 == 0:
            say(f"{count} files checked")

    return one_more


def _leakage(
    cache: Cache, outs: Mapping[str, str], data_hash: str
) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Women and images of each split, and what is unsound about them."""

    def table(md5: str) -> pd.DataFrame:
        return pd.read_csv(BytesIO(cache.path(md5).read_bytes()), dtype=str, keep_default_na=False)

    manifest = table(outs["outputs/preprocess/manifest.csv"])
    split = table(outs["outputs/split/split.csv"])
    leaks = find_leaks(
        labels=table(cache.listing(data_hash)["train.csv"]),
        manifest=manifest,
        rejects=table(outs["outputs/preprocess/rejects.csv"]),
        split=split,
        pictures=cache.listing(outs["outputs/preprocess/images"]),
    )
    shared = manifest.merge(split.drop_duplicates("patient_id"), on="patient_id")
    counts = {
        str(name): {"women": int(part["patient_id"].nunique()), "images": len(part)}
        for name, part in shared.groupby("split")
    }
    return counts, leaks


def _at(root: Path, commit: str, path: str) -> str | None:
    try:
        return file_at(root, commit, path)
    except UserError:
        return None
