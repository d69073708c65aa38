"""The DICOM standard for `validate_iods` of dicom-validator, where its own download is not reached.

    python3 -m venv DIR && DIR/bin/pip install dicom-validator dicom-standard
    python -m tests.support.dicom_standard DIR/standard DIR/editions
    DIR/bin/validate_iods --standard-path DIR/editions --edition local FILE.dcm...

The package dicom-standard has the tables of PS3.3, as of 2020, as JSON. dicom-validator reads them
from the standard's own DocBook: this writes as much DocBook as it looks at, for the classes of our
results. The tables, conditions and enumerated values are the standard's, word for word.
"""

import json
import re
import sys
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ElementTree, SubElement

EDITION = "2020b"
CLASSES = {
    "mammography-cad-sr": "1.2.840.10008.5.1.4.1.1.88.50",
    "comprehensive-sr": "1.2.840.10008.5.1.4.1.1.88.33",
    "secondary-capture-image": "1.2.840.10008.5.1.4.1.1.7",
}
Table = list[dict[str, Any]]

CONTENT = "sr-document-content"
MACROS = {
    "NUM": ("0040a300", "0040a301"),
    "CODE": ("0040a168",),
    "COMPOSITE or IMAGE or WAVEFORM": ("00081199",),
    "SCOORD": ("00700022", "00700023", "00480301"),
    "TCOORD": ("0040a130", "0040a132", "0040a138", "0040a13a"),
    "CONTAINER": ("0040a050", "0040a504"),
}
"""What a content item has by its value type: the first elements of the macros that table C.17-5
includes. The package lacks the conditions, and that the items of an item are items again. Left
out: coordinates in three dimensions, which we do not use."""

_ITEMS, _RELATIONSHIP, _REFERENCE = "0040a730", "0040a010", "0040db73"
_OTHER_DIMENSION = ("30060024", "0070031a")


def write_editions(tables: Path, folder: Path) -> None:
    """Write DocBook of PS3.3, PS3.4 and PS3.6.

    Args:
        tables: the JSON files of the package dicom-standard.
        folder: for `--standard-path`.
    """
    read = {path.stem: json.loads(path.read_text()) for path in tables.glob("*.json")}
    books = folder / EDITION / "docbook"
    books.mkdir(parents=True, exist_ok=True)
    (folder / "editions.json").write_text(json.dumps([EDITION]))
    attributes = {row["tag"]: row for row in read["attributes"]}
    for part, root in (
        (3, _objects(read["ciod_to_modules"], read["module_to_attributes"], attributes)),
        (4, _classes()),
        (6, _dictionary(read["attributes"])),
    ):
        ElementTree(root).write(books / f"part{part:02}.xml", encoding="utf-8")


def _objects(used: Table, rows: Table, attributes: dict[str, dict[str, Any]]) -> Element:
    """PS3.3: which modules an object has, and which attributes a module."""
    root = _book()
    objects, modules = _chapter(root, "A"), _chapter(root, "C")
    _section(objects, "A.1", "Introduction")
    needed = [row for row in used if row["ciodId"] in CLASSES]
    names = sorted({row["moduleId"] for row in needed})
    chapters = {name: f"C.{number}" for number, name in enumerate(names, 1)}
    for number, ciod in enumerate(CLASSES, 2):
        section = _section(objects, f"A.{number}", f"{ciod} IOD")
        body = _table(_section(section, f"A.{number}.1", f"{ciod} IOD Modules"))
        for row in needed:
            if row["ciodId"] == ciod:
                condition = f" - {row['conditionalStatement']}" if row["usage"] == "C" else ""
                cells = _row(body, row["informationEntity"], row["moduleId"], "", row["usage"])
                SubElement(cells[2][0], "xref", linkend=f"sect_{chapters[row['moduleId']]}")
                cells[3][0].text = f"{row['usage']}{condition}"
    for name in names:
        ours = [row for row in rows if row["moduleId"] == name]
        section = _section(modules, chapters[name], name)
        if name == CONTENT:
            _include(_table(section), "Content Item", "C.100")
            _content_item(modules, ours, attributes)
        else:
            _attributes(section, ours, attributes)
    return root


