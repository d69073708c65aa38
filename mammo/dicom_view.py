"""Which breast a mammogram shows, and from where, by the attributes that makers put it in."""

import re
from collections.abc import Sequence
from typing import Any

import pydicom

VIEWS: dict[str, tuple[str, ...]] = {
    "CC": ("399162004", "R-10242"),
    "MLO": ("399368009", "R-10226"),
    "ML": ("399260004", "R-10224"),
    "LM": ("399352003", "R-10228"),
    "LMO": ("399099002", "R-10230"),
    "FB": ("399196006", "R-10244"),
    "SIO": ("399188001", "R-102D0"),
    "ISO": ("441555000", "R-40AAA"),
    "XCCL": ("399192008", "R-1024A"),
    "XCCM": ("399101009", "R-1024B"),
    "AT": (),  # axillary tail: a view in RSNA 2023, a modifier of one in DICOM
}
"""Acronyms of the views, and their codes in SNOMED CT and its predecessor (PS3.16 CID 4014).

The codes are written out because importing pydicom.sr.codes takes two seconds in each process.
"""

_SIDES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}


def laterality(dataset: pydicom.Dataset) -> str | None:
    """L or R: MG's ImageLaterality, older objects' Laterality, or the series' description."""
    for name in ("ImageLaterality", "Laterality"):
        side = _SIDES.get(str(dataset.get(name) or "").strip().upper())
        if side:
            return side
    sides = {_SIDES[word] for word in _words(dataset) if word in _SIDES}
    sides |= {word[0] for word in _words(dataset) if _is_side_and_view(word)}
    return sides.pop() if len(sides) == 1 else None


def view(dataset: pydicom.Dataset) -> str | None:
    """A key of VIEWS: from ViewPosition, the coded view, or where other makers put it.

    Film scanned to secondary captures has it in PatientOrientation (CBIS-DDSM) or in the series'
    description.
    """
    position = str(dataset.get("ViewPosition") or "").strip().upper()
    if position in VIEWS:
        return position
    for item in dataset.get("ViewCodeSequence") or []:
        for acronym, codes in VIEWS.items():
            if item.get("CodeValue") in codes:
                return acronym
    orientation = str(first_value(dataset.get("PatientOrientation"), "")).strip().upper()
    if orientation in VIEWS:
        return orientation
    views = {word for word in _words(dataset) if word in VIEWS}
    views |= {word[1:] for word in _words(dataset) if _is_side_and_view(word)}
    return views.pop() if len(views) == 1 else None


def first_value(value: Any, default: Any) -> Any:
    """The first of possibly several values, or `default` if there is none."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if len(value) else None
    return default if value in (None, "") else value


def _is_side_and_view(word: str) -> bool:
    """LCC, RMLO and the like; but LAT says lateral, and not the left axillary tail."""
    return word[:1] in _SIDES and word[1:] in VIEWS and word != "LAT"


def _words(dataset: pydicom.Dataset) -> list[str]:
    return re.findall(r"[A-Z]+", str(dataset.get("SeriesDescription") or "").upper())
