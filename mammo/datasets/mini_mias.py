"""mini-MIAS in our `data/` layout: PNG films in, DICOM and tables out.

The Mammographic Image Analysis Society's mini database (research use only) has one MLO film of each
breast, 8 bits deep, scaled and padded to 1024 x 1024 pixels. Its `labels.csv` gives, for each
abnormality, a class, a severity (B benign, M malignant) and a circle: x and y of its centre, with y
counted from the lower edge, and its radius. Films 1 and 2 are the breasts of one woman, 3 and 4 of
the next, and so on; the letters on the films themselves show that odd numbers are left breasts.

    mammoflow data mini-mias SRC DIR
"""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.base.atomic_files import fresh_folder, write_bytes, write_csv
from mammo.base.errors import UserError
from mammo.base.progress import track
from mammo.data.tables import image_file
from mammo.datasets.dicom_writer import MammogramFacts, TransferSyntax, encode_mammogram

COLUMNS = ("Name", "Background Tissue", "Abnormality", "Type", "x", "y", "r")
KINDS = {
    "CALC": "calcifications",
    "CIRC": "circumscribed mass",
    "SPIC": "spiculated mass",
    "MISC": "ill-defined mass",
    "ARCH": "architectural distortion",
    "ASYM": "asymmetry",
}
PIXEL_SPACING_MM = 0.2  # the films were digitised at 50 um and reduced to 200 um


def convert_mini_mias(source: Path, folder: Path) -> None:
    """Write `folder` in our layout from the films and labels in `source`.

    A breast with a malignant abnormality is a cancer. Findings without a position (they are spread
    over the breast) appear in train.csv but not in lesions.csv.

    Raises:
        UserError: if `folder` exists, or a label or film is missing or not understood.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists already; name a new folder or remove it")
    labels = _read_labels(source / "labels.csv")
    names = sorted(labels["Name"].unique())
    with fresh_folder(folder) as out:
        rows, lesions = [], []
        for name in track(names, "convert", total=len(names)):
            found = labels[labels["Name"] == name]
            film = _read_film(source / "images" / f"{name}.png")
            row = _row(name, found)
            path = out / image_file(row["patient_id"], name)
            write_bytes(path, _dicom(film, row))
            rows.append(row)
            lesions.extend(_lesions(name, found, height=film.shape[0]))
        write_csv(out / "train.csv", pd.DataFrame(rows))
        write_csv(out / "lesions.csv", pd.DataFrame(lesions))


def _read_labels(path: Path) -> pd.DataFrame:
    try:
        labels = pd.read_csv(path, dtype={"Name": str, "Type": str})
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such file; SRC must hold labels.csv and images/"
        ) from None
    missing = [column for column in COLUMNS if column not in labels]
    if missing:
        raise UserError(f"{path}: the columns {', '.join(missing)} are missing")
    strange = labels.loc[~labels["Name"].str.fullmatch(r"mdb\d{3}"), "Name"]
    if len(strange):
        raise UserError(f"{path}: {strange.iloc[0]!r} is not a film's name such as mdb001")
    unknown = set(labels["Abnormality"]) - {*KINDS, "NORM"}
    if unknown:
        raise UserError(f"{path}: unknown abnormalities: {', '.join(sorted(map(str, unknown)))}")
    return labels


def _read_film(path: Path) -> NDArray[np.uint8]:
    film = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if film is None or film.ndim != 2 or film.dtype != np.uint8:
        raise UserError(f"{path}: is missing or not an 8-bit grey PNG")
    return np.asarray(film, np.uint8)


def _row(name: str, found: pd.DataFrame) -> dict[str, str]:
    """The row of train.csv for one film."""
    number = int(name[3:])
    malignant = bool((found["Type"] == "M").any())
    benign = bool((found["Type"] == "B").any())
    return {
        "site_id": "1",
        "patient_id": f"{(number + 1) // 2}",
        "image_id": name,
        "laterality": "L" if number % 2 else "R",
        "view": "MLO",
        "age": "",  # not published
        "cancer": str(int(malignant)),
        "biopsy": str(int(malignant)),  # a diagnosis of cancer rests on one; else not published
        "invasive": "0",  # not published
        "BIRADS": "",
        "implant": "0",
        "density": "",  # three classes of its own, not the four of BI-RADS
        "machine_id": "1",
        "difficult_negative_case": str(int(benign and not malignant)),
    }


def _lesions(name: str, found: pd.DataFrame, height: int) -> list[dict[str, object]]:
    """The boxes around a film's circles, y counted from the upper edge; benign kinds say so."""
    boxes: list[dict[str, object]] = []
    for entry in found.dropna(subset=["x", "y", "r"]).to_dict("records"):
        x, y, r = float(entry["x"]), height - float(entry["y"]), float(entry["r"])
        kind = KINDS[entry["Abnormality"]]
        boxes.append(
            {
                "image_id": name,
                "x1": x - r,
                "y1": y - r,
                "x2": x + r,
                "y2": y + r,
                "kind": kind if entry["Type"] == "M" else f"benign {kind}",
            }
        )
    return boxes


def _dicom(film: NDArray[np.uint8], row: dict[str, str]) -> bytes:
    left = row["laterality"] == "L"
    about = MammogramFacts(
        patient_id=row["patient_id"],
        image_id=row["image_id"],
        laterality=row["laterality"],
        view="MLO",
        # Left films show the nipple towards the left edge, right ones towards the right.
        patient_orientation=("P" if left else "A", "FR" if left else "FL"),
        bits_stored=8,
        pixel_spacing_mm=PIXEL_SPACING_MM,
        institution="Mammographic Image Analysis Society",
        annotation_burned_in=True,
    )
    return encode_mammogram(film.astype(np.uint16), about, TransferSyntax.JPEG_2000)
