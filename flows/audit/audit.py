"""The audit of a model version: do its records agree, and does a re-run give the same model?

    mammoflow audit 3

It reads the registry, git and DVC's cache, runs the snapshot's pipeline again in a clean directory,
and compares. It changes nothing but its own tags and report of the version.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from flows.audit import integrity, provenance
from flows.audit.account import (
    Contents,
    Environments,
    Materials,
    Rerun,
    compare_metrics,
    make_record,
)
from flows.audit.effect import compare_remade, rescore_recorded
from flows.audit.findings import (
    CheckResult,
    check,
    collect_findings,
    missing,
    note,
    unsound,
    wrong,
)
from flows.audit.record import Audit, ComparedStage, Finding
from flows.audit.reproduction import Tolerance, compare_stages, run_again
from flows.audit.standard import find_standard
from flows.audit.subject import Subject, read_subject
from flows.evidence.export import verify_version
from flows.evidence.keys import PUBLIC, list_keys
from flows.pipeline.graph import find_training_and_later
from flows.pipeline.known_outs import IMAGES_OUT, MANIFEST_OUT, REJECTS_OUT, SPLIT_OUT
from flows.pipeline.lock_and_cache import name_default_remote
from flows.pipeline.pretraining import read_pretraining_data
from flows.processes.follow import CommandError
from flows.processes.reach import require_mlflow
from flows.processes.run_git import read_file_at
from flows.processes.words import Say
from flows.publishing.publish import fetch_objects
from flows.snapshots import environment
from flows.snapshots.snapshot import Snapshot, materialise
from flows.tracking import addresses, arithmetic
from flows.tracking.find_version import find_version
from flows.tracking.names import MODEL
from flows.tracking.preflight import check_disk, format_bytes
from flows.tracking.registry import read_environment
from mammo.assurance.leakage import find_leaks, find_pretraining_leaks
from mammo.base.errors import UserError
from mammo.base.settings import Audit as Bounds
from mammo.base.settings import Params

_PATCHES = "outputs/patches/patches.csv"  # of a pretraining


def audit(
    root: Path,
    reference: str,
    params: Params,
    quick: bool,
    say: Say,
    trusted: Collection[str] = (),
) -> Audit:
    """Audit a model version; `history.keep` writes the result to the registry.

    Args:
        root: the auditor's clone.
        reference: a version's number, or an alias as in `mammogram-classifier@champion`.
        params: the auditor's settings, for their bounds.
        quick: leave out the re-run and the comparison.
        say: reports the progress.
        trusted: the ids of the keys that the auditor trusts; all of `keys/` if there are none.

    Raises:
        UserError: if there is no such version, its run is gone, MLflow or git's remote does not
            answer, or DVC's remote is needed and cannot be used: that is no verdict.
    """
    require_mlflow()
    addresses.mend(root)
    version = find_version(reference)
    run = provenance.find_run(version)
    say(f"auditing {MODEL} version {version.version}")
    evidence = _check_evidence(root, version, trusted, say)
    snapshot, results = _check_identity(root, version, run)
    results = [evidence, *results]
    found = Materials(results, snapshot, _compare_environments(root, version, snapshot))
    if snapshot is not None:
        with materialise(root, snapshot) as folder:
            try:
                subject = read_subject(root, folder, version, run, snapshot)
            except UserError as error:
                what = "dvc.lock and dvc.yaml can be read"
                unreadable = check("provenance", what, [wrong(str(error))])
                found = replace(found, results=[*results, unreadable])
            else:
                found = _audit_subject(subject, found, params.audit, quick, say)
    return make_record(root, version, found, quick)


def _check_evidence(
    root: Path, version: ModelVersion, trusted: Collection[str], say: Say
) -> CheckResult:
    """Verify what was signed of the version, if anything was; an unsigned version may be good.

    Where there are keys it is a note that a version is unsigned: its lines may have been taken out.
    """
    what = "what was signed of the version holds"
    try:
        report = verify_version(root, version, trusted)
    except UserError as error:
        # Where there are keys, whoever damages a record must not come off better than by a change.
        kind = missing if (root / PUBLIC).is_dir() else note
        return check("evidence", what, [kind(f"its evidence cannot be verified: {error}")])
    say(f"evidence: {report.sentence}")
    if not report.signed and not report.wrong and not list_keys(root):
        return check("evidence", "the version is unsigned: there is nothing to verify", [])
    faults = [wrong(sentence) for sentence in report.wrong]
    said = [note(sentence) for sentence in report.notes]
    if report.signed and not trusted:
        what += (
            " by the keys in keys/, which whoever writes to git may change (--trust names yours)"
        )
    return check("evidence", what, [*faults, *said])


def _check_identity(
    root: Path, version: ModelVersion, run: Run
) -> tuple[Snapshot | None, list[CheckResult]]:
    """The snapshot that a version came from; None if its records do not agree on one."""
    tags = provenance.find_missing_tags(version)
    snapshot, disagreements = provenance.find_agreed_snapshot(root, version, run)
    return snapshot, [
        check("provenance", "the version carries its tags", tags),
        check("provenance", "registry, run and git tag hold one snapshot", disagreements),
    ]


def _compare_environments(
    root: Path, version: ModelVersion, snapshot: Snapshot | None
) -> Environments:
    """The environment of the version and this one; the commit's lock gives missing packages."""
    then, now = read_environment(version), environment.describe_environment()
    if snapshot is None:
        return Environments(then, now)
    try:
        lock = environment.read_locked_packages(
            read_file_at(root, snapshot.commit, "requirements.lock")
        )
    except UserError:
        lock = {}  # the commit has none
    return Environments(then, now, environment.compare(then, now, lock))


