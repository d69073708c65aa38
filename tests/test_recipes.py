"""params.yaml, plan.yaml and every recipe are whole and right; a slip is named by its key."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from mammo.assurance.plan import load_plan
from mammo.base.errors import UserError
from mammo.base.settings import load_params, parse_params
from tests.imports import ROOT
from tests.support.spoil import Change, spoil

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


def spoiled(tmp_path: Path, change: Change) -> Path:
    return spoil(ROOT / "params.yaml", tmp_path / "recipe.yaml", change)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: c["detector"].update(epocks=3), "detector.epocks is not a known setting"),
        (lambda c: c.update(colour="red"), "colour is not a known setting"),
        (lambda c: c["crop"].pop("margin"), "crop.margin is missing"),
        (lambda c: c["split"].update(test=0.9), "nobody for training"),
        (lambda c: c["classifier"].update(dropout=1.5), "classifier.dropout = 1.5"),
        (lambda c: c["classifier"].update(target=["canser"]), "classifier.target.0 = 'canser'"),
        (lambda c: c["detector"].update(image_size=250), "detector.image_size = 250"),
        (lambda c: c["tune"]["space"].update(dropout=[0.5, 0.1]), "run from low to high"),
        (lambda c: c.update(seed=float("nan")), "seed"),
        (lambda c: c["classifier"].update(processes=3), "classifier: batch_size = 8 cannot be sh"),
        (lambda c: c["tune"].update(at_once=0), "tune.at_once = 0"),
        (lambda c: c.update(policy={}), "policy stands in plan.yaml now"),
    ],
)
def test_a_slip_is_named(tmp_path: Path, change: Change, complaint: str) -> None:
    path = spoiled(tmp_path, change)
    with pytest.raises(UserError, match=rf"recipe\.yaml.*{complaint}"):
        load_params(path)


def test_what_may_be_left_out_has_a_default_and_is_written_only_where_it_is_another(
    tmp_path: Path,
) -> None:
    whole = load_params(ROOT / "params.yaml")

    def leave_out(content: dict[str, dict[str, object]]) -> None:
        del content["classifier"]["processes"], content["tune"]["at_once"]
        del content["explain"]["method"]

    assert load_params(spoiled(tmp_path, leave_out)) == whole
    written = whole.model_dump(mode="json")
    assert "processes" not in written["classifier"]
    assert "at_once" not in written["tune"]
    assert "method" not in written["explain"]
    assert written["tune"]["epochs"] == whole.tune.epochs

    def change(content: dict[str, dict[str, object]]) -> None:
        content["classifier"]["processes"] = content["tune"]["at_once"] = 4
        content["explain"]["method"] = "layer_cam"

    written = load_params(spoiled(tmp_path, change)).model_dump(mode="json")
    assert written["classifier"]["processes"] == written["tune"]["at_once"] == 4
    assert written["explain"]["method"] == "layer_cam"


def test_the_settings_of_an_earlier_version_are_read_with_their_policy(tmp_path: Path) -> None:
    path = spoiled(tmp_path, lambda c: c.update(policy={"approve": "manual"}))
    now = load_params(ROOT / "params.yaml")
    assert load_params(path, registered=True) == parse_params(path.read_text()) == now
    path = spoiled(tmp_path, lambda c: c.update(policy={}, colour="red"))
    with pytest.raises(UserError, match="colour is not a known setting"):
        load_params(path, registered=True)


def test_every_slip_is_told_at_once(tmp_path: Path) -> None:
    def change(content: dict[str, dict[str, object]]) -> None:
        content["crop"]["margins"] = 1
        content["explain"].pop("images")

    with pytest.raises(UserError, match=r"crop\.margins.*explain\.images|explain.*crop"):
        load_params(spoiled(tmp_path, change))


def test_a_file_that_is_no_yaml_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"broken\.yaml: cannot be read as YAML"):
        load_params(tmp_path / "broken.yaml")
    with pytest.raises(UserError, match=r"absent\.yaml: there is no such file"):
        load_params(tmp_path / "absent.yaml")
