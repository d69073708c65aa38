"""The sample data: complete, valid, the same everywhere, and honest about where the cancer is."""

import hashlib
import io
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammo.base.errors import UserError
from mammo.data.reading import read_table
from mammo.data.tables import BREAST_BOXES, LESIONS, TRAIN
from mammo.datasets.dicom_writer import TransferSyntax
from mammo.datasets.phantom import draw
from mammo.datasets.phantom.anatomy import Shape, depth_under_skin, outline_breast, project
from mammo.datasets.phantom.draw import TRAIN_COLUMNS, draw_phantom_dicom, write_phantoms
from mammo.datasets.phantom.plan import deal, plan_women
from mammo.datasets.phantom.texture import (
    bell_noise,
    double,
    fake_angle,
    generator,
    look_up,
    tile_noise,
    turn,
)
from mammo.datasets.phantom.view import draw_view
from mammo.datasets.phantom.women import BENIGN_KINDS, CANCER_KINDS
from mammo.dicom.reader import read_mammogram
from tests.imports import ROOT

SMALL = 256


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "data"
    write_phantoms(folder, women=6, seed=11, workers=1, long_side=SMALL)
    return folder


@pytest.fixture(scope="module")
def train(sample: Path) -> pd.DataFrame:
    return read_table(sample / "train.csv", TRAIN)


def _path(sample: Path, row: pd.Series) -> Path:
    return sample / "train_images" / str(row["patient_id"]) / f"{row['image_id']}.dcm"


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


# The set


def test_the_layout_is_that_of_rsna(sample: Path, train: pd.DataFrame) -> None:
    assert (sample / "train.csv").read_text().splitlines()[0].split(",") == TRAIN_COLUMNS
    assert len(train) == 24
    on_disk = {path.relative_to(sample).as_posix() for path in sample.rglob("*.dcm")}
    assert on_disk == {_path(Path(), row).as_posix() for _, row in train.iterrows()}
    for _, images in train.groupby("patient_id"):
        assert list(zip(images["laterality"], images["view"], strict=True)) == [
            ("L", "CC"),
            ("L", "MLO"),
            ("R", "CC"),
            ("R", "MLO"),
        ]
    assert train["patient_id"].astype(int).is_monotonic_increasing


def test_even_a_tiny_set_has_all_kinds(sample: Path, train: pd.DataFrame) -> None:
    headers = [pydicom.dcmread(_path(sample, row)) for _, row in train.iterrows()]
    assert {header.file_meta.TransferSyntaxUID for header in headers} == {
        str(syntax) for syntax in TransferSyntax
    }
    assert {header.PhotometricInterpretation for header in headers} == {
        "MONOCHROME1",
        "MONOCHROME2",
    }
    assert {header.VOILUTFunction for header in headers} == {"LINEAR", "LINEAR_EXACT", "SIGMOID"}
    assert len({(header.Rows, header.Columns) for header in headers}) >= 4
    assert train["machine_id"].nunique() == 5
    assert set(train["implant"]) == {0, 1}
    assert train["difficult_negative_case"].any()
    lesions = read_table(sample / "lesions.csv", LESIONS)
    assert set(CANCER_KINDS) <= set(lesions["kind"]) <= {*CANCER_KINDS, *BENIGN_KINDS}


def test_every_file_is_readable_and_agrees_with_the_table(
    sample: Path, train: pd.DataFrame
) -> None:
    for _, row in train.iterrows():
        path = _path(sample, row)
        header = pydicom.dcmread(path, stop_before_pixels=True)
        mammogram = read_mammogram(path, SMALL)
        assert (mammogram.description.laterality, mammogram.description.view) == (
            row["laterality"],
            row["view"],
        )
        assert mammogram.pixels.max() > 200 > 20 > np.median(mammogram.pixels[:, [0, -1]].min(1))
        assert header.PatientID == row["patient_id"]
        assert header.BreastImplantPresent == ("YES" if row["implant"] else "NO")
        assert (header.BitsStored, header.HighBit) == (12, 11)
        height_mm = float(header.PixelSpacing[0]) * header.Rows
        assert height_mm == pytest.approx(240, abs=1)


