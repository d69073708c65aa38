"""Crops of masses by class, for a pretraining: a folder of PNG files in, crops.csv out.

Osuala et al. (2024, arXiv 2407.12669) cut them out of CBIS-DDSM: train/, val/ and perhaps test/,
each with benign/ and malignant/, in which a file's name gives patient, image and mass:
patientcbis-ddsm__P_00004_image17_mass2_is_benign_0.png

    mammoflow data cbis-masses SRC DIR
"""

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from mammo.base.atomic_files import fresh_folder, write_bytes, write_csv, write_json
from mammo.base.errors import UserError
from mammo.base.progress import track
from mammo.patches.tables import CROPS, SOURCE, crop_file

SPLIT_OF_FOLDER = {"train": "train", "val": "validation", "test": "test"}
CLASSES = {"benign": 0, "malignant": 1}
ABOUT = {
    "name": "masses of CBIS-DDSM, cut out by Osuala et al. (2024, arXiv 2407.12669)",
    "licence": "CC BY 3.0",
    "reference": "Lee et al., A curated mammography data set for use in computer-aided detection"
    " and diagnosis research, Scientific Data 4:170177, 2017;"
    " The Cancer Imaging Archive, doi 10.7937/K9/TCIA.2016.7O02S9CY",
}

_NAME = re.compile(r"patientcbis-ddsm__(P_\d+)_image(\d+)_mass(\d+)_is_benign_([01])\.png")


def convert_cbis_masses(source: Path, folder: Path) -> None:
    """Write `folder` with crops.csv, source.json and the crops from the folders in `source`.

    The division into train, validation and test stays as it was.

    Raises:
        UserError: if `folder` exists, train/ or val/ is missing, a file is no 8-bit grey PNG or its
            name is not understood or contradicts its folder, or a patient is in two splits.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists already; name a new folder or remove it")
    for name in ("train", "val"):
        if not (source / name).is_dir():
            raise UserError(
                f"{source / name}: there is no such folder; SRC must hold train/ and val/, each"
                " with benign/ and malignant/"
            )
    files = list(_list_crops(source))
    table = pd.DataFrame([row for _, row in files], columns=list(CROPS.columns))
    _check(table, source)
    with fresh_folder(folder) as out:
        for path, row in track(files, "convert", total=len(files)):
            content = path.read_bytes()
            crop = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
            if crop is None or crop.ndim != 2 or crop.dtype != np.uint8:
                raise UserError(f"{path}: is not an 8-bit grey PNG")
            write_bytes(out / crop_file(str(row["patient_id"]), str(row["image_id"])), content)
        write_csv(out / str(CROPS.name), table)
        write_json(out / SOURCE, ABOUT)


def _list_crops(source: Path) -> Iterator[tuple[Path, dict[str, object]]]:
    """Each crop's file, and its row."""
    for part, split in SPLIT_OF_FOLDER.items():
        for kind, cancer in CLASSES.items():
            for path in sorted((source / part / kind).glob("*.png")):
                found = _NAME.fullmatch(path.name)
                if found is None:
                    raise UserError(
                        f"{path}: is not named like"
                        " patientcbis-ddsm__P_00004_image17_mass2_is_benign_0.png"
                    )
                patient, image, mass, benign = found.groups()
                if int(benign) == cancer:
                    raise UserError(f"{path}: its name and its folder say different things")
                yield (
                    path,
                    {
                        "patient_id": patient,
                        "image_id": f"{patient}_{image}_{mass}",
                        "cancer": cancer,
                        "split": split,
                    },
                )


def _check(table: pd.DataFrame, source: Path) -> None:
    if table.empty:
        raise UserError(f"{source}: its folders hold no PNG files")
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise UserError(f"{source}: the crop {twice.iloc[0]} is there more than once")
    splits = table.groupby("patient_id")["split"].nunique()
    torn = splits.index[splits > 1]
    if len(torn):
        raise UserError(f"{source}: the patient {torn[0]} is in more than one of its folders")
