"""Which modules of ours a module imports, directly or not: read from the source, not from memory.

python -m tests.imports    # for each stage the rooms that its deps must name, and which rooms stand
                           # on which
"""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = ("mammo", "stages", "flows")


def module_path(name: str) -> Path | None:
    """The file of one of our modules or packages, or None if it is not ours."""
    base = ROOT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def imports_of(path: Path) -> set[Path]:
    """Our modules that a file imports itself, wherever in it the import stands.

    A package's `__init__.py` counts with each module of it: Python runs it first.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not used"
            assert node.module is not None
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    ours = {name for name in names if name.split(".")[0] in FLOORS}
    with_packages = {
        ".".join(parts[:length])
        for parts in (name.split(".") for name in ours)
        for length in range(1, len(parts) + 1)
    }
    return {found for name in with_packages if (found := module_path(name)) is not None}


def closure(path: Path) -> set[Path]:
    """Every module of ours that running a file brings in, itself and its package included."""
    seen: set[Path] = set()
    todo = {path, path.parent / "__init__.py"}
    while todo:
        current = todo.pop()
        seen.add(current)
        todo |= imports_of(current) - seen
    return seen


def room_of(path: Path) -> str | None:
    """The room that a file of ours is in, as `mammo/dicom`; None right under a floor."""
    folder = path.relative_to(ROOT).parent
    return folder.as_posix() if len(folder.parts) > 1 else None


def deps_of(stage: str) -> set[str]:
    """The rooms that a stage enters, and the files outside of rooms that it runs."""
    found = closure(ROOT / "stages" / f"{stage}.py")
    return {room_of(path) or path.relative_to(ROOT).as_posix() for path in found}


def rooms_by_name(path: Path) -> set[str]:
    """The rooms of which a file imports a name that is no module: `from mammo.dicom import ...`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            package = module_path(node.module)
            ours = node.module.split(".")[0] in FLOORS and package is not None
            if ours and package is not None and package.name == "__init__.py":
                names = [alias.name for alias in node.names]
                if not all(module_path(f"{node.module}.{name}") for name in names):
                    found.add(room_of(package))
    return {room for room in found if room is not None}


@cache
def room_graph() -> dict[str, set[str]]:
    """For each room the other rooms that its modules import, themselves."""
    graph: dict[str, set[str]] = {}
    for floor in FLOORS:
        for path in (ROOT / floor).rglob("*.py"):
            room = room_of(path)
            if room is not None:
                others = {
                    room_of(found) for found in imports_of(path) if found.name != "__init__.py"
                }
                others |= rooms_by_name(path)
                graph.setdefault(room, set()).update(other for other in others if other)
    return {room: others - {room} for room, others in graph.items()}


def main() -> None:
    """Print the deps of every stage, and the graph of rooms."""
    for path in sorted((ROOT / "stages").glob("*.py")):
        if "run_stage(" in path.read_text() and path.stem != "runner":
            print(f"{path.stem}:")
            for dep in sorted(deps_of(path.stem)):
                print(f"      - {dep}")
    for room, others in sorted(room_graph().items()):
        print(f"{room} -> {' '.join(sorted(others))}")


if __name__ == "__main__":
    main()