def test_patient_orientation_tells_where_the_chest_wall_is(
    sample: Path, train: pd.DataFrame
) -> None:
    left_ones = set()
    for _, row in train.iterrows():
        path = _path(sample, row)
        rows_point, columns_point = pydicom.dcmread(path).PatientOrientation
        middle = read_mammogram(path, SMALL).pixels[SMALL // 4 : SMALL // 2].astype(float)
        wall_is_left = middle[:, 1].mean() > middle[:, -2].mean()
        assert rows_point == ("A" if wall_is_left else "P")
        assert columns_point[-1] == ("R" if row["laterality"] == "L" else "L")
        assert ("F" in columns_point) == (row["view"] == "MLO")
        left_ones.add((row["laterality"], bool(wall_is_left)))
    # Left breasts hang from the left edge; one machine stores right ones so as well.
    assert left_ones == {("L", True), ("R", False), ("R", True)}


def test_a_third_of_the_images_have_a_breast_box_that_fits(
    sample: Path, train: pd.DataFrame
) -> None:
    boxes = read_table(sample / "breast_boxes.csv", BREAST_BOXES).set_index("image_id")
    assert len(boxes) == len(train) / 3
    boxed = train[train["image_id"].isin(boxes.index)]
    assert set(boxed["view"]) == {"CC", "MLO"}
    assert set(boxed["laterality"]) == {"L", "R"}
    for _, row in boxed.iterrows():
        pixels = read_mammogram(_path(sample, row), 4 * SMALL).pixels
        box = boxes.loc[row["image_id"]].astype(int)
        outside = pixels.copy()
        outside[box["y1"] : box["y2"], box["x1"] : box["x2"]] = 0
        # Outside are only air and the marker, which is small.
        assert (outside > 60).mean() < 0.01
        for strip in (
            pixels[box["y1"] : box["y1"] + 6, box["x1"] : box["x2"]],
            pixels[box["y2"] - 6 : box["y2"], box["x1"] : box["x2"]],
            pixels[box["y1"] : box["y2"], box["x1"] : box["x1"] + 6],
            pixels[box["y1"] : box["y2"], box["x2"] - 6 : box["x2"]],
        ):
            assert strip.max() > 20  # the breast reaches every side


def test_cancer_is_a_matter_of_one_breast_and_is_in_both_its_views(
    sample: Path, train: pd.DataFrame
) -> None:
    lesions = read_table(sample / "lesions.csv", LESIONS)
    cancers = set(lesions.loc[lesions["kind"].isin(CANCER_KINDS), "image_id"])
    assert cancers == set(train.loc[train["cancer"] == 1, "image_id"])
    per_breast = train.groupby(["patient_id", "laterality"])["cancer"]
    assert set(per_breast.sum()) == {0, 2}
    assert per_breast.max().groupby("patient_id").sum().max() == 1
    assert (train.loc[train["cancer"] == 1, "biopsy"] == 1).all()
    assert (train["invasive"] <= train["cancer"]).all()
    assert not ((train["cancer"] == 1) & (train["difficult_negative_case"] == 1)).any()


# The same everywhere


def test_the_number_of_workers_changes_no_byte(tmp_path: Path) -> None:
    for workers in (1, 2):
        write_phantoms(tmp_path / str(workers), women=2, workers=workers, long_side=128)
    assert _digest(tmp_path / "1") == _digest(tmp_path / "2")


def test_vector_instructions_change_no_byte(tmp_path: Path) -> None:
    """Numpy falls back from AVX2 and AVX-512 to the code of older processors: same bytes."""
    script = (
        "import sys; from pathlib import Path\n"
        "from numpy._core._multiarray_umath import __cpu_features__ as features\n"
        "from mammo.datasets.phantom.draw import write_phantoms\n"
        "write_phantoms(Path(sys.argv[1]), women=3, workers=1, long_side=192)\n"
        "print(features['X86_V3'])\n"
    )
    digests, found = set(), []
    for name, disabled in (("all", ""), ("few", "X86_V3 X86_V4 AVX512_ICL AVX512_SPR")):
        ran = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / name)],
            env={**os.environ, "NPY_DISABLE_CPU_FEATURES": disabled},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(ran.stdout.split()[-1])
        digests.add(_digest(tmp_path / name))
    if found[0] == "False":
        pytest.skip("this processor has no AVX2 to leave out")
    assert found == ["True", "False"]
    assert len(digests) == 1