def _audit_subject(
    subject: Subject, before: Materials, bounds: Bounds, quick: bool, say: Say
) -> Materials:
    """Choose the standard, and examine the version where its records do not contradict each other.

    Args:
        subject: the version.
        before: what was found until now.
        bounds: of the comparison.
        quick: leave out the re-run and the comparison.
        say: reports the progress.

    Returns:
        What was found until now, with what this step found.
    """
    families, measured = _measure_arithmetic(subject)
    environments = before.environments
    stages = [stage.name for stage in subject.locked]
    standard = find_standard(environments.then, families, stages)
    say(f"standard: {standard.name}: {standard.sentence}")
    for difference in environments.differences:
        effect = "can change bytes" if difference.moves_bits else "changes no bytes"
        change = f"was {difference.then}, is {difference.now}"
        say(f"environment: {difference.what} {change}: {effect}")
    now = environments.now.model_copy(update={"arithmetic": families})
    found = replace(
        before,
        results=[*before.results, measured],
        environments=replace(environments, now=now),
        standard=standard,
    )
    # Evidence that does not hold is told beside what else is found, not in its place.
    if any(x.step != "evidence" and x.kind != "note" for x in collect_findings(found.results)):
        return found
    return _examine(subject, found, bounds, quick, say)


def _measure_arithmetic(subject: Subject) -> tuple[dict[str, str], CheckResult]:
    """This machine's arithmetic, by the version's own code; nothing if that cannot measure it."""
    families: dict[str, str] = {}
    failures = []
    try:
        families = arithmetic.measure(subject.folder)
    except CommandError as error:
        failures = [note(f"this machine's arithmetic could not be measured: {error}")]
    what = "this machine's arithmetic is measured by the version's code"
    return families, check("standard", what, failures)


def _examine(
    subject: Subject, before: Materials, bounds: Bounds, quick: bool, say: Say
) -> Materials:
    """Check the bytes, then their contents, then run everything again.

    It stops where the next step could prove nothing.
    """
    cached = _check_cache(subject, quick, say)
    found = replace(
        before, results=[*before.results, _check_lock(subject), cached, _check_workspace(subject)]
    )
    if not cached.passed:
        return found
    contents, results = _check_contents(subject)
    found = replace(found, results=[*found.results, *results], contents=contents)
    if quick or {"missing", "wrong"} & {
        finding.kind for finding in collect_findings(found.results)
    }:
        return found
    strict = before.standard is not None and before.standard.name == "bit for bit"
    rerun, results = _run_and_compare(subject, strict, bounds, say)
    return replace(found, results=[*found.results, *results], rerun=rerun)


def _check_lock(subject: Subject) -> CheckResult:
    stages = [*subject.pretraining, *subject.locked]
    found = provenance.check_lock(subject.folder, subject.snapshot, stages)
    return check("provenance", "dvc.lock fits the commit's code, params.yaml and itself", found)


