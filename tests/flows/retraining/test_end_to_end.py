"""From data to a registered model, small but whole: real DVC, real Prefect, real MLflow.

On one project and its runs, see conftest.py: a first retrain, one with nothing to do, one with a
changed setting.
"""

import json
import re
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow.entities import Run

from flows.evidence.bom import BOM
from flows.snapshots.snapshot import FILES, Snapshot, read_tag
from flows.tracking.names import MODEL
from flows.tracking.registry import read_artifact, read_folder
from tests.support.small_project import Retrained, command, list_all_runs, mammoflow, store

pytestmark = pytest.mark.timeout(1800)

STAGES = [
    "preprocess",
    "split",
    "train_detector",
    "crop_rois",
    "tune_classifier",
    "train_classifier",
    "evaluate",
    "explain",
    "report",
]


def parent_run(root: Path, version: str) -> Run:
    client = store(root)
    return client.get_run(str(client.get_model_version(MODEL, version).run_id))


def children(root: Path, parent: Run) -> list[Run]:
    tag = "mlflow.parentRunId"
    return [run for run in list_all_runs(root) if run.data.tags.get(tag) == parent.info.run_id]


def test_every_stage_runs_and_the_console_tells_what_and_where(registered: Retrained) -> None:
    for stage in STAGES:
        assert f"Running stage '{stage}'" in registered.said
    assert f"{MODEL} version 1, alias champion" in registered.said
    assert "outputs/report/index.html" in registered.said
    assert "auroc" in registered.said
    assert (registered.root / "outputs/report/index.html").stat().st_size > 10_000


def test_without_a_key_a_version_is_unsigned_and_has_a_bill_of_materials(
    registered: Retrained,
) -> None:
    assert "evidence unsigned: there is no key" in registered.said
    text = read_artifact(parent_run(registered.root, "1").info.run_id, BOM)
    assert text is not None
    (workflow,) = json.loads(text)["formulation"][0]["workflows"]
    assert [task["name"] for task in workflow["tasks"]] == STAGES
    card = json.loads(text)["metadata"]["component"]["modelCard"]
    scores = card["quantitativeAnalysis"]["performanceMetrics"]
    metrics = json.loads((registered.root / "outputs/evaluate/metrics.json").read_text())
    auroc = next(x for x in scores if (x["type"], x["slice"]) == ("auroc", "test women, by breast"))
    assert float(auroc["value"]) == metrics["test"]["breast"]["auroc"]["value"]
    assert [x for x in scores if x["slice"].startswith("density ")]
    assert str(registered.root) not in text


def test_a_version_has_documents_that_know_what_the_gate_said(registered: Retrained) -> None:
    papers = read_folder(parent_run(registered.root, "1").info.run_id, "documents")
    assert len(papers) == 9
    assert "the gate said **promote**" in papers["model-card.md"]
    assert "| sensitivity at 90 % specificity | a floor |" in papers["model-card.md"]
    assert "**Not recorded of this version:**" not in papers["technical-documentation.md"]
    assert not any(str(registered.root) in text for text in papers.values())


def test_progress_of_a_stage_reaches_the_console(registered: Retrained) -> None:
    assert "preprocess" in registered.said
    assert "96/96" in registered.said


def test_mlflow_has_a_parent_and_a_nested_run_for_every_stage(registered: Retrained) -> None:
    parent = parent_run(registered.root, "1")
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == f"retrain {parent.data.tags['git_commit'][:7]} by hand"
    # The server was a temporary one, without a page of the run.
    assert re.fullmatch("[0-9a-f]{8}-[0-9a-f-]{27}", parent.data.tags["prefect_flow_run"])
    nested = {run.data.tags["stage"]: run for run in children(registered.root, parent)}
    assert set(nested) == set(STAGES)
    assert all(run.info.status == "FINISHED" for run in nested.values())
    trials = children(registered.root, nested["tune_classifier"])
    assert len(trials) == 2


