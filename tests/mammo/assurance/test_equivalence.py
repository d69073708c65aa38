"""Is a model that was trained again the same for the test women? With small networks, trained."""

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from mammo.assurance.equivalence import (
    Equivalence,
    Measure,
    Scored,
    _correlate_ranks,
    compare_models,
    compare_predictions,
    find_case_difference,
)
from mammo.base.settings import Audit

FEATURES = 6
BOUNDS = Audit(
    pixels=3,
    probability=0.001,
    auroc_margin=0.1,
    average_precision_margin=0.2,
    rank_correlation=0.5,
    agreement=0.75,
    women=10,
    bootstrap=200,
    confidence=0.9,
)


def bounds(**changes: object) -> Audit:
    return Audit.model_validate({**BOUNDS.model_dump(), **changes})


def cohort(women: int, seed: int) -> tuple[pd.DataFrame, torch.Tensor]:
    """Two breasts a woman: a third have cancer in the left one, another third a biopsy.

    The features tell of both, and of nothing else that matters; (2 * women, FEATURES).
    """
    generator = np.random.default_rng(seed)
    left = np.tile([1, 0], women)
    number = np.repeat(np.arange(women), 2)
    cancer, biopsy = left * (number % 3 == 0), left * (number % 3 == 1)
    features = generator.normal(size=(2 * women, FEATURES))
    features[:, 0] += 3 * cancer
    features[:, 1] += 3 * biopsy
    table = pd.DataFrame(
        {
            "patient_id": [f"{woman:04d}" for woman in number],
            "laterality": ["L", "R"] * women,
            "cancer": cancer,
            "biopsy": biopsy,
        }
    )
    return table, torch.from_numpy(features).float()


@cache
def train(seed: int, label: str = "cancer") -> torch.nn.Module:
    """A network with a hidden layer; the seed decides first weights and order, not the data."""
    table, features = cohort(300, 1)
    target = torch.from_numpy(table[label].to_numpy(dtype=np.float32))
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1), torch.nn.Flatten(0)
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(8):
        for batch in torch.randperm(len(target), generator=generator).split(32):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                network(features[batch]), target[batch]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network


def scored(network: torch.nn.Module, women: int, label: str = "cancer") -> Scored:
    table, features = cohort(women, 2)
    with torch.no_grad():
        probability = torch.sigmoid(network(features)).numpy().astype(np.float64)
    breasts = table[["patient_id", "laterality"]].assign(
        target=table[label], probability=probability
    )
    return Scored(breasts, threshold=0.3)


@pytest.fixture(scope="module")
def first() -> torch.nn.Module:
    return train(1)


def named(found: Equivalence, name: str) -> Measure:
    (measure,) = [measure for measure in found.measures if measure.name == name]
    return measure


def test_another_seed_gives_another_model_that_does_the_same(first: torch.nn.Module) -> None:
    then, now = scored(first, 120), scored(train(2), 120)
    assert not then.breasts["probability"].equals(now.breasts["probability"])
    found = compare_models(then, now, BOUNDS)
    assert found.outcome == "equivalent", found
    assert found.reason == ""
    assert (found.women, found.breasts, found.positives) == (120, 240, 40)
    target = then.breasts["target"]
    for name, score in (("auROC", roc_auc_score), ("average precision", average_precision_score)):
        measure = named(found, name)
        assert measure.then is not None
        assert measure.now is not None
        assert measure.then == pytest.approx(score(target, then.breasts["probability"]), abs=1e-4)
        assert measure.now == pytest.approx(score(target, now.breasts["probability"]), abs=1e-4)
        assert measure.value == pytest.approx(measure.now - measure.then)
        assert measure.low <= measure.value <= measure.high
    rho = spearmanr(then.breasts["probability"], now.breasts["probability"])[0]
    assert named(found, "rank correlation").value == pytest.approx(rho, abs=1e-3)
    alike = (then.breasts["probability"] >= 0.3) == (now.breasts["probability"] >= 0.3)
    assert named(found, "equal decisions").value == pytest.approx(alike.mean())


def test_few_women_cannot_show_it(first: torch.nn.Module) -> None:
    found = compare_models(scored(first, 24), scored(train(2), 24), BOUNDS)
    assert found.outcome == "too small to tell"
    assert found.reason.startswith("8 of the test women have a positive breast and 16 have none")


