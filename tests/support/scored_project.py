"""A project with two versions of one model and scores of made-up women: the gate can judge them.

Nothing is trained; git, DVC's cache and MLflow are real, and hold what a retrain leaves of scores.
"""

from io import StringIO
from pathlib import Path

import pandas as pd
import yaml

from flows.pipeline.known_outs import PREDICTIONS_OUT, SPLIT_OUT
from flows.processes.run_git import git
from flows.tracking import aliases
from mammo.base.settings import load_params
from mammo.data.splits import assign
from mammo.data.tables import PREDICTIONS
from tests.support.cached_data import put_data, table
from tests.support.signed_project import LOCK, WHO, register
from tests.support.small_project import store
from tests.support.tampering import put_into_cache


def make_scored_project(root: Path, unread: int) -> None:
    """Make it, in the folder that the process works in; version 1 is champion.

    Args:
        root: that folder, with what `make_repository` makes.
        unread: cancers of the test women that the model cannot read.
    """
    store(root)
    labels = table(90)
    (root / "data.dvc").write_text(put_data(root, {"train.csv": labels}))
    rows = pd.read_csv(StringIO(labels), dtype={"patient_id": str, "image_id": str})
    split = assign(rows["patient_id"], load_params(root / "params.yaml").split)
    rows = rows.merge(split, on="patient_id").assign(target=rows["cancer"])
    rows["probability"] = 0.2 + 0.5 * rows["target"]
    test = rows[rows["split"] == "test"]
    rejected = test[test["target"] == 1]["image_id"].head(unread)
    read = test[~test["image_id"].isin(rejected)][list(PREDICTIONS.columns)]
    lock = yaml.safe_load(yaml.safe_dump(LOCK))
    for path, found in ((SPLIT_OUT, split), (PREDICTIONS_OUT, read)):
        md5 = put_into_cache(root, found.to_csv(index=False).encode())
        lock["stages"][Path(path).parts[1]] = {"cmd": "x", "outs": [{"path": path, "md5": md5}]}
    weights = "outputs/train_classifier/weights.safetensors"
    lock["stages"]["train_classifier"]["outs"] = [{"path": weights, "md5": "b" * 32}]
    (root / "dvc.lock").write_text(yaml.safe_dump(lock))
    git(root, "add", "-A")
    git(root, "commit", "-qm", "scores")
    register(root, "the model")
    register(root, "the model")
    aliases.make_champion(1, WHO, "the first")
