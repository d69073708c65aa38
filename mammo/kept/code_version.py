"""The version of our code: a hash of the sources that a result follows from.

It is the one answer to the question which code matters, for kept results and checkpoints alike.
"""

import ast
import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path

_BESIDE = {
    *("mammo.base.errors", "mammo.base.progress", "mammo.base.settings"),
    *("mammo.kept.code_version", "mammo.base.processor", "mammo.kept.result_store"),
}
"""Our modules that no result follows from: words for people, what keeps results, this one, the
settings, whose values are in the keys, and the number of cores, which changes no result."""

_ABOVE = Path(__file__).parents[2]


def key_of(*parts: str) -> str:
    """One hash of several texts, as hexadecimal digits.

    Other texts, or the same ones in another order, have another key.
    """
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@cache
def code_version(module: str, libraries: tuple[str, ...]) -> str:
    """A hash of what a result follows from, besides its inputs.

    Args:
        module: one of ours. Its source counts, and that of all our modules that it imports,
            directly or not.
        libraries: their versions count.
    """
    sources: dict[str, bytes] = {}
    todo = {module, "mammo.pins"}  # which every module of ours is run under
    while todo:
        name = todo.pop()
        file = _find_source(name)
        if file is None:
            raise ModuleNotFoundError(f"{name} is not one of our modules")
        sources[name] = file.read_bytes()
        todo |= _list_imports(sources[name]) - sources.keys()
    digests = [f"{name} {hashlib.sha256(sources[name]).hexdigest()}" for name in sorted(sources)]
    return key_of(*digests, *(f"{name} {version(name)}" for name in libraries))


def _find_source(name: str) -> Path | None:
    """The file of a module or of a room; None if we have none of that name."""
    base = _ABOVE.joinpath(*name.split("."))
    return next(
        (file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None
    )


def _list_imports(source: bytes) -> set[str]:
    """Our modules that a source imports and a result may follow from.

    A room counts with each module of it: Python runs its `__init__.py` first.
    """
    named: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from mammo.imaging import geometry` names a module as well.
            named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = [name.split(".") for name in named if name.startswith(("mammo.", "stages."))]
    rooms = {".".join(parts[:length]) for parts in ours for length in range(2, len(parts) + 1)}
    return {name for name in rooms - _BESIDE if _find_source(name) is not None}
