"""Whatever is changed in a version's model, numbers, dvc.lock or data, an audit names the culprit.

Each test tampers with one record of a whole small project, audits (`--quick`: what needs no re-run
must be found without one), and the fixture puts everything back. What tells which snapshot a
version is of: test_tampered_snapshot.py.
"""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.snapshots.snapshot import read_tag
from tests.support.tampering import (
    CLASSIFIER,
    assert_caught,
    flip_a_byte,
    forge,
    list_entries,
    locate_cached,
    model_folder,
    put_into_cache,
    quick_audit,
    sql,
    version,
)

pytestmark = [pytest.mark.timeout(1800), pytest.mark.usefixtures("unmeasured")]


def test_the_records_of_an_untouched_version_agree(root: Path) -> None:
    result = quick_audit()
    assert result.exit_code == 0, result.output
    assert "RECORDS AGREE, NOT RE-RUN" in result.output
    assert result.output.splitlines()[1].endswith("Version 1 is unsigned.")
    assert "standard: equivalence: " in result.output.splitlines()[2]
    assert version().tags["audit_verdict"] == "records agree, not re-run"
    assert len(version().tags["audit_report_digest"]) == 64
    names = {item.path for item in MlflowClient().list_artifacts(str(version().run_id), "audits")}
    assert len(names) == 1


def test_a_changed_byte_of_the_registered_weights_is_found(root: Path) -> None:
    flip_a_byte(model_folder() / "artifacts/predictor/classifier/weights.safetensors")
    assert_caught(quick_audit(), 1, "classifier/weights.safetensors of the registered model")


def test_a_changed_operating_point_is_found(root: Path) -> None:
    path = model_folder() / "artifacts/predictor/evaluate/metrics.json"
    path.write_text(path.read_text().replace('"breast": 0.', '"breast": 0.9', 1))
    assert_caught(quick_audit(), 1, "evaluate/metrics.json of the registered model")


def test_the_whole_model_of_another_run_is_found_in_its_place(root: Path) -> None:
    """The registry points to it."""
    folder, run, other = model_folder(), str(version().run_id), "f" * 32
    elsewhere = folder.parents[1] / "m-other" / folder.name
    shutil.copytree(folder, elsewhere)
    mlmodel = elsewhere / "MLmodel"
    mlmodel.write_text(mlmodel.read_text().replace(run, other))
    sql(
        root,
        "UPDATE model_versions SET storage_location = replace(storage_location, ?, 'm-other')",
        folder.parent.name,
    )
    assert model_folder() == elsewhere
    assert_caught(quick_audit(), 1, f"the registered model came from the run {other}, not {run}")


def test_a_change_of_the_code_that_travels_with_the_model_is_found(root: Path) -> None:
    path = model_folder() / "code/mammo/cropping/find_breast.py"
    path.write_text(path.read_text() + "\nMARGIN = 0\n")
    assert_caught(quick_audit(), 1, "other code than the commit: cropping/find_breast.py")


def test_a_changed_metric_in_mlflow_is_found(root: Path) -> None:
    key = "evaluate/test.breast.auroc.value"
    for table in ("metrics", "latest_metrics"):
        sql(root, f"UPDATE {table} SET value = 0.999 WHERE key = ?", key)
    assert_caught(quick_audit(), 1, f"the metric {key}", "0.999 in MLflow")


def test_a_metric_that_was_logged_once_more_is_found(root: Path) -> None:
    key = "evaluate/test.breast.auroc.value"
    MlflowClient().log_metric(str(version().run_id), key, 0.999)
    assert_caught(quick_audit(), 1, f"the metric {key} of the run retrain", "0.999 in MLflow")


def test_a_changed_param_in_mlflow_is_found(root: Path) -> None:
    sql(root, "UPDATE params SET value = '99' WHERE key = 'classifier.epochs'")
    assert_caught(quick_audit(), 1, "the param classifier.epochs", "99 in MLflow")


def test_an_outs_hash_that_names_a_doctored_file_in_the_cache_is_found(root: Path) -> None:
    content = bytearray(locate_cached(root, read_tag(root, "model/v1"), CLASSIFIER).read_bytes())
    content[-1] ^= 1
    md5 = put_into_cache(root, bytes(content))

    def change(stages: dict[str, dict[str, list[dict[str, object]]]]) -> None:
        for entry in list_entries(stages, CLASSIFIER):
            entry["md5"] = md5

    forge(root, change)
    assert_caught(quick_audit(), 1, "classifier/weights.safetensors of the registered model is not")


def test_an_outs_hash_that_was_changed_in_one_place_only_is_found(root: Path) -> None:
    md5 = put_into_cache(root, b"nothing\n")
    forge(root, lambda stages: stages["evaluate"]["outs"][0].update(md5=md5))
    assert_caught(quick_audit(), 1, "explain read another outputs/evaluate/")


def test_code_other_than_the_commits_is_found(root: Path) -> None:
    def change(stages: dict[str, dict[str, list[dict[str, object]]]]) -> None:
        dep = next(d for d in stages["evaluate"]["deps"] if d["path"] == "mammo/evaluation")
        dep["md5"] = "0" * 32

    forge(root, change)
    assert_caught(quick_audit(), 1, "evaluate ran another mammo/evaluation than the commit holds")


def test_a_changed_setting_in_dvc_lock_is_found(root: Path) -> None:
    forge(root, lambda stages: stages["split"]["params"]["params.yaml"]["split"].update(test=0.9))
    assert_caught(quick_audit(), 1, "split ran with split.test = 0.9")


def test_a_label_that_was_flipped_in_the_data_is_found(root: Path) -> None:
    flip_a_byte(root / "data" / "train.csv")
    assert_caught(quick_audit(), 1, "data/ is not what data.dvc names: train.csv (changed)")


def test_a_dicom_that_was_deleted_from_the_data_is_found(root: Path) -> None:
    gone = next((root / "data" / "train_images").glob("*/*.dcm"))
    gone.unlink()
    assert_caught(quick_audit(), 1, f"{gone.relative_to(root / 'data')} (gone)")


def test_a_file_that_no_row_names_is_counted_and_not_named(root: Path) -> None:
    """Its name may be a patient's, and the report goes to MLflow."""
    (root / "data" / "train_images" / "Zorgla^Berta.dcm").write_bytes(b"DICM")
    (root / "data" / "train.csv").unlink()
    result = quick_audit()
    assert_caught(
        result,
        1,
        "train.csv (gone), 1 of data/ that no row of train.csv names (added)",
    )
    assert "Zorgla" not in result.output
