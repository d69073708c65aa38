"""Which modules of ours a module imports, directly or not: read from the source, not from memory.

python -m tests.imports    # prints, for each stage, the modules that its deps must name
"""

import ast
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


def imports_of(path: Path) -> set[Path]:
    """Our modules that a file imports itself, wherever in it the import stands.

    A package's `__init__.py` counts with each module of it: Python runs it first.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not used here"
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


def main() -> None:
    """Print the deps of every stage."""
    for path in sorted((ROOT / "stages").glob("*.py")):
        if "run_stage(" in path.read_text() and path.stem != "runner":
            print(f"{path.stem}:")
            for dep in sorted(closure(path)):
                print(f"      - {dep.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
