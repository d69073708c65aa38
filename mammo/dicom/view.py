"""Which breast a mammogram shows, and from where, by the attributes that makers put it in."""

import re

import pydicom

from mammo.dicom.values import read_items, read_text, read_value_or_none

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

BREAST = (
    "76752008", "T-04000",
    "80248007", "T-04030",  # left
    "73056007", "T-04020",  # right
    "63762007", "T-04080",  # both
)  # fmt: skip
"""The breast's codes in the same (PS3.16 CID 4013 has the first two)."""

_SIDE = r"(?:L|LT|LEFT|R|RT|RIGHT|B|BI|BIL|BILAT|BILATERAL|BOTH)"
_PART = re.compile(
    rf"{_SIDE}?(?:BREASTS?|MAMMAE?|MAMMO(?:GRA(?:M|MS|PHY|PHIE|FIE|FIA))?|MAMAS?|SEINS?){_SIDE}?"
)
"""BodyPartExamined of a breast, letters only: BREAST (PS3.16 Annex L) and its plural, the Latin,
Spanish, Portuguese and French words, what a few hospitals call it by the exam, and a side before or
behind, as LBREAST or BREAST_L. Not BREASTBONE; nor the German and Italian words, which have other
meanings too (Brust, seno)."""

_SIDES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}


_ALONE = re.compile(r"(?<![A-Z0-9])(?:L|LEFT|R|RIGHT)(?![A-Z0-9])")
_UNMISTAKABLE = {"CC", "MLO", "XCCL", "XCCM"}
"""Views whose acronym in free text is no other word."""


def read_laterality(dataset: pydicom.Dataset) -> str | None:
    """L or R: MG's ImageLaterality, older objects' Laterality, or the series' description."""
    for name in ("ImageLaterality", "Laterality"):
        side = _SIDES.get(read_text(dataset, name))
        if side:
            return side
    # A letter beside a digit is the name of something else, such as R2.
    alone = re.findall(_ALONE, read_text(dataset, "SeriesDescription"))
    sides = {_SIDES[word] for word in alone}
    sides |= {word[0] for word in split_description(dataset) if _is_side_and_view(word)}
    return sides.pop() if len(sides) == 1 else None


def read_view(dataset: pydicom.Dataset) -> str | None:
    """A key of VIEWS: from ViewPosition, the coded view, or where other makers put it.

    Film scanned to secondary captures has it in PatientOrientation (CBIS-DDSM) or in the series'
    description.
    """
    position = read_text(dataset, "ViewPosition")
    if position in VIEWS:
        return position
    for item in read_items(dataset, "ViewCodeSequence"):
        for acronym, codes in VIEWS.items():
            if read_value_or_none(item, "CodeValue") in codes:
                return acronym
    orientation = read_text(dataset, "PatientOrientation")
    if orientation in VIEWS:
        return orientation
    # The others' names mean many things: "contrast 20 ML", "chest AT bedside".
    views = {word for word in split_description(dataset) if word in _UNMISTAKABLE}
    views |= {word[1:] for word in split_description(dataset) if _is_side_and_view(word)}
    return views.pop() if len(views) == 1 else None


def shows_breast(dataset: pydicom.Dataset) -> bool | None:
    """Whether the body part is the breast; None if the header does not name one."""
    codes = [
        read_value_or_none(item, "CodeValue")
        for item in read_items(dataset, "AnatomicRegionSequence")
    ]
    part = re.sub(r"[\W\d_]+", "", read_text(dataset, "BodyPartExamined"))
    if _PART.fullmatch(part) or any(code in BREAST for code in codes):
        return True
    return False if part or codes else None


def split_description(dataset: pydicom.Dataset) -> list[str]:
    """The words of the series' description, in capitals."""
    return re.findall(r"[A-Z]+", read_text(dataset, "SeriesDescription"))


def _is_side_and_view(word: str) -> bool:
    """LCC, RMLO and the like; but LAT says lateral, and not the left axillary tail."""
    return word[:1] in _SIDES and word[1:] in VIEWS and word != "LAT"
