"""Training learns, keeps the best epoch, stops in time, and gives the same bytes twice."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mammo.base.determinism import pin
from mammo.base.errors import UserError
from mammo.base.settings import Classifier
from mammo.classifier import inputs
from mammo.classifier.inputs import Pictures
from mammo.classifier.network import Classifier as Network
from mammo.classifier.network import build_classifier, save_classifier
from mammo.classifier.predict import predict, predict_logits
from mammo.classifier_training.examples import Examples, gather, keep_pictures
from mammo.classifier_training.fit import (
    Fit,
    Scores,
    TrainingDivergedError,
    compute_rate_factor,
    fit,
    score,
    update_average,
)
from tests.support.learning import tiny, write_breasts


@pytest.fixture(autouse=True, scope="module")
def pinned() -> None:
    pin(0, threads=1)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Examples, Examples]:
    folder = tmp_path_factory.mktemp("rois")
    table = write_breasts(folder, women=8)
    return gather(table, "train", folder, tiny()), gather(table, "validation", folder, tiny())


def weights(result: Fit, folder: Path) -> bytes:
    folder.mkdir()
    save_classifier(result.model, tiny(), folder)
    return (folder / "weights.safetensors").read_bytes()


def test_it_learns_what_there_is_to_see(sets: tuple[Examples, Examples]) -> None:
    result = fit(tiny(epochs=4), *sets, seed=1)
    first, best = result.history[0], result.history[result.best_epoch - 1]
    assert best["validation_auroc"] >= 0.9
    assert result.history[-1]["train_loss"] < 0.7 * first["train_loss"]
    validation = sets[1]
    logits = predict_logits(result.model, validation.pictures, tiny())
    again = score(validation, logits)
    assert again["auroc"] == best["validation_auroc"]
    assert again["loss"] == pytest.approx(best["validation_loss"])


def test_trained_twice_it_is_the_same_to_the_byte(
    sets: tuple[Examples, Examples], tmp_path: Path
) -> None:
    wanted = tiny(balance="upsample", balance_factor=1.5)
    one = fit(wanted, *sets, seed=1)
    torch.rand(5)  # what was drawn before does not matter
    two = fit(wanted, *sets, seed=1)
    assert one.history == two.history
    assert weights(one, tmp_path / "one") == weights(two, tmp_path / "two")
    other = fit(wanted, *sets, seed=2)
    assert weights(one, tmp_path / "1") != weights(other, tmp_path / "other")


def test_it_does_not_matter_who_loads_the_images_nor_from_where(
    sets: tuple[Examples, Examples],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = tiny(balance="upsample", balance_factor=1.5)
    in_memory = weights(fit(wanted, *sets, seed=1), tmp_path / "memory")
    monkeypatch.setattr(inputs, "CACHE_BYTES", 0)
    monkeypatch.setenv("MAMMOFLOW_STORE", str(tmp_path / "store"))
    for name in ("decoded", "mapped", "mapped again"):
        monkeypatch.setenv("MAMMOFLOW_PICTURES_GIB", "1" if "mapped" in name else "0.000001")
        train, validation = (
            Examples(keep_pictures(rois_of(part), wanted), part.targets, part.breasts)
            for part in sets
        )
        assert (train.pictures.cache is None) == (name == "decoded")
        assert (train.pictures.key is None) == (name == "decoded")
        assert capsys.readouterr().out.count("once") == (2 if name == "mapped" else 0)
        result = fit(wanted, train, validation, seed=1, checkpoints=tmp_path / "checkpoints")
        assert weights(result, tmp_path / name) == in_memory
        # A training from the file is known by other words than one from the images.
        assert ("going on" in capsys.readouterr().out) == (name == "mapped again")


def rois_of(part: Examples) -> list[Path]:
    return [roi for roi in part.pictures.rois if isinstance(roi, Path)]


def test_in_bfloat16_it_learns_too_in_float32_weights_and_to_the_same_bytes(
    sets: tuple[Examples, Examples], tmp_path: Path
) -> None:
    wanted = tiny(epochs=2, precision="bfloat16", average=0.5)
    one, two = (fit(wanted, *sets, seed=1) for _ in range(2))
    assert {weight.dtype for weight in one.model.parameters()} == {torch.float32}
    assert weights(one, tmp_path / "one") == weights(two, tmp_path / "two")
    assert one.history == two.history
    assert one.history[1]["train_loss"] < one.history[0]["train_loss"]
    exact = fit(tiny(epochs=2, average=0.5), *sets, seed=1)
    assert weights(exact, tmp_path / "exact") != weights(one, tmp_path / "1")
    assert one.history[0]["train_loss"] == pytest.approx(exact.history[0]["train_loss"], rel=0.05)


def test_interrupted_in_bfloat16_it_goes_on_to_the_same_bytes(
    sets: tuple[Examples, Examples], tmp_path: Path
) -> None:
    wanted = tiny(epochs=2, precision="bfloat16", average=0.5)

    def stop(scores: Scores) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(wanted, *sets, seed=1, on_epoch=stop, checkpoints=tmp_path / "checkpoints")
    resumed = fit(wanted, *sets, seed=1, checkpoints=tmp_path / "checkpoints")
    whole = fit(wanted, *sets, seed=1)
    assert resumed.history == whole.history
    assert weights(resumed, tmp_path / "resumed") == weights(whole, tmp_path / "whole")


def first_weights(model: Network) -> torch.Tensor:
    """Those of the head's first layer."""
    layer = model.head[0]
    assert isinstance(layer, torch.nn.Linear)
    return layer.weight.detach()


