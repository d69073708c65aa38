"""Provenance: whether registry, run, git tag, commit, dvc.lock and DVC's cache agree.

Each function checks one thing and returns what is wrong or missing. None runs a stage.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from flows.audit.findings import missing, wrong
from flows.audit.record import Finding
from flows.pipeline.first_weights import hash_weights
from flows.pipeline.lock_and_cache import Cache, LockedStage, hash_room, read_data_out
from flows.pipeline.pretraining import SETTINGS, read_pretraining_data, read_settings
from flows.processes.run_git import has_commit, list_changes
from flows.processes.words import hash_md5, shorten_list
from flows.publishing.publish import fetch_tag, read_publication
from flows.snapshots.snapshot import DATA_FILE, FILES, PARAMS_FILE, Snapshot, read_tag
from flows.tracking.names import name_tag
from flows.tracking.registry import (
    SNAPSHOT_ARTIFACT,
    is_absent,
    make_snapshot_tags,
    read_artifact,
    read_run_id,
)
from flows.tracking.runs import flatten, list_stage_runs
from mammo.base.errors import UserError
from mammo.base.settings import WEIGHTS
from mammo.data.tables import BREAST_BOXES, LESIONS, TRAIN, image_files


def find_run(version: ModelVersion) -> Run:
    """The run that a version came from.

    Raises:
        UserError: if MLflow has no such run, or the version names none.
    """
    try:
        return MlflowClient().get_run(read_run_id(version))
    except MlflowException as error:
        if not is_absent(error):
            raise
        raise UserError(
            f"MLflow has no run {version.run_id}, which version {version.version} names as its own"
        ) from None


def estimate_minutes(run: Run) -> tuple[float, list[str]]:
    """How long the stages of a retrain take together, if each takes what it took before.

    A stage that this retrain did not run counts as it did when it ran last for another.

    Args:
        run: the parent run.

    Returns:
        Minutes, and the stages whose time nobody knows, which are not in them.
    """
    client, minutes, unknown = MlflowClient(), 0.0, []
    experiments = [run.info.experiment_id]
    for stage in list_stage_runs(run):
        name = stage.data.tags["stage"]
        timed: Run | None = stage
        if stage.data.tags.get("fate") != "ran":
            query = f"tags.stage = '{name}' and tags.fate = 'ran'"
            newest = ["attributes.start_time DESC"]
            ran = client.search_runs(experiments, query, max_results=1, order_by=newest)
            timed = next(iter(ran), None)
        if timed is None or not timed.info.end_time:
            unknown.append(name)
        else:
            minutes += (timed.info.end_time - timed.info.start_time) / 60_000
    return minutes, sorted(unknown)


def find_missing_tags(version: ModelVersion) -> Iterator[Finding]:
    """Find tags that registration gave the version and that it lacks."""
    wanted = ("snapshot_digest", "git_commit", "data_hash", "git_tag")
    gone = [name for name in wanted if name not in version.tags]
    if gone:
        yield missing(
            f"version {version.version} lacks the tags {', '.join(gone)} that registration gave it:"
            f" somebody removed them from the registry"
        )


def find_agreed_snapshot(
    root: Path, version: ModelVersion, run: Run
) -> tuple[Snapshot | None, list[Finding]]:
    """The version's snapshot if registry, run and git agree on it, and where they do not.

    It is recorded three times: in the version's tags (a digest), in the run (the text), and in git
    (the tag). If one disagrees with the other two, that one was changed.

    Args:
        root: the auditor's clone.
        version: that is audited.
        run: that the version came from.
    """
    tag = name_tag(int(version.version))
    stored, findings = _read_stored_snapshot(version)
    if gone := fetch_tag(root, int(version.version)):
        findings.append(missing(f"{gone}; the registry says: {read_publication(version)}"))
    if findings or stored is None:
        return None, findings
    if not has_commit(root, stored.commit):
        advice = "get it with `git fetch origin`, or audit from a clone that has it"
        return None, [missing(f"this clone lacks the commit {stored.commit}: {advice}")]
    try:
        tagged = read_tag(root, tag)
    except UserError:
        return None, [wrong(f"the git tag {tag} was moved: it holds no snapshot")]
    # A missing tag is reported by `find_missing_tags`: it contradicts nothing.
    digest = version.tags.get("snapshot_digest", tagged.digest)
    if not stored.digest == tagged.digest == digest:
        return None, list(_name_culprit(stored, tagged, digest, tag))
    if others := _compare_trees(root, tagged.commit, tag):
        files = shorten_list(others)
        findings.append(wrong(f"the tag {tag} holds other code than its commit: {files}"))
    return stored, [*findings, *_compare_copies(version, run, stored)]


def _read_stored_snapshot(version: ModelVersion) -> tuple[Snapshot | None, list[Finding]]:
    """The snapshot that the version's run holds, or None, and what is wrong with it."""
    text = read_artifact(read_run_id(version), SNAPSHOT_ARTIFACT)
    if text is None:
        return None, [missing(f"the run {version.run_id} has no {SNAPSHOT_ARTIFACT}")]
    try:
        return Snapshot.from_json(text), []
    except UserError as error:
        sentence = f"{SNAPSHOT_ARTIFACT} of the run is not a snapshot any more ({error})"
        return None, [wrong(sentence)]