def test_women_who_are_too_few_for_the_margin_cannot_show_it(first: torch.nn.Module) -> None:
    strict = bounds(average_precision_margin=0.001)
    found = compare_models(scored(first, 60), scored(train(2), 60), strict)
    assert found.outcome == "too small to tell"
    assert found.reason.startswith("average precision was 0.")
    measure = named(found, "average precision")
    assert not measure.holds
    assert not measure.refuted
    assert measure.low <= 0.001
    assert measure.high >= -0.001


def test_a_model_of_another_label_column_is_another_model(first: torch.nn.Module) -> None:
    other = train(1, "biopsy")
    found = compare_models(scored(first, 120), scored(other, 120), BOUNDS)
    assert found.outcome == "not equivalent"
    assert named(found, "auROC").refuted


def test_scores_against_another_label_column_are_of_other_cases(first: torch.nn.Module) -> None:
    then, now = scored(first, 30), scored(first, 30, "biopsy")
    with pytest.raises(ValueError, match="20 of the test breasts have another label: 0000 L, 0001"):
        compare_models(then, now, BOUNDS)


def test_a_model_whose_weights_were_tampered_with_is_another_model(first: torch.nn.Module) -> None:
    other = deepcopy(first)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.neg_()
    found = compare_models(scored(first, 120), scored(other, 120), BOUNDS)
    assert found.outcome == "not equivalent"
    assert "rank correlation -0." in found.reason or "equal decisions" in found.reason


def test_few_positive_women_hide_no_other_order_of_the_others(first: torch.nn.Module) -> None:
    """Of a hundred women six have cancer: the scores prove nothing, the correlation does."""
    then = scored(first, 100)
    sick = then.breasts["patient_id"] < "0018"
    breasts = then.breasts.assign(target=then.breasts["target"].where(sick, 0))
    shuffled = breasts.assign(
        probability=breasts["probability"].sample(frac=1, random_state=3).to_numpy()
    )
    same = compare_models(Scored(breasts, 0.3), Scored(breasts, 0.3), BOUNDS)
    assert same.outcome == "too small to tell"
    other = compare_models(Scored(breasts, 0.3), Scored(shuffled, 0.3), BOUNDS)
    assert other.outcome == "not equivalent"
    assert other.reason.startswith("rank correlation")


def test_other_decisions_at_the_operating_point_are_another_model(first: torch.nn.Module) -> None:
    then = scored(first, 120)
    found = compare_models(then, Scored(then.breasts, 0.0), BOUNDS)
    assert named(found, "auROC").value == 0
    assert found.outcome == "not equivalent"
    assert found.reason.startswith("equal decisions 0.")


def tables(seed: int, women: int, noise: float) -> tuple[Scored, Scored]:
    """Two models that see the same, and each has noise of its own."""
    generator = np.random.default_rng(seed)
    target = np.array([[int(woman % 3 == 0), 0] for woman in range(women)]).ravel()
    seen = generator.normal(size=2 * women) + 2 * target
    found = []
    for _ in range(2):
        logit = seen + noise * generator.normal(size=2 * women)
        breasts = pd.DataFrame(
            {
                "patient_id": np.repeat([f"{woman:04d}" for woman in range(women)], 2),
                "laterality": ["L", "R"] * women,
                "target": target,
                "probability": 1 / (1 + np.exp(-logit)),
            }
        )
        found.append(Scored(breasts, float(generator.uniform(0.3, 0.7))))
    return found[0], found[1]


PAIRS = {"seed": st.integers(0, 10**6), "women": st.integers(6, 90), "noise": st.floats(0, 3)}


@given(**PAIRS)
@settings(max_examples=40)
def test_the_outcome_follows_the_rule(seed: int, women: int, noise: float) -> None:
    found = compare_models(*tables(seed, women, noise), BOUNDS)
    scores, others = found.measures[:2], found.measures[2:]
    if found.outcome == "equivalent":
        assert found.positives >= BOUNDS.women
        assert all(-m.bound <= m.low <= m.high <= m.bound for m in scores)
        assert all(measure.value >= measure.bound for measure in others)
        assert not found.reason
    else:
        assert found.reason
    if found.outcome == "not equivalent":
        assert women >= BOUNDS.women
        assert any(not measure.holds for measure in found.measures)
        assert any(measure.refuted for measure in found.measures) or all(m.holds for m in scores)
    if any(m.refuted for m in others) and women >= BOUNDS.women:
        assert found.outcome == "not equivalent"


