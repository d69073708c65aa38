"""Whatever is changed about a version after the fact, the audit ends with the culprit's name.

Each test tampers with one record of a whole small project, audits (`--quick`: what needs no re-run
must be found without one), and the fixture puts everything back.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from flows.cli.app import app
from flows.evidence.keys import FOLDER, make_key
from flows.evidence.ledger import HEAD, name_file
from flows.processes.run_git import git
from flows.snapshots.snapshot import read_tag, write_tag
from flows.tracking.names import MODEL
from flows.tracking.registry import read_artifact
from tests.support.tampering import (
    database,
    flip_a_byte,
    forge,
    locate_artifact,
    locate_cached,
    model_folder,
    put_into_cache,
    sql,
    version,
)

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(autouse=True)
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds, and no record that is tampered with here is about it."""
    monkeypatch.setattr("flows.tracking.arithmetic.measure", lambda folder: {"matrix product": "0"})


def audit(version: int = 1) -> Result:
    return CliRunner().invoke(app, ["audit", str(version), "--quick"])


def assert_caught(result: Result, status: int, *words: str) -> None:
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    verdict = "NOT REPRODUCED" if status == 1 else "CANNOT BE JUDGED"
    assert verdict in result.output
    last = result.output[result.output.index(verdict) :]
    for word in words:
        assert word in last, result.output


def test_the_records_of_an_untouched_version_agree(root: Path) -> None:
    for number in (1, 2):
        result = audit(number)
        assert result.exit_code == 0, result.output
        assert "RECORDS AGREE, NOT RE-RUN" in result.output
        assert result.output.splitlines()[1].endswith(f"Version {number} is unsigned.")
        assert "standard: equivalence: " in result.output.splitlines()[2]
        assert version(number).tags["audit_verdict"] == "records agree, not re-run"
    assert len(version().tags["audit_report_digest"]) == 64
    names = {item.path for item in MlflowClient().list_artifacts(str(version().run_id), "audits")}
    assert len(names) == 1


def test_a_changed_byte_of_the_registered_weights_is_found(root: Path) -> None:
    flip_a_byte(model_folder() / "artifacts/predictor/classifier/weights.safetensors")
    assert_caught(audit(), 1, "classifier/weights.safetensors of the registered model")


def test_a_changed_operating_point_is_found(root: Path) -> None:
    path = model_folder() / "artifacts/predictor/evaluate/metrics.json"
    path.write_text(path.read_text().replace('"breast": 0.', '"breast": 0.9', 1))
    assert_caught(audit(), 1, "evaluate/metrics.json of the registered model")


def test_the_weights_of_another_version_are_found_in_its_place(root: Path) -> None:
    name = "artifacts/predictor/classifier/weights.safetensors"
    shutil.copyfile(model_folder(3) / name, model_folder(1) / name)
    assert_caught(audit(), 1, "classifier/weights.safetensors of the registered model")


def test_the_whole_model_of_another_version_is_found_in_its_place(root: Path) -> None:
    other = MlflowClient().get_model_version(MODEL, "2")
    sql(
        root,
        "UPDATE model_versions SET source = (SELECT source FROM model_versions WHERE version = 2), "
        "storage_location = (SELECT storage_location FROM model_versions WHERE version = 2) "
        "WHERE version = 1",
    )
    assert_caught(audit(), 1, f"the registered model came from the run {other.run_id}")


def test_a_change_of_the_code_that_travels_with_the_model_is_found(root: Path) -> None:
    path = model_folder() / "code/mammo/cropping/find_breast.py"
    path.write_text(path.read_text() + "\nMARGIN = 0\n")
    assert_caught(audit(), 1, "other code than the commit: cropping/find_breast.py")


def test_a_changed_metric_in_mlflow_is_found(root: Path) -> None:
    key = "evaluate/test.breast.auroc.value"
    for table in ("metrics", "latest_metrics"):
        sql(root, f"UPDATE {table} SET value = 0.999 WHERE key = ?", key)
    assert_caught(audit(), 1, f"the metric {key}", "0.999 in MLflow")