def _content_item(modules: Element, rows: Table, attributes: dict[str, dict[str, Any]]) -> None:
    """The macros of a content item, each in a section of its own, from C.100 on."""
    first: dict[str, Table] = {}
    for row in {row["path"]: row for row in reversed(rows)}.values():
        first.setdefault(row["path"].split(":")[1], []).insert(0, row)
    of_macros = {tag for tags in MACROS.values() for tag in tags}
    others = (*of_macros, *_OTHER_DIMENSION, _ITEMS)
    own = [row for tag, found in first.items() if tag not in others for row in found]
    body = _attributes(_section(modules, "C.100", "Content Item"), own, attributes)
    for number, (value_type, tags) in enumerate(MACROS.items(), 101):
        label = f"C.{number}"
        _include(body, f"Macro if and only if Value Type (0040,A040) is {value_type}", label)
        found = [row for tag in tags for row in first[tag]]
        _attributes(_section(modules, label, value_type), found, attributes)
    wanted = {f"{CONTENT}:{_ITEMS}" + end for end in ("", f":{_RELATIONSHIP}", f":{_REFERENCE}")}
    items = [row for row in first[_ITEMS] if row["path"] in wanted]
    for row in sorted(items, key=lambda row: len(row["path"])):
        _attribute(body, row, attributes)
    by_value = "if and only if Referenced Content Item Identifier (0040,DB73) is not present"
    _include(body, f"Content Item {by_value}", "C.100", level=">")


def _include(body: Element, what: str, label: str, level: str = "") -> None:
    (cell,) = _row(body, f"{level}Include ")
    emphasis = SubElement(cell[0], "emphasis")
    emphasis.text = what
    SubElement(emphasis, "xref", linkend=f"sect_{label}")


def _attributes(section: Element, rows: Table, attributes: dict[str, dict[str, Any]]) -> Element:
    body = _table(section)
    for row in rows:
        _attribute(body, row, attributes)
    return body


def _attribute(body: Element, row: dict[str, Any], attributes: dict[str, dict[str, Any]]) -> None:
    level = ">" * (row["path"].count(":") - 1)
    known = attributes.get(row["tag"], {"name": "unknown"})
    cells = _row(body, level + known["name"], row["tag"], row["type"], "")
    _describe(cells[3], row["description"])


def _describe(cell: Element, html: str) -> None:
    """The text of an attribute; lists of values as the standard marks them up."""
    for title, values in re.findall(r"<strong>(.*?)</strong>.*?<dl>(.*?)</dl>", html, re.DOTALL):
        found = SubElement(cell, "variablelist")
        SubElement(found, "title").text = title
        for value in re.findall(r"<dt>(.*?)</dt>", values, re.DOTALL):
            entry = SubElement(found, "varlistentry")
            SubElement(entry, "term").text = _plain(value)
    for text in re.findall(
        r"<p>(.*?)</p>", re.sub(r"<dl>.*?</dl>", "", html, flags=re.DOTALL), re.S
    ):
        SubElement(cell, "para").text = _plain(text)


def _classes() -> Element:
    """PS3.4, table B.5-1."""
    root = _book()
    body = _table(_section(_chapter(root, "B"), "B.5", "Standard SOP Classes"))
    for number, (ciod, uid) in enumerate(CLASSES.items(), 2):
        cells = _row(body, ciod, uid, "")
        SubElement(cells[2][0], "olink", targetptr=f"sect_A.{number}")
    return root


def _dictionary(attributes: Table) -> Element:
    """PS3.6: the attributes; of the UIDs only those of our classes."""
    root = _book()
    body = _table(_chapter(root, "6"))
    for row in attributes:
        retired = "RET" if row["retired"] == "Y" else ""
        names = row["name"], row["keyword"]
        _row(
            body, row["tag"], *names, row["valueRepresentation"], row["valueMultiplicity"], retired
        )
    body = _table(_chapter(root, "A"))
    for ciod, uid in CLASSES.items():
        _row(body, uid, ciod, ciod, "SOP Class", "PS3.4")
    return root


def _book() -> Element:
    return Element("book", xmlns="http://docbook.org/ns/docbook")


def _chapter(root: Element, label: str) -> Element:
    return SubElement(root, "chapter", label=label)


def _section(parent: Element, label: str, title: str) -> Element:
    section = SubElement(parent, "section", label=label)
    SubElement(section, "title").text = title
    return section


def _table(parent: Element) -> Element:
    return SubElement(SubElement(parent, "table"), "tbody")


def _row(body: Element, *texts: str) -> list[Element]:
    row = SubElement(body, "tr")
    cells = [SubElement(row, "td") for _ in texts]
    for cell, text in zip(cells, texts, strict=True):
        SubElement(cell, "para").text = text
    return cells


def _plain(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", "", html)).split())


if __name__ == "__main__":
    write_editions(Path(sys.argv[1]), Path(sys.argv[2]))
