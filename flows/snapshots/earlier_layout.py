"""What earlier commits had elsewhere: modules from before the rooms, the policy before the plan.

The gate scores with a version's own code, and the audit measures and compares with it, however old
the version is.
"""

from pathlib import Path

import yaml

from flows.snapshots.snapshot import PARAMS_FILE, Snapshot
from mammo.assurance.plan import PLAN_FILE, Subgroups
from mammo.base.settings import validate

_EARLIER = {
    "flows.tracking.served_model": ("flows.serving",),
    "mammo.assurance.fingerprint": ("mammo.learning.fingerprint", "mammo.fingerprint"),
    "mammo.serving.score_files": ("mammo.scoring",),
}


def find_module(folder: Path, module: str) -> str | None:
    """The name that one of our modules has in a snapshot.

    Args:
        folder: the snapshot, materialised.
        module: its name today, such as `mammo.serving.score_files`.

    Returns:
        None if the snapshot is older than the module.
    """
    names = (module, *_EARLIER[module])
    return next((name for name in names if (folder / locate_module(name)).is_file()), None)


def locate_module(module: str) -> str:
    """The path of a module in the project's folder."""
    return f"{module.replace('.', '/')}.py"


def read_subgroups(snapshot: Snapshot) -> Subgroups:
    """The groups of women that the gate judged a version by: of its plan, or, before, its settings.

    Raises:
        UserError: if neither names them.
    """
    source = PLAN_FILE if PLAN_FILE in snapshot.files else PARAMS_FILE
    policy = (yaml.safe_load(snapshot.files.get(source, "")) or {}).get("policy") or {}
    return validate(Subgroups, policy.get("subgroups"), f"{source} of the version")
