"""Content items of a structured report, as data sets (PS3.3 C.17.3 and C.18).

An item is made by its value type, and given what hangs from it, each by its relationship:

    container(REPORT, has_concept_mod(code(LANGUAGE, ENGLISH)), contains(text(NOTE, "seen")))
"""

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from mammo.dicom_results.codes import Code

Related = list[Dataset]
"""Items that a relationship binds to the one above them."""


def to_dataset(code: Code) -> Dataset:
    """A concept as an item of a code sequence (PS3.3 table 8.8-1)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme
    item.CodeMeaning = code.meaning
    return item


def container(name: Code, *related: Related, template: str | None = None) -> Dataset:
    """A heading; `template` is the number of the template that it is the root of."""
    item = _item("CONTAINER", name)
    item.ContinuityOfContent = "SEPARATE"
    if template is not None:
        identification = Dataset()
        identification.MappingResource = "DCMR"
        identification.TemplateIdentifier = template
        item.ContentTemplateSequence = Items([identification])
    return _with(item, related)


def code(name: Code, value: Code, *related: Related) -> Dataset:
    """A concept that is the value of another one."""
    item = _item("CODE", name)
    item.ConceptCodeSequence = Items([to_dataset(value)])
    return _with(item, related)


def text(name: Code, value: str, *related: Related) -> Dataset:
    """Free text."""
    item = _item("TEXT", name)
    item.TextValue = value
    return _with(item, related)


def date(name: Code, value: str) -> Dataset:
    """A date, YYYYMMDD."""
    item = _item("DATE", name)
    item.Date = value
    return item


def time(name: Code, value: str) -> Dataset:
    """A time, HHMMSS or with a fraction."""
    item = _item("TIME", name)
    item.Time = value
    return item


def number(name: Code, value: str, unit: Code) -> Dataset:
    """A number, as decimal digits (at most 16 characters), with its unit."""
    measured = Dataset()
    measured.NumericValue = value
    measured.MeasurementUnitsCodeSequence = Items([to_dataset(unit)])
    item = _item("NUM", name)
    item.MeasuredValueSequence = Items([measured])
    return item


def image(sop_class: str, instance: str, *related: Related) -> Dataset:
    """An image, which needs no name."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = sop_class
    reference.ReferencedSOPInstanceUID = instance
    item = _item("IMAGE", None)
    item.ReferencedSOPSequence = Items([reference])
    return _with(item, related)


def point(name: Code, at: tuple[float, float], *related: Related) -> Dataset:
    """A point (x, y) in an image: pixels from the first one's top left corner (PS3.3 C.18.6)."""
    return _coordinates(name, "POINT", [at], related)


def polygon(name: Code, corners: Sequence[tuple[float, float]], *related: Related) -> Dataset:
    """A closed outline, as `point`; the last corner is joined to the first."""
    return _coordinates(name, "POLYLINE", [*corners, corners[0]], related)


def by_reference(path: Sequence[int]) -> Dataset:
    """An item that stands elsewhere in the report.

    Args:
        path: to it from the root, which is 1: each number is a position among its siblings, from 1.
    """
    item = Dataset()
    item.ReferencedContentItemIdentifier = list(path)
    return item


def contains(*items: Dataset) -> Related:
    """What a heading contains."""
    return _relate("CONTAINS", items)


def has_properties(*items: Dataset) -> Related:
    """What is said of the item above."""
    return _relate("HAS PROPERTIES", items)


def has_concept_mod(*items: Dataset) -> Related:
    """What qualifies the concept above."""
    return _relate("HAS CONCEPT MOD", items)


def has_acq_context(*items: Dataset) -> Related:
    """How the image above was taken."""
    return _relate("HAS ACQ CONTEXT", items)


def inferred_from(*items: Dataset) -> Related:
    """What the item above follows from."""
    return _relate("INFERRED FROM", items)


def selected_from(*items: Dataset) -> Related:
    """The image that the coordinates above are of."""
    return _relate("SELECTED FROM", items)


def _coordinates(
    name: Code, kind: str, points: Sequence[tuple[float, float]], related: Sequence[Related]
) -> Dataset:
    item = _item("SCOORD", name)
    item.GraphicData = [value for corner in points for value in corner]
    item.GraphicType = kind
    return _with(item, related)


def _item(value_type: str, name: Code | None) -> Dataset:
    item = Dataset()
    item.ValueType = value_type
    if name is not None:
        item.ConceptNameCodeSequence = Items([to_dataset(name)])
    return item


def _with(item: Dataset, related: Sequence[Related]) -> Dataset:
    below = [one for group in related for one in group]
    if below:
        item.ContentSequence = Items(below)
    return item


def _relate(relationship: str, items: Sequence[Dataset]) -> Related:
    for item in items:
        item.RelationshipType = relationship
    return list(items)
