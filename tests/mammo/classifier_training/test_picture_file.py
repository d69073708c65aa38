"""The pictures of a large set are decoded once, are never half there, and take bounded space."""

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from mammo.base.errors import UserError
from mammo.classifier.picture import load_picture
from mammo.classifier_training.picture_file import map_pictures

HEIGHT, WIDTH = 40, 24
SIZE = 5 * (HEIGHT * WIDTH + 16)  # bytes of a file of five pictures


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAMMOFLOW_STORE", str(tmp_path / "store"))
    return tmp_path / "store" / "pictures"


def write_rois(folder: Path, seed: int = 0) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        rng = np.random.default_rng((seed, number))
        cv2.imwrite(str(path), rng.integers(0, 256, (50, 40 - number), np.uint8))
    return paths


def mapped(paths: list[Path]) -> tuple[str, np.ndarray]:
    found = map_pictures(paths, HEIGHT, WIDTH)
    assert found is not None
    return found


def files(store: Path) -> set[str]:
    return {path.name for path in store.iterdir()} - {"lock"}


def test_it_holds_what_decoding_gives_and_the_next_process_decodes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_rois(tmp_path / "rois")
    key, pictures = mapped(paths)
    assert "decoding 5 pictures" in capsys.readouterr().out
    expected = np.stack([load_picture(path, HEIGHT, WIDTH) for path in paths])
    assert np.array_equal(pictures, expected)
    assert not pictures.flags.writeable
    again, same = mapped(paths)
    assert again == key
    assert np.array_equal(same, expected)
    assert capsys.readouterr().out == ""


def test_other_images_another_order_and_another_size_are_another_file(tmp_path: Path) -> None:
    paths = write_rois(tmp_path / "rois")
    keys = {mapped(paths)[0], mapped(paths[::-1])[0], mapped(write_rois(tmp_path / "new", 1))[0]}
    other = map_pictures(paths, HEIGHT, WIDTH + 8)
    assert other is not None
    assert len(keys | {other[0]}) == 4


@pytest.mark.parametrize("damage", ["a byte", "cut short", "half written"])
def test_a_damaged_file_is_made_again(tmp_path: Path, store: Path, damage: str) -> None:
    paths = write_rois(tmp_path / "rois")
    key, pictures = mapped(paths)
    expected = pictures.copy()
    content = bytearray((store / key).read_bytes())
    if damage == "half written":
        (store / key).rename(store / f".{key}.partial")
    else:
        content[100] ^= 1
        (store / key).write_bytes(content if damage == "a byte" else content[:200])
    assert np.array_equal(mapped(paths)[1], expected)
    assert files(store) == {key}


def test_processes_that_start_together_decode_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_rois(tmp_path / "rois")
    found: list[tuple[str, np.ndarray]] = []
    workers = [threading.Thread(target=lambda: found.append(mapped(paths))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len({key for key, _ in found}) == 1
    assert len(found) == 4
    assert capsys.readouterr().out.count("decoding 5 pictures") == 1


def test_what_was_used_longest_ago_makes_room(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAMMOFLOW_PICTURES_GIB", str(2.5 * SIZE / 2**30))
    sets = [write_rois(tmp_path / str(number), number) for number in range(3)]
    first, second = mapped(sets[0])[0], mapped(sets[1])[0]
    assert files(store) == {first, second}
    for name in (first, second):  # in one tick of the clock, otherwise, they would be equally old
        os.utime(store / name, (1, 1))
    mapped(sets[0])
    third = mapped(sets[2])[0]
    assert files(store) == {first, third}


def test_a_set_that_is_too_large_is_not_kept_and_it_is_said(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAMMOFLOW_PICTURES_GIB", str(0.5 * SIZE / 2**30))
    assert map_pictures(write_rois(tmp_path / "rois"), HEIGHT, WIDTH) is None
    assert "more than MAMMOFLOW_PICTURES_GIB" in capsys.readouterr().out
    assert not store.exists()


def test_without_a_store_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMOFLOW_STORE", "off")
    assert map_pictures(write_rois(tmp_path / "rois"), HEIGHT, WIDTH) is None


def test_where_nothing_can_be_written_the_work_goes_on_without(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.parent.mkdir()
    store.write_text("in the way")
    assert map_pictures(write_rois(tmp_path / "rois"), HEIGHT, WIDTH) is None
    assert "going on without" in capsys.readouterr().out


def test_an_image_that_cannot_be_read_is_named_and_nothing_is_left(
    tmp_path: Path, store: Path
) -> None:
    paths = write_rois(tmp_path / "rois")
    paths[3].write_bytes(b"no image")
    with pytest.raises(UserError, match=r"3\.png: is not an image"):
        map_pictures(paths, HEIGHT, WIDTH)
    assert files(store) == set()
    paths[3].unlink()
    with pytest.raises(UserError, match=r"3\.png: cannot be read"):
        map_pictures(paths, HEIGHT, WIDTH)


def test_a_size_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMOFLOW_PICTURES_GIB", "much")
    with pytest.raises(UserError, match="MAMMOFLOW_PICTURES_GIB: 'much' is no size"):
        map_pictures(write_rois(tmp_path / "rois"), HEIGHT, WIDTH)
