"""From data to a registered model, small but whole: real DVC, real Prefect, real MLflow.

In a project with no cache to start from: every stage runs. Then there is nothing to do, or a stage
fails; and nothing personal is found in what all of it left behind.
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
from tests.support.markers import found_in, search
from tests.support.small_project import (
    Retrained,
    command,
    keep_cache,
    list_all_runs,
    mammoflow,
    retrained,
    store,
)

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


@pytest.fixture(scope="module")
def registered(small_project: Path, kept_cache: Path) -> Retrained:
    """Retrained once, with nothing in DVC's cache; what the stages made is kept for others.

    With Prefect's temporary server; what comes later uses one that runs. And with proxies that lead
    nowhere: all of it is on loopback.
    """
    nowhere = {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9"}
    found = retrained("registered", small_project, nowhere)
    keep_cache(small_project, kept_cache)
    return found


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
    assert "96/96" in registered.said  # the progress of a stage
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
    assert set(snapshot.files) == set(FILES)


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


def test_nothing_personal_is_said(registered: Retrained) -> None:
    assert "preprocess" in registered.said
    assert found_in(registered.said.encode()) == []


def test_text_in_the_pixels_is_counted_and_reported(registered: Retrained) -> None:
    metrics = json.loads((registered.root / "outputs/preprocess/metrics.json").read_text())
    assert metrics["burned_in_annotation"] == metrics["images"] == 96
    assert metrics["files_without_row"] == 1
    page = (registered.root / "outputs/report/index.html").read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    assert "burned in annotation 96" in text


def test_nothing_personal_is_found_outside_the_data(registered: Retrained) -> None:
    """The logs that Prefect keeps are searched, too."""
    searched, guilty = search(registered.root)
    assert guilty == {}
    names = {path.name for path in searched}
    folders = {path.relative_to(registered.root).parts[0] for path in searched}
    assert {"mlflow.db", "index.html", "weights.safetensors", "manifest.csv"} <= names
    assert {"outputs", "mlruns", ".dvc", ".git"} <= folders
    assert [path for path in searched if ".prefect" in path.parts and path.suffix == ".db"]


def test_again_nothing_runs_and_nothing_is_registered(
    unchanged_again: Retrained, registered: Retrained
) -> None:
    assert "Nothing changed" in unchanged_again.said
    assert "Running stage" not in unchanged_again.said
    assert unchanged_again.runs == registered.runs


def test_outs_that_are_missing_come_back_and_nothing_is_registered(
    unchanged_again: Retrained, prefect_server: dict[str, str]
) -> None:
    page = unchanged_again.root / "outputs/report/index.html"
    before = page.read_bytes()
    shutil.rmtree(unchanged_again.root / "outputs")
    result = mammoflow(unchanged_again.root, "retrain", extra_env=prefect_server)
    assert "Nothing changed" in result.stdout
    assert page.read_bytes() == before
    assert len(list_all_runs(unchanged_again.root)) == unchanged_again.runs


def test_a_failing_stage_fails_the_run_and_registers_nothing(
    unchanged_again: Retrained, prefect_server: dict[str, str]
) -> None:
    path = unchanged_again.root / "params.yaml"
    before = path.read_text()
    params = yaml.safe_load(before)
    params["split"]["test"] = 0.0
    try:
        path.write_text(yaml.safe_dump(params, sort_keys=False))
        result = mammoflow(unchanged_again.root, "retrain", check=False, extra_env=prefect_server)
    finally:
        path.write_text(before)
        command(unchanged_again.root, "dvc", "checkout", "-q")  # the failed stage's outs are gone
    assert result.returncode == 1
    assert "split" in result.stdout
    assert "Traceback" not in result.stdout
    client = store(unchanged_again.root)
    assert len(client.search_model_versions(f"name = '{MODEL}'")) == 1
    failed = [run for run in list_all_runs(unchanged_again.root) if run.info.status == "FAILED"]
    assert failed
    assert not [run for run in list_all_runs(unchanged_again.root) if run.info.status == "RUNNING"]
