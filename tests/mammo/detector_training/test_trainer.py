"""Training the YOLO breast detector, on tiny images."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mammo.base.determinism import pin
from mammo.base.errors import UserError
from mammo.base.progress import say
from mammo.detector.detector import build_network, save_detector
from mammo.detector_training import trainer
from mammo.detector_training.trainer import Training, shrink, train_detector
from tests.support.half_ellipses import SETTINGS, examples, half_ellipse


def train(
    folder: Path, seed: int = 3, checkpoints: Path | None = None, **changes: object
) -> Training:
    """Train on eight images, validate on two."""
    pin(seed, threads=1)
    settings = SETTINGS.model_copy(update=changes)
    parts = examples(folder / "a", range(8)), examples(folder / "b", range(50, 52))
    return train_detector(*parts, settings, seed, checkpoints)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return train(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def saved(trained: Training, tmp_path: Path) -> Path:
    save_detector(trained.detector, tmp_path)
    return tmp_path


def test_a_second_training_gives_the_same_bytes_from_another_folder(
    trained: Training, tmp_path: Path
) -> None:
    again = train(tmp_path / "elsewhere")
    for name, training in (("first", trained), ("second", again)):
        (tmp_path / name).mkdir()
        save_detector(training.detector, tmp_path / name)
    for file in ("weights.safetensors", "architecture.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    assert trained.curves.equals(again.curves)


def test_an_operator_without_a_deterministic_kernel_is_an_error_while_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[tuple[bool, bool]] = []
    usual = trainer._Trainer.save_model

    def save(self: trainer._Trainer) -> bool:
        strict = torch.are_deterministic_algorithms_enabled()
        warned.append((strict, torch.is_deterministic_algorithms_warn_only_enabled()))
        return usual(self)

    monkeypatch.setattr(trainer._Trainer, "save_model", save)
    train(tmp_path)
    assert warned == [(True, False)] * SETTINGS.epochs
    assert torch.get_deterministic_debug_mode() == 2  # and afterwards, as before
    assert torch.backends.cudnn.deterministic


def test_images_are_shrunk_but_in_the_last_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def counted(labels: dict[str, object]) -> dict[str, object]:
        seen.append(labels["im_file"])
        return shrink(labels)

    monkeypatch.setattr(trainer, "shrink", counted)
    train(tmp_path, epochs=12)
    assert len(seen) == 2 * 8


def test_cut_short_several_times_it_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # ultralytics makes its loader anew ten epochs before the end: before, then and after.
    undisturbed = train(tmp_path / "images", epochs=12)
    for last, after in ((2, 0), (3, 1), (6, 2)):
        heard: list[str] = []

        def interrupted(line: str, last: int = last, heard: list[str] = heard) -> None:
            heard.append(line)
            if f"epoch {last}/" in line:
                raise KeyboardInterrupt

        monkeypatch.setattr(trainer, "say", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "images", checkpoints=tmp_path / "checkpoints", epochs=12)
        going_on = [line for line in heard if "going on after epoch" in line]
        expected = f"detector: going on after epoch {after}, from a checkpoint"
        assert going_on == ([expected] if after else [])
    monkeypatch.setattr(trainer, "say", say)
    for _ in range(2):  # the second time there is nothing left to train
        resumed = train(tmp_path / "images", checkpoints=tmp_path / "checkpoints", epochs=12)
        assert resumed.curves.equals(undisturbed.curves)
        assert resumed.best_epoch == undisturbed.best_epoch
        mine, other = resumed.detector.model.state_dict(), undisturbed.detector.model.state_dict()
        assert all(torch.equal(mine[name], other[name]) for name in other)


def test_another_seed_gives_another_detector(trained: Training, tmp_path: Path) -> None:
    other = train(tmp_path, seed=4, epochs=1)
    assert not trained.curves.iloc[:1].equals(other.curves)


def test_training_lowers_the_loss_and_reports_every_epoch(trained: Training) -> None:
    curves = trained.curves
    assert list(curves["epoch"]) == [1, 2]
    assert curves["train_box_loss"].iloc[-1] < curves["train_box_loss"].iloc[0]
    assert trained.best_epoch in (1, 2)
    best = curves.iloc[trained.best_epoch - 1]
    assert (trained.map50, trained.map50_95) == (best["map50"], best["map50_95"])


def test_training_leaves_torch_as_deterministic_as_it_was(trained: Training) -> None:
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.get_num_threads() == 1


def test_training_goes_on_from_a_weights_file(
    trained: Training, saved: Path, tmp_path: Path
) -> None:
    start = str(saved / "weights.safetensors")
    further = train(tmp_path, weights=start, epochs=1, learning_rate=1e-12)
    given = load_file(start)
    weights = [name for name in given if name.endswith("conv.weight")]
    assert weights
    for name in weights:
        assert torch.allclose(further.detector.model.state_dict()[name], given[name], atol=1e-6)


def test_weights_of_another_architecture_are_refused(saved: Path, tmp_path: Path) -> None:
    weights = load_file(saved / "weights.safetensors")
    weights["model.0.conv.weight"] = torch.zeros(8, 3, 3, 3)  # of another width
    save_file(weights, saved / "weights.safetensors")
    with pytest.raises(UserError, match="another architecture"):
        train(tmp_path, weights=str(saved / "weights.safetensors"))


@pytest.mark.parametrize("where", ["yolo11n.yaml", "models/mine.yaml"])
def test_an_architecture_of_ones_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / where).write_text("nc: 1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"{where}' is a file of your own, which no snapshot"):
        build_network(where)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model file 'yolo99q\.yaml'"):
        train(tmp_path, architecture="yolo99q.yaml")


def test_a_loss_that_is_not_finite_is_an_error(saved: Path, tmp_path: Path) -> None:
    weights = load_file(saved / "weights.safetensors")
    weights["model.0.conv.weight"].fill_(float("nan"))
    save_file(weights, saved / "weights.safetensors")
    with pytest.raises(UserError, match=r"no longer finite in epoch 1: lower detector\.learning"):
        train(tmp_path, weights=str(saved / "weights.safetensors"))


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    one = examples(tmp_path, range(1))
    with pytest.raises(UserError, match="to train on"):
        train_detector([], one, SETTINGS, 0)
    with pytest.raises(UserError, match="to validate on"):
        train_detector(one, [], SETTINGS, 0)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    one = examples(tmp_path, range(1))
    one[0].image.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"0\.png: is not an image"):
        train_detector(one, one, SETTINGS, 0)


def test_a_shrunk_image_and_its_box_stay_together_at_the_left_edge() -> None:
    from ultralytics.utils.instance import Instances  # not before our adapter

    for seed in range(10):
        image, box = half_ellipse(seed, 128, 128)
        centre = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
        relative = np.array([[*centre, box.width, box.height]]) / 128
        labels = {
            "img": np.repeat(image[..., None], 3, axis=2),
            "instances": Instances(relative, bbox_format="xywh", normalized=True),
        }
        smaller = shrink(labels)
        bright = smaller["img"][..., 0] > 75
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert columns[0] == 0
        assert np.abs(smaller["instances"].bboxes[0] - expected).max() < 1.5
        assert 0.68 < smaller["instances"].bboxes[0, 2] / box.x2 <= 1
