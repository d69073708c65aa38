"""The stage divides the women, counts them, and refuses a division that cannot be used."""

from pathlib import Path

import pandas as pd
import pytest

from mammo.base.atomic_files import read_json
from mammo.base.errors import UserError
from mammo.base.settings import Params, load_params
from mammo.data.reading import read_table
from mammo.data.tables import SPLIT
from stages import split
from tests.support.contents import contents
from tests.support.learnable import write_outputs

SHARES = {"validation": 0.3, "test": 0.3, "salt": "a"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    write_outputs(outputs, women=20)
    return outputs / "preprocess" / "manifest.csv"


def params(**changes: object) -> Params:
    base = load_params()
    return base.model_copy(update={"split": base.split.model_copy(update=SHARES | changes)})


def test_it_writes_the_split_and_the_counts(manifest: Path, tmp_path: Path) -> None:
    split.run(params(), manifest, tmp_path)
    table = read_table(tmp_path / "split.csv", SPLIT)
    assert len(table) == 20
    metrics = read_json(tmp_path / "metrics.json")
    assert set(metrics) == {"evaluate", "classifier"}
    women = table["split"].value_counts().to_dict()
    for counts in metrics.values():
        for name, row in counts.items():
            assert row == {
                "women": women[name],
                "positive_women": women[name],
                "breasts": 2 * women[name],
                "positive_breasts": women[name],
                "images": 4 * women[name],
                "positive_images": 2 * women[name],
            }


def test_row_order_changes_no_byte(manifest: Path, tmp_path: Path) -> None:
    split.run(params(), manifest, tmp_path / "one")
    shuffled = tmp_path / "manifest.csv"
    pd.read_csv(manifest, dtype=str).sample(frac=1, random_state=1).to_csv(shuffled, index=False)
    split.run(params(), shuffled, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_an_empty_split_is_refused(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="validation split holds no women"):
        split.run(params(validation=0.0), manifest, tmp_path)


@pytest.mark.parametrize("section", ["evaluate", "classifier"])
def test_either_target_must_occur(manifest: Path, tmp_path: Path, section: str) -> None:
    wanted = params()
    changed = getattr(wanted, section).model_copy(update={"target": ["invasive"]})
    with pytest.raises(UserError, match="no breast with invasive"):
        split.run(wanted.model_copy(update={section: changed}), manifest, tmp_path)


def test_a_missing_manifest_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params_file = Path("params.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(params_file)
    with pytest.raises(UserError, match=r"manifest\.csv: there is no such file"):
        split.main()
    assert not list(Path("outputs").iterdir())
