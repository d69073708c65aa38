"""How a run of MLflow ends, and which data set it names."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from flows.snapshots.environment import describe_environment
from flows.snapshots.snapshot import Snapshot
from flows.tracking import registry, runs
from flows.tracking.find_version import find_version
from mammo.base.errors import UserError
from tests.support.small_project import store

MD5 = "0123456789abcdef0123456789abcdef.dir"
DATA = f"outs:\n- md5: {MD5}\n  hash: md5\n  path: data\n"


@pytest.fixture
def root(empty_registry: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(empty_registry)
    return empty_registry


def start(root: Path) -> str:
    return runs.start_retrain(registry.open_store(root), Snapshot("0" * 40, {}))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (UserError("the commit changed"), "FAILED"),
        (KeyboardInterrupt(), "FAILED"),
        # MLflow would not take the end of the run either; the next retrain writes it.
        (MlflowException("no answer"), "RUNNING"),
    ],
    ids=["no error", "a user's", "Ctrl-C", "MLflow's"],
)
def test_a_run_ends_as_its_block_ends(root: Path, error: BaseException | None, status: str) -> None:
    run = start(root)
    raised = nullcontext() if error is None else pytest.raises(type(error))
    with raised, runs.end_afterwards(run):
        if error is not None:
            raise error
    assert store(root).get_run(run).info.status == status


def test_the_data_set_of_a_run_has_dvcs_hash_and_no_row(root: Path) -> None:
    (root / "data").mkdir(exist_ok=True)
    (root / "data" / "train.csv").write_text("patient_id,image_id,cancer\n1234567,7654321,0\n")
    run = start(root)
    runs.log_snapshot(root, run, Snapshot("0" * 40, {"data.dvc": DATA}), describe_environment())
    inputs = store(root).get_run(run).inputs
    assert inputs is not None
    [logged] = inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("data", MD5)
    assert [(tag.key, tag.value) for tag in logged.tags] == [("mlflow.data.context", "training")]
    recorded = f"{logged.dataset.schema}{logged.dataset.profile}{logged.dataset.source}"
    assert "patient_id" in recorded
    assert "1234567" not in recorded


@pytest.mark.parametrize("reference", ["²", "99", "nobody", "a/b"])
def test_a_version_that_does_not_exist_is_one_sentence(root: Path, reference: str) -> None:
    registry.open_store(root)
    with pytest.raises(UserError):
        find_version(reference)
