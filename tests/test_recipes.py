"""params.yaml, plan.yaml and every recipe are whole and right."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from mammo.assurance.plan import load_plan
from mammo.base.settings import load_params
from tests.imports import ROOT

RECIPES = [ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))]


PLANS = [ROOT / "plan.yaml", *sorted((ROOT / "recipes" / "plans").glob("*.yaml"))]


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.name)
def test_a_plan_is_whole_and_permits_every_change_until_somebody_wants_less(path: Path) -> None:
    assert load_plan(path).changes.permit_everything


def test_every_recipe_has_a_plan_which_comes_into_use_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {path.name for path in PLANS[1:]} == {path.name for path in RECIPES[1:]}
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_text("")
    recipe = ROOT / "recipes" / "rsna.yaml"
    assert CliRunner().invoke(app, ["params", "use", str(recipe)]).exit_code == 0
    assert (tmp_path / "params.yaml").read_text() == recipe.read_text()
    assert (tmp_path / "plan.yaml").read_text() == (recipe.parent / "plans/rsna.yaml").read_text()
    assert CliRunner().invoke(app, ["params", "check", "plan.yaml"]).exit_code == 0


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_whole_and_right(path: Path) -> None:
    load_params(path)


def test_the_recipes_of_the_origin_of_rsna_and_of_mini_mias_are_there() -> None:
    assert {path.stem for path in RECIPES} >= {"origin", "rsna", "mini-mias"}


def test_the_origin_is_what_the_notebooks_did() -> None:
    origin = load_params(ROOT / "recipes" / "origin.yaml")
    assert (origin.detector.image_size, origin.detector.epochs) == (1024, 50)
    assert origin.classifier.backbone == "resnet50"
    assert (origin.classifier.image_height, origin.classifier.image_width) == (1024, 1024)
    assert (origin.classifier.trainable_layers, origin.classifier.freeze_batch_norm) == (45, True)
    assert origin.classifier.target == ["cancer", "biopsy", "difficult_negative_case"]
    assert (origin.classifier.balance, origin.classifier.balance_factor) == ("upsample", 8)
    assert (origin.tune.trials, origin.tune.epochs) == (4, 3)
    assert (origin.classifier.batch_size, origin.classifier.patience) == (32, 1)
    assert (origin.evaluate.aggregate, origin.evaluate.beta) == ("max", 2)
