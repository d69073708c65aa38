"""The rules of the house: imports go down only, and each floor and room keeps to its own."""

import ast
import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import setuptools
import yaml

from mammo.base.settings import Params
from stages.report import NO_STAGES
from tests.imports import (
    FLOORS,
    ROOT,
    closure,
    deps_of,
    imports_of,
    room_graph,
    room_of,
    rooms_by_name,
)

MAY_IMPORT = {"mammo": {"mammo"}, "stages": {"stages", "mammo"}, "flows": {"flows", "mammo"}}
SOURCES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PRETRAINING = {
    name: stage["do"]
    for name, stage in yaml.safe_load((ROOT / "pretraining/dvc.yaml").read_text())["stages"].items()
}
EVERY_STAGE = STAGES | PRETRAINING

GROUND_UP = {
    "mammo": (
        ("base", "reporting"),
        ("data", "imaging", "evaluation", "learning"),
        ("dicom", "kept", "assurance", "detector", "classifier"),
        ("compute", "detector_training", "cropping", "classifier_training", "explanation"),
        ("intake", "tuning"),
        ("serving", "patches"),
        ("datasets",),
        ("datasets/phantom", "dicom_results", "portable"),
        ("exporting",),
    ),
    "flows": (
        ("processes",),
        ("snapshots",),
        ("pipeline",),
        ("tracking",),
        ("publishing", "remote"),
        ("evidence",),
        ("audit", "servers", "pruning"),
        ("promotion", "serving", "documents"),
        ("retraining", "listening"),
        ("cli",),
    ),
}
"""The rooms of each floor: a room may import those of the rows above its own."""

SUPERFLUOUS = 4  # modules of the rooms that a stage enters, but that it does not import


def names_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> Iterator[str]:
    """The top names of what a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=names_of)
def test_imports_go_down_only(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    reached = {found.relative_to(ROOT).parts[0] for found in imports_of(path)}
    assert reached <= MAY_IMPORT[floor]


@pytest.mark.parametrize("path", SOURCES, ids=names_of)
def test_the_science_knows_no_orchestration(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] == "mammo":
        assert not set(imported(path)) & {"dvc", "prefect", "mlflow"}


def test_every_room_is_declared() -> None:
    declared = {
        f"{floor}/{room}" for floor, rows in GROUND_UP.items() for row in rows for room in row
    }
    assert declared == set(room_graph())


@pytest.mark.parametrize("floor", GROUND_UP)
def test_a_room_imports_only_what_it_stands_on(floor: str) -> None:
    graph = room_graph()
    below: set[str] = set()
    for row in GROUND_UP[floor]:
        for room in row:
            ours = {other for other in graph[f"{floor}/{room}"] if other.startswith(f"{floor}/")}
            assert ours <= below, f"{floor}/{room} imports {sorted(ours - below)}"
        below |= {f"{floor}/{room}" for room in row}


NAMES = {"mammo/dicom": {"Mammogram", "read_mammogram"}}
"""What a room's `__init__.py` names besides modules: for those who use our reader alone."""


def public_modules(room: str) -> set[str]:
    """The modules that a room's `__init__.py` names for others."""
    for node in ast.parse((ROOT / room / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value)) - NAMES.get(room, set())
    return set()


def test_a_room_names_what_others_use_of_it_and_nothing_else() -> None:
    """Tests and benchmarks may look into every corner."""
    used: dict[str, set[str]] = {room: set() for room in room_graph()}
    for path in SOURCES:
        for found in imports_of(path):
            room = room_of(found)
            if room not in (None, room_of(path)) and found.name != "__init__.py":
                used[str(room)].add(found.stem)
        assert not rooms_by_name(path) - {room_of(path)}, path
    assert used == {room: public_modules(room) for room in used}


@pytest.mark.parametrize("room", sorted(room_graph()))
def test_a_room_says_what_it_is_for(room: str) -> None:
    said = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text()))
    assert said is not None
    assert "import" in said.split("\n\n")[1]


def rooms_said_by(room: str) -> set[str]:
    """The rooms that the sentence of a room's `__init__.py` names, without what they stand on."""
    said = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text())) or ""
    floor = room.split("/")[0]
    found = set()
    for name in re.findall(r"`([\w./]+)`", said.split("\n\n")[1]):
        path = name.replace(".", "/") if name.split(".")[0] in FLOORS else f"{floor}/{name}"
        if path in room_graph():
            found.add(path)
        else:
            assert (ROOT / f"{path}.py").exists(), f"{room}/__init__.py names {name}: no room"
    return found


def stands_on(rooms: set[str]) -> set[str]:
    """Rooms, and all that they import, directly or not."""
    graph, found, todo = room_graph(), set[str](), set(rooms)
    while todo:
        found |= todo
        todo = {other for room in todo for other in graph[room]} - found
    return found


