"""Stages that remember: the same bytes as without the store, and no work done twice."""

import shutil
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from mammo.base.atomic_files import read_json
from mammo.base.determinism import pin
from mammo.base.settings import Crop, Params, Preprocess
from mammo.cropping import cached_crop
from mammo.cropping.find_breast import Roi, cut_breast
from mammo.detector.detector import Detector, build_detector, save_detector
from mammo.intake import cached_prepare
from mammo.intake.prepare import Prepared, prepare
from mammo.kept.result_store import Store
from stages import crop_rois, preprocess
from tests.support.contents import contents
from tests.support.dicoms import half_breast, jpeg_2000, plain
from tests.support.preprocessing import tiny
from tests.support.tiny_mammograms import write_preprocessed


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", 2**30)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is prepared, not remembered."""
    seen: list[object] = []

    def noted(source: Path | BinaryIO | bytes, settings: Preprocess) -> Prepared:
        seen.append(source)
        return prepare(source, settings)

    monkeypatch.setattr(cached_prepare, "prepare", noted)
    return seen


def test_new_data_cost_what_is_new(
    data: Path, tmp_path: Path, store: Store, prepared: list[object]
) -> None:
    images = data / "train_images"
    (images / "29" / "0004.dcm").write_bytes(b"not an image")
    late = images / "28" / "0005.dcm"
    late.rename(tmp_path / "late.dcm")
    settings = tiny(max_reject_fraction=0.5)
    preprocess.run(settings, data, tmp_path / "before", 0, store)
    assert len(prepared) == 12
    prepared.clear()
    shutil.move(tmp_path / "late.dcm", late)
    preprocess.run(settings, data, tmp_path / "after", 0, store)
    assert prepared == [late.read_bytes()]
    preprocess.run(settings, data, tmp_path / "full", 0)
    assert contents(tmp_path / "after") == contents(tmp_path / "full")
    assert read_json(tmp_path / "after/metrics.json")["images"] == 11
    # Several processes, and a store that is deleted.
    preprocess.run(settings, data, tmp_path / "two", 2, store)
    shutil.rmtree(store.folder)
    prepared.clear()
    preprocess.run(settings, data, tmp_path / "deleted", 0, store)
    assert len(prepared) == 12
    for name in ("two", "deleted"):
        assert contents(tmp_path / name) == contents(tmp_path / "full")


def test_a_damaged_store_that_may_only_be_read_changes_no_byte(
    data: Path,
    tmp_path: Path,
    store: Store,
    prepared: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    preprocess.run(tiny(), data, tmp_path / "full", 0)
    preprocess.run(tiny(), data, tmp_path / "first", 0, store)
    for path in store.folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.is_relative_to(store.folder):
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    prepared.clear()
    preprocess.run(tiny(), data, tmp_path / "again", 0, store)
    assert len(prepared) == 12
    for name in ("first", "again"):
        assert contents(tmp_path / name) == contents(tmp_path / "full")


def test_other_pixels_or_settings_or_code_are_other_images(
    data: Path,
    tmp_path: Path,
    store: Store,
    prepared: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = data / "train_images/30/0000.dcm"
    first = cached_prepare.prepare_cached(path, tiny().preprocess, store)
    # As text: an image of no pixels is equal to none from Python 3.13 on.
    assert repr(cached_prepare.prepare_cached(path, tiny().preprocess, store)) == repr(first)
    lenient = tiny(max_reject_fraction=0.9).preprocess  # no matter for an image
    assert repr(cached_prepare.prepare_cached(path, lenient, store)) == repr(first)
    assert len(prepared) == 1
    smaller = tiny(long_side=64).preprocess
    assert cached_prepare.prepare_cached(path, smaller, store).png != first.png
    monkeypatch.setattr(cached_prepare, "code_version", lambda *_: "another")
    assert repr(cached_prepare.prepare_cached(path, tiny().preprocess, store)) == repr(first)
    assert len(prepared) == 3
    path.write_bytes(plain(half_breast(180, 150)))
    assert cached_prepare.prepare_cached(path, tiny().preprocess, store).png != first.png
    assert len(prepared) == 4


def test_a_file_that_is_not_there_is_not_remembered(data: Path, store: Store) -> None:
    path = data / "train_images/30/nowhere.dcm"
    assert "no such file" in cached_prepare.prepare_cached(path, tiny().preprocess, store).reason
    path.write_bytes(jpeg_2000(half_breast()))
    assert cached_prepare.prepare_cached(path, tiny().preprocess, store).reason == ""


def test_crops_are_remembered_for_a_detector_and_its_settings(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_preprocessed(tmp_path / "preprocess", 3)
    for name in ("one", "other"):
        pin(len(name), threads=1)
        (tmp_path / name).mkdir()
        save_detector(build_detector("yolo11n.yaml", 64), tmp_path / name)
    params = tiny().model_copy(update={"threads": 1})
    sure = params.crop.model_copy(update={"confidence": 0.0})
    params = params.model_copy(update={"crop": sure})
    searched = []

    def noted(detector: Detector, image: np.ndarray, settings: Crop) -> tuple[Roi, np.ndarray]:
        searched.append(image.shape)
        return cut_breast(detector, image, settings)

    monkeypatch.setattr(cached_crop, "cut_breast", noted)

    def crop(
        out: str, detector: str = "one", params: Params = params, store: Store | None = store
    ) -> int:
        crop_rois.run(params, tmp_path / "preprocess", tmp_path / detector, tmp_path / out, store)
        count = len(searched)
        searched.clear()
        return count

    assert crop("full", store=None) == 3
    assert crop("first") == 3
    assert crop("again") == 0
    for name in ("first", "again"):
        assert contents(tmp_path / name) == contents(tmp_path / "full")
    write_preprocessed(tmp_path / "more", 4)
    shutil.rmtree(tmp_path / "preprocess")
    (tmp_path / "more").rename(tmp_path / "preprocess")
    assert crop("grown") == 1
    assert crop("other-detector", detector="other") == 4
    wider = params.crop.model_copy(update={"margin": 0.2})
    assert crop("wider", params=params.model_copy(update={"crop": wider})) == 4