def test_mlflow_has_every_param_and_every_declared_metric(registered: Retrained) -> None:
    parent = parent_run(registered.root, "1")
    assert parent.data.params["classifier.backbone"] == "efficientnet_lite0"
    assert parent.data.params["seed"] == "20"
    metrics = json.loads((registered.root / "outputs/evaluate/metrics.json").read_text())
    auroc = metrics["test"]["breast"]["auroc"]["value"]
    assert parent.data.metrics["evaluate/test.breast.auroc.value"] == pytest.approx(auroc)
    nested = children(registered.root, parent)
    evaluate = next(run for run in nested if run.data.tags["stage"] == "evaluate")
    assert evaluate.data.metrics["evaluate/test.breast.auroc.value"] == pytest.approx(auroc)
    artifacts = {item.path for item in store(registered.root).list_artifacts(evaluate.info.run_id)}
    assert {"metrics.json", "roc.csv", "precision_recall.csv", "confusion.csv"} <= artifacts


def test_the_report_and_the_data_set_are_with_the_parent_run(registered: Retrained) -> None:
    parent = parent_run(registered.root, "1")
    artifacts = {item.path for item in store(registered.root).list_artifacts(parent.info.run_id)}
    assert {"index.html", "snapshot", "environment.json", "gate.html"} <= artifacts
    assert parent.inputs is not None
    (data,) = parent.inputs.dataset_inputs
    md5 = yaml.safe_load((registered.root / "data.dvc").read_text())["outs"][0]["md5"]
    assert data.dataset.digest == md5


def test_the_version_carries_its_snapshot(registered: Retrained) -> None:
    version = store(registered.root).get_model_version(MODEL, "1")
    snapshot = read_tag(registered.root, "model/v1")
    assert version.tags["snapshot_digest"] == snapshot.digest
    assert version.tags["git_commit"] == snapshot.commit
    assert version.tags["git_tag"] == "model/v1"
    assert version.tags["data_hash"].endswith(".dir")
    assert version.aliases == ["champion"]
    stored = mlflow.artifacts.load_text(f"runs:/{version.run_id}/snapshot/snapshot.json")
    assert Snapshot.from_json(stored) == snapshot


def test_the_registered_model_reads_dicom_and_scores_like_the_pipeline(
    registered: Retrained,
) -> None:
    store(registered.root)
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}/1")
    predictions = pd.read_csv(registered.root / "outputs/evaluate/predictions.csv", dtype=str)
    row = predictions.iloc[0]
    path = registered.root / "data/train_images" / row.patient_id / f"{row.image_id}.dcm"
    answer = model.predict(pd.DataFrame({"dicom": [path.read_bytes()]}))
    assert answer["probability"].item() == pytest.approx(float(row.probability), abs=1e-6)
    assert answer["heatmap"].item().startswith(b"\x89PNG")
    assert answer["x1"].item() < answer["x2"].item()


def test_the_registered_model_holds_no_pickle(registered: Retrained) -> None:
    version = store(registered.root).get_model_version(MODEL, "1")
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{MODEL}/{version.version}"))
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".pth", ".pickle"))]
    assert names.count("weights.safetensors") == 2
    assert mlflow.models.get_model_info(str(folder)).signature is not None


def test_dvc_finds_everything_in_order(registered: Retrained) -> None:
    assert command(registered.root, "dvc", "status").stdout.strip().endswith("up to date.")
    shown = command(registered.root, "dvc", "metrics", "show").stdout
    assert "outputs/evaluate/metrics.json" in shown
    assert "preprocess" in command(registered.root, "dvc", "dag").stdout


def test_again_nothing_runs_and_nothing_is_registered(
    unchanged_again: Retrained, registered: Retrained
) -> None:
    assert "Nothing changed" in unchanged_again.said
    assert "Running stage" not in unchanged_again.said
    assert unchanged_again.runs == registered.runs


def test_a_changed_setting_runs_what_depends_on_it_and_makes_a_challenger(
    challenged: Retrained,
) -> None:
    for stage in ("preprocess", "train_detector", "train_classifier"):
        assert f"Running stage '{stage}'" not in challenged.said
    for stage in ("evaluate", "report"):
        assert f"Running stage '{stage}'" in challenged.said
    client = store(challenged.root)
    assert str(client.get_model_version_by_alias(MODEL, "champion").version) == "1"
    assert str(client.get_model_version_by_alias(MODEL, "challenger").version) == "2"
    assert (
        read_tag(challenged.root, "model/v2").digest != read_tag(challenged.root, "model/v1").digest
    )