def test_the_seed_changes_the_pictures(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_phantoms(tmp_path / str(seed), women=1, seed=seed, workers=1, long_side=128)
    assert _digest(tmp_path / "1") != _digest(tmp_path / "2")


# Nothing half-written


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="not empty"):
        write_phantoms(tmp_path / "data", women=1, long_side=128)
    assert (tmp_path / "data" / "mine.txt").read_text() == "keep me"


@pytest.mark.parametrize(("women", "long_side"), [(0, 256), (1, 64)])
def test_numbers_that_make_no_sense_are_refused(tmp_path: Path, women: int, long_side: int) -> None:
    with pytest.raises(UserError, match="at least"):
        write_phantoms(tmp_path / "data", women=women, long_side=long_side)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def fail_later(*arguments: object) -> object:
        drawn.append(arguments)
        if len(drawn) == 3:
            raise OSError("disk full")
        return draw_view(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(draw, "draw_view", fail_later)
    with pytest.raises(OSError, match="disk full"):
        write_phantoms(tmp_path / "data", women=1, workers=1, long_side=128)
    assert list(tmp_path.iterdir()) == []


# No shortcut to the label


@given(seed=st.integers(0, 2**20))
@settings(max_examples=5)
def test_nothing_in_the_table_gives_the_cancer_away(seed: int) -> None:
    """Whoever reads only the metadata learns next to nothing about who has cancer."""
    women = plan_women(60, seed)
    cancer = np.array([any(breast.cancer for breast in woman.breasts) for woman in women])
    assert cancer.sum() == 30
    ages = np.array([woman.age for woman in women])
    assert abs(ages[cancer].mean() - ages[~cancer].mean()) < 1
    facts = {
        "machine": [woman.machine.machine_id for woman in women],
        "density": [woman.density for woman in women],
        "implant": [woman.implant for woman in women],
    }
    for values in facts.values():
        shares = pd.crosstab(np.array(values), cancer, normalize="columns")
        assert (shares[True] - shares[False]).abs().max() <= 0.08
    # Both sides, both kinds, and an order of ids that says nothing.
    lefts = [woman.breasts[0].cancer for woman in women]
    assert sum(lefts) == 15
    halves = cancer[:30].sum(), cancer[30:].sum()
    assert min(halves) >= 3


def test_cancerous_breasts_have_as_many_benign_findings_as_others() -> None:
    counts: dict[bool, list[int]] = {False: [], True: []}
    for seed in range(4):
        for woman in plan_women(60, seed):
            for breast in woman.breasts:
                benign = [
                    x for x in breast.lesions if not x.kind.startswith(("look", *CANCER_KINDS))
                ]
                counts[breast.cancer].append(len(benign))
    assert abs(np.mean(counts[True]) - np.mean(counts[False])) < 0.3


@given(st.lists(st.floats(0.05, 1), min_size=1, max_size=6), st.integers(0, 200))
def test_dealing_keeps_to_the_shares(weights: list[float], count: int) -> None:
    shares = [(index, weight / sum(weights)) for index, weight in enumerate(weights)]
    dealt = deal(generator(1), shares, count)
    assert len(dealt) == count
    for index, share in shares:
        assert abs(dealt.count(index) - share * count) <= 1 + 1e-6


# What is drawn


def test_a_cancer_changes_its_box_and_little_else() -> None:
    """The same breast with and without it: what lesions.csv frames is the cancer."""
    women = plan_women(12, 3)
    seen = 0
    for woman in women:
        for breast in woman.breasts:
            if not breast.cancer:
                continue
            healthy = replace(
                breast, lesions=tuple(x for x in breast.lesions if x.kind not in CANCER_KINDS)
            )
            for view in ("CC", "MLO"):
                with_it = draw_view(woman, breast, view, 512)
                without = draw_view(woman, healthy, view, 512)
                [(_, box)] = [x for x in with_it.lesions if x[0] in CANCER_KINDS]
                change = np.abs(with_it.pixels.astype(int) - without.pixels.astype(int))
                rows = slice(int(box.y1), int(box.y2))
                columns = slice(int(box.x1), int(box.x2))
                inside = change[rows, columns]
                assert inside.max() > 0.05 * woman.machine.gain
                assert inside.sum() > 0.7 * change.sum()
                seen += 1
    assert seen == 12


shapes = st.builds(
    Shape,
    depth=st.floats(78, 124),
    half_width=st.floats(74, 106),
    skew=st.floats(-1.2, 1.2),
    sag=st.floats(-0.1, 1.1),
    pectoral_top=st.floats(40, 66),
    pectoral_foot=st.floats(90, 160),
)


@given(shapes, st.sampled_from(["CC", "MLO"]))
@settings(max_examples=40)
def test_a_silhouette_is_a_breast(shape: Shape, view: str) -> None:
    seen = outline_breast(shape, view)
    x, y = seen.nipple
    assert depth_under_skin(seen.outline, x, y) == pytest.approx(0, abs=0.01)
    assert x == pytest.approx(shape.depth, rel=0.12)
    assert x == pytest.approx(max(px for px, _ in seen.outline), abs=4)
    assert depth_under_skin(seen.outline, x - 30, y) > 15
    assert depth_under_skin(seen.outline, x + 1, y) < 0
    assert 0 < y < 240
    # It does not reach the edge away from the chest wall of any machine's field.
    assert max(px for px, _ in seen.outline) < 0.75 * 240


@given(st.integers(0, 2**20))
@settings(max_examples=10)
def test_lesions_lie_inside_the_breast_at_the_same_depth_in_both_views(seed: int) -> None:
    for woman in plan_women(3, seed):
        for breast in woman.breasts:
            for lesion in breast.lesions:
                if lesion.kind == "lymph_node":
                    continue
                for view in ("CC", "MLO"):
                    seen = outline_breast(breast.shape, view)
                    x, y = project(lesion.position, seen)
                    assert depth_under_skin(seen.outline, x, y) > 8
                    (nx, ny), (ax, ay) = seen.nipple, seen.axis
                    behind = (x - nx) * ax + (y - ny) * ay
                    assert behind == pytest.approx(lesion.position.depth, abs=1e-6)


def test_the_denser_the_category_the_more_gland() -> None:
    woman = plan_women(6, 4)[0]
    woman = replace(woman, implant=False)
    breast = replace(woman.breasts[0], lesions=())
    means = []
    for density in "ABCD":
        drawn = draw_view(replace(woman, density=density), breast, "CC", 256)
        light = drawn.pixels.astype(int)
        means.append((4095 - light if woman.machine.inverted else light).mean())
    assert means == sorted(means)
    assert means[3] > 1.1 * means[0]


def test_the_input_example_is_a_small_readable_mammogram() -> None:
    content = draw_phantom_dicom(seed=0)
    assert len(content) < 400_000
    assert content == draw_phantom_dicom(seed=0)
    assert content != draw_phantom_dicom(seed=1)
    mammogram = read_mammogram(content, 1024)
    assert mammogram.description.transfer_syntax == TransferSyntax.JPEG_2000
    assert max(mammogram.pixels.shape) >= 384
    assert pydicom.dcmread(io.BytesIO(content)).Modality == "MG"


# The exact building blocks


@given(st.floats(-3, 3))
def test_turn_is_cosine_and_sine(fraction: float) -> None:
    cosine, sine = turn(fraction)
    assert cosine == pytest.approx(math.cos(2 * math.pi * fraction), abs=1e-6)
    assert sine == pytest.approx(math.sin(2 * math.pi * fraction), abs=1e-6)


def test_fake_angle_grows_with_the_angle() -> None:
    angles = np.linspace(-np.pi / 2 + 0.01, 3 * np.pi / 2 - 0.01, 200)
    fakes = fake_angle(np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32))
    assert (np.diff(fakes) > 0).all()


def test_doubling_keeps_a_plane_flat_and_a_slope_straight() -> None:
    flat = np.full((5, 7), 0.25, np.float32)
    np.testing.assert_array_equal(double(flat), np.full((10, 14), 0.25, np.float32))
    slope = np.tile(np.arange(16, dtype=np.float32), (4, 1))
    np.testing.assert_array_equal(np.diff(double(slope)[0])[2:-2], 0.5)


def test_a_tile_goes_on_at_its_other_edge() -> None:
    tile = tile_noise(generator(3), 64, 8, 2, 0.6)
    y, x = np.meshgrid(np.arange(64, dtype=np.float32), np.arange(64, dtype=np.float32))
    np.testing.assert_array_equal(look_up(tile, y, x), look_up(tile, y + 64, x - 128))
    steps = np.abs(np.diff(np.vstack([tile, tile[:1]]), axis=0))
    assert steps[-1].max() <= 1.5 * steps[:-1].max()  # no seam


def test_bell_noise_has_unit_variance() -> None:
    noise = bell_noise(generator(9), (300, 300))
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)
