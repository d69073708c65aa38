"""What changed from the plan's reference to a version, and which of that the plan does not permit.

The settings come from both snapshots, the data from the lists in DVC's cache, the code from git.
`flows/` and what no stage depends on may always change: no model comes of it.
"""

from pathlib import Path

import yaml
from mlflow.entities.model_registry import ModelVersion

from flows.pipeline.lock_and_cache import open_cache, read_data_out
from flows.processes.run_git import list_entries
from flows.processes.words import Say, shorten_list
from flows.promotion.women import TABLE, list_data
from flows.publishing.publish import fetch_tag
from flows.snapshots.snapshot import CODE, Snapshot
from flows.tracking import aliases, registry
from flows.tracking.runs import flatten
from mammo.assurance.plan import PLAN_FILE, AllowedChanges, Reference, name_outside
from mammo.base.errors import UserError

FREE = ("prediction_pool", "audit", "policy")
"""Settings on which no stage depends; the last one stood in params.yaml once."""

_NO_MODEL = ("flows", "pyproject.toml", ".dvc", "pretraining")
"""Code of a snapshot that makes no model; what pretraining makes is in weights/, with its hash."""


def find_reference(plan: Reference) -> ModelVersion | None:
    """The version that challengers are held against besides the champion; None if there is none.

    The first one is the first champion whose snapshot has a plan, and that was not rolled back.

    Raises:
        UserError: if it was deleted or cannot be read, so that nobody can be held against it.
    """
    if plan.version != "first":
        found = registry.find(plan.version)
        if found is None:
            raise UserError(
                f"the reference of {PLAN_FILE}, version {plan.version}, is not in the registry: "
                f"name another under reference.version"
            )
        return found
    bad = aliases.list_rolled_back()
    champions = [move.version for move in aliases.read_history() if move.alias == registry.CHAMPION]
    for number in dict.fromkeys(champions):
        if number in bad:
            continue
        version = registry.find(number)
        if version is None:
            raise UserError(
                f"version {number}, which was approved before others, was deleted in MLflow: "
                f"name the version that challengers are held against under reference.version of "
                f"{PLAN_FILE}"
            )
        snapshot = registry.find_snapshot(version)
        if snapshot is None:
            raise UserError(
                f"the snapshot of version {number} cannot be read from MLflow, and nobody can tell "
                f"whether it is what challengers are held against: name a version under "
                f"reference.version of {PLAN_FILE}"
            )
        if PLAN_FILE in snapshot.files:
            return version
    return None


def find_outside(
    root: Path,
    reference: ModelVersion | None,
    version: ModelVersion,
    plan: AllowedChanges,
    say: Say,
) -> list[str]:
    """A phrase for each change that the plan does not permit.

    Args:
        root: the clone.
        reference: None if there is none yet: then only ranges and choices of settings count.
        version: that is to be judged.
        plan: what may change.
        say: gets a line if something must be fetched.

    Raises:
        UserError: if that cannot be found out, since a record is missing.
    """
    if plan.permit_everything:
        return []
    now = registry.read_snapshot(version)
    then = registry.read_snapshot(reference) if reference is not None else None
    found = []
    if plan.params != "all":
        before = _read_settings(then) if then is not None else None
        found += name_outside(plan.params, before, _read_settings(now))
    if reference is None or then is None:
        return found
    if plan.data != "all":
        found += _compare_data(root, then, now, plan.data == "grow", say)
    if plan.code != "all":
        for one in (reference, version):
            if gone := fetch_tag(root, int(one.version)):
                raise UserError(gone)
        found += _compare_code(root, then, now, plan.code)
    return found


def _read_settings(snapshot: Snapshot) -> dict[str, object]:
    flat = flatten(yaml.safe_load(snapshot.files["params.yaml"]))
    return {name: value for name, value in flat.items() if name.split(".")[0] not in FREE}


def _compare_data(root: Path, then: Snapshot, now: Snapshot, grow: bool, say: Say) -> list[str]:
    """Find where the data differ, or lack what was there, if they may grow.

    Files are counted and not named: their paths hold ids of women, and these sentences are signed.
    """
    if read_data_out(then)[1] == read_data_out(now)[1]:
        return []
    if not grow:
        return [f"the data, {read_data_out(now)[0]}/, are not the reference's"]
    cache = open_cache(root)
    reason = "so that nobody can tell whether the data have only grown"
    before, after = (list_data(root, snapshot, cache, reason, say) for snapshot in (then, now))
    gone = sorted(path for path in before if path != TABLE and before[path] != after.get(path))
    found = []
    if gone:
        changed = sum(path in after for path in gone)
        found.append(
            f"{changed} files of the data changed, and {len(gone) - changed} are gone, of the "
            f"{len(before)} that were there"
        )
    rows = [
        set(cache.path(files[TABLE]).read_text(encoding="utf-8-sig").splitlines())
        for files in (before, after)
    ]
    if absent := rows[0] - rows[1]:
        found.append(f"{len(absent)} rows of {TABLE} changed or are gone")
    return found


def _compare_code(root: Path, then: Snapshot, now: Snapshot, permitted: list[str]) -> list[str]:
    """Find changed code of the model that lies in none of the permitted folders."""
    watched = [path for path in CODE if path not in _NO_MODEL]
    pair = (then.commit, now.commit)
    changed = list_entries(root, "diff", "-z", "--name-only", "--no-renames", *pair, "--", *watched)
    allowed = [path.strip("/") for path in permitted]
    outside = [
        path
        for path in changed
        if not any(path == part or path.startswith(f"{part}/") for part in allowed)
    ]
    return [f"code changed: {shorten_list(outside)}"] if outside else []
