"""A table is checked whole: every fault at once, with its line."""

from pathlib import Path

import pandera.pandas as pa
import pytest
from pandas._libs.parsers import STR_NA_VALUES  # what pandas documents of `na_values`

from mammo.base.errors import UserError
from mammo.data.reading import MISSING, check_table, read_table
from mammo.data.tables import BREAST_BOXES, LESIONS, MAX_ID_BYTES, TRAIN

HEADER = (
    "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,"
    "machine_id,difficult_negative_case"
)


def row(**changes: str) -> str:
    values = dict.fromkeys(HEADER.split(","), "0") | {
        "patient_id": "7", "image_id": "70", "laterality": "L", "view": "CC", "age": "61",
    } | changes  # fmt: skip
    return ",".join(values.values())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train.csv"


def faults(path: Path, *lines: str) -> list[str]:
    path.write_text("\n".join([HEADER, *lines, ""]), encoding="utf-8")
    return [str(fault) for fault in check_table(path, TRAIN)[1]]


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_table(path, TRAIN)
    return str(caught.value)


@pytest.mark.parametrize("schema", [BREAST_BOXES, LESIONS])
@pytest.mark.parametrize("column", ["x1", "y1", "x2", "y2", "image_id"])
def test_boxes_that_lack_a_column_are_checked_in_the_others(
    path: Path, schema: pa.DataFrameSchema, column: str
) -> None:
    names = [name for name in schema.columns if name != column]
    values = {"image_id": "70", "x1": "1", "y1": "1", "x2": "9", "y2": "9", "kind": "mass"}
    wrong = values | {"image_id": "71", "x1": "9", "x2": "1", "y1": "9", "y2": "1"}
    lines = [",".join(each[name] for name in names) for each in (values, wrong)]
    path.write_text("\n".join([",".join(names), *lines, ""]))
    still = [text for text in ("x1 must be less than x2", "y1 must be less than y2")
             if column not in text]  # fmt: skip
    rows, found = check_table(path, schema)
    assert [str(fault) for fault in found] == [
        f"the column {column} is missing",
        *(f"line 3, {text}" for text in still),
    ]
    assert list(rows.columns) == names


