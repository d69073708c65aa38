"""data/ holds what data.dvc names, or the user is told what to do."""

import shutil
import subprocess
from pathlib import Path

import pytest

from flows.pipeline.ensure_data import ensure_data
from mammo.base.errors import UserError
from mammo.datasets.phantom import draw
from mammo.datasets.phantom.draw import write_phantoms
from tests.support.small_project import command


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project whose data are one file; to be copied."""
    root = tmp_path_factory.mktemp("original")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    command(root, "dvc", "init", "-q")
    (root / "data").mkdir()
    (root / "data" / "train.csv").write_text("patient_id\n1\n")
    command(root, "dvc", "add", "-q", "data")
    return root


@pytest.fixture
def project(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path, symlinks=True, dirs_exist_ok=True))


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample at a size that is made in seconds."""
    monkeypatch.setattr(draw, "write_phantoms", lambda to: write_phantoms(to, 2, long_side=128))


def test_absent_data_come_from_the_cache(project: Path) -> None:
    shutil.rmtree(project / "data")
    ensure_data(project, print)
    assert (project / "data" / "train.csv").read_text() == "patient_id\n1\n"


def test_absent_data_come_from_a_remote(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    remote = tmp_path_factory.mktemp("remote")
    command(project, "dvc", "remote", "add", "-d", "store", str(remote))
    command(project, "dvc", "push")
    shutil.rmtree(project / "data")
    shutil.rmtree(project / ".dvc" / "cache")
    ensure_data(project, print)
    assert (project / "data" / "train.csv").exists()


@pytest.mark.usefixtures("small_sample")
def test_the_sample_is_made_if_it_is_what_data_dvc_names(project: Path) -> None:
    shutil.rmtree(project / "data")
    write_phantoms(project / "data", 2, long_side=128)
    command(project, "dvc", "add", "-q", "data")
    shutil.rmtree(project / "data")
    shutil.rmtree(project / ".dvc" / "cache")
    said: list[str] = []
    ensure_data(project, said.append)
    assert any("making the sample" in line for line in said)
    assert "up to date" in command(project, "dvc", "status", "data.dvc").stdout


@pytest.mark.usefixtures("small_sample")
def test_other_data_that_cannot_be_had_are_an_error_and_nothing_is_left(project: Path) -> None:
    shutil.rmtree(project / "data")
    shutil.rmtree(project / ".dvc" / "cache")
    named = (project / "data.dvc").read_text()
    with pytest.raises(UserError, match=r"data that data\.dvc names cannot be obtained") as told:
        ensure_data(project, print)
    assert "`dvc pull` ended with: No remote provided" in str(told.value)
    assert not (project / "data").exists()
    assert (project / "data.dvc").read_text() == named


@pytest.mark.usefixtures("small_sample")
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("/nowhere/at/all", "do not exist neither locally nor on remote"),
        ("ssh://localhost/there", "ssh is supported, but requires 'dvc-ssh' to be installed"),
    ],
)
def test_why_a_remote_did_not_bring_the_data_is_told(project: Path, url: str, reason: str) -> None:
    command(project, "dvc", "remote", "add", "-d", "there", url)
    shutil.rmtree(project / "data")
    shutil.rmtree(project / ".dvc" / "cache")
    said: list[str] = []
    with pytest.raises(UserError, match=reason):
        ensure_data(project, said.append)
    assert any(reason in line and "making the sample" in line for line in said)


@pytest.mark.usefixtures("small_sample")
def test_no_name_of_a_file_in_data_is_told(project: Path) -> None:
    (project / "data" / "Zorgla, 18470211.txt").write_text("?")
    command(project, "dvc", "add", "-q", "data")
    cache = project / ".dvc" / "cache" / "files" / "md5"
    for path in cache.rglob("*"):
        if path.is_file() and path.suffix != ".dir":
            path.unlink()
    shutil.rmtree(project / "data")
    said: list[str] = []
    with pytest.raises(UserError) as told:
        ensure_data(project, said.append)
    assert "Zorgla" not in "".join([*said, str(told.value)])


def test_changed_data_are_never_taken_silently(project: Path) -> None:
    (project / "data" / "train.csv").write_text("patient_id\n2\n")
    with pytest.raises(UserError, match=r"run `dvc add data`"):
        ensure_data(project, print)
    assert (project / "data" / "train.csv").read_text() == "patient_id\n2\n"


def test_a_project_without_data_dvc_is_told_how_to_get_one(project: Path) -> None:
    (project / "data.dvc").unlink()
    with pytest.raises(UserError, match=r"data\.dvc is missing: version your data"):
        ensure_data(project, print)
