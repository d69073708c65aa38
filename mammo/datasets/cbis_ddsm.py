"""CBIS-DDSM, as The Cancer Imaging Archive gives it, in our `data/` layout.

Four CSV files, one row a lesion, and DICOM files of digitised films. What has to be known of them:

* The CSV files name the DICOM files by paths that today's downloads do not have any more. But a
  path begins with the id that the file's own header gives as PatientID, such as
  Mass-Training_P_00001_LEFT_CC for a film and Mass-Training_P_00001_LEFT_CC_1 for its first lesion.
  So the headers are asked, whatever the files are called.
* A lesion's id has two files, the crop and the mask, in one folder or in two, and a few rows of the
  CSV files take one for the other. The mask is the one of the film's size; where neither is, the
  larger one, whose positions are then scaled to the film.
* A film can have several lesions, in several rows, and can be there twice, among the masses and
  among the calcifications, with the lesions of each.
* The archive's own division into training and test has women in both, so it is not used: ours is by
  woman.

    mammoflow data cbis-ddsm SRC DIR
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pydicom
from pydicom.errors import InvalidDicomError

from mammo.base.atomic_files import fresh_folder, write_csv, write_json
from mammo.base.errors import UserError
from mammo.base.progress import say, track
from mammo.data.tables import image_file
from mammo.imaging.geometry import Box
from mammo.patches.tables import SOURCE

TABLES = tuple(
    f"{kind}_case_description_{part}_set.csv"
    for kind in ("mass", "calc")
    for part in ("train", "test")
)
ABOUT = {
    "name": "CBIS-DDSM",
    "licence": "CC BY 3.0",
    "reference": "Lee et al., A curated mammography data set for use in computer-aided detection"
    " and diagnosis research, Scientific Data 4:170177, 2017;"
    " The Cancer Imaging Archive, doi 10.7937/K9/TCIA.2016.7O02S9CY",
}
PATHOLOGIES = {"MALIGNANT": 1, "BENIGN": 0, "BENIGN_WITHOUT_CALLBACK": 0}
KINDS = {"mass": "mass", "calcification": "calcifications"}
SIDES = {"LEFT": "L", "RIGHT": "R"}
VIEWS = ("CC", "MLO")
_FILM, _MASK, _CROP = "image file path", "ROI mask file path", "cropped image file path"
COLUMNS = (
    *("patient_id", "left or right breast", "image view", "abnormality type", "pathology"),
    *(_FILM, _MASK, _CROP),
)
_HEADER = ("PatientID", "SeriesInstanceUID", "Rows", "Columns")


@dataclass(frozen=True)
class _File:
    """A DICOM file, by its header."""

    path: Path
    series: str
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


@dataclass(frozen=True)
class _Film:
    """A view of a woman's breast, and its lesions: each one's row, and its mask."""

    patient: str
    side: str
    view: str
    file: _File
    lesions: Sequence[tuple[Mapping[Hashable, Any], _File]]

    @property
    def image_id(self) -> str:
        return f"{self.patient}_{self.side}_{self.view}"


def convert_cbis_ddsm(source: Path, folder: Path) -> None:
    """Write `folder` in our layout from the tables and films that lie anywhere in `source`.

    A breast with a malignant lesion is a cancer, in each of its views. Headers get the woman's id
    in place of the film's. Those of the four tables that are not there are left out: who has only
    the masses has a collection, too.

    Raises:
        UserError: if `folder` exists, there is no table, or a table, film or mask is missing or not
            understood.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists already; name a new folder or remove it")
    lesions = _read_tables(source)
    films = _list_films(lesions, _index(source), source)
    malignant = set(lesions.loc[lesions["cancer"] == 1, ["patient_id", "side"]].agg("/".join, 1))
    with fresh_folder(folder) as out:
        rows: list[dict[str, str]] = []
        boxes: list[dict[str, Any]] = []
        for film in track(films, "convert", total=len(films)):
            _copy_film(film, out)
            rows.append(_row(film, f"{film.patient}/{film.side}" in malignant))
            boxes.extend(_boxes(film))
        write_csv(out / "train.csv", pd.DataFrame(rows))
        columns = ["image_id", "x1", "y1", "x2", "y2", "kind"]
        write_csv(out / "lesions.csv", pd.DataFrame(boxes, columns=columns))
        write_json(out / SOURCE, ABOUT)


def _read_tables(source: Path) -> pd.DataFrame:
    """The rows of all tables, one a lesion, sorted, in our words."""
    found = [path for name in TABLES for path in sorted(source.rglob(name))]
    if not found:
        raise UserError(f"{source}: holds none of {', '.join(TABLES)}")
    table = pd.concat([_read_table(path) for path in found], ignore_index=True)
    return table.drop_duplicates().sort_values(
        ["patient_id", "side", "image view", "film", "mask"], ignore_index=True
    )


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as a CSV table: {error}") from None
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise UserError(f"{path}: the columns {', '.join(missing)} are missing")
    table = table.apply(lambda column: column.str.strip())  # paths may end in a new line
    known = {
        "pathology": tuple(PATHOLOGIES),
        "abnormality type": tuple(KINDS),
        "left or right breast": tuple(SIDES),
        "image view": VIEWS,
    }
    for column, values in known.items():
        strange = table.loc[~table[column].isin(values), column]
        if len(strange):
            raise UserError(f"{path}: {column} {strange.iloc[0]!r} is none of {', '.join(values)}")
    # Masses have breast_density, calcifications breast density.
    density = next((table[x] for x in ("breast_density", "breast density") if x in table), "")
    cancer = table["pathology"].map(PATHOLOGIES)
    kind = table["abnormality type"].map(KINDS)
    found: pd.DataFrame = table[["patient_id", "image view"]].assign(
        side=table["left or right breast"].map(SIDES),
        kind=kind.where(cancer == 1, "benign " + kind),
        cancer=cancer,
        density=density,
        film=table[_FILM],
        mask=table[_MASK],
        crop=table[_CROP],
        table=path.name,
    )
    return found


