"""What a folder holds, to be compared with what another one does."""

from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