def _compare_copies(version: ModelVersion, run: Run, stored: Snapshot) -> Iterator[Finding]:
    """Find tags of the version and its run, and texts of the run, that differ from the snapshot."""
    tags = {**make_snapshot_tags(stored), "git_tag": name_tag(int(version.version))}
    for name, value in tags.items():
        for owner, found in ((f"version {version.version}", version.tags), ("run", run.data.tags)):
            if found.get(name, value) != value:
                yield wrong(f"the tag {name} of the {owner} is {found[name]!r}, not {value!r}")
    for name, content in stored.files.items():
        if read_artifact(read_run_id(version), f"snapshot/{name}") != content:
            yield wrong(f"snapshot/{name} of the run was changed: it is not the snapshot's {name}")


def _name_culprit(stored: Snapshot, tagged: Snapshot, digest: str, tag: str) -> Iterator[Finding]:
    if stored.digest == tagged.digest:
        yield wrong(
            f"the version's tag snapshot_digest was changed: it is {digest[:12]}..., but run and "
            f"git tag {tag} hold {stored.digest[:12]}..."
        )
        return
    names = ["commit"] if stored.commit != tagged.commit else []
    names += [name for name in FILES if stored.files.get(name) != tagged.files.get(name)]
    what = ", ".join(names)
    if tagged.digest == digest:
        yield wrong(f"the snapshot stored in MLflow was changed: {what} not as in git tag {tag}")
    elif stored.digest == digest:
        yield wrong(f"the git tag {tag} was moved: {what} not as in the snapshot in MLflow")
    else:
        yield wrong(
            f"git tag {tag}, the snapshot stored in MLflow and the version's tag snapshot_digest "
            f"all differ ({what})"
        )


def check_lock(
    folder: Path, snapshot: Snapshot, stages: Sequence[LockedStage]
) -> Iterator[Finding]:
    """Find where dvc.lock does not fit itself, the commit's code and params.yaml.

    Args:
        folder: the snapshot, materialised.
        snapshot: whose dvc.lock it is.
        stages: of the dvc.lock; and before them those of a pretraining.
    """
    made = {path: (stage.name, md5) for stage in stages for path, md5 in stage.outs.items()}
    path, md5 = read_data_out(snapshot)
    made[path] = ("data.dvc", md5)
    for path, md5 in read_pretraining_data(folder).items():
        made[path] = (f"{path}.dvc", md5)
    settings = flatten(yaml.safe_load(snapshot.files.get(PARAMS_FILE, "{}")) or {})
    own = flatten(read_settings(folder))
    settings |= {f"{SETTINGS}:{key}": value for key, value in own.items()}
    for stage in stages:
        for dep, md5 in stage.deps.items():
            if dep in made:
                if made[dep][1] != md5:
                    yield wrong(
                        f"dvc.lock: {stage.name} read another {dep} than {made[dep][0]} names"
                    )
            elif dep == WEIGHTS and (folder / dep).is_dir():
                if hash_weights(folder) != md5:
                    yield wrong(
                        f"dvc.lock: {stage.name} read other {dep}/ than the commit's .dvc files "
                        f"name"
                    )
            elif not (folder / dep).exists():
                yield wrong(f"dvc.lock: {stage.name} read {dep}, which the commit does not hold")
            elif (hash_room if (folder / dep).is_dir() else hash_md5)(folder / dep) != md5:
                yield wrong(f"dvc.lock: {stage.name} ran another {dep} than the commit holds")
        for key, value in flatten(stage.params).items():
            if settings.get(key) != value:
                yield wrong(
                    f"dvc.lock: {stage.name} ran with {key} = {value}, but params.yaml of the "
                    f"snapshot has {settings.get(key)}"
                )


