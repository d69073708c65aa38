"""The set is the test women of train.csv: what a model does not read counts the same for both."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from prefect.logging import disable_run_logger

from flows.promotion.flow import _look_and_judge
from flows.promotion.rescoring import compare, read_own_predictions
from flows.tracking.registry import get_version, open_store
from tests.support.judged import plan
from tests.support.scored_project import make_scored_project
from tests.support.signed_project import make_repository
from tests.support.small_project import forget_looks

REJECTED = 3  # cancers of the test women that the model cannot read


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two versions of one model, which cannot read some of the cancers: the first is champion."""
    root = tmp_path_factory.mktemp("unread") / "project"
    make_repository(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make_scored_project(root, REJECTED)
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
