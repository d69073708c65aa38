"""The digest of a version's networks hinders no rollback, whatever became of its artifacts."""

from pathlib import Path

import pytest

from flows.promotion.networks import digest_networks
from flows.tracking.names import MODEL
from tests.support.small_project import store


def test_artifacts_that_are_out_of_reach_give_no_digest(
    empty_registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client, away = store(empty_registry), "mlflow-artifacts://127.0.0.1:9/away"
    run = client.create_run(client.create_experiment("away", away)).info.run_id
    client.create_registered_model(MODEL)
    try:
        assert digest_networks(client.create_model_version(MODEL, f"{away}/model", run)) == ""
    finally:
        client.delete_registered_model(MODEL)