def test_a_metric_that_was_logged_once_more_is_found(root: Path) -> None:
    key = "evaluate/test.breast.auroc.value"
    MlflowClient().log_metric(str(version().run_id), key, 0.999)
    assert_caught(audit(), 1, f"the metric {key} of the run retrain", "0.999 in MLflow")


def test_a_changed_param_in_mlflow_is_found(root: Path) -> None:
    sql(root, "UPDATE params SET value = '99' WHERE key = 'classifier.epochs'")
    assert_caught(audit(), 1, "the param classifier.epochs", "99 in MLflow")


def test_a_changed_stored_snapshot_is_found(root: Path) -> None:
    path = locate_artifact(root, "snapshot/snapshot.json")
    path.write_text(path.read_text().replace("report", "rapport", 1))
    assert_caught(audit(), 1, "the snapshot stored in MLflow was changed: dvc.lock")


def test_a_stored_snapshot_that_would_write_elsewhere_is_found_and_writes_nothing(
    root: Path,
) -> None:
    path = locate_artifact(root, "snapshot/snapshot.json")
    path.write_text(path.read_text().replace('"params.yaml"', '"../../../../outside"', 1))
    assert_caught(audit(), 1, "snapshot.json of the run is not a snapshot any more", "is none of")
    assert not (root / "outside").exists()


def test_a_changed_stored_dvc_lock_is_found(root: Path) -> None:
    path = locate_artifact(root, "snapshot/dvc.lock")
    path.write_text(path.read_text().replace("report", "rapport", 1))
    assert_caught(audit(), 1, "snapshot/dvc.lock of the run was changed")


def test_an_outs_hash_that_names_a_doctored_file_in_the_cache_is_found(root: Path) -> None:
    weights = "outputs/train_classifier/weights.safetensors"
    content = bytearray(locate_cached(root, read_tag(root, "model/v1"), weights).read_bytes())
    content[-1] ^= 1
    md5 = put_into_cache(root, bytes(content))

    def change(stages: dict[str, dict[str, list[dict[str, object]]]]) -> None:
        for stage in stages.values():
            for entry in (*stage.get("deps", []), *stage["outs"]):
                if entry["path"] == weights:
                    entry["md5"] = md5

    forge(root, change)
    assert_caught(audit(), 1, "classifier/weights.safetensors of the registered model is not")


def test_an_outs_hash_that_was_changed_in_one_place_only_is_found(root: Path) -> None:
    md5 = put_into_cache(root, b"nothing\n")
    forge(root, lambda stages: stages["evaluate"]["outs"][0].update(md5=md5))
    assert_caught(audit(), 1, "explain read another outputs/evaluate/")


def test_code_other_than_the_commits_is_found(root: Path) -> None:
    def change(stages: dict[str, dict[str, list[dict[str, object]]]]) -> None:
        dep = next(d for d in stages["evaluate"]["deps"] if d["path"] == "mammo/evaluation")
        dep["md5"] = "0" * 32

    forge(root, change)
    assert_caught(audit(), 1, "evaluate ran another mammo/evaluation than the commit holds")


def test_a_changed_setting_in_dvc_lock_is_found(root: Path) -> None:
    forge(root, lambda stages: stages["split"]["params"]["params.yaml"]["split"].update(test=0.9))
    assert_caught(audit(), 1, "split ran with split.test = 0.9")


def test_a_git_tag_that_was_moved_is_found(root: Path) -> None:
    git(root, "tag", "-f", "model/v1", "model/v2")
    assert_caught(audit(), 1, "the git tag model/v1 was moved: params.yaml, dvc.lock")


def test_a_git_tag_that_was_moved_to_what_is_no_snapshot_is_found(root: Path) -> None:
    git(root, "tag", "-f", "model/v1", "HEAD~1")
    assert_caught(audit(), 1, "the git tag model/v1 was moved")


