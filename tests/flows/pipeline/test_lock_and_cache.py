"""A folder of code as a dep of a stage: our hash of it is DVC's."""

import sys
from pathlib import Path

from dvc.repo import Repo

from flows.pipeline.lock_and_cache import hash_room, read_lock
from flows.snapshots.snapshot import Snapshot
from tests.imports import ROOT
from tests.support.repositories import init_repository
from tests.support.small_project import command

LEAVES_BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}
PIPELINE = """
stages:
  only:
    cmd: python -c "import room.inner; open('out.txt', 'w').write(room.inner.SAID)"
    deps: [room]
    outs: [out.txt]
"""


def make_clone(folder: Path) -> Path:
    """A clone of a project whose one stage depends on a folder of code, after a run elsewhere."""
    origin = folder / "origin"
    (origin / "room").mkdir(parents=True)
    (origin / "room" / "__init__.py").write_text('"""A room."""\n')
    (origin / "room" / "inner.py").write_text('SAID = "hello"\n')
    (origin / "room" / "page.html.j2").write_text("<p>")
    (origin / "dvc.yaml").write_text(PIPELINE)
    (origin / ".gitignore").write_text("__pycache__/\n")
    init_repository(origin)
    command(origin, "dvc", "init", "-q")
    (origin / ".dvcignore").write_bytes((ROOT / ".dvcignore").read_bytes())
    command(origin, "dvc", "repro", "-q", extra_env=LEAVES_BYTECODE)
    assert (origin / "room" / "__pycache__").is_dir()
    command(origin, "git", "add", "-A")
    command(origin, "git", "commit", "-qm", "a project")
    command(folder, "git", "clone", "-q", str(origin), "clone")
    return folder / "clone"


def test_dvc_knows_a_room_by_its_files_and_not_by_what_python_leaves_there(tmp_path: Path) -> None:
    clone = make_clone(tmp_path)
    assert not (clone / "room" / "__pycache__").exists()
    with Repo(str(clone)) as repo:
        assert "'room'" not in str(repo.status())
    [stage] = read_lock(Snapshot("0" * 40, {"dvc.lock": (clone / "dvc.lock").read_text()}))
    assert stage.deps == {"room": hash_room(clone / "room")}
    command(clone, sys.executable, "-c", "import room.inner", extra_env=LEAVES_BYTECODE)
    assert (clone / "room" / "__pycache__").is_dir()
    assert stage.deps == {"room": hash_room(clone / "room")}
    (clone / "room" / "inner.py").write_text('SAID = "good-bye"\n')
    assert stage.deps != {"room": hash_room(clone / "room")}
    with Repo(str(clone)) as repo:
        assert "'room'" in str(repo.status())
