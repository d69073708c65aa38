"""The whole audit under either standard, on a whole small project.

Another fingerprint and a pipeline that ran with another seed stand in for a machine that computes
otherwise: it would end elsewhere than the record, and as far off.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from flows.audit.reproduction import run_again
from flows.cli.app import app
from flows.processes.follow import CommandError
from flows.snapshots.snapshot import materialise, read_tag
from mammo.base.settings import Params, load_params
from tests.imports import ROOT
from tests.support.small_project import Retrained
from tests.support.tampering import (
    forge,
    locate_artifact,
    locate_cached,
    model_folder,
    put_into_cache,
    version,
)

pytestmark = pytest.mark.timeout(1800)

WEIGHTS = "outputs/train_classifier/weights.safetensors"
HERE = {"matrix product": "a1", "convolution forward": "b2"}
ELSEWHERE = {"matrix product": "a1", "convolution forward": "c3", "convolution on the GPU": "d4"}


@pytest.fixture(scope="module")
def remade(leaking: Retrained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What version 1's pipeline makes with another seed: outputs/ and dvc.lock."""
    kept = tmp_path_factory.mktemp("remade")
    with materialise(leaking.root, read_tag(leaking.root, "model/v1")) as folder:
        params = folder / "params.yaml"
        assert "seed: 20" in params.read_text()
        params.write_text(params.read_text().replace("seed: 20", "seed: 33"))
        run_again(folder, "data", lambda line: None)
        shutil.copytree(folder / "outputs", kept / "outputs")
        shutil.copy(folder / "dvc.lock", kept / "dvc.lock")
    return kept


