"""The fingerprint of a machine's arithmetic, and which arithmetic made the outs of each stage.

The code of a given snapshot computes the fingerprint.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from flows.pipeline.graph import StageOutcome
from flows.pipeline.lock_and_cache import LockedStage, read_lock
from flows.processes.follow import CommandError, follow
from flows.processes.words import Say
from flows.snapshots import environment
from flows.snapshots.earlier_layout import find_module
from flows.snapshots.environment import Environment
from flows.snapshots.snapshot import Snapshot
from flows.tracking import registry
from mammo.base.errors import UserError

Arithmetic = Mapping[str, str]
"""A hash for each family of kernels, by its name; empty if it is not known."""


def measure(folder: Path) -> dict[str, str]:
    """The arithmetic of this machine: see `mammo.assurance.fingerprint`.

    It is computed in a process of its own, with the pins and threads of the project's own stages.

    Args:
        folder: a project, or a snapshot that was materialised: its code and params.yaml count.

    Returns:
        Nothing if the folder's code is older than the fingerprint.

    Raises:
        CommandError: if it cannot be computed, with the last lines that the process printed.
    """
    module = find_module(folder, "mammo.assurance.fingerprint")
    if module is None:
        return {}
    command = [sys.executable, "-m", module]
    lines = follow(command, folder, lambda _: None, {"PYTHONPATH": str(folder)})
    found = json.loads(lines[-1])
    return {str(family): str(digest) for family, digest in found.items()}


def try_to_measure(folder: Path, say: Say) -> dict[str, str]:
    """As `measure`, but empty if that fails: a trained model is not given up for its sake."""
    try:
        return measure(folder)
    except CommandError as error:
        say(f"the fingerprint of the arithmetic is not recorded: {error}")
        return {}


def describe_origin(
    root: Path, snapshot: Snapshot, outcomes: Sequence[StageOutcome], say: Say
) -> Environment:
    """This machine, and the arithmetic that made the outs of stages that did not run on it.

    Args:
        root: the project, after a retrain.
        snapshot: what the retrain ended with.
        outcomes: what happened to each stage.
        say: gets a line if the arithmetic cannot be measured.
    """
    local = {o.stage for o in outcomes if o.fate == "ran" and o.arithmetic is None}
    elsewhere = {
        o.stage: o.arithmetic for o in outcomes if o.fate == "ran" and o.arithmetic is not None
    }
    rest = [s for s in read_lock(snapshot) if s.name not in local and s.name not in elsewhere]
    machine = environment.describe_environment().model_copy(
        update={"arithmetic": try_to_measure(root, say)}
    )
    known = dict(_find_in_versions(rest))
    elsewhere |= {name: known[name] for name in known if known[name] != machine.arithmetic}
    return machine.model_copy(update={"elsewhere": dict(sorted(elsewhere.items()))})


def _find_in_versions(stages: Sequence[LockedStage]) -> Iterator[tuple[str, Arithmetic]]:
    """The arithmetic that made the outs of stages that did not run.

    The newest version that has the same outs has recorded it. It is empty for outs that came from a
    cache and belong to no version.
    """
    wanted = {stage.name: stage for stage in stages}
    for version in registry.list_versions() if wanted else ():
        try:
            locked = read_lock(registry.read_snapshot(version))
        except UserError:
            continue  # its records are damaged
        made = registry.read_environment(version)
        for stage in locked:
            if stage.name in wanted and wanted[stage.name].outs == stage.outs:
                del wanted[stage.name]
                known = made.elsewhere.get(stage.name, made.arithmetic) if made else {}
                yield stage.name, known
        if not wanted:
            return
    for name in wanted:
        yield name, {}