def check_cached_bytes(
    cache: Cache,
    version: ModelVersion,
    data: tuple[str, str],
    outs: Mapping[str, str],
    on_file: Callable[[], None],
    unnamed: Container[str] = (),
) -> Iterator[Finding]:
    """Find files that a hash of data.dvc or dvc.lock names and that the cache lacks or damaged.

    Args:
        cache: DVC's cache.
        version: whose they are, for the advice.
        data: the data's folder and its hash.
        outs: those of the stages, and their hashes.
        on_file: called after each file.
        unnamed: those of `outs` whose files no sentence may name.
    """
    known = _find_known_files(cache, *data)
    gone: list[str] = []
    for out, md5 in (data, *outs.items()):
        damaged = []
        for path, of_file in cache.objects(out, md5):
            state = cache.state(of_file)
            on_file()
            name = out if out in unnamed else path
            if state == "missing":
                gone.append(name)
            elif state == "damaged":
                damaged.append(name)
        if damaged:
            names = shorten_list(_choose_quotable(damaged, data[0], known))
            yield wrong(f"DVC's cache holds other bytes than the recorded hash says: {names}")
    if gone:
        names = shorten_list(_choose_quotable(gone, data[0], known))
        yield missing(
            f"neither DVC's cache nor a remote has {names}: run `mammoflow publish "
            f"{version.version}` where it was registered, and `dvc remote add -d NAME URL` in this "
            f"clone if it lacks the remote; the registry says: {read_publication(version)}"
        )


def check_workspace_data(root: Path, snapshot: Snapshot, cache: Cache) -> Iterator[Finding]:
    """Find files of the auditor's data/ that differ from data.dvc, if that is the snapshot's.

    The re-run takes the data from the cache. But data that were changed in the folder are not the
    data that made this model.

    Args:
        root: the auditor's clone.
        snapshot: the version's.
        cache: has the data.
    """
    name, md5 = read_data_out(snapshot)
    folder, named = root / name, root / "data.dvc"
    if not folder.is_dir() or not named.exists():
        return
    if named.read_bytes().decode() != snapshot.files[DATA_FILE] or cache.state(md5) != "good":
        return
    listing = cache.listing(md5)
    present = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    fates = {
        "gone": [path for path in listing if path not in present],
        "changed": [p for p in listing if p in present and hash_md5(folder / p) != listing[p]],
        "added": sorted(present - set(listing)),
    }
    known = _find_known_files(cache, name, md5)
    changes = [
        f"{path.removeprefix(f'{name}/')} ({fate})"
        for fate, paths in fates.items()
        for path in _choose_quotable([f"{name}/{path}" for path in paths], name, known)
    ]
    if changes:
        yield wrong(
            f"{name}/ is not what data.dvc names: {shorten_list(changes)}; `dvc checkout data.dvc` "
            f"brings back what the model was made from"
        )


def _choose_quotable(paths: list[str], data: str, known: set[str]) -> list[str]:
    """The paths that a report may name.

    Files of the data that are not `known` are only counted: a name may be anything, even a
    patient's.
    """
    good = [path for path in paths if not path.startswith(f"{data}/") or path in known]
    others = len(paths) - len(good)
    return [*dict.fromkeys(good)] + [f"{others} of {data}/ that no row of {TRAIN.name} names"] * (
        others > 0
    )


def _find_known_files(cache: Cache, data: str, md5: str) -> set[str]:
    """The data's tables, and the images that its train.csv names, if the cache has it."""
    known = {str(schema.name) for schema in (TRAIN, BREAST_BOXES, LESIONS)}
    labels = cache.listing(md5).get(str(TRAIN.name)) if cache.state(md5) == "good" else None
    if labels is not None and cache.state(labels) == "good":
        known |= _read_image_names(cache.path(labels))
    return {f"{data}/{path}" for path in known}


def _read_image_names(labels: Path) -> set[str]:
    """The images that a train.csv names; none if it is no such table."""
    try:
        rows = pd.read_csv(labels, dtype=str, usecols=["patient_id", "image_id"])
    except ValueError:
        return set()
    return set(image_files(rows))


def _compare_trees(root: Path, commit: str, tag: str) -> list[str]:
    names = list_changes(root, commit, f"refs/tags/{tag}")
    return [name for name in names if name not in FILES]
