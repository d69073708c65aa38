"""On a GPU: the same bytes twice, nothing waited for in the loop, and what a CPU says.

pytest -rs -m gpu tests/mammo/test_gpu.py tests/stages/test_gpu.py
"""

import copy
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mammo.assurance.fingerprint import BFLOAT16, OTHERS, TORCH, compute_fingerprint
from mammo.base.determinism import pin
from mammo.base.errors import UserError
from mammo.base.settings import Classifier, load_params
from mammo.classifier.changes import draw_change, render_batch
from mammo.classifier.network import build_classifier, check_weights, save_classifier
from mammo.classifier.predict import predict
from mammo.classifier_training import fit as fitting
from mammo.classifier_training.examples import Examples, gather, keep_pictures
from mammo.classifier_training.fit import Fit, Scores, fit
from mammo.detector_training.trainer import train_detector
from mammo.explanation.grad_cam import compute_heatmap
from mammo.kept.checkpoint import describe_machine
from mammo.learning.device import choose_device
from mammo.serving.predictor import load_predictor
from tests.support.cards import needs_a_card
from tests.support.half_ellipses import SETTINGS, examples, half_ellipse
from tests.support.learning import tiny, write_breasts, write_untrained_predictor

pytestmark = needs_a_card

PRECISIONS = ["float32", "bfloat16"]
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
BACKBONES = ["efficientnet_lite0", "resnet18", "convnext_tiny"]
CPU = torch.device("cpu")

each_precision = pytest.mark.parametrize("precision", PRECISIONS)
each_backbone = pytest.mark.parametrize("backbone", BACKBONES)


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.delenv("MAMMOFLOW_DEVICE", raising=False)
    pin(0, threads=1)
    return choose_device()


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Examples, Examples]:
    folder = tmp_path_factory.mktemp("rois")
    table = write_breasts(folder, women=8)
    return gather(table, "train", folder, wanted()), gather(table, "validation", folder, wanted())


def wanted(**changes: object) -> Classifier:
    """Every change of pictures, and a size that every backbone takes."""
    augment = dict.fromkeys(load_params().classifier.augment.model_dump(), 0.1)
    size = {"image_height": 96, "image_width": 64, "augment": augment, "average": 0.9}
    return tiny(**{**size, **changes})


def weights(result: Fit, folder: Path) -> bytes:
    folder.mkdir()
    save_classifier(result.model, wanted(), folder)
    return (folder / "weights.safetensors").read_bytes()


@each_precision
@each_backbone
def test_trained_twice_a_classifier_is_the_same_to_the_byte(
    backbone: str, precision: str, sets: tuple[Examples, Examples], tmp_path: Path
) -> None:
    settings = wanted(backbone=backbone, precision=precision, weights="none")
    one, two = (fit(settings, *sets, seed=1) for _ in range(2))
    assert one.history == two.history
    assert weights(one, tmp_path / "one") == weights(two, tmp_path / "two")


