"""Whether the training saw test data: leaks between the splits, and tables that contradict."""

from collections.abc import Iterable, Mapping

import pandas as pd

SHOWN = 3  # examples named in a sentence


def find_leaks(
    labels: pd.DataFrame,
    manifest: pd.DataFrame,
    rejects: pd.DataFrame,
    split: pd.DataFrame,
    pictures: Mapping[str, str],
) -> list[str]:
    """Find what is wrong with the splits: one sentence for each fault; none if all is well.

    Args:
        labels: train.csv, one row an image: patient_id and image_id.
        manifest: the images preprocessed: patient_id, image_id and path.
        rejects: the images that could not be preprocessed: image_id.
        split: patient_id and split.
        pictures: hash of each preprocessed picture's bytes, by the manifest's path. The pictures
            are written losslessly by one encoder, so equal pixels are equal bytes.
    """
    return [
        *_find_women_in_two_splits(split),
        *_find_pictures_in_two_splits(manifest, split, pictures),
        *_find_inconsistencies(labels, manifest, rejects, split),
    ]


def find_pretraining_leaks(patches: pd.DataFrame, split: pd.DataFrame) -> list[str]:
    """Find women of validation or test whose patches the first weights learnt from.

    Args:
        patches: one row a patch of a pretraining: patient_id.
        split: patient_id and split.
    """
    kept_away = set(split.loc[split["split"] != "train", "patient_id"])
    women = sorted(kept_away & set(patches["patient_id"]))
    if not women:
        return []
    named = _list_names("woman", "women", women)
    return [f"{named} in validation or test, and in the patches that the first weights learnt from"]


def _find_women_in_two_splits(split: pd.DataFrame) -> list[str]:
    counts = split.groupby("patient_id")["split"].nunique()
    women = sorted(counts.index[counts > 1])
    return [f"{_list_names('woman', 'women', women)} in more than one split"] if women else []


def _find_pictures_in_two_splits(
    manifest: pd.DataFrame, split: pd.DataFrame, pictures: Mapping[str, str]
) -> list[str]:
    table = manifest.merge(split.drop_duplicates("patient_id"), on="patient_id")
    table["hash"] = table["path"].map(pictures)
    found = []
    for _, same in table.dropna(subset="hash").groupby("hash"):
        if same["split"].nunique() > 1:
            copies = (f"{row.image_id} ({row.split})" for row in same.itertuples())
            found.append(" = ".join(copies))
    if not found:
        return []
    named = _list_names("picture", "pictures", sorted(found))
    return [f"{named} in more than one split, pixel for pixel"]


def _find_inconsistencies(
    labels: pd.DataFrame, manifest: pd.DataFrame, rejects: pd.DataFrame, split: pd.DataFrame
) -> list[str]:
    found = []
    given, kept, refused = (set(t["image_id"]) for t in (labels, manifest, rejects))
    missing, foreign = sorted(given - kept - refused), sorted((kept | refused) - given)
    if missing:
        found.append(
            f"{_list_names('image', 'images', missing)} of train.csv neither used nor rejected"
        )
    if foreign:
        found.append(
            f"{_list_names('image', 'images', foreign)} used or rejected, but not in train.csv"
        )
    owners = labels.set_index("image_id")["patient_id"]
    others = manifest["image_id"].map(owners) != manifest["patient_id"]
    if moved := sorted(set(manifest["image_id"][others]) & given):
        found.append(f"{_list_names('image', 'images', moved)} of another woman than in train.csv")
    women, shared = set(manifest["patient_id"]), set(split["patient_id"])
    if without := sorted(women - shared):
        found.append(f"{_list_names('woman', 'women', without)} in no split")
    if unknown := sorted(shared - women):
        found.append(f"{_list_names('woman', 'women', unknown)} in a split, but without an image")
    return found


def _list_names(one: str, many: str, names: Iterable[object]) -> str:
    """`1 woman (17)`, `5 women (3, 8, 9, ...)`."""
    listed = [str(name) for name in names]
    shown = ", ".join(listed[:SHOWN]) + (", ..." if len(listed) > SHOWN else "")
    return f"{len(listed)} {one if len(listed) == 1 else many} ({shown})"