def test_without_its_git_tag_a_version_cannot_be_judged(root: Path) -> None:
    git(root, "tag", "-d", "model/v1")
    assert_caught(audit(), 2, "has the git tag model/v1", "mammoflow publish 1")


def test_a_changed_digest_of_the_version_is_found(root: Path) -> None:
    MlflowClient().set_model_version_tag(MODEL, "1", "snapshot_digest", "0" * 64)
    assert_caught(audit(), 1, "the version's tag snapshot_digest was changed")


def test_a_label_that_was_flipped_in_the_cache_is_found(root: Path) -> None:
    path = locate_cached(root, read_tag(root, "model/v1"), "data", "train.csv")
    flip_a_byte(path)
    assert_caught(audit(), 1, "other bytes", "data/train.csv")


def test_a_label_that_was_flipped_in_the_data_is_found(root: Path) -> None:
    flip_a_byte(root / "data" / "train.csv")
    assert_caught(audit(3), 1, "data/ is not what data.dvc names: train.csv (changed)")


def test_a_changed_pixel_of_a_dicom_is_found(root: Path) -> None:
    flip_a_byte(locate_cached(root, read_tag(root, "model/v1"), "data", ".dcm"))
    assert_caught(audit(), 1, "other bytes", "data/train_images/", ".dcm")


def test_without_one_of_its_dicoms_a_version_cannot_be_judged(root: Path) -> None:
    locate_cached(root, read_tag(root, "model/v1"), "data", ".dcm").unlink()
    assert_caught(audit(), 2, "neither DVC's cache nor a remote has data/train_images/", ".dcm")


def test_a_dicom_that_was_deleted_from_the_data_is_found(root: Path) -> None:
    gone = next((root / "data" / "train_images").glob("*/*.dcm"))
    gone.unlink()
    assert_caught(audit(3), 1, f"{gone.relative_to(root / 'data')} (gone)")


def test_a_file_that_no_row_names_is_counted_and_not_named(root: Path) -> None:
    """Its name may be a patient's, and the report goes to MLflow."""
    (root / "data" / "train_images" / "Zorgla^Berta.dcm").write_bytes(b"DICM")
    (root / "data" / "train.csv").unlink()
    result = audit(3)
    assert_caught(
        result,
        1,
        "train.csv (gone), 1 of data/ that no row of train.csv names (added)",
    )
    assert "Zorgla" not in result.output


def test_a_woman_who_is_in_train_and_under_another_id_in_test_is_found(root: Path) -> None:
    result = audit(3)
    assert result.exit_code == 1
    assert "RECORDS AGREE, NOT RE-RUN, BUT UNSOUND" in result.output
    assert "4 pictures (" in result.output
    assert "(train)" in result.output
    assert "(test)" in result.output


def test_without_its_commit_in_the_clone_a_version_cannot_be_judged(root: Path) -> None:
    commit = read_tag(root, "model/v1").commit
    (root / ".git" / "objects" / commit[:2] / commit[2:]).unlink()
    assert_caught(audit(), 2, f"this clone lacks the commit {commit}")


def test_without_cache_and_remote_a_version_cannot_be_judged(root: Path) -> None:
    shutil.rmtree(root / ".dvc" / "cache")
    assert_caught(audit(), 2, "neither DVC's cache nor a remote has data, outputs/")