def _check_cache(subject: Subject, quick: bool, say: Say) -> CheckResult:
    """Fetch what DVC's cache lacks of data and outs, and check the bytes of all.

    Raises:
        UserError: if the disk has no room for what this and the re-run need; or if the remote is
            needed and cannot be used, which says nothing of the version.
    """
    absent = _find_absent(subject)
    _say_needs(subject, absent, quick, say)
    if absent and (unusable := fetch_objects(subject.folder, [], say)):
        raise UserError(
            f"version {subject.version.version} cannot be audited in this clone: DVC's cache lacks "
            f"some of its files, and {unusable}; once that is mended, run this again"
        )
    say("checking the bytes of data and outs in DVC's cache")
    return check(
        "provenance",
        "the cache holds data and outs, with the bytes of their hashes",
        provenance.check_cached_bytes(
            subject.cache,
            subject.version,
            subject.data,
            {path: md5 for path, md5 in subject.objects.items() if path != subject.data[0]},
            _make_counter(say),
            read_pretraining_data(subject.folder),
        ),
    )


def _say_needs(subject: Subject, absent: Collection[str], quick: bool, say: Say) -> None:
    """Tell what is about to be fetched and computed, before it is.

    Raises:
        UserError: if the disk has no room for it.
    """
    known = subject.read_sizes()
    fetched = sum(known.get(md5, 0) for md5 in absent)
    if fetched:
        remote = name_default_remote(subject.root)
        where = "from DVC's remote" if remote else "that DVC's cache lacks, and there is no remote"
        say(f"needs {format_bytes(fetched)} {where}")
    again = 0 if quick else sum(known.values())
    check_disk(subject.root, fetched + again)
    if not quick:
        _say_minutes(subject, say)


def _find_absent(subject: Subject) -> set[str]:
    """Hashes of what DVC's cache lacks; of a folder of which it has only a part, the folder's.

    A folder's size is known, and not that of each file in it: so the part that is there is counted
    as absent, too.
    """
    return {top for path, top in subject.objects.items() if not subject.cache.holds(path, top)}


def _say_minutes(subject: Subject, say: Say) -> None:
    """Tell how long the re-run will take, as far as anybody knows."""
    minutes, unknown = provenance.estimate_minutes(subject.run)
    # A person runs a pretraining by DVC, which records no times.
    unknown += [stage.name.partition(":")[2] for stage in subject.pretraining]
    if minutes:
        about = f"{minutes:.0f} minutes" if minutes >= 1.5 else "a minute"
        say(f"needs about {about}, as the stages took when they ran before")
    if unknown:
        say(f"needs the time of {', '.join(unknown)}, too, which was not recorded")


def _make_counter(say: Say) -> Callable[[], None]:
    """A function to call for each file; it reports every ten thousandth of them."""
    count = 0

    def count_file() -> None:
        nonlocal count
        count += 1
        if count % 10_000 == 0:
            say(f"{count} files checked")

    return count_file


def _check_workspace(subject: Subject) -> CheckResult:
    found = provenance.check_workspace_data(subject.root, subject.snapshot, subject.cache)
    return check(
        "provenance", "data/ of this clone, if it is that version's, is what data.dvc names", found
    )


def _check_contents(subject: Subject) -> tuple[Contents, list[CheckResult]]:
    """Compare the cached outs with the registered model and MLflow's numbers; check the splits."""
    locked, outs, cache = subject.locked, subject.outs, subject.cache
    splits, leaks = _read_splits(subject)
    contents = Contents(compare_metrics(subject.pipeline, outs, cache, None), splits)
    return contents, [
        check(
            "integrity",
            "the registered model holds the outs of the train stages, and the commit's code",
            integrity.check_model(subject.version, subject.folder, subject.snapshot, locked),
        ),
        check(
            "integrity",
            "params and metrics in MLflow are those of the snapshot and its outs",
            integrity.check_logged_numbers(
                subject.run, subject.snapshot, locked, subject.pipeline, cache
            ),
        ),
        check(
            "leakage",
            "no woman and no picture is in two splits, and the sets add up to the data",
            [unsound(leak) for leak in leaks],
        ),
    ]