@given(**PAIRS)
@settings(max_examples=30)
def test_neither_order_nor_direction_matters(seed: int, women: int, noise: float) -> None:
    then, now = tables(seed, women, noise)
    found = compare_models(then, now, BOUNDS)
    shuffled = Scored(now.breasts.sample(frac=1, random_state=seed), now.threshold)
    assert compare_models(then, shuffled, BOUNDS) == found
    assert compare_models(now, then, BOUNDS).outcome == found.outcome


@given(**PAIRS, wider=st.floats(0, 0.5))
@settings(max_examples=30)
def test_looser_bounds_never_undo_an_equivalence(
    seed: int, women: int, noise: float, wider: float
) -> None:
    then, now = tables(seed, women, noise)
    loose = bounds(
        auroc_margin=0.1 + wider,
        average_precision_margin=0.2 + wider,
        rank_correlation=0.5 - wider,
        agreement=0.75 - wider,
    )
    rank = ["not equivalent", "too small to tell", "equivalent"].index
    strictly, loosely = (compare_models(then, now, b).outcome for b in (BOUNDS, loose))
    assert rank(loosely) >= rank(strictly)


@given(seed=st.integers(0, 10**6), women=st.integers(3, 60))
@settings(max_examples=30)
def test_a_model_is_equivalent_to_itself_if_there_are_women_enough(seed: int, women: int) -> None:
    then, _ = tables(seed, women, 1.0)
    found = compare_models(then, then, BOUNDS)
    assert found.outcome == ("equivalent" if women >= 28 else "too small to tell")
    assert [measure.value for measure in found.measures] == [0, 0, 1, 1]


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=30
    )
)
@settings(max_examples=100)
def test_the_correlation_of_weighted_cases_is_that_of_repeated_ones(
    rows: list[tuple[int, int, int]],
) -> None:
    one, other, weights = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    if not weights.any():
        return
    times = weights.astype(int)
    repeated = np.repeat(one, times), np.repeat(other, times)
    (found,) = _correlate_ranks(one, other, weights[None])
    flat = [len(set(values)) == 1 for values in repeated]
    if any(flat):
        assert found == (1.0 if all(flat) else 0.0)
    else:
        assert found == pytest.approx(spearmanr(*repeated)[0], abs=1e-9)


def test_other_women_are_named() -> None:
    then, _ = tables(1, 6, 0)
    table = then.breasts
    assert find_case_difference(table, table.sample(frac=1, random_state=1)) == ""
    fewer, odd = table.iloc[2:], table.assign(patient_id="0000")
    assert find_case_difference(table, fewer) == (
        "2 of the test breasts are not in the re-made predictions: 0000 L, 0000 R"
    )
    assert find_case_difference(fewer, table) == (
        "2 of the test breasts are new in the re-made predictions: 0000 L, 0000 R"
    )
    assert (
        find_case_difference(odd, table) == "the recorded predictions hold a breast more than once"
    )
    turned = table.assign(target=1 - table["target"])
    assert find_case_difference(table, turned) == (
        "12 of the test breasts have another label: 0000 L, 0000 R, 0001 L and 9 more"
    )


def test_breasts_of_one_class_cannot_be_compared() -> None:
    then, _ = tables(1, 6, 0)
    healthy = Scored(then.breasts.assign(target=0), 0.5)
    with pytest.raises(ValueError, match="one class"):
        compare_models(healthy, healthy, BOUNDS)


def predictions(*probabilities: float) -> pd.DataFrame:
    number = len(probabilities)
    return pd.DataFrame(
        {
            "patient_id": ["0001"] * number,
            "image_id": [str(image) for image in range(number)],
            "target": [0] * number,
            "probability": probabilities,
        }
    )


def test_predictions_are_off_by_rounding_or_by_more() -> None:
    found = compare_predictions(predictions(0.1, 0.5), predictions(0.1, 0.5004), 0.001)
    assert found.holds
    assert (found.cases, found.where) == (2, "0001 1 was 0.5, is 0.5004")
    assert found.largest == pytest.approx(0.0004)
    assert not compare_predictions(predictions(0.1, 0.5), predictions(0.2, 0.5), 0.001).holds


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: table.iloc[1:],
        lambda table: table.assign(target=1),
        lambda table: table.iloc[::-1],
        lambda table: table.drop(columns="target"),
    ],
)
def test_predictions_of_other_cases_are_an_error(spoil: Any) -> None:
    table = predictions(0.1, 0.5)
    with pytest.raises(ValueError, match="other cases"):
        compare_predictions(table, spoil(table), 0.001)