def _index(source: Path) -> dict[str, list[_File]]:
    """Every DICOM file in a folder, by the PatientID of its header."""
    found: dict[str, list[_File]] = {}
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() == ".dcm")
    for path in track(paths, "headers", total=len(paths)):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_HEADER))
            file = _File(path, str(header.SeriesInstanceUID), int(header.Columns), int(header.Rows))
            found.setdefault(str(header.PatientID), []).append(file)
        except (InvalidDicomError, AttributeError, ValueError, OSError) as error:
            raise UserError(
                f"{path}: is no DICOM file of an image ({error}); fetch it again or remove it"
            ) from None
    return found


def _list_films(
    lesions: pd.DataFrame, index: Mapping[str, list[_File]], source: Path
) -> list[_Film]:
    """The films that the rows name, each view of a breast once."""
    absent = sorted({_subject(path) for path in lesions["film"]} - index.keys())
    if absent:
        raise UserError(
            f"{source}: {len(absent)} films are missing, such as {absent[0]}: fetch them, or take"
            " their rows out of the tables"
        )
    films = []
    for (patient, side, view), rows in lesions.groupby(["patient_id", "side", "image view"]):
        named = [(row, _choose(index, row["film"], source)) for row in rows.to_dict("records")]
        masks = [(row, _find_mask(row, film, index, source)) for row, film in named]
        films.append(_Film(str(patient), str(side), str(view), named[0][1], masks))
    return films


def _subject(path: str) -> str:
    """What a path of the tables begins with: the PatientID of the file's header."""
    return path.split("/")[0]


def _series(path: str) -> str:
    """The series in a path of the tables: ID/STUDY/SERIES/FILE."""
    parts = path.split("/")
    return parts[2] if len(parts) > 2 else ""


def _choose(index: Mapping[str, list[_File]], path: str, source: Path) -> _File:
    """The film of a row; if its id has several files, the one of the series that the row names."""
    files = index[_subject(path)]
    if len(files) > 1:
        files = [file for file in files if file.series == _series(path)]
    if len(files) != 1:
        raise UserError(
            f"{source}: {_subject(path)} has several DICOM files, and their headers do not tell"
            " which is the film: remove the others"
        )
    return files[0]


def _find_mask(
    row: Mapping[Hashable, Any], film: _File, index: Mapping[str, list[_File]], source: Path
) -> _File:
    """A lesion's mask: of its two files the one of the film's size, or else the larger one."""
    subjects = dict.fromkeys((_subject(row["mask"]), _subject(row["crop"])))
    files = [file for subject in subjects for file in index.get(subject, []) if file != film]
    if len(files) > 2:
        named = (_series(row["mask"]), _series(row["crop"]))
        files = [file for file in files if file.series in named] or files
    same = [file for file in files if file.size == film.size]
    if not same and len(files) > 1:
        same = [max(files, key=lambda file: (file.width * file.height, file.path.name))]
    if not same:
        raise UserError(
            f"{source}: the mask of {next(iter(subjects))} is missing ({row['table']}): fetch it,"
            " or take the row out of the table"
        )
    return same[0]


def _copy_film(film: _Film, out: Path) -> None:
    path = out / image_file(film.patient, film.image_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = pydicom.dcmread(film.file.path)
    # It was the film's, so a woman seemed to be several.
    dataset.PatientID = dataset.PatientName = film.patient
    dataset.save_as(path)


def _row(film: _Film, cancer: bool) -> dict[str, str]:
    """The row of train.csv for one film."""
    density = film.lesions[0][0]["density"]
    return {
        "site_id": "1",
        "patient_id": film.patient,
        "image_id": film.image_id,
        "laterality": film.side,
        "view": film.view,
        "age": "",  # not published
        "cancer": str(int(cancer)),
        "biopsy": str(int(cancer)),  # a diagnosis of cancer rests on one; else not published
        "invasive": "0",  # not published
        "BIRADS": "",  # of each lesion, not of the exam
        "implant": "0",
        "density": dict(zip("1234", "ABCD", strict=True)).get(density, ""),
        "machine_id": "1",
        "difficult_negative_case": str(int(not cancer)),  # something was found in every film
    }


def _boxes(film: _Film) -> Iterator[dict[str, Any]]:
    """The boxes around a film's lesions, in its own pixels."""
    for lesion, mask in film.lesions:
        box = _box_of(mask)
        if box is None:
            say(f"{mask.path}: marks nothing; its lesion has no box")
            continue
        # The mask may be of the film's other copy, or of another size than either.
        across, down = film.file.width / mask.width, film.file.height / mask.height
        yield {
            "image_id": film.image_id,
            "x1": box.x1 * across,
            "y1": box.y1 * down,
            "x2": box.x2 * across,
            "y2": box.y2 * down,
            "kind": lesion["kind"],
        }


def _box_of(mask: _File) -> Box | None:
    """The box around what a mask marks, in its pixels; None if it marks nothing."""
    try:
        pixels = pydicom.dcmread(mask.path).pixel_array
    except (AttributeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{mask.path}: cannot be read as an image: {error}") from None
    if pixels.ndim != 2:
        raise UserError(f"{mask.path}: is not a grey image")
    x, y, width, height = cv2.boundingRect((pixels > 0).astype(np.uint8))
    return Box(x, y, x + width, y + height) if width else None
