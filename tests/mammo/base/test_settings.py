"""A slip in a file of settings is named by its key; what may be left out has a default."""

from pathlib import Path

import pytest

from mammo.base.errors import UserError
from mammo.base.settings import load_params, parse_params
from tests.imports import ROOT
from tests.support.spoil import Change, spoil


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
