"""Which woman is in which split, and what counts as positive.

A woman's split follows from a hash of her id: it does not depend on who else is in the data, so it
stays when the data grow, and no woman is ever in two splits.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from mammo.base.errors import UserError
from mammo.base.settings import Split

SPLITS = ("train", "validation", "test")
BREAST = ["patient_id", "laterality"]


def hash_to_unit_interval(patient_id: str, salt: str) -> float:
    """A number in [0, 1), uniform over patients, that depends on nothing but the arguments."""
    digest = hashlib.sha256(f"{salt}/{patient_id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # 53 bits: what a double holds exactly


def split_of(patient_id: str, settings: Split) -> str:
    """The split of one woman.

    The test set takes the lowest numbers, so a larger test share only adds women to it.
    """
    number = hash_to_unit_interval(patient_id, settings.salt)
    if number < settings.test:
        return "test"
    if number < settings.test + settings.validation:
        return "validation"
    return "train"


def assign(patient_ids: Iterable[str], settings: Split) -> pd.DataFrame:
    """Put every woman in a split: a table like `tables.SPLIT`, one row a woman, sorted by id."""
    women = sorted(set(patient_ids))
    splits = [split_of(woman, settings) for woman in women]
    return pd.DataFrame({"patient_id": women, "split": splits}, dtype=str)


def target_of(table: pd.DataFrame, columns: Iterable[str]) -> pd.Series:
    """0 or 1 for each row: 1 if any of the label `columns` is 1."""
    return table[list(columns)].max(axis="columns").rename("target")


def count(manifest: pd.DataFrame, split: pd.DataFrame, target: Iterable[str]) -> pd.DataFrame:
    """Women, breasts and images of each split, and how many of each are positive.

    A breast is positive if one of its images is, a woman if one of her breasts is.

    Returns:
        One row per name in `SPLITS`, even if it is empty.
    """
    images = manifest[BREAST].assign(target=target_of(manifest, target))
    images = images.merge(split, on="patient_id", validate="many_to_one")
    units = {
        "women": images.groupby("patient_id").max(),
        "breasts": images.groupby(BREAST).max(),
        "images": images,
    }
    columns = {}
    for name, unit in units.items():
        columns[name] = unit["split"].value_counts()
        columns[f"positive_{name}"] = unit.loc[unit["target"] == 1, "split"].value_counts()
    return pd.DataFrame(columns).reindex(SPLITS).fillna(0).astype(int)


def check(counts: pd.DataFrame, target: Iterable[str], manifest: Path) -> None:
    """Make sure that every split can be learnt from or scored.

    Args:
        counts: as `count` returns them.
        target: the label columns counted, for the message.
        manifest: the file counted, for the message.

    Raises:
        UserError: if a split is empty or all its breasts are of one class.
    """
    for name, row in counts.iterrows():
        if row["women"] == 0:
            fault = "holds no women"
        elif row["positive_breasts"] == 0:
            fault = f"has no breast with {' or '.join(target)}"
        elif row["positive_breasts"] == row["breasts"]:
            fault = f"has no breast without {' or '.join(target)}"
        else:
            continue
        raise UserError(
            f"{manifest}: the {name} split {fault} ({row['women']} women, {row['breasts']} breasts,"
            f" {row['positive_breasts']} positive); add women, or change the shares or the salt"
            " under split in params.yaml"
        )
