"""Put everything that the other stages found on one page.

    python -m stages.report

index.html needs nothing beside it: pictures are inside, curves are inline SVG, no script, no font
and no address. It reads on a screen and prints on A4.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from mammo.base.atomic_files import fresh_folder, read_json, write_text
from mammo.base.errors import UserError
from mammo.base.progress import say
from mammo.base.settings import Params, load_params
from mammo.data.reading import read_table
from mammo.data.tables import REJECTS
from mammo.reporting import figures
from stages.runner import run_stage

OUTPUTS = Path("outputs")  # of all stages
TEMPLATE = Path("stages/report.html.j2")
OUT = Path("outputs/report")

# The origin's published results, on RSNA 2023: another collection than the one that is reported on.
ORIGIN = {"auroc": 0.781, "auprc_trapezoid": 0.220, "f2_at_half": 0.309}
ORIGIN_NAMES = {
    "auroc": "auROC",
    "auprc_trapezoid": "auPR, trapezoidal",
    "f2_at_half": "F2 at 0.5",
}
NO_STAGES = {"prediction_pool", "audit"}  # settings on which no stage depends
HEAT_NAMES = {"grad_cam": "Grad-CAM", "layer_cam": "LayerCAM"}
GALLERY = {
    "true_positive": "Cancers found, the surest first",
    "false_positive": "False alarms, the surest first",
    "missed_cancer": "Cancers missed, the most confidently missed first",
}


def run(params: Params, outputs: Path, template: Path, out: Path) -> None:
    """Gather, render, write.

    Raises:
        UserError: naming a file that another stage should have written.
    """
    metrics = _json(outputs / "evaluate/metrics.json")
    history = _csv(outputs / "train_classifier/history.csv")
    curves = _csv(outputs / "train_detector/curves.csv")
    content = {
        "metrics": metrics,
        "score_names": name_scores(params),
        "origin": ORIGIN,
        "origin_names": ORIGIN_NAMES,
        "roc": _roc(outputs, metrics),
        "precision_recall": _precision_recall(outputs, metrics),
        "confusion": _confusion(outputs),
        "data": _json(outputs / "split/metrics.json"),
        "rejects": _rejects(outputs),
        "detector_curves": _history(curves),
        "detector_preview": _embed(outputs / "train_detector/preview.png"),
        "classifier_curves": _history(history),
        "trials": _csv(outputs / "tune_classifier/trials.csv"),
        "best_params": _json(outputs / "tune_classifier/best_params.json"),
        "gallery": _gallery(outputs),
        "gallery_titles": GALLERY,
        "heat_name": HEAT_NAMES[params.explain.method],
        "game": _json(outputs / "explain/metrics.json")["pointing_game"],
        "params": params.model_dump(mode="json", exclude=NO_STAGES),
        **{
            f"{stage}_metrics": flatten(_json(outputs / stage / "metrics.json"))
            for stage in ("preprocess", "train_detector", "crop_rois", "train_classifier")
        },
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    environment.filters["words"] = lambda name: str(name).replace("_", " ")
    try:
        page = environment.from_string(template.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{template}: cannot be read: {error.strerror}") from None
    write_text(out / "index.html", page.render(content))
    say(f"report: the page is {OUT / 'index.html'}, to be opened in a browser")


def name_scores(params: Params) -> dict[str, str]:
    """What the scores are called on the page, by their key in metrics.json."""
    beta = f"F{params.evaluate.beta:g}"
    return {
        "auroc": "auROC",
        "average_precision": "Average precision",
        "sensitivity_at_90_specificity": "Sensitivity at 90 % specificity",
        "f_beta": f"{beta} at the chosen threshold",
        "sensitivity": "Sensitivity at the chosen threshold",
        "specificity": "Specificity at the chosen threshold",
        "precision": "Precision at the chosen threshold",
        "f_beta_at_half": f"{beta} at 0.5",
        "brier": "Brier score (0 is best)",
        "calibration_error": "Calibration error (0 is best)",
    }


def number(value: object) -> str:
    """A value for people: three significant digits, thousands apart, a dash for none."""
    if value is None or value != value:
        return "–"  # noqa: RUF001
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if (float(value).is_integer() and abs(value) >= 1) or value == 0:
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.2g}"


def flatten(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Leaves of nested objects by their path, such as {"found by, mask": 3}."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{above}, {key}" if above else str(key)
        leaves |= flatten(value, name) if isinstance(value, Mapping) else {name: value}
    return leaves


def _roc(outputs: Path, metrics: dict[str, Any]) -> Markup:
    table, scores = _csv(outputs / "evaluate/roc.csv"), metrics["test"]["breast"]
    at = figures.Point(
        1 - scores["specificity"]["value"], scores["sensitivity"]["value"], "chosen threshold"
    )
    return Markup(  # noqa: S704  (our own SVG)
        figures.draw_unit_curve(
            table["fpr"].tolist(),
            table["tpr"].tolist(),
            False,
            ("1 - specificity", "sensitivity"),
            ((0, 0), (1, 1)),
            at,
        )
    )


def _precision_recall(outputs: Path, metrics: dict[str, Any]) -> Markup:
    table, scores = _csv(outputs / "evaluate/precision_recall.csv"), metrics["test"]["breast"]
    at = figures.Point(
        scores["sensitivity"]["value"], scores["precision"]["value"], "chosen threshold"
    )
    # Its end, precision 1 at recall 0, is scikit-learn's convention: nothing was measured there.
    precision = table["precision"].where(table["threshold"].notna()).ffill()
    rate = scores["positives"] / scores["cases"]
    return Markup(  # noqa: S704  (our own SVG)
        figures.draw_unit_curve(
            table["recall"].tolist(),
            precision.tolist(),
            True,
            ("recall (sensitivity)", "precision"),
            ((0, rate), (1, rate)),
            at,
        )
    )


def _history(table: pd.DataFrame) -> Markup:
    """Losses in one panel, scores in the other; a learning rate is neither."""
    panels: dict[str, dict[str, list[float]]] = {"loss": {}, "score": {}}
    for name in table.columns:
        if name == "epoch" or "rate" in name or not pd.api.types.is_numeric_dtype(table[name]):
            continue
        panels["loss" if "loss" in name else "score"][name.replace("_", " ")] = table[name].tolist()
    shown = {label: curves for label, curves in panels.items() if curves}
    return Markup(figures.draw_history(shown, table["epoch"].tolist()))  # noqa: S704  (our own SVG)


def _confusion(outputs: Path) -> dict[str, dict[str, int]]:
    """Test breasts by what they are, then by what they were called."""
    table = _csv(outputs / "evaluate/confusion.csv")
    kinds = ("positive", "negative")
    return {
        actual: {
            called: int(((table["actual"] == actual) & (table["predicted"] == called)).sum())
            for called in kinds
        }
        for actual in kinds
    }


def _rejects(outputs: Path) -> dict[str, int]:
    """How many images each reason kept out, the most frequent first."""
    reasons = read_table(outputs / "preprocess/rejects.csv", REJECTS)["reason"]
    counts = reasons.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return {str(reason): int(count) for reason, count in counts.items()}


def _gallery(outputs: Path) -> dict[str, list[dict[Any, Any]]]:
    """The pictures of each kind, embedded."""
    text = {"patient_id": str, "image_id": str, "view": str}
    table = _csv(outputs / "explain/gallery.csv", dtype=text)
    cards: dict[str, list[dict[Any, Any]]] = {kind: [] for kind in GALLERY}
    for row in table.to_dict("records"):
        pictures = {name: _embed(outputs / "explain" / row[name]) for name in ("image", "plain")}
        hit = None if pd.isna(row["hit"]) else bool(row["hit"])
        cards[row["kind"]].append(row | pictures | {"hit": hit})
    return cards


def _embed(path: Path) -> str:
    """A PNG as a data address."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _explain_missing(path, error) from None
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _csv(path: Path, dtype: Mapping[str, type] | None = None) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=dtype)
    except (OSError, pd.errors.EmptyDataError) as error:
        raise _explain_missing(path, error) from None


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise _explain_missing(path, error) from None


def _explain_missing(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be read ({error}); run the stage {path.parent.name} again")


def main() -> None:
    """Run the stage on the project's folders."""
    params = load_params()
    with fresh_folder(OUT) as out:
        run(params, OUTPUTS, TEMPLATE, out)


if __name__ == "__main__":
    run_stage(main)