def test_the_average_of_the_weights_over_the_steps_is_scored_and_kept(
    sets: tuple[Examples, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[torch.Tensor] = []
    usual = update_average

    def update(average: Network, model: Network, kept: float) -> None:
        steps.append(first_weights(model).clone())
        usual(average, model, kept)

    monkeypatch.setattr("mammo.classifier_training.fit.update_average", update)
    wanted = tiny(epochs=1, average=0.75)
    result = fit(wanted, *sets, seed=1)
    expected = steps[0]
    for weight in steps[1:]:
        expected = 0.75 * expected + 0.25 * weight
    assert len(steps) > 1
    kept = first_weights(result.model)
    torch.testing.assert_close(kept, expected)
    assert not torch.equal(kept, steps[-1])
    again = score(sets[1], predict_logits(result.model, sets[1].pictures, wanted))
    assert again["loss"] == pytest.approx(result.history[0]["validation_loss"])


def scripted(
    monkeypatch: pytest.MonkeyPatch,
    sets: tuple[Examples, Examples],
    wanted: Classifier,
    scores: list[Scores],
) -> tuple[Fit, list[dict[str, torch.Tensor]]]:
    """Train with validation scores made up; return the weights after each epoch too."""
    left = iter(scores)
    seen: list[dict[str, torch.Tensor]] = []

    def logits(model: torch.nn.Module, *_: object) -> np.ndarray:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return np.zeros(1)

    monkeypatch.setattr("mammo.classifier_training.fit.predict_logits", logits)
    monkeypatch.setattr("mammo.classifier_training.fit.score", lambda *_: next(left))
    return fit(wanted, *sets, seed=1), seen


def made_up(*rows: tuple[float, float, float]) -> list[Scores]:
    return [dict(zip(("auroc", "average_precision", "loss"), row, strict=True)) for row in rows]


@pytest.mark.parametrize(
    ("select_by", "best"), [("auroc", 2), ("average_precision", 1), ("loss", 3)]
)
def test_the_best_epoch_is_kept_and_patience_ends_training(
    sets: tuple[Examples, Examples], monkeypatch: pytest.MonkeyPatch, select_by: str, best: int
) -> None:
    rows = made_up((0.6, 0.9, 0.8), (0.7, 0.5, 0.9), (0.7, 0.6, 0.95), (0.5, 0.5, 0.99))
    if select_by == "loss":
        rows = made_up((0.6, 0.9, 0.8), (0.7, 0.5, 0.7), (0.7, 0.6, 0.6), (0.5, 0.5, 0.9))
    wanted = tiny(epochs=4, patience=9, select_by=select_by)
    result, seen = scripted(monkeypatch, sets, wanted, rows)
    assert result.best_epoch == best
    assert len(result.history) == 4
    for name, tensor in result.model.state_dict().items():
        assert torch.equal(tensor, seen[best - 1][name])


def test_patience_ends_training(
    sets: tuple[Examples, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = made_up(*[(0.5, 0.5, 0.5)] * 9)
    result, _ = scripted(monkeypatch, sets, tiny(epochs=9, patience=2), rows)
    assert [scores["epoch"] for scores in result.history] == [1, 2, 3]


def test_equal_scores_are_decided_by_the_loss(
    sets: tuple[Examples, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = made_up((1.0, 1.0, 0.5), (1.0, 1.0, 0.4), (1.0, 1.0, 0.45))
    result, _ = scripted(monkeypatch, sets, tiny(epochs=3), rows)
    assert result.best_epoch == 2


def test_each_epoch_is_reported_and_the_listener_can_end_it(
    sets: tuple[Examples, Examples],
) -> None:
    heard: list[Scores] = []
    result = fit(tiny(), *sets, seed=1, on_epoch=heard.append)
    assert heard == result.history
    assert set(heard[0]) == {
        "epoch",
        "train_loss",
        "validation_loss",
        "validation_auroc",
        "validation_average_precision",
    }

    def enough(scores: Scores) -> None:
        raise StopIteration

    with pytest.raises(StopIteration):
        fit(tiny(), *sets, seed=1, on_epoch=enough)


def test_a_training_that_diverges_is_a_clear_error(sets: tuple[Examples, Examples]) -> None:
    with pytest.raises(TrainingDivergedError, match="lower"):
        fit(tiny(learning_rate=1e30, epochs=3), *sets, seed=1)


def test_a_heavier_positive_class_raises_the_probabilities(
    sets: tuple[Examples, Examples],
) -> None:
    means = []
    for factor in (0.05, 20.0):
        wanted = tiny(balance="weight", balance_factor=factor, epochs=1)
        result = fit(wanted, *sets, seed=1)
        means.append(predict(result.model, sets[1].pictures.rois, wanted).mean())
    assert means[0] < means[1]


def test_breasts_are_scored_by_their_highest_view() -> None:
    examples = Examples(
        pictures=Pictures([], tiny()),
        targets=np.array([1, 1, 0, 0, 0]),
        breasts=np.array([0, 0, 1, 1, 2]),
    )
    logits = np.array([-9.0, 2.0, 1.0, -1.0, 3.0])
    scores = score(examples, logits)
    assert scores["auroc"] == 0.5  # of the two negative breasts one is above the positive
    assert scores["average_precision"] == 0.5
    signs = np.array([1, 1, -1, -1, -1])
    assert scores["loss"] == pytest.approx(np.log1p(np.exp(-signs * logits)).mean())


def test_prediction_takes_files_and_pixels(tmp_path: Path) -> None:
    table = write_breasts(tmp_path, women=2)
    paths = [tmp_path / path for path in table["path"]]
    pixels = [np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.uint8) for path in paths]
    torch.manual_seed(0)
    model = build_classifier(tiny())
    probabilities = predict(model, paths, tiny())
    assert probabilities.dtype == np.float64
    assert probabilities.shape == (8,)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert np.array_equal(probabilities, predict(model, pixels, tiny()))
    assert predict(model, [], tiny()).shape == (0,)
    with pytest.raises(UserError, match="cannot be read"):
        predict(model, [tmp_path / "no.png"], tiny())


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    table = write_breasts(tmp_path, women=2)
    with pytest.raises(UserError, match="train split needs images with and without cancer"):
        gather(table[table["target"] == 0], "train", tmp_path, tiny())


def test_the_rate_rises_then_falls_to_almost_nothing() -> None:
    rates = [compute_rate_factor(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert all(math.isfinite(compute_rate_factor(step, 1)) for step in range(2))
