"""The champion is scored by its commit's code, if the store holds just that, and gets no secret."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.entities.model_registry import ModelVersion

from flows.audit import integrity
from flows.processes.follow import make_bare_environment
from flows.processes.run_git import git
from flows.promotion.rescoring import _score_by
from flows.snapshots.snapshot import Snapshot, capture
from mammo.base.errors import UserError

VERSION = ModelVersion("mammogram-classifier", "3", 0, run_id="0" * 32)
SCORING = """
import json, os, sys
predictor, files, out = sys.argv[1:]
print(json.dumps(dict(os.environ)))
with open(files) as table, open(out, "w") as scored:
    next(table)
    scored.write("path,probability\\n" + "".join(f"{line.strip()},0.25\\n" for line in table))
"""
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "secret",
    "MLFLOW_TRACKING_TOKEN": "secret",
    "MLFLOW_TRACKING_URI": "http://ann:secret@mlflow.example",
    "PREFECT_API_KEY": "secret",
    "OPTUNA_STORAGE": "postgresql://ann:secret@db.example/optuna",
    "SSH_AUTH_SOCK": "/secret",
    "HTTPS_PROXY": "http://ann:secret@proxy.example",
    "GIT_ASKPASS": "/secret",
    "LD_PRELOAD": "",
    "PYTHONSTARTUP": "/secret",
}


@pytest.fixture
def then(project: Path) -> Snapshot:
    """A commit from before the rooms whose science is a toy, and a dvc.lock that names networks."""
    (project / "flows").mkdir()
    (project / "flows" / "serving.py").write_text("SERVED = True\n")
    (project / "mammo" / "__init__.py").write_text("")
    (project / "mammo" / "scoring.py").write_text(SCORING)
    git(project, "add", "-A")
    git(project, "commit", "-qm", "a toy")
    outs = {
        f"outputs/{stage}/{name}": hashlib.md5(f"{stage}/{name}".encode()).hexdigest()
        for stage in ("train_detector", "train_classifier")
        for name in ("weights.safetensors", "architecture.json")
    }
    listed = [{"path": path, "md5": md5} for path, md5 in outs.items()]
    lock = {"schema": "2.0", "stages": {"train": {"cmd": "x", "outs": listed}}}
    (project / "dvc.lock").write_text(yaml.safe_dump(lock))
    return capture(project)


@pytest.fixture
def model(
    project: Path,
    then: Snapshot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The registered model in the artifact store, as registration left it."""
    folder = tmp_path / "store" / "model"
    for part in ("detector", "classifier"):
        (folder / "predictor" / part).mkdir(parents=True)
        for name in ("weights.safetensors", "architecture.json"):
            (folder / "predictor" / part / name).write_text(f"train_{part}/{name}")
    shutil.copyfile(project / "params.yaml", folder / "predictor" / "params.yaml")
    shutil.copytree(project / "mammo", folder / "code" / "mammo")
    shutil.copyfile(project / "flows" / "serving.py", folder / "serving.py")
    describe(folder)

    def download(uri: str, dst_path: str) -> str:
        return str(shutil.copytree(folder, Path(dst_path) / "model"))

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", download)
    return folder


def describe(folder: Path, **changes: str) -> None:
    flavor: dict[str, Any] = {
        "code": "code",
        "model_code_path": "/home/somebody/flows/serving.py",
        **changes,
    }
    flavor["artifacts"] = {"predictor": {"path": changes.get("predictor", "predictor")}}
    content = {"run_id": VERSION.run_id, "flavors": {"python_function": flavor}}
    (folder / "MLmodel").write_text(yaml.safe_dump(content))


def score(root: Path, then: Snapshot) -> tuple[list[float], list[str]]:
    said: list[str] = []
    found = _score_by(root, VERSION, then, [Path("/a.dcm"), Path("/b.dcm")], said.append)
    return found.to_list(), said


def test_it_is_scored_and_knows_nothing_of_ours(
    project: Path,
    then: Snapshot,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    scores, said = score(project, then)
    assert scores == [0.25, 0.25]
    known = json.loads(said[-1])
    assert not SECRETS.keys() & known.keys()
    assert "secret" not in said[-1]
    assert known["CUDA_VISIBLE_DEVICES"] == "1"
    assert known["OMP_DYNAMIC"] == "FALSE"
    assert str(Path.home()) != known["HOME"]
    assert not Path(known["HOME"]).exists()  # it was made for this, and is gone


def test_an_old_version_is_scored_by_its_own_commit(
    project: Path,
    then: Snapshot,
    model: Path,
) -> None:
    (project / "mammo" / "serving").mkdir()
    git(project, "mv", "mammo/scoring.py", "mammo/serving/score_files.py")
    (project / "flows" / "serving.py").write_text("SERVED = 'otherwise'\n")
    git(project, "commit", "-qam", "rooms")
    assert score(project, then)[0] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: append(m / "code/mammo/scoring.py"), "other code than the commit: scoring.py"),
        (lambda m: (m / "code/mammo/scoring.py").unlink(), "other code than the commit: scoring"),
        (lambda m: append(m / "code/mammo/json.py"), "other code than the commit: json.py"),
        (lambda m: append(m / "code/sitecustomize.py"), "than the commit: sitecustomize.py"),
        (lambda m: append(m / "serving.py"), "serving.py of the registered model is not the"),
        (lambda m: append(m / "predictor/params.yaml"), "params.yaml of the registered model is"),
        (lambda m: append(m / "predictor/classifier/weights.safetensors"), "classifier/weights.s"),
        (lambda m: append(m / "predictor/detector/__init__.py"), "which no stage made"),
    ],
)
def test_nothing_is_run_of_a_model_that_is_not_its_commits(
    project: Path,
    then: Snapshot,
    model: Path,
    change: Callable[[Path], None],
    sentence: str,
) -> None:
    change(model)
    with pytest.raises(UserError, match="nothing of it was run") as told:
        score(project, then)
    assert sentence in str(told.value)
    assert "mammoflow audit 3 --quick" in str(told.value)


@pytest.mark.parametrize("where", ["..", "/etc", "../../project", "link"])
@pytest.mark.parametrize("part", ["code", "predictor"])
def test_a_model_whose_parts_lie_elsewhere_is_refused(
    project: Path,
    then: Snapshot,
    model: Path,
    part: str,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_place = str(model)  # a copy would hold what a link leads to
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", lambda *a, **k: in_place)
    describe(model, **{part: where})
    (model / "link").symlink_to(project)
    with pytest.raises(UserError, match=rf"the {part} of the registered model of version 3"):
        integrity.read_model(VERSION, model)


def test_a_commit_from_before_the_gate_is_left_to_a_person(
    project: Path,
    then: Snapshot,
    model: Path,
) -> None:
    git(project, "rm", "-q", "mammo/scoring.py")
    git(project, "commit", "-qm", "as it was before")
    (model / "code" / "mammo" / "scoring.py").unlink()
    before = Snapshot(git(project, "rev-parse", "HEAD"), then.files)
    with pytest.raises(UserError, match="registered before there was a gate"):
        score(project, before)


def test_nothing_but_what_is_needed_is_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/cuda")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    monkeypatch.setenv("MAMMOFLOW_DEVICE", "cuda:1")
    found = make_bare_environment(tmp_path, tmp_path / "code")
    assert found["LD_LIBRARY_PATH"] == "/cuda"
    assert found["MAMMOFLOW_DEVICE"] == "cuda:1"
    assert found["PYTHONPATH"] == str(tmp_path / "code")
    assert "SOME_TOKEN" not in found


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("\nimport os\n")
