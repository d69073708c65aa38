"""The names that modules had in earlier commits, such as those from before the rooms.

The gate scores with a version's own code, and the audit measures and compares with it, however old
the version is.
"""

from pathlib import Path

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
    return next((name for name in names if (folder / file_of(name)).is_file()), None)


def file_of(module: str) -> str:
    """The path of a module in the project's folder."""
    return f"{module.replace('.', '/')}.py"