@pytest.mark.parametrize("room", sorted(room_graph()))
def test_a_room_imports_what_its_sentence_says_and_its_sentence_names_no_more(room: str) -> None:
    said = (ROOT / room / "__init__.py").read_text()
    floor = room.split("/")[0]
    imported_there = {other for other in room_graph()[room] if other.startswith(f"{floor}/")}
    if "import every room" in said:
        return
    named = rooms_said_by(room)
    assert named <= room_graph()[room], "it names a room that it does not import"
    allowed = stands_on(named) if "stand on" in said or "stands on" in said else named
    assert imported_there <= allowed, "it imports a room that its sentence does not allow"
    rows = [{f"{floor}/{name}" for name in row} for row in GROUND_UP[floor]]
    below = set[str]().union(*rows[: next(at for at, row in enumerate(rows) if room in row)])
    assert {name for name in allowed if name.startswith(f"{floor}/")} <= below


PACKAGES = setuptools.find_packages(
    str(ROOT), include=PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
)
TEXTS = [
    path
    for floor in FLOORS
    for suffix in ("*.j2", "*.json")
    for path in sorted((ROOT / floor).rglob(suffix))
]


@pytest.mark.parametrize("path", [*SOURCES, *TEXTS], ids=names_of)
def test_the_wheel_has_every_module_template_and_schema(path: Path) -> None:
    """What is not in the wheel is missed only where the project is installed without its clone."""
    assert path.parent.relative_to(ROOT).as_posix().replace("/", ".") in PACKAGES
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["*"]
    assert path.suffix == ".py" or any(path.match(pattern) for pattern in patterns)


@pytest.mark.parametrize("room", sorted(room_graph()))
def test_the_tests_of_a_room_lie_in_a_folder_named_like_it(room: str) -> None:
    assert [*(ROOT / "tests" / room).glob("test_*.py")]


def test_no_module_of_flows_is_named_like_a_package() -> None:
    """Prefect loads a flow by its file, and the folder of that comes first on the path."""
    packages = set(importlib.metadata.packages_distributions()) - {"flows"}
    ours = {path.stem for path in (ROOT / "flows").rglob("*.py")} - {"__init__", "__main__"}
    assert not ours & packages


def test_the_public_reader_is_the_rooms_own() -> None:
    from mammo import dicom
    from mammo.dicom import reader

    assert dicom.read_mammogram is reader.read_mammogram


@pytest.mark.parametrize("name", EVERY_STAGE)
def test_a_stage_names_every_room_that_it_enters_and_no_other(name: str) -> None:
    declared = {
        dep
        for dep in EVERY_STAGE[name]["deps"]
        if dep.endswith(".py") or (ROOT / dep / "__init__.py").exists()
    }
    assert declared == deps_of(name)


@pytest.mark.parametrize("name", EVERY_STAGE)
def test_few_modules_of_its_rooms_are_none_of_a_stages_business(name: str) -> None:
    """Each runs the stage again when it changes, for nothing."""
    needed = closure(ROOT / "stages" / f"{name}.py")
    rooms = [dep for dep in EVERY_STAGE[name]["deps"] if (ROOT / dep / "__init__.py").exists()]
    there = {path for room in rooms for path in (ROOT / room).glob("*.py")}
    assert len(there - needed) <= SUPERFLUOUS, sorted(map(names_of, there - needed))


def test_rooms_that_a_stage_enters_have_no_folders_in_them() -> None:
    """A dep is a folder with all that lies below it."""
    entered = {room for name in EVERY_STAGE for room in deps_of(name) if not room.endswith(".py")}
    assert not [room for room in entered if [*(ROOT / room).glob("*/__init__.py")]]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_reads_only_the_settings_that_it_declares(name: str) -> None:
    """Or it would not run again when one of the others changes, and an audit would tell."""
    sources = [ROOT / "stages" / f"{name}.py", *(ROOT / "stages").glob(f"{name}.*.j2")]
    read = {found for path in sources for found in re.findall(r"\bparams\.(\w+)", path.read_text())}
    declared = {str(setting).split(".")[0] for setting in STAGES[name]["params"]}
    if name == "report":
        assert declared == set(Params.model_fields) - NO_STAGES  # it shows all of them
    assert read - {"model_dump", "items"} <= declared


@pytest.mark.parametrize("name", PRETRAINING)
def test_a_stage_of_a_pretraining_reads_only_the_settings_that_it_declares(name: str) -> None:
    read = re.findall(r"\bparams\.(\w+)", (ROOT / "stages" / f"{name}.py").read_text())
    [own] = [x for x in PRETRAINING[name]["params"] if isinstance(x, dict)]
    assert set(read) <= set(own["pretraining/params.yaml"])


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_owns_one_folder_named_like_itself(name: str) -> None:
    stage = STAGES[name]
    outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    paths = [next(iter(out)) if isinstance(out, dict) else out for out in outs]
    assert paths
    assert all(path.startswith(f"outputs/{name}/") for path in paths)
    assert stage["cmd"] == f"python -m stages.{name}"