def _read_splits(subject: Subject) -> tuple[Mapping[str, Mapping[str, int]], list[str]]:
    """Women and images of each split, and what is unsound about the splits, in sentences."""
    cache, outs = subject.cache, subject.outs
    _, data_hash = subject.data

    def read(md5: str) -> pd.DataFrame:
        return pd.read_csv(BytesIO(cache.path(md5).read_bytes()), dtype=str, keep_default_na=False)

    manifest = read(outs[MANIFEST_OUT])
    split = read(outs[SPLIT_OUT])
    leaks = find_leaks(
        labels=read(cache.listing(data_hash)["train.csv"]),
        manifest=manifest,
        rejects=read(outs[REJECTS_OUT]),
        split=split,
        pictures=cache.listing(outs[IMAGES_OUT]),
    )
    if (patches := subject.pretraining_objects.get(_PATCHES)) is not None:
        leaks += find_pretraining_leaks(read(patches), split)
    shared = manifest.merge(split.drop_duplicates("patient_id"), on="patient_id")
    counts = {
        str(name): {"women": int(part["patient_id"].nunique()), "images": len(part)}
        for name, part in shared.groupby("split")
    }
    return counts, leaks


def _run_and_compare(
    subject: Subject, strict: bool, bounds: Bounds, say: Say
) -> tuple[Rerun | None, list[CheckResult]]:
    """Run every stage again and compare the outs, and the models where bytes may differ.

    Args:
        subject: the version.
        strict: every byte must be the same.
        bounds: of the comparison where bytes may differ.
        say: reports the progress.
    """
    data, _ = subject.data
    say("running every stage again in a clean directory")
    try:
        run_again(subject.folder, data, say)
    except CommandError as error:
        failure = wrong(f"the re-run failed: {error}")
        return None, [check("reproduction", "every stage runs again", [failure])]
    pretrained = {
        stage.name
        for stage in subject.pretraining
        if any(path.endswith(".safetensors") for path in stage.outs)
    }
    tolerance = Tolerance(find_training_and_later(subject.pipeline) | pretrained, bounds.pixels)
    stages = compare_stages(
        subject.folder,
        [*subject.pretraining, *subject.locked],
        subject.cache,
        None if strict else tolerance,
        say,
    )
    what = "every out is" if strict else "what does not follow from training is"
    results = [
        check("reproduction", "every stage runs again", []),
        check("comparison", f"{what} as it was", _find_different_stages(stages)),
    ]
    metrics = compare_metrics(subject.pipeline, subject.outs, subject.cache, subject.folder)
    rerun = Rerun(stages, metrics)
    likenesses = {stage.likeness for stage in stages}
    if strict or "different" in likenesses or likenesses <= {"identical"}:
        return rerun, results
    rerun, compared = _compare_models(subject, rerun, bounds, say)
    return rerun, [*results, *compared]


def _find_different_stages(stages: Sequence[ComparedStage]) -> list[Finding]:
    """A finding for each stage that made something else, or whose code is not deterministic."""
    kind = wrong if any(stage.likeness == "different" for stage in stages) else note
    found = []
    for stage in stages:
        if stage.deterministic is False:
            found.append(
                kind(
                    f"the stage {stage.stage} gives other bytes each time it is run: its code is "
                    f"not deterministic"
                )
            )
        different = [out for out in stage.outs if out.likeness == "different"]
        if different:
            detail = next((f" ({out.details[0]})" for out in different if out.details), "")
            paths = ", ".join(out.path for out in different)
            found.append(kind(f"the stage {stage.stage} made another {paths}{detail}"))
    return found


def _compare_models(
    subject: Subject, rerun: Rerun, bounds: Bounds, say: Say
) -> tuple[Rerun, list[CheckResult]]:
    """Compare the models where bytes may differ.

    First the recorded weights must give the recorded predictions; then the re-made model is
    compared with the recorded one.
    """
    say("scoring the recorded weights on this machine")
    rescoring, unlike = rescore_recorded(subject, bounds.probability, say)
    what = "the recorded weights give the recorded predictions"
    rescored = check("rescoring", what, unlike)
    rerun = replace(rerun, rescoring=rescoring)
    if not rescored.passed:
        return rerun, [rescored]
    say("comparing what both models say of the test women")
    equivalence, points, unlike = compare_remade(
        subject.folder, subject.outs, subject.cache, bounds
    )
    what = "the re-made model does the same for the test women"
    rerun = replace(rerun, equivalence=equivalence, points=points)
    return rerun, [rescored, check("equivalence", what, unlike)]
