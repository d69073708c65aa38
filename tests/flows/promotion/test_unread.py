"""The set is the test women of train.csv: what a model does not read counts the same for both."""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
import yaml
from prefect.logging import disable_run_logger

from flows.pipeline.known_outs import PREDICTIONS_OUT, SPLIT_OUT
from flows.processes.run_git import git
from flows.promotion.flow import _look_and_judge
from flows.promotion.rescoring import compare, read_own_predictions
from flows.tracking import aliases
from flows.tracking.registry import get_version, open_store
from mammo.base.settings import load_params
from mammo.data.splits import assign
from mammo.data.tables import PREDICTIONS
from tests.support.cached_data import put_data, table
from tests.support.judged import plan
from tests.support.signed_project import LOCK, WHO, make_repository, register
from tests.support.small_project import forget_looks, store
from tests.support.tampering import put_into_cache

REJECTED = 3  # cancers of the test women that the model cannot read


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two versions of one model, which cannot read some of the cancers: the first is champion."""
    root = tmp_path_factory.mktemp("unread") / "project"
    make_repository(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        store(root)
        labels = table(90)
        (root / "data.dvc").write_text(put_data(root, {"train.csv": labels}))
        rows = pd.read_csv(StringIO(labels), dtype={"patient_id": str, "image_id": str})
        split = assign(rows["patient_id"], load_params(root / "params.yaml").split)
        rows = rows.merge(split, on="patient_id").assign(target=rows["cancer"])
        rows["probability"] = 0.2 + 0.5 * rows["target"]
        test = rows[rows["split"] == "test"]
        rejected = test[test["target"] == 1]["image_id"].head(REJECTED)
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
        yield root


def test_every_row_of_the_test_women_is_counted_read_or_not(root: Path) -> None:
    lowest, without = (
        read_own_predictions(root, get_version(2), count, print)
        for count in ("lowest", "leave_out")
    )
    assert (lowest.unread, without.unread) == (REJECTED, REJECTED)
    assert lowest.images == without.images == len(lowest.breasts)
    assert len(without.breasts) == len(lowest.breasts) - REJECTED
    assert (lowest.breasts["probability"] == 0).sum() == REJECTED


def test_one_model_is_its_own_equal_and_the_numbers_are_named(root: Path) -> None:
    ways: tuple[tuple[Literal["lowest", "leave_out"], str], ...]
    ways = (("lowest", "counts as 0"), ("leave_out", "is left out"))
    open_store(root)
    for count, said in ways:
        found = compare(root, get_version(1), get_version(2), ["density"], count, print)
        assert found.same
        assert found.breasts["champion"].equals(found.breasts["challenger"])
        assert (found.unread_by_champion, found.unread_by_challenger) == (REJECTED, REJECTED)
        unread = plan().unread.model_copy(update={"count": count})
        rules = plan().model_copy(update={"unread": unread})
        forget_looks()
        with disable_run_logger():
            verdict = _look_and_judge(root, get_version(1), get_version(2), rules)
        assert verdict.word == "promote", verdict.sentence
        assert f"the challenger could not read {REJECTED}, the champion {REJECTED}" in (
            verdict.sentence
        )
        assert f"each of these {said} for both" in verdict.sentence
        assert "look 1 at set 1 of test women" in verdict.sentence
        tags = get_version(2).tags
        named = f"passed: unread images {REJECTED} against {REJECTED}"
        assert tags["gate.unread"].startswith(named)
