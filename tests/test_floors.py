"""The rule of the house: imports go down only, and each floor keeps to its own libraries."""

import ast
from pathlib import Path

import pytest
import yaml

from tests.imports import FLOORS, ROOT, closure, imports_of

MAY_IMPORT = {"mammo": {"mammo"}, "stages": {"stages", "mammo"}, "flows": {"flows", "mammo"}}
SOURCES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    reached = {found.relative_to(ROOT).parts[0] for found in imports_of(path)}
    assert reached <= MAY_IMPORT[floor]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_science_knows_no_orchestration(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] != "mammo":
        return
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not imported & {"dvc", "prefect", "mlflow"}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_names_every_module_that_it_imports(name: str) -> None:
    declared = {dep for dep in STAGES[name]["deps"] if dep.endswith(".py")}
    needed = {str(path.relative_to(ROOT)) for path in closure(ROOT / "stages" / f"{name}.py")}
    assert declared == needed


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_owns_one_folder_named_like_itself(name: str) -> None:
    stage = STAGES[name]
    outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    paths = [next(iter(out)) if isinstance(out, dict) else out for out in outs]
    assert paths
    assert all(path.startswith(f"outputs/{name}/") for path in paths)
    assert stage["cmd"] == f"python -m stages.{name}"