def test_what_the_cache_lacks_is_fetched_from_a_remote(root: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    shutil.copytree(root / ".dvc" / "cache", remote)
    shutil.rmtree(root / ".dvc" / "cache")
    config = root / ".dvc" / "config.local"
    config.write_text(f"[core]\n    remote = there\n['remote \"there\"']\n    url = {remote}\n")
    try:
        result = audit()
    finally:
        config.unlink()
    assert result.exit_code == 0, result.output
    assert "fetching what the cache lacks from DVC's remote" in result.output


@pytest.mark.parametrize("names", [("snapshot_digest",), ("git_commit", "data_hash", "git_tag")])
def test_without_its_tags_in_mlflow_a_version_cannot_be_judged(
    root: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        MlflowClient().delete_model_version_tag(MODEL, "1", name)
    assert_caught(audit(), 2, f"lacks the tags {', '.join(names)}")


def test_a_run_that_was_deleted_for_good_is_named(root: Path) -> None:
    run = str(version().run_id)
    for table in ("latest_metrics", "metrics", "params", "tags", "inputs", "runs"):
        column = "destination_id" if table == "inputs" else "run_uuid"
        with closing(database(root)) as connection:
            connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (run,))
            connection.commit()
    result = audit()
    assert result.exit_code == 2
    assert f"MLflow has no run {run}" in result.output


@pytest.mark.parametrize("reference", ["99", "nobody", f"{MODEL}@nobody", "other@champion"])
def test_a_version_that_is_not_there_is_one_sentence(root: Path, reference: str) -> None:
    result = CliRunner().invoke(app, ["audit", reference, "--quick"])
    assert result.exit_code == 2
    assert "error: " in result.output
    assert "Traceback" not in result.output


def test_an_alias_stands_for_its_version(root: Path) -> None:
    result = CliRunner().invoke(app, ["audit", f"{MODEL}@champion", "--quick"])
    assert result.exit_code == 0
    assert f"{MODEL} version 1" in result.output


@pytest.fixture
def signed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Version 1, signed; the branch and MLflow are put back with the rest."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "private"))
    make_key(root, "server", "builder", None)
    make_key(root, "lab", "auditor", None)
    result = CliRunner().invoke(app, ["evidence", "sign", "1"])
    assert result.exit_code == 0, result.output
    yield
    shutil.rmtree(root / "keys")


@pytest.mark.usefixtures("signed")
def test_an_audit_verifies_what_was_signed_and_signs_its_verdict(root: Path) -> None:
    result = audit()
    assert result.exit_code == 0, result.output
    assert "evidence: The signed evidence of version 1 holds." in result.output
    verified = CliRunner().invoke(app, ["verify", "1"])
    assert verified.exit_code == 0, verified.output
    assert "audit verdict of version 1, by lab (auditor)" in verified.output


@pytest.mark.usefixtures("signed")
def test_a_record_that_is_damaged_so_that_nothing_can_be_verified_is_no_way_out(
    root: Path,
) -> None:
    MlflowClient().set_registered_model_tag(MODEL, HEAD, "nothing")
    assert_caught(
        audit(), 2, "the tag evidence_head of mammogram-classifier in MLflow is 'nothing'"
    )


@pytest.mark.usefixtures("signed")
def test_a_version_that_was_replaced_by_another_consistent_one_is_found(root: Path) -> None:
    """Registry, git and MLflow's artifacts agree: only what was signed does not."""
    client, other = MlflowClient(), version(2)
    snapshot, own = read_tag(root, "model/v2"), name_file(1)
    signed = read_artifact(str(version(1).run_id), own)
    assert signed is not None
    client.log_text(str(other.run_id), signed, own)
    client.set_model_version_tag(MODEL, "1", "snapshot_digest", snapshot.digest)
    client.set_model_version_tag(MODEL, "1", "git_commit", snapshot.commit)
    sql(
        root,
        "UPDATE model_versions SET run_id = ?, source = ?, storage_location = "
        "(SELECT storage_location FROM model_versions WHERE version = 2) WHERE version = 1",
        other.run_id,
        other.source,
    )
    client.set_tag(str(other.run_id), "git_tag", "model/v1")
    git(root, "tag", "-d", "model/v1")
    write_tag(root, snapshot, "model/v1", "forged")
    result = audit()
    assert_caught(
        result, 1, "the model has other bytes than line 1 (provenance of version 1) names"
    )
    wrong = [line for line in result.output.splitlines() if ", wrong: " in line]
    assert {line.partition(",")[0] for line in wrong} == {"evidence"}
