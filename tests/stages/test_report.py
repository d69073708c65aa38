"""The report: one page that holds everything, needs nothing, and has the same bytes each time."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from mammo.base.errors import UserError
from mammo.base.settings import Params, load_params
from stages.report import NO_STAGES, flatten, name_scores, number, run

TEMPLATE = Path("stages/report.html.j2")
SCORES = list(name_scores(load_params()))


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params()


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the other stages would have written."""
    folder = tmp_path_factory.mktemp("report") / "outputs"
    generator = np.random.default_rng(5)
    _write_tables(folder, generator)
    _write_metrics(folder)
    _write_pictures(folder, generator)
    return folder


def _write(path: Path, table: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


def _write_tables(folder: Path, generator: np.random.Generator) -> None:
    rejects = pd.DataFrame(
        {
            "patient_id": ["1", "2", "3"],
            "image_id": ["7", "8", "9"],
            "reason": ["b", "a<b>", "a<b>"],
        }
    )
    _write(folder / "preprocess/rejects.csv", rejects)
    epochs = np.arange(1, 9)
    curves = pd.DataFrame(
        {"epoch": epochs, "train_loss": 1 / epochs, "validation_map50": epochs / 9}
    )
    _write(folder / "train_detector/curves.csv", curves)
    history = pd.DataFrame(
        {
            "epoch": epochs,
            "train_loss": 2 / epochs,
            "validation_loss": 2.1 / epochs,
            "validation_auroc": epochs / 10,
            "learning_rate": 0.1 / epochs,
        }
    )
    _write(folder / "train_classifier/history.csv", history)
    trials = pd.DataFrame(
        {"trial": [0, 1], "value": [0.6123, 0.7234], "state": ["COMPLETE", "PRUNED"]}
    )
    _write(folder / "tune_classifier/trials.csv", trials)
    rate = np.linspace(0, 1, 20)
    roc = pd.DataFrame({"fpr": rate, "tpr": np.sqrt(rate), "threshold": [np.nan, *rate[:0:-1]]})
    _write(folder / "evaluate/roc.csv", roc)
    curve = pd.DataFrame({"recall": 1 - rate, "precision": 0.2 + 0.8 * rate, "threshold": rate})
    _write(folder / "evaluate/precision_recall.csv", curve)
    actual = np.where(generator.random(36) < 0.3, "positive", "negative")
    predicted = np.where(generator.random(36) < 0.3, "positive", "negative")
    confusion = pd.DataFrame({"actual": actual, "predicted": predicted})
    _write(folder / "evaluate/confusion.csv", confusion)
    kinds = ("true_positive", "false_positive", "missed_cancer")
    gallery = pd.DataFrame(
        [
            {
                "kind": kind,
                "image": f"overlays/{kind}_{rank}.png",
                "plain": f"overlays/{kind}_{rank}_plain.png",
                "patient_id": f"00{rank}",
                "image_id": f"{kind}-{rank}",
                "laterality": "L",
                "view": "CC",
                "target": int(kind != "false_positive"),
                "probability": 0.5 + rank / 10,
                "hit": "" if kind == "false_positive" else rank % 2,
            }
            for kind in kinds
            for rank in (1, 2)
        ]
    )
    _write(folder / "explain/gallery.csv", gallery)


def _write_metrics(folder: Path) -> None:
    counter = iter(range(1, 1000))

    def score() -> dict[str, float]:
        return {name: 0.1 + next(counter) / 1000 for name in ("value", "low", "high")}

    counts = {"cases": 36, "positives": 9, "women": 18, "resamples_skipped": 2}
    split = {
        level: {**{name: score() for name in SCORES}, **counts} for level in ("breast", "image")
    }
    origin = {"auroc": 0.711, "auprc_trapezoid": 0.611, "f2_at_half": 0.511}
    metrics = {name: {**split, "origin": origin} for name in ("test", "validation")}
    metrics["validation"] = {**metrics["validation"], "image": {**split["image"]}}
    game = {"images": 40, "hits": 21, "hit_rate": 0.525, "chance_rate": 0.043}
    documents = {
        "evaluate": {**metrics, "threshold": {"breast": 0.321, "image": 0.234}},
        "explain": {"pointing_game": {"all": game, "called_positive": {"images": 0, "hits": 0}}},
        "preprocess": {"images": 120, "rejects": 3},
        "split": {"evaluate": counts_of(100), "classifier": counts_of(200)},
        "train_detector": {"map50": 0.987, "labels": "breast_boxes.csv"},
        "crop_rois": {"found_by": {"detector": 117, "mask": 3}, "mean_confidence": None},
        "train_classifier": {"best_epoch": 6, "validation_auroc": 0.8765},
    }
    for stage, document in documents.items():
        (folder / stage).mkdir(parents=True, exist_ok=True)
        (folder / stage / "metrics.json").write_text(json.dumps(document))
    best = {"head_width": 128, "dropout": 0.2345, "learning_rate": 0.00123}
    (folder / "tune_classifier/best_params.json").write_text(json.dumps(best))


def counts_of(start: int) -> dict[str, dict[str, int]]:
    """A table like the split stage's."""
    columns = ("women", "positive_women", "breasts", "positive_breasts")
    return {
        split: {name: start + 10 * row + column for column, name in enumerate(columns)}
        for row, split in enumerate(("train", "validation", "test"))
    }


def _write_pictures(folder: Path, generator: np.random.Generator) -> None:
    (folder / "explain/overlays").mkdir()
    gallery = pd.read_csv(folder / "explain/gallery.csv")
    for column in ("image", "plain"):
        for name in gallery[column]:
            picture = generator.integers(0, 255, (64, 40, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / "explain" / name), picture)
    cv2.imwrite(str(folder / "train_detector/preview.png"), np.zeros((40, 80, 3), np.uint8))


@pytest.fixture(scope="module")
def page(params: Params, outputs: Path) -> str:
    run(params, outputs, TEMPLATE, outputs.parent / "out")
    return (outputs.parent / "out/index.html").read_text(encoding="utf-8")


@pytest.fixture
def changed(outputs: Path, tmp_path: Path) -> Path:
    """A copy to do harm to."""
    return Path(shutil.copytree(outputs, tmp_path / "outputs"))


def test_same_outputs_same_bytes(params: Params, outputs: Path, page: str, tmp_path: Path) -> None:
    run(params, outputs, TEMPLATE, tmp_path / "again")
    assert (tmp_path / "again/index.html").read_text(encoding="utf-8") == page


def test_the_page_needs_nothing_beside_it(page: str, outputs: Path) -> None:
    assert not re.search(r"https?:|file:|//[a-z]|<script|<link|@import|@font-face", _no_data(page))
    for address in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert address.startswith(("data:image/png;base64,", "#")), address[:80]
    for address in re.findall(r"url\(([^)]*)\)", page):
        assert address.startswith("#"), address
    assert str(outputs.parent) not in page


def _no_data(page: str) -> str:
    return re.sub(r'"data:image/png;base64,[^"]*"', '""', page)


def test_every_score_is_shown_with_its_interval(page: str, outputs: Path) -> None:
    metrics = json.loads((outputs / "evaluate/metrics.json").read_text())
    text = _text(page)
    for split in ("test", "validation"):
        for level in ("breast", "image"):
            for name in SCORES:
                score = metrics[split][level][name]
                shown = f"{score['value']:.3f} {score['low']:.3f} – {score['high']:.3f}"  # noqa: RUF001
                assert shown in text, (split, level, name)


def test_every_metric_of_the_stages_is_shown(page: str, outputs: Path) -> None:
    text = _text(page)
    for stage in ("preprocess", "train_detector", "crop_rois", "train_classifier"):
        for name, value in flatten(
            json.loads((outputs / stage / "metrics.json").read_text())
        ).items():
            assert f"{name.replace('_', ' ')} {number(value)}" in text, (stage, name)
    for figure in ("0.781", "0.220", "0.309", "0.711", "0.611", "0.511"):  # the origin's, ours
        assert figure in text
    for value in ("128", "0.234", "0.0012", "0.612", "0.723", "PRUNED"):  # tuning
        assert value in text
    assert "in 21 (52&nbsp;%)" in text
    assert "4.3&nbsp;%" in text


def test_counts_of_splits_rejects_and_confusion(page: str, outputs: Path) -> None:
    text = _text(page)
    assert "women positive women breasts positive breasts" in text
    assert "train 100 101 102 103 validation 110 111 112 113 test 120 121 122 123" in text
    assert "train 200 201" not in text  # the classifier learnt the same target
    assert "a<b> 2 b 1" in text  # escaped in the page, the frequent reason first
    confusion = pd.read_csv(outputs / "evaluate/confusion.csv")
    for actual, predicted, name in (
        ("positive", "positive", "found"),
        ("positive", "negative", "missed"),
        ("negative", "positive", "false alarms"),
        ("negative", "negative", "cleared"),
    ):
        count = ((confusion["actual"] == actual) & (confusion["predicted"] == predicted)).sum()
        assert f"{count} {name}" in text


def test_another_training_target_has_its_own_counts(
    params: Params, outputs: Path, tmp_path: Path
) -> None:
    classifier = params.classifier.model_copy(update={"target": ["cancer", "biopsy"]})
    other = params.model_copy(update={"classifier": classifier})
    run(other, outputs, TEMPLATE, tmp_path / "out")
    text = _text((tmp_path / "out/index.html").read_text(encoding="utf-8"))
    assert "cancer or biopsy women" in text
    assert "train 200 201 202 203" in text


def test_every_picture_of_the_gallery_is_inside_with_its_caption(page: str, outputs: Path) -> None:
    assert page.count("data:image/png;base64,") == 2 * 6 + 1
    text = _text(page)
    assert "woman 001, image true_positive-1, L CC · the heat hits the lesion" in text
    assert "woman 002, image missed_cancer-2, L CC · the heat misses the lesion" in text
    assert "image false_positive-1, L CC 0.700" in text  # no game, no verdict


def test_every_setting_is_shown_that_a_stage_depends_on(page: str, params: Params) -> None:
    text = _text(page)
    assert "prediction pool" not in text
    for name in flatten(params.model_dump(exclude=NO_STAGES)):
        assert name.split(", ")[-1].replace("_", " ") in text


def test_an_empty_gallery_and_no_game_are_said(
    params: Params, changed: Path, tmp_path: Path
) -> None:
    gallery = pd.read_csv(changed / "explain/gallery.csv").head(0)
    gallery.to_csv(changed / "explain/gallery.csv", index=False)
    nothing = {"images": 0, "hits": 0}
    document = {"pointing_game": {"all": nothing, "called_positive": nothing}}
    (changed / "explain/metrics.json").write_text(json.dumps(document))
    run(params, changed, TEMPLATE, tmp_path / "out")
    text = _text((tmp_path / "out/index.html").read_text(encoding="utf-8"))
    assert text.count("None.") == 3
    assert "No test image has marked malignant lesions" in text


@pytest.mark.parametrize(
    "name", ["evaluate/roc.csv", "train_detector/preview.png", "explain/metrics.json"]
)
def test_a_missing_file_is_named_with_its_stage(
    params: Params, changed: Path, tmp_path: Path, name: str
) -> None:
    (changed / name).unlink()
    with pytest.raises(UserError, match=f"{name}: cannot be read .*{name.split('/')[0]}"):
        run(params, changed, TEMPLATE, tmp_path / "out")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),  # noqa: RUF001
        (float("nan"), "–"),  # noqa: RUF001
        (0, "0"),
        (12345, "12\u202f345"),
        (3.0, "3"),
        (0.98765, "0.988"),
        (0.00123, "0.0012"),
        (True, "True"),
        ("detector", "detector"),
    ],
)
def test_a_number_is_written_in_few_digits(value: object, text: str) -> None:
    assert number(value) == text


def _text(page: str) -> str:
    """What a reader sees, on one line."""
    body = re.sub(r"(?s)<style.*?</style>|<svg.*?</svg>|<[^>]*>", " ", page)
    body = body.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return re.sub(r"[ \n]+", " ", body)