@each_precision
def test_interrupted_it_goes_on_to_the_same_bytes(
    precision: str, sets: tuple[Examples, Examples], tmp_path: Path
) -> None:
    settings = wanted(precision=precision, epochs=3, patience=3)

    def stop(scores: Scores) -> None:
        if scores["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(settings, *sets, seed=1, on_epoch=stop, checkpoints=tmp_path / "checkpoints")
    torch.rand(5, device="cuda")
    resumed = fit(settings, *sets, seed=1, checkpoints=tmp_path / "checkpoints")
    whole = fit(settings, *sets, seed=1)
    assert resumed.history == whole.history
    assert weights(resumed, tmp_path / "resumed") == weights(whole, tmp_path / "whole")


@each_precision
def test_it_learns_on_the_card_what_it_learns_on_the_cpu(
    precision: str, sets: tuple[Examples, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    # One epoch without dropout: what is drawn in the network is drawn otherwise on a card.
    settings = wanted(precision=precision, epochs=1, dropout=0.0)
    first = fit(settings, *sets, seed=1).history[0]
    monkeypatch.setenv("MAMMOFLOW_DEVICE", "cpu")
    second = fit(settings, *sets, seed=1).history[0]
    assert first["train_loss"] == pytest.approx(second["train_loss"], rel=0.05)


def test_nothing_in_the_loop_waits_for_the_card(
    sets: tuple[Examples, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, steps = fitting.update_average, itertools.count(1)

    def watched(*arguments: object) -> None:
        usual(*arguments)  # type: ignore[arg-type]
        # From the second step on: the first one of all makes the moments and loads kernels.
        if next(steps) == 1:
            torch.cuda.set_sync_debug_mode("error")

    monkeypatch.setattr(fitting, "update_average", watched)
    ended = fitting._train_epoch

    def epoch(state: object, batches: Iterable[object], schedule: object) -> float:
        def until_the_last() -> Iterator[object]:
            yield from batches
            torch.cuda.set_sync_debug_mode("default")  # the epoch's loss is waited for, once

        return ended(state, until_the_last(), schedule)  # type: ignore[arg-type]

    monkeypatch.setattr(fitting, "_train_epoch", epoch)
    try:
        fit(wanted(epochs=1, batch_size=4), *sets, seed=1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert next(steps) > 3


@each_precision
@each_backbone
def test_the_same_weights_say_the_same_on_the_card_and_on_the_cpu(
    backbone: str, precision: str, sets: tuple[Examples, Examples], card: torch.device
) -> None:
    weights = "imagenet" if backbone == "efficientnet_lite0" else "none"  # random ones say nothing
    settings = wanted(backbone=backbone, weights=weights, precision=precision)
    torch.manual_seed(3)
    model = build_classifier(settings)
    with torch.no_grad():  # spreads the probabilities
        next(reversed(list(model.head.children()))).get_parameter("weight").mul_(2)
    rois = [*sets[0].pictures.rois, *sets[1].pictures.rois]
    on_card = predict(copy.deepcopy(model).to(card), rois, settings)
    assert np.array_equal(on_card, predict(copy.deepcopy(model).to(card), rois, settings))
    model.precision = "float32"
    on_cpu = predict(model, rois, settings)
    assert np.ptp(on_cpu) > 2 * TOLERANCE[precision]
    assert np.abs(on_card - on_cpu).max() <= TOLERANCE[precision]
    # The same order, but for breasts that are tied at this precision.
    for one, other in itertools.combinations(range(len(rois)), 2):
        if abs(on_cpu[one] - on_cpu[other]) > TOLERANCE[precision]:
            assert (on_card[one] < on_card[other]) == (on_cpu[one] < on_cpu[other])


def test_pictures_are_changed_alike_on_the_card_and_on_the_cpu(card: torch.device) -> None:
    rng = np.random.default_rng(0)
    pictures = torch.from_numpy(rng.integers(0, 256, (5, 300, 200), np.uint8))
    augment = wanted().augment
    rows = [draw_change(300, 200, augment, np.random.default_rng(n)).to_row() for n in range(5)]
    changes = torch.from_numpy(np.stack(rows))
    second = render_batch(pictures.to(card), changes.to(card)).cpu()
    assert torch.equal(second, render_batch(pictures, changes))


def test_pictures_of_a_mapped_file_are_those_in_memory(
    sets: tuple[Examples, Examples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAMMOFLOW_STORE", str(tmp_path / "store"))
    in_memory = fit(wanted(), *sets, seed=1)
    monkeypatch.setattr("mammo.classifier.inputs.CACHE_BYTES", 0)
    for size in ("1", "0.000001"):  # a mapped file; decoded anew by worker processes
        monkeypatch.setenv("MAMMOFLOW_PICTURES_GIB", size)
        rois = [[roi for roi in part.pictures.rois if isinstance(roi, Path)] for part in sets]
        kept = [keep_pictures(files, wanted()) for files in rois]
        assert (kept[0].key is not None) == (size == "1")
        train, validation = (
            Examples(pictures, part.targets, part.breasts)
            for pictures, part in zip(kept, sets, strict=True)
        )
        assert fit(wanted(), train, validation, seed=1).history == in_memory.history


@each_precision
def test_a_heatmap_is_that_of_the_cpu(precision: str, card: torch.device) -> None:
    settings = wanted(precision=precision)
    torch.manual_seed(1)
    model = build_classifier(settings).eval()
    roi = half_ellipse(0, 96, 64)[0]
    on_card = compute_heatmap(copy.deepcopy(model).to(card), roi, settings)
    assert np.abs(on_card - compute_heatmap(model, roi, settings)).max() < 0.01


def test_a_detector_trained_twice_is_the_same_and_finds_what_it_finds_on_the_cpu(
    tmp_path: Path, card: torch.device
) -> None:
    parts = examples(tmp_path / "a", range(8)), examples(tmp_path / "b", range(50, 52))
    one, two = (train_detector(*parts, SETTINGS, seed=3).detector.model for _ in range(2))
    assert next(one.parameters()).device == card
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
    detector = train_detector(*parts, SETTINGS, seed=3).detector
    images = [half_ellipse(seed)[0] for seed in range(4)]
    on_card = detector.find(images)
    detector.model.to(CPU)
    for first, second in zip(on_card, detector.find(images), strict=True):
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert first.box.iou(second.box) > 0.99
            assert first.confidence == pytest.approx(second.confidence, abs=1e-3)


def test_an_interrupted_detector_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mammo.detector_training import trainer

    parts = examples(tmp_path / "a", range(8)), examples(tmp_path / "b", range(50, 52))
    settings = SETTINGS.model_copy(update={"epochs": 3})
    whole = train_detector(*parts, settings, seed=3)
    usual, epochs = trainer._Trainer.save_model, itertools.count(1)

    def save(self: trainer._Trainer) -> bool:
        usual(self)
        if next(epochs) == 2:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(trainer._Trainer, "save_model", save)
    with pytest.raises(KeyboardInterrupt):
        train_detector(*parts, settings, 3, tmp_path / "checkpoints")
    monkeypatch.undo()
    resumed = train_detector(*parts, settings, 3, tmp_path / "checkpoints")
    assert resumed.curves.equals(whole.curves)
    for name, tensor in whole.detector.model.state_dict().items():
        assert torch.equal(tensor, resumed.detector.model.state_dict()[name]), name


def test_the_registered_predictor_computes_on_the_card(
    tmp_path: Path, card: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_untrained_predictor(tmp_path / "predictor")
    predictor = load_predictor(folder)
    for network in (predictor.classifier, predictor.detector.model):
        assert {weight.device for weight in network.parameters()} == {card}
    monkeypatch.setenv("MAMMOFLOW_DEVICE", "cpu")
    second = load_predictor(folder)
    rois = [half_ellipse(seed, 90, 50)[0] for seed in range(6)]
    on_card, on_cpu = (
        predict(part.classifier, rois, part.classifier_settings) for part in (predictor, second)
    )
    assert np.abs(on_card - on_cpu).max() <= TOLERANCE["float32"]


def test_what_cannot_be_deterministic_is_refused() -> None:
    with pytest.raises(UserError, match="'alexnet' cannot give the same bytes twice on a GPU"):
        check_weights(wanted(backbone="alexnet", weights="none"))


def test_the_card_its_driver_and_its_libraries_are_known(card: torch.device) -> None:
    machine = describe_machine(card)
    assert machine["gpu"] == torch.cuda.get_device_name(card)
    assert machine["driver"] != "unknown"
    assert machine["cuda"] == torch.version.cuda
    assert int(machine["cudnn"]) > 0


def test_the_fingerprint_of_the_card_is_the_same_twice_and_has_both_precisions() -> None:
    found = compute_fingerprint(1)
    on_card = {name for name in found if name.endswith(" on the GPU")}
    assert on_card == {f"{name} on the GPU" for name in (*TORCH, *BFLOAT16)}
    assert found.keys() - on_card == TORCH.keys() | OTHERS.keys()
    assert compute_fingerprint(1) == found
