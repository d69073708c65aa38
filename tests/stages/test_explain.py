"""The stage explain: which images it shows, what it counts, and where it puts the lesions."""

import json
import shutil
from pathlib import Path

import cv2
import pandas as pd
import pytest

from mammo.base.settings import Params
from mammo.data.reading import read_table
from mammo.data.tables import ROIS
from mammo.imaging.geometry import Box
from stages.explain import PICTURE_HEIGHT, choose_gallery, find_lesions, run
from tests.support.tiny_outputs import HEIGHT, MARGIN, WIDTH, tiny_params, write_tiny_outputs

KINDS = ["mass", "calcifications"]


@pytest.fixture(scope="module")
def params() -> Params:
    return tiny_params()


@pytest.fixture(scope="module")
def outputs(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight test women, 016 to 023; 016 and 020 have cancer at the left, 020's was missed."""
    folder = tmp_path_factory.mktemp("explain")
    images = write_tiny_outputs(params, folder)
    probabilities = {"016L": 0.9, "017R": 0.8, "018L": 0.7, "019L": 0.95, "020L": 0.2}
    images["probability"] = [
        probabilities.get(image_id[:4], 0.1) - 0.01 * (image_id[4:] == "CC")
        for image_id in images["image_id"]
    ]
    columns = ["patient_id", "image_id", "laterality", "view", "split", "target", "probability"]
    images = images.loc[images["split"] != "train", columns]
    breasts = images.groupby(["patient_id", "laterality"], as_index=False)[
        ["split", "target", "probability"]
    ].max()
    (folder / "evaluate").mkdir()
    images.to_csv(folder / "evaluate/predictions.csv", index=False)
    breasts.to_csv(folder / "evaluate/breasts.csv", index=False)
    metrics = {"threshold": {"breast": 0.5, "image": 0.5}}
    (folder / "evaluate/metrics.json").write_text(json.dumps(metrics))
    explain(params, folder, folder / "explain")
    return folder


@pytest.fixture
def changed(outputs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(outputs, tmp_path / "changed"))


def explain(params: Params, outputs: Path, out: Path) -> None:
    run(
        params,
        preprocessed=outputs / "preprocess",
        crops=outputs / "crop_rois",
        evaluation=outputs / "evaluate",
        classifier=outputs / "train_classifier",
        out=out,
    )


def stored(box: Box) -> dict[str, float]:
    """A box in pixels of the ROI as lesions.csv has it: the image is mirrored and halved."""
    box = box.shift(MARGIN, MARGIN)
    width = 2 * (WIDTH + 2 * MARGIN)
    return {"x1": width - 2 * box.x2, "y1": 2 * box.y1, "x2": width - 2 * box.x1, "y2": 2 * box.y2}


def write_lesions(outputs: Path, lesions: list[tuple[str, Box, str]]) -> None:
    rows = [{"image_id": name, **stored(box), "kind": kind} for name, box, kind in lesions]
    pd.DataFrame(rows).to_csv(outputs / "preprocess/lesions.csv", index=False)


def gallery(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "gallery.csv", dtype={"patient_id": str, "image_id": str})


def test_gallery_shows_the_surest_of_each_kind_by_their_most_suspicious_view(outputs: Path) -> None:
    table = gallery(outputs / "explain")
    assert table[["kind", "image_id"]].to_numpy().tolist() == [
        ["true_positive", "016LMLO"],
        ["false_positive", "019LMLO"],
        ["false_positive", "017RMLO"],  # 018L is less sure, and two are asked for
        ["missed_cancer", "020LMLO"],
    ]
    assert table["hit"].isna().all()  # no lesions are known
    assert table["probability"].tolist() == [0.9, 0.95, 0.8, 0.2]


def test_pictures_are_written_and_of_equal_height(outputs: Path) -> None:
    table = gallery(outputs / "explain")
    for row in table.to_dict("records"):
        plain = cv2.imread(str(outputs / "explain" / row["plain"]), cv2.IMREAD_UNCHANGED)
        shown = cv2.imread(str(outputs / "explain" / row["image"]), cv2.IMREAD_UNCHANGED)
        assert plain is not None
        assert shown is not None
        assert plain.shape == (PICTURE_HEIGHT, WIDTH * PICTURE_HEIGHT // HEIGHT)
        assert shown.shape == (*plain.shape, 3)
    files = sorted(path.name for path in (outputs / "explain/overlays").iterdir())
    assert files == sorted(Path(name).name for name in [*table["image"], *table["plain"]])


def test_same_inputs_same_bytes(params: Params, outputs: Path, tmp_path: Path) -> None:
    explain(params, outputs, tmp_path / "again")
    written = [path for path in (outputs / "explain").rglob("*") if path.is_file()]
    assert len(written) == 8 + 2
    for path in written:
        again = tmp_path / "again" / path.relative_to(outputs / "explain")
        assert again.read_bytes() == path.read_bytes(), path.name


def test_the_method_of_the_settings_is_the_one_that_draws(
    params: Params, outputs: Path, tmp_path: Path
) -> None:
    other = params.explain.model_copy(update={"method": "layer_cam"})
    explain(params.model_copy(update={"explain": other}), outputs, tmp_path / "other")
    name = "overlays/true_positive_01.png"
    by_default = (outputs / "explain" / name).read_bytes()
    assert (tmp_path / "other" / name).read_bytes() != by_default
    plain = "overlays/true_positive_01_plain.png"
    assert (tmp_path / "other" / plain).read_bytes() == (outputs / "explain" / plain).read_bytes()


def test_without_lesions_there_is_no_game(outputs: Path) -> None:
    metrics = json.loads((outputs / "explain/metrics.json").read_text())
    assert metrics["pictures"] == {"true_positive": 1, "false_positive": 2, "missed_cancer": 1}
    nothing = {"images": 0, "hits": 0}
    assert metrics["pointing_game"] == {"all": nothing, "called_positive": nothing}


def test_pointing_game_counts_cancers_with_malignant_lesions(params: Params, changed: Path) -> None:
    everywhere = Box(0, 0, WIDTH, HEIGHT)
    outside = Box(-MARGIN, -MARGIN, -MARGIN + 2, -MARGIN + 2)  # cut away by the ROI
    lesions = [
        ("016LCC", everywhere, "mass"),
        ("016LMLO", everywhere, "benign_mass"),  # not what makes it a cancer
        ("020LMLO", outside, "calcifications"),  # cannot be hit
        ("019LMLO", everywhere, "mass"),  # not a cancer, whatever the table says
        ("000LCC", everywhere, "mass"),  # a training woman
        ("unknown", everywhere, "mass"),  # a rejected image
    ]
    write_lesions(changed, lesions)
    explain(params, changed, changed / "out")
    game = json.loads((changed / "out/metrics.json").read_text())["pointing_game"]
    assert game["all"]["images"] == 2
    assert game["all"]["hits"] == 1
    assert game["all"]["hit_rate"] == 0.5
    assert game["all"]["chance_rate"] == 0.5
    # 020's cancer was missed, so only 016's image was called positive.
    expected = {"images": 1, "hits": 1, "hit_rate": 1.0, "chance_rate": 1.0}
    assert game["called_positive"] == expected
    hit = gallery(changed / "out").set_index("image_id")["hit"]
    assert hit["020LMLO"] == 0
    assert hit.drop("020LMLO").isna().all()


def test_lesions_come_from_stored_pixels_into_the_rois(changed: Path) -> None:
    inside, across = Box(5, 8, 12, 20), Box(-4, 50, 6, 80)
    lesions = [("016LCC", inside, "mass"), ("016LCC", across, "mass"), ("017LCC", inside, "cyst")]
    write_lesions(changed, lesions)
    rois = read_table(changed / "crop_rois/rois.csv", ROIS)
    found = find_lesions(changed / "preprocess", KINDS, rois)
    assert found == {"016LCC": [inside, Box(0, 50, 6, HEIGHT)]}


def test_a_cancer_found_in_one_view_is_not_missed() -> None:
    rows = [
        ("a", "1", "CC", 0.1),
        ("a", "2", "MLO", 0.8),
        ("b", "3", "CC", 0.3),
        ("b", "4", "MLO", 0.3),
    ]
    images = pd.DataFrame(rows, columns=["patient_id", "image_id", "view", "probability"])
    images = images.assign(laterality="L", split="test", target=1)
    breasts = pd.DataFrame(
        {
            "patient_id": ["a", "b"],
            "laterality": "L",
            "split": "test",
            "target": 1,
            "probability": [0.8, 0.3],
        }
    )
    chosen = choose_gallery(images, breasts, 0.5, 4)
    assert chosen[["kind", "image_id"]].to_numpy().tolist() == [
        ["true_positive", "2"],
        ["missed_cancer", "3"],
    ]