def test_outs_that_are_missing_come_back_and_nothing_is_registered(
    challenged: Retrained, prefect_server: dict[str, str]
) -> None:
    page = challenged.root / "outputs/report/index.html"
    before = page.read_bytes()
    shutil.rmtree(challenged.root / "outputs")
    result = mammoflow(challenged.root, "retrain", extra_env=prefect_server)
    assert "Nothing changed" in result.stdout
    assert page.read_bytes() == before
    assert len(list_all_runs(challenged.root)) == challenged.runs


def test_by_hand_an_auditor_checks_the_tag_out_and_gets_the_same(
    registered: Retrained, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    command(registered.root, "git", "clone", "-q", str(registered.root), str(clone))
    command(clone, "git", "checkout", "-q", "model/v1")
    command(clone, "dvc", "cache", "dir", "--local", str(registered.root / ".dvc" / "cache"))
    command(clone, "dvc", "pull", "-q", "data.dvc")
    command(clone, "dvc", "repro")
    assert command(clone, "git", "status", "--porcelain").stdout == ""
    recorded = read_tag(registered.root, "model/v1").files
    assert (clone / "dvc.lock").read_text() == recorded["dvc.lock"]
    assert "up to date" in command(clone, "dvc", "status").stdout


def test_uncommitted_code_is_refused_before_any_work(
    challenged: Retrained, prefect_server: dict[str, str]
) -> None:
    path = challenged.root / "stages" / "split.py"
    before = path.read_text()
    try:
        path.write_text(before + "\n")
        result = mammoflow(challenged.root, "retrain", check=False, extra_env=prefect_server)
    finally:
        path.write_text(before)
    assert result.returncode == 2
    assert "error: the code is not committed: stages/split.py" in result.stdout
    assert "Running stage" not in result.stdout
    assert len(list_all_runs(challenged.root)) == challenged.runs


def test_data_that_differs_from_data_dvc_is_refused(
    challenged: Retrained, prefect_server: dict[str, str]
) -> None:
    extra = challenged.root / "data" / "note.txt"
    try:
        extra.write_text("new\n")
        result = mammoflow(challenged.root, "retrain", check=False, extra_env=prefect_server)
    finally:
        extra.unlink()
    assert result.returncode == 2
    assert "error: data/ is not what data.dvc names" in result.stdout


def test_a_tag_of_another_registry_is_refused_before_any_work(
    challenged: Retrained, prefect_server: dict[str, str]
) -> None:
    command(challenged.root, "git", "-c", "tag.gpgSign=false", "tag", "model/v3")
    try:
        result = mammoflow(
            challenged.root, "retrain", "--force", check=False, extra_env=prefect_server
        )
    finally:
        command(challenged.root, "git", "tag", "-d", "model/v3")
    assert result.returncode == 2
    assert "error: git has the tag model/v3, and the registry" in result.stdout


def test_a_failing_stage_fails_the_run_and_registers_nothing(
    challenged: Retrained, prefect_server: dict[str, str]
) -> None:
    path = challenged.root / "params.yaml"
    before = path.read_text()
    params = yaml.safe_load(before)
    params["split"]["test"] = 0.0
    try:
        path.write_text(yaml.safe_dump(params, sort_keys=False))
        result = mammoflow(challenged.root, "retrain", check=False, extra_env=prefect_server)
    finally:
        path.write_text(before)
        command(challenged.root, "dvc", "checkout", "-q")  # the failed stage's outs are gone
    assert result.returncode == 1
    assert "split" in result.stdout
    assert "Traceback" not in result.stdout
    client = store(challenged.root)
    assert len(client.search_model_versions(f"name = '{MODEL}'")) == 2
    failed = [run for run in list_all_runs(challenged.root) if run.info.status == "FAILED"]
    assert failed
    assert not [run for run in list_all_runs(challenged.root) if run.info.status == "RUNNING"]


def test_the_files_of_the_snapshot_are_the_tags(challenged: Retrained) -> None:
    for version in ("1", "2"):
        snapshot = read_tag(challenged.root, f"model/v{version}")
        assert set(snapshot.files) == set(FILES)
