"""New exams come into data/ all at once or not at all."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.pipeline.add_data import add_data
from flows.processes.follow import CommandError
from mammo.base.errors import UserError
from tests.support.contents import contents
from tests.support.small_project import command
from tests.support.small_sets import write_set


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project whose data are two images, committed; to be copied."""
    root = tmp_path_factory.mktemp("original") / "project"
    root.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    command(root, "dvc", "init", "-q")
    write_set(root / "data", {"1/11": b"one", "2/21": b"two"})
    command(root, "dvc", "add", "-q", "data")
    for name in ("dvc.yaml", "params.yaml"):
        (root / name).write_text("{}\n")
    for name in ("user.name", "user.email"):
        command(root, "git", "config", name, "tester")
    command(root, "git", "add", "dvc.yaml", "params.yaml")
    command(root, "git", "commit", "-qm", "a project")
    return root


@pytest.fixture
def project(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "project", symlinks=True))


def state(root: Path) -> tuple[dict[str, bytes], str, list[str]]:
    """All that an attempt may not change if it fails."""
    return (
        contents(root / "data"),
        (root / "data.dvc").read_text(),
        sorted(path.name for path in root.iterdir()),
    )


def test_new_exams_are_added_versioned_and_the_commit_is_named(
    project: Path, tmp_path: Path
) -> None:
    new = write_set(tmp_path / "october", {"3/31": b"three"})
    said = command(project, sys.executable, "-m", "flows.cli", "data", "add", str(new)).stdout
    assert 'git commit -m "data: 1 images of october" data.dvc' in said
    assert (project / "data/train_images/3/31.dcm").read_bytes() == b"three"
    assert "nfiles: 4" in (project / "data.dvc").read_text()
    assert "up to date" in command(project, "dvc", "status", "data.dvc").stdout
    assert sorted(path.name for path in project.glob(".data*")) == []


def test_a_refusal_leaves_everything_as_it_was(project: Path, tmp_path: Path) -> None:
    before = state(project)
    new = write_set(tmp_path / "new", {"3/31": b"three", "3/32": b"two"})
    with pytest.raises(UserError, match="the same bytes"):
        add_data(project, new, print)
    assert state(project) == before


@pytest.mark.parametrize("error", [CommandError("disk on fire"), KeyboardInterrupt()])
def test_an_end_in_the_middle_of_dvc_add_leaves_everything_as_it_was(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    before = state(project)
    new = write_set(tmp_path / "new", {"3/31": b"three"})

    def end(command: list[str], root: Path, on_line: object) -> None:
        assert (root / "data/train_images/3/31.dcm").exists()
        (root / "data.dvc").write_text("half written")
        raise error

    monkeypatch.setattr("flows.pipeline.add_data.follow", end)
    with pytest.raises((UserError, KeyboardInterrupt)):
        add_data(project, new, print)
    assert state(project) == before


def test_data_that_are_not_versioned_are_not_added_to(project: Path, tmp_path: Path) -> None:
    (project / "data" / "notes.txt").write_text("not versioned")
    before = state(project)
    with pytest.raises(UserError, match=r"run `dvc add data`"):
        add_data(project, write_set(tmp_path / "new", {"3/31": b"three"}), print)
    assert state(project) == before


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return write_set(tmp_path / "new", {"3/31": b"three"})


def imported(project: Path, tmp_path: Path, *how: str) -> Path:
    """Another project whose data/ was made by a command of DVC."""
    command(project, "git", "config", "user.name", "Tester")
    command(project, "git", "config", "user.email", "tester@localhost")
    command(project, "git", "add", "-A")
    command(project, "git", "commit", "-qm", "data")
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=other, check=True)
    command(other, "dvc", "init", "-q")
    command(other, "dvc", *how)
    return other


@pytest.mark.parametrize(
    ("how", "source"),
    [
        (("import", "{}", "data"), "comes from data of {} (`dvc import`)"),
        (("import-url", "{}/data", "data"), "comes from {}/data (`dvc import-url`)"),
    ],
    ids=["import", "import-url"],
)
def test_imported_data_are_not_added_to_and_the_source_is_named(
    project: Path, tmp_path: Path, new: Path, how: tuple[str, ...], source: str
) -> None:
    other = imported(project, tmp_path, *(word.format(project) for word in how))
    if how[0] == "import-url":
        command(other, "dvc", "unfreeze", "data.dvc")
    before = state(other)
    with pytest.raises(UserError) as refused:
        add_data(other, new, print)
    named = str(refused.value).replace("../project", str(project))
    assert source.format(project) in named
    assert state(other) == before
    # What it advises makes the data the project's own.
    command(other, "dvc", "remove", "data.dvc")
    command(other, "dvc", "add", "-q", "data")
    add_data(other, new, print)
    assert (other / "data/train_images/3/31.dcm").exists()


def test_an_address_is_named_without_its_password(project: Path, new: Path) -> None:
    file = project / "data.dvc"
    url = "https://ann:secret@example.org/data"
    file.write_text(f"deps:\n- path: {url}\n  md5: '{'0' * 32}'\n{file.read_text()}")
    with pytest.raises(UserError, match=r"comes from https://example\.org/data") as refused:
        add_data(project, new, print)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("setting", ["cache", "push"])
def test_data_that_would_never_be_pushed_are_not_added_to(
    project: Path, new: Path, setting: str
) -> None:
    file = project / "data.dvc"
    file.write_text(f"{file.read_text()}  {setting}: false\n")
    before = state(project)
    with pytest.raises(UserError, match=f"says `{setting}: false`, so what is added would never"):
        add_data(project, new, print)
    assert state(project) == before


def test_a_data_folder_that_is_a_link_is_not_added_to(
    project: Path, tmp_path: Path, new: Path
) -> None:
    (project / "data").rename(tmp_path / "disk")
    (project / "data").symlink_to(tmp_path / "disk")
    before = state(project)
    with pytest.raises(UserError, match=f"data is a symbolic link to {tmp_path / 'disk'}"):
        add_data(project, new, print)
    assert state(project) == before
    assert (project / "data").is_symlink()


def test_a_data_dvc_with_more_than_data_in_it_is_refused(project: Path, new: Path) -> None:
    file = project / "data.dvc"
    for text, sentence in {
        file.read_text() + "- path: more\n": "names data, more, and not data/ alone",
        file.read_text().replace("path: data", "path: /elsewhere/data"): "names /elsewhere/data",
        file.read_text()[:20]: "names nothing",
        "outs: [": "cannot be read",
        "deps: []\n": "names nothing",
    }.items():
        file.write_text(text)
        before = state(project)
        with pytest.raises(UserError, match=sentence):
            add_data(project, new, print)
        assert state(project) == before


def test_parts_of_data_that_are_versioned_one_by_one_are_named(project: Path, new: Path) -> None:
    command(project, "dvc", "remove", "data.dvc")
    command(project, "dvc", "add", "-q", "data/train.csv")
    with pytest.raises(UserError, match=r"\.dvc files inside data/ version parts of it"):
        add_data(project, new, print)