@pytest.fixture
def other_bytes(remade: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project, on a machine where a re-run gives `remade`, and HERE is the fingerprint."""

    def run(folder: Path, data: str, say: Callable[[str], None]) -> None:
        shutil.copytree(remade / "outputs", folder / "outputs", dirs_exist_ok=True)
        shutil.copy(remade / "dvc.lock", folder / "dvc.lock")

    monkeypatch.setattr("flows.audit.audit.run_again", run)
    monkeypatch.setattr("flows.tracking.arithmetic.measure", lambda folder: HERE)
    # Whether a stage gives the same twice on one machine is not asked here, and takes a training.
    monkeypatch.setattr("flows.audit.reproduction._gives_the_same_again", lambda *arguments: True)
    return root


def audit_by(monkeypatch: pytest.MonkeyPatch, **bounds: float) -> None:
    """Let the auditor's settings have these bounds."""
    params = load_params(ROOT / "params.yaml")
    update: dict[str, Any] = {"audit": params.audit.model_copy(update=bounds)}
    changed: Params = params.model_copy(update=update)
    monkeypatch.setattr("flows.tracking.preflight.load_params", lambda path: changed)


@pytest.fixture
def easily_equivalent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that two small networks which have learned nothing keep, on ten women."""
    margins = {"auroc_margin": 1.0, "average_precision_margin": 1.0}
    audit_by(monkeypatch, **margins, rank_correlation=-1.0, agreement=0.0, women=1)


def recorded_as(root: Path, arithmetic: dict[str, str]) -> None:
    """Let version 1 have been made with this arithmetic."""
    path = locate_artifact(root, "environment.json")
    environment = json.loads(path.read_text())
    environment |= {"arithmetic": arithmetic, "elsewhere": {}}
    path.write_text(json.dumps(environment))


def audit(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", "1", *arguments])


def ended(result: Result, status: int, verdict: str) -> str:
    """What the audit said, if it ended like this."""
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == status, result.output
    assert verdict in result.output, result.output
    return result.output


def test_quick_or_not_the_standard_is_said_first(other_bytes: Path) -> None:
    recorded_as(other_bytes, HERE)
    said = ended(audit("--quick"), 0, "RECORDS AGREE").splitlines()
    assert said[2] == (
        "standard: bit for bit: this machine computes all 2 families of kernels as the one that "
        "made the version; so every byte must be the same"
    )
    assert version().tags["audit_standard"] == "bit for bit"
    recorded_as(other_bytes, ELSEWHERE)
    said = ended(audit("--quick"), 0, "RECORDS AGREE").splitlines()
    assert said[2].startswith(
        "standard: equivalence: this machine computes differently from the one that made the "
        "version: convolution forward, convolution on the GPU (not there now); so bytes may differ"
    )
    recorded_as(other_bytes, {})
    said = ended(audit("--quick"), 0, "RECORDS AGREE").splitlines()
    assert "no fingerprint of the arithmetic was recorded of the one that made" in said[2]


def test_arithmetic_that_cannot_be_measured_is_another(
    other_bytes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(folder: Path) -> dict[str, str]:
        raise CommandError("no GPU answers")

    recorded_as(other_bytes, HERE)
    monkeypatch.setattr("flows.tracking.arithmetic.measure", fails)
    said = ended(audit("--quick"), 0, "RECORDS AGREE")
    assert "standard: equivalence: the version's own code could not tell" in said
    assert "standard, note: this machine's arithmetic could not be measured: no GPU answers" in said


@pytest.mark.usefixtures("easily_equivalent")
def test_the_same_arithmetic_allows_no_other_byte(other_bytes: Path) -> None:
    recorded_as(other_bytes, HERE)
    said = ended(audit(), 1, "NOT REPRODUCED")
    assert "the stage train_detector made another outputs/train_detector/" in said
    assert "scoring the recorded weights" not in said


@pytest.mark.usefixtures("easily_equivalent")
def test_under_other_arithmetic_a_model_that_does_the_same_is_reproduced_in_effect(
    other_bytes: Path, tmp_path: Path
) -> None:
    recorded_as(other_bytes, ELSEWHERE)
    said = ended(audit("--report", str(tmp_path)), 0, "REPRODUCED IN EFFECT")
    assert "scoring the recorded weights on this machine" in said
    assert version().tags["audit_verdict"] == "reproduced in effect"
    content = json.loads((tmp_path / "audit.json").read_text())
    jsonschema.validate(
        content, json.loads((ROOT / "flows" / "audit" / "audit.schema.json").read_text())
    )
    assert content["standard"]["name"] == "equivalence"
    assert content["rescoring"]["largest"] == 0  # the same machine
    assert content["equivalence"]["outcome"] == "equivalent"
    assert len(content["points"]["then"]) == content["equivalence"]["breasts"]
    likeness = {stage["stage"]: stage["likeness"] for stage in content["stages"]}
    assert likeness.pop("preprocess") == likeness.pop("split") == "identical"
    assert likeness["train_classifier"] == likeness["evaluate"] == "follows from training"
    assert set(likeness.values()) <= {"follows from training", "identical"}
    page = (tmp_path / "index.html").read_text()
    body = page[page.index("<body>") :]
    places = [
        body.index(text)
        for text in ("Which standard applies", "convolution on the GPU</td>", "<svg", "Who made it")
    ]
    assert places == sorted(places)
    assert "http://" not in page
    assert "follows from training" in page


def test_few_test_women_are_too_few_to_tell(
    other_bytes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit_by(monkeypatch, women=30)
    recorded_as(other_bytes, ELSEWHERE)
    said = ended(audit(), 2, "TOO SMALL TO TELL")
    assert "of the test women have a positive breast" in said


@pytest.mark.usefixtures("easily_equivalent")
def test_weights_that_were_exchanged_with_all_that_names_them_are_found(
    other_bytes: Path, tmp_path: Path
) -> None:
    """No record contradicts another; only the predictions are those of the old weights."""
    root = other_bytes
    recorded_as(root, ELSEWHERE)
    tensors = load_file(locate_cached(root, read_tag(root, "model/v1"), WEIGHTS))
    turned = {name: -x if name.startswith("head.") else x for name, x in tensors.items()}
    save_file(turned, tmp_path / "weights")
    content = (tmp_path / "weights").read_bytes()
    md5 = put_into_cache(root, content)

    def change(stages: dict[str, dict[str, list[dict[str, object]]]]) -> None:
        for stage in stages.values():
            for entry in (*stage.get("deps", []), *stage["outs"]):
                if entry["path"] == WEIGHTS:
                    entry |= {"md5": md5, "size": len(content)}

    forge(root, change)
    served = model_folder() / "artifacts/predictor/classifier/weights.safetensors"
    served.write_bytes(content)
    ended(audit("--quick"), 0, "RECORDS AGREE")
    said = ended(audit(), 1, "NOT REPRODUCED")
    assert "the recorded predictions are not what the recorded weights give" in said


def test_what_is_made_before_training_must_be_as_it_was(
    other_bytes: Path, remade: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another split is another split, whatever the models do."""
    recorded_as(other_bytes, ELSEWHERE)

    def run(folder: Path, data: str, say: Callable[[str], None]) -> None:
        shutil.copytree(remade / "outputs", folder / "outputs", dirs_exist_ok=True)
        table = folder / "outputs/split/split.csv"
        table.write_text(table.read_text().replace("validation", "train", 1))
        lock = yaml.safe_load((remade / "dvc.lock").read_text())
        lock["stages"]["split"]["outs"][-1]["md5"] = "0" * 32
        (folder / "dvc.lock").write_text(yaml.safe_dump(lock))

    monkeypatch.setattr("flows.audit.audit.run_again", run)
    said = ended(audit(), 1, "NOT REPRODUCED")
    assert "the stage split made another outputs/split/split.csv" in said
    assert "was validation, is train" in said
