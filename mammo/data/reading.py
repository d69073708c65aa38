"""How a CSV is read against its schema: every fault is found, with its line.

A flag may be spelt 0 or 1, 0.0 or 1.0, False or True; what is missing as pandas or Excel spell it;
spaces around a value that is no id are none.
"""

import csv
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa

from mammo.base.errors import UserError
from mammo.data.tables import Flag

SHOWN = 20
"""Faults that an error names."""

_TRUTH = {"false": "0", "true": "1"}

MISSING = frozenset(
    {
        *("", "#N/A", "#N/A N/A", "#NA", "#NULL!", "-1.#IND", "-1.#QNAN", "-NaN", "-nan"),
        *("1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "NaT", "None", "n/a"),
        *("nan", "null"),
    }
)
"""What says that there is no value: all that pandas reads as such, and writes, and Excel writes."""


@dataclass(frozen=True)
class Fault:
    """Something wrong in a table."""

    line: int | None  # as an editor counts them: the header is line 1; None: in no line of its own
    text: str

    def __str__(self) -> str:
        return self.text if self.line is None else f"line {self.line}, {self.text}"


def read_table(path: Path, schema: pa.DataFrameSchema) -> pd.DataFrame:
    """Read a CSV and check it.

    Raises:
        UserError: naming the file and every fault, with line numbers.
    """
    table, faults = check_table(path, schema)
    if faults:
        shown = "; ".join(str(fault) for fault in faults[:SHOWN])
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise UserError(f"{path}: {shown}{more}")
    return table


def check_table(path: Path, schema: pa.DataFrameSchema) -> tuple[pd.DataFrame, list[Fault]]:
    """Read a CSV and find all that is wrong with it, in the order of the lines.

    Returns:
        The rows without a fault, in the schema's types, with those of its columns that are there;
        and the faults.

    Raises:
        UserError: it is no table at all.
    """
    table, lines = _read_text(path)
    missing = [name for name in schema.columns if name not in table]
    schema = schema.remove_columns(missing)
    for name, column in schema.columns.items():
        table[name] = _normalise(table[name], column)
    faults = {Fault(None, f"the column {name} is missing"): None for name in missing}
    checked, cases = _validate(table, schema)
    if not cases:
        return checked, list(faults)
    # A column in which one value has the wrong type is not converted, and then fails every check:
    # those values are reported, and set to one of the right type, before checks count.
    mistyped = {
        (case["index"], case["column"]): case for case in cases if "dtype" in str(case["check"])
    }
    for name in {column for _, column in mistyped}:
        table.loc[[row for row, column in mistyped if column == name], name] = "0"
    checked, cases = _validate(table, schema)
    rows = {row for row, _ in mistyped}
    found = [
        *mistyped.values(),
        *(
            case
            for case in cases
            if (case["index"], case["column"]) not in mistyped
            and not (case["index"] in rows and _is_of_the_row(case))
        ),
    ]
    faults |= {Fault(lines[int(case["index"])], _describe(case, schema)): None for case in found}
    wrong = sorted({int(case["index"]) for case in found})
    good, _ = _validate(table.drop(index=wrong), schema)
    return good, sorted(faults, key=lambda fault: fault.line or 0)


def _normalise(values: pd.Series, column: pa.Column) -> pd.Series:
    """The texts of a column, each in the one way to write what it means; None where nothing is."""
    trimmed = values.str.strip()
    missing = trimmed.isin(MISSING)
    if _kind(column) != "id":
        values = trimmed
    if _kind(column) == "flag":
        number = pd.to_numeric(values, errors="coerce")
        values = values.mask(number == 0, "0").mask(number == 1, "1")
        values = values.str.lower().map(_TRUTH).fillna(values)
    return values.mask(missing, None)


def _kind(column: pa.Column) -> str | None:
    """What is special about a column: id or flag."""
    return (column.metadata or {}).get("kind")


def _validate(
    table: pd.DataFrame, schema: pa.DataFrameSchema
) -> tuple[pd.DataFrame, list[dict[Hashable, Any]]]:
    """The table in the schema's types, or pandera's failure cases."""
    try:
        return schema.validate(table, lazy=True), []
    except pa.errors.SchemaErrors as error:
        return table, error.failure_cases.to_dict("records")


def _read_text(path: Path) -> tuple[pd.DataFrame, list[int]]:
    """A CSV as text, and the line of each row.

    Not by pandas, which takes the first column for an index where a row is too long, and does not
    count empty lines. What spreadsheets add is left out: a first line `sep=,`, lines and columns
    in which nothing stands, spaces around a column's name.
    """
    rows: list[tuple[int, list[str]]] = []
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # Excel begins with a mark
            reader = csv.reader(file, strict=True)
            for fields in reader:
                line = reader.line_num
                if any(field.strip() for field in fields):
                    rows.append((line, fields))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not in UTF-8: save it so") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a CSV table: {error}") from None
    except csv.Error as error:
        raise UserError(
            f"{path}: cannot be read as a CSV table after line {line}: {error}"
        ) from None
    if rows and rows[0][1][0].strip().lower() == "sep=":
        rows = rows[1:]
    if not rows:
        raise UserError(f"{path}: is empty")
    (_, header), *rows = rows
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and mark in header[0]:
            raise UserError(f"{path}: has {name} between its columns: save it with commas")
    header = [name.strip() for name in header]
    if twice := [name for name, count in Counter(header).items() if name and count > 1]:
        raise UserError(f"{path}: has the column {twice[0]} more than once")
    if ragged := [(line, len(fields)) for line, fields in rows if len(fields) != len(header)]:
        named = "; ".join(f"line {line} has {count} values" for line, count in ragged[:SHOWN])
        raise UserError(f"{path}: {named}, where the header has {len(header)} columns")
    table = pd.DataFrame([fields for _, fields in rows], columns=header, dtype=str)
    for index, name in enumerate(header):
        if not name and table.iloc[:, index].str.strip().any():
            raise UserError(f"{path}: the column {index + 1} has values and no name")
    table = table.loc[:, table.columns != ""]
    return table, [line for line, _ in rows]


def _is_of_the_row(case: dict[Hashable, Any]) -> bool:
    """Whether it is about several columns, such as a box without area."""
    return case["schema_context"] == "DataFrameSchema" and "dtype" not in str(case["check"])


def _describe(case: dict[Hashable, Any], schema: pa.DataFrameSchema) -> str:
    """One of pandera's failure cases as a phrase."""
    check, value, column = str(case["check"]), case["failure_case"], case["column"]
    if _is_of_the_row(case):
        return check
    if check == "field_uniqueness":
        return f"{column}: {value!r} is there more than once"
    if check == "not_nullable":
        return f"{column}: there is no value"
    if "dtype" in check and pd.isna(value):
        return f"{column}: there is no value"
    if "dtype" in check and _kind(schema.columns[column]) == "flag":
        return f"{column}: {value!r} {Flag.error}"
    if "dtype" in check:
        return f"{column}: {value!r} is not a {'whole ' if 'int' in check else ''}number"
    return f"{column}: {value!r} {check}"