@pytest.mark.parametrize("schema", [TRAIN, BREAST_BOXES, LESIONS])
def test_any_columns_may_be_missing_together(path: Path, schema: pa.DataFrameSchema) -> None:
    for count in range(len(schema.columns)):
        names = list(schema.columns)[count:]
        path.write_text(",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
        found = {str(fault) for fault in check_table(path, schema)[1]}
        assert found >= {f"the column {name} is missing" for name in list(schema.columns)[:count]}


def test_what_a_spreadsheet_adds_is_left_out(path: Path) -> None:
    spaced = HEADER.replace(",", " , ")
    empty = "," * (HEADER.count(",") + 2)
    lines = ["sep=,", f"{spaced},,", f"{row()},,", empty, f"{row(image_id='71')}, ,", empty, ""]
    path.write_text("\r\n".join(lines), encoding="utf-8-sig")
    table = read_table(path, TRAIN)
    assert list(table.columns) == HEADER.split(",")
    assert list(table["image_id"]) == ["70", "71"]
    path.write_text(
        "\r\n".join([*lines, f"{row(image_id='72', cancer='2')},,"]), encoding="utf-8-sig"
    )
    [fault] = check_table(path, TRAIN)[1]
    assert str(fault) == "line 8, cancer: 2 must be 0 or 1"


def test_an_id_that_was_taken_for_a_number_is_told_apart(path: Path) -> None:
    [fault] = faults(path, row(patient_id="10006.0"))
    assert fault == (
        "line 2, patient_id: '10006.0' is an id that was taken for a number: write it without the "
        "point and the zeros"
    )
    assert faults(path, row(patient_id="1.2.840.0", image_id="1.05")) == []


def test_a_table_as_rsna_writes_it_value_by_value(path: Path) -> None:
    lines = [
        "2,10006,462822612,L,CC,61.0,0,0,0,,0,,29,False",
        "2,10006,1459541791,L,MLO,61.0,0,0,0,,0,,29,False",
        "1,10011,220375232,R,CC,,1,1,1,0.0,1,C,21,True",
    ]
    assert faults(path, *lines) == []
    table = read_table(path, TRAIN)
    first, second, third = table.astype(object).where(table.notna(), None).to_dict("records")
    assert first == {
        "site_id": "2", "patient_id": "10006", "image_id": "462822612", "laterality": "L",
        "view": "CC", "age": 61.0, "cancer": 0, "biopsy": 0, "invasive": 0, "BIRADS": None,
        "implant": 0, "density": None, "machine_id": "29", "difficult_negative_case": 0,
    }  # fmt: skip
    assert second == first | {"image_id": "1459541791", "view": "MLO"}
    assert third == {
        "site_id": "1", "patient_id": "10011", "image_id": "220375232", "laterality": "R",
        "view": "CC", "age": None, "cancer": 1, "biopsy": 1, "invasive": 1, "BIRADS": 0.0,
        "implant": 1, "density": "C", "machine_id": "21", "difficult_negative_case": 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["cancer", "biopsy", "invasive", "implant"])
@pytest.mark.parametrize(
    ("spelt", "value"),
    [
        *((text, 0) for text in ("0", "0.0", "0.", "False", "FALSE", "false", " 0 ")),
        *((text, 1) for text in ("1", "1.0", "1.00", "True", "TRUE", "true", " true")),
    ],
)
def test_flags_are_read_in_every_spelling(path: Path, name: str, spelt: str, value: int) -> None:
    assert faults(path, row(**{name: spelt})) == []
    assert read_table(path, TRAIN)[name].tolist() == [value]


@pytest.mark.parametrize("spelt", ["2", "-1", "0.5", "yes", "t", "01.1", "inf"])
def test_what_is_no_flag_is_refused(path: Path, spelt: str) -> None:
    (found,) = faults(path, row(cancer=spelt))
    assert found.startswith("line 2, cancer: ")
    assert found.endswith("must be 0 or 1")


def test_every_spelling_of_missing_that_pandas_reads_is_known() -> None:
    assert STR_NA_VALUES <= MISSING


@pytest.mark.parametrize("spelt", [*sorted(MISSING), " ", " NA "])
def test_what_is_missing_is_missing_in_every_column(path: Path, spelt: str) -> None:
    optional = {"age", "BIRADS", "density", "site_id", "machine_id"}
    assert faults(path, row(**dict.fromkeys(optional, spelt))) == []
    assert read_table(path, TRAIN)[sorted(optional)].isna().all(axis=None)
    needed = set(HEADER.split(",")) - optional
    assert set(faults(path, row(**dict.fromkeys(needed, spelt)))) == {
        f"line 2, {name}: there is no value" for name in needed
    }


def test_spaces_around_a_category_or_a_number_are_none(path: Path) -> None:
    assert faults(path, row(laterality=" L", view="MLO ", density=" B ", age=" 61.5 ")) == []
    table = read_table(path, TRAIN)
    assert table[["laterality", "view", "density", "age"]].iloc[0].tolist() == [
        "L", "MLO", "B", 61.5,
    ]  # fmt: skip


def test_a_missing_column_does_not_hide_the_other_faults(path: Path) -> None:
    lines = [HEADER, row(image_id="1"), row(image_id="2", cancer="maybe"), row(image_id="3")]
    path.write_text("\n".join(line.rpartition(",")[0] for line in lines))
    good, found = check_table(path, TRAIN)
    assert [str(fault) for fault in found] == [
        "the column difficult_negative_case is missing",
        "line 3, cancer: 'maybe' must be 0 or 1",
    ]
    assert list(good["image_id"]) == ["1", "3"]


def test_every_fault_is_told_at_once_with_its_line_beside_the_good_rows(path: Path) -> None:
    lines = [
        row(image_id="1"),
        row(image_id="2", laterality="X", age="old", cancer="2"),
        row(image_id="3", patient_id="../../x"),
        "",
        row(image_id="4", cancer="yes"),
        row(image_id="2", cancer=""),
        row(image_id="5", age=""),
        row(image_id="6", age="-3", biopsy="0.5"),
    ]
    found = faults(path, *lines)
    assert sorted(found) == sorted(
        [
            "line 3, age: 'old' is not a number",
            "line 3, laterality: 'X' must be one of L, R",
            "line 3, cancer: 2 must be 0 or 1",
            "line 3, image_id: '2' is there more than once",
            "line 4, patient_id: '../../x' is no id: it needs letters, digits or . - _ with at "
            "most spaces between them",
            "line 6, cancer: 'yes' must be 0 or 1",
            "line 7, cancer: there is no value",
            "line 7, image_id: '2' is there more than once",
            "line 9, biopsy: '0.5' must be 0 or 1",
            "line 9, age: -3.0 must be 0 to 120 years",
        ]
    )
    assert [text.split(",")[0] for text in found] == sorted(text.split(",")[0] for text in found)
    good, _ = check_table(path, TRAIN)
    assert list(good["image_id"]) == ["1", "5"]
    assert good["cancer"].dtype == "int64"
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert all(text in message for text in found)


def test_a_column_in_which_all_is_wrong_is_cut_short_in_the_error(path: Path) -> None:
    faults(path, *(row(image_id=str(number), cancer="2") for number in range(50)))
    assert refusal(path).endswith("; and 30 more")


@pytest.mark.parametrize("name", ["Öl 乳房", "1.2.840.7", "a-b_c", "0012"])
def test_what_may_name_a_file_may_be_an_id(path: Path, name: str) -> None:
    assert faults(path, row(patient_id=name)) == []


@pytest.mark.parametrize(
    "name",
    [".", "..", ".a", "a ", " a", "a/b", "a\\b", "a\0b", "-a", "x" * 129, "乳" * 50],
)
def test_what_is_no_id_is_refused(path: Path, name: str) -> None:
    assert len("乳" * 50) < MAX_ID_BYTES
    if "\0" in name:  # Python 3.11's csv takes it, older ones do not
        path.write_text(f"{HEADER}\n{row(patient_id=name)}\n")
        assert "line 2" in refusal(path)
    else:
        assert "is no id" in faults(path, row(patient_id=name))[0]


def test_a_line_break_hidden_in_an_id_is_refused(path: Path) -> None:
    assert "is no id" in faults(path, row(patient_id='"7\n"'))[0]


def test_missing_columns_are_all_named(path: Path) -> None:
    path.write_text("patient_id,image_id\n7,70\n")
    message = refusal(path)
    assert "the column laterality is missing" in message
    assert "the column machine_id is missing" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"\xff\xfe1\0", "is not in UTF-8"),
        (f"{HEADER}\n{row()},5\n".encode(), "line 2 has 15 values, where the header has 14"),
        (f"{HEADER}\n{row()}\n1,2\n".encode(), "line 3 has 2 values"),
        (f"{HEADER},view\n{row()},CC\n".encode(), "the column view more than once"),
        (HEADER.replace(",", ";").encode(), "semicolons"),
        (b"sep=;\n" + HEADER.replace(",", ";").encode(), "semicolons"),
        (HEADER.replace(",", "\t").encode(), "tabs"),
        (f"{HEADER},\n{row()},x\n".encode(), "the column 15 has values and no name"),
        (
            f"{HEADER}\n{row()}\n{row(view=chr(34) + 'C' + chr(34) + 'C')}\n".encode(),
            "after line 2",
        ),
        (f'{HEADER}\n"{row()}\n'.encode(), "cannot be read as a CSV table"),
    ],
)
def test_what_is_no_table_is_refused(path: Path, content: bytes, expected: str) -> None:
    path.write_bytes(content)
    assert expected in refusal(path)


def test_a_folder_in_the_place_of_a_table_is_refused(path: Path) -> None:
    path.mkdir()
    assert "cannot be read" in refusal(path)
    path.rmdir()
    assert "no such file" in refusal(path)


def test_excels_mark_at_the_beginning_is_no_part_of_the_first_name(path: Path) -> None:
    path.write_text(f"{HEADER}\n{row()}\n", encoding="utf-8-sig")
    assert list(read_table(path, TRAIN)["patient_id"]) == ["7"]


def test_a_box_needs_finite_numbers_in_order(path: Path) -> None:
    path.write_text(
        "image_id,x1,y1,x2,y2\n1,0,0,5,5\n2,9,0,5,5\n3,nan,0,5,5\n4,a,9,5,5\n5,0,0,inf,5\n"
    )
    good, found = check_table(path, BREAST_BOXES)
    assert [str(fault) for fault in found if fault.line != 4] == [
        "line 3, x1 must be less than x2",
        "line 5, x1: 'a' is not a number",
        "line 6, x2: inf must be a finite number",
    ]
    assert "line 4, x1: there is no value" in map(str, found)
    assert list(good["image_id"]) == ["1"]
