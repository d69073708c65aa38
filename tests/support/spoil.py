"""A settings file of the project with something changed in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Change = Callable[[Any], object]


def spoil(source: Path, target: Path, change: Change) -> Path:
    """Write the file's content, changed, to another path; that path."""
    content = yaml.safe_load(source.read_text())
    change(content)
    target.write_text(yaml.safe_dump(content))
    return target
