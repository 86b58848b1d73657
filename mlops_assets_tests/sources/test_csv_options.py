from __future__ import annotations

import gzip
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import ValidationError

from mlops_assets.sources.csv_options import OF_THE_CAST, OF_THE_READER, REFUSED, SYNONYMS
from mlops_assets.sources.declaration import Source
from mlops_assets_tests.sources.readings import reading, rows, text_file

LONG = "x" * 3_000_000
# For each option: a file, the columns, the option's value, and what is read without it and with it. None stands for
# a file that can't be read, or a value that does not fit.
EFFECTS: dict[str, tuple[str | bytes, dict[str, str], Any, Any, Any]] = {
    "allow_quoted_nulls": ('a,b\n1,""\n', {"b": "VARCHAR"}, False, [None], [""]),
    "comment": ("a,b\n#1,2\n3,4\n", {"b": "BIGINT"}, "#", [2, 4], [4]),
    "compression": (gzip.compress(b"a,b\n1,2\n", mtime=0), {"b": "BIGINT"}, "gzip", None, [2]),
    "dateformat": ("b\n31/01/2021\n", {"b": "DATE"}, "%d/%m/%Y", None, [date(2021, 1, 31)]),
    "decimal_separator": ('b\n"1,5"\n', {"b": "DOUBLE"}, ",", None, [1.5]),
    "delim": ("a;b\n1;2\n", {"b": "BIGINT"}, ";", None, [2]),
    "encoding": ("b\nCafé\n".encode("latin-1"), {"b": "VARCHAR"}, "latin-1", None, ["Café"]),
    "escape": ('b\n"say \\"x\\""\n', {"b": "VARCHAR"}, "\\", None, ['say "x"']),
    "force_not_null": ("a,b\n1,\n", {"b": "VARCHAR"}, ["b"], [None], [""]),
    "header": ("b\n1\n", {"b": "BIGINT"}, True, [1], [1]),
    "maximum_line_size": (f"b\n{LONG}\n", {"b": "VARCHAR"}, 4_000_000, None, [LONG]),
    "names": ("1,2\n3,4\n", {"b": "BIGINT"}, ["a", "b"], None, [2, 4]),
    "null_padding": ("a,b\n1\n2,3\n", {"b": "BIGINT"}, True, None, [None, 3]),
    "nullstr": ("a,b\n1,NA\n2,\n", {"b": "VARCHAR"}, "NA", ["NA", None], [None, None]),
    "quote": ("b\n'1,5'\n", {"b": "VARCHAR"}, "'", None, ["1,5"]),
    "skip": ("made by hand\nb\n1\n", {"b": "BIGINT"}, 1, None, [1]),
    "strict_mode": ("a,b\r\n1,2\n3,4\r\n", {"b": "BIGINT"}, False, None, [2, 4]),
    "thousands": ('b\n"1,234,567.5"\n', {"b": "DOUBLE"}, ",", None, [1234567.5]),
    "timestampformat": (
        "b\n31/01/2021 23:59\n",
        {"b": "TIMESTAMP"},
        "%d/%m/%Y %H:%M",
        None,
        [datetime(2021, 1, 31, 23, 59)],
    ),
}
# They bound memory and time and change no value.
OF_PERFORMANCE = {"buffer_size": 4_000_000, "parallel": False}


def test_every_option_of_the_reader_has_an_effect_or_is_refused() -> None:
    listed = duckdb.sql(
        "SELECT DISTINCT unnest(parameters) FROM duckdb_functions() WHERE function_name = 'read_csv'"
    ).fetchall()
    known = {name for (name,) in listed} - {"col0"}
    effective = {SYNONYMS.get(name, name) for name in known - REFUSED.keys()}
    assert effective == EFFECTS.keys() | OF_PERFORMANCE.keys() == OF_THE_READER | OF_THE_CAST | {"names"}


@pytest.mark.parametrize("option", EFFECTS)
def test_an_option_changes_what_is_read(tmp_path: Path, option: str) -> None:
    content, schema, value, without, with_it = EFFECTS[option]
    path = text_file(tmp_path, content)

    def values(**csv: Any) -> Any:
        found = reading(path, schema, csv=csv)
        return None if found.problems else [row["b"] for row in rows(found)]

    assert values() == without
    assert values(**{option: value}) == with_it
    for synonym in [name for name, meant in SYNONYMS.items() if meant == option]:
        assert values(**{synonym: value}) == with_it


@pytest.mark.parametrize(("option", "value"), OF_PERFORMANCE.items())
def test_an_option_of_performance_is_taken(tmp_path: Path, option: str, value: Any) -> None:
    found = reading(text_file(tmp_path, "b\n1\n"), {"b": "BIGINT"}, csv={option: value})
    assert rows(found) == [{"b": 1}]


@pytest.mark.parametrize("option", REFUSED)
def test_an_option_without_effect_is_refused_with_what_to_do(option: str) -> None:
    with pytest.raises(ValidationError, match=f"csv option '{option}' has no effect here: {REFUSED[option][:20]}"):
        Source(path="{period}.csv", schema={"b": "BIGINT"}, csv={option: "x"})


@pytest.mark.parametrize(
    ("csv", "said"),
    [
        ({"header": False}, "the columns have no names; list them"),
        ({"names": "a"}, "expected a list of the file's columns"),
        ({"sep": ";", "delim": ","}, "'delim' is given twice"),
        ({"thousands": ".", "decimal_separator": "."}, "are both '.'"),
        ({"thousands": "."}, "are both '.'"),
        ({"decimal_separator": "5"}, "expected one character"),
        ({"dateformat": "%Q"}, "no format of strptime"),
        ({"encoding": "klingon"}, "can't be used"),
        ({"delim": "12345"}, "can't be used"),
        ({"compression": "rar"}, "expected one of auto, none, gzip and zstd"),
        ({"timestampformat": "%d/%m/%Y"}, "no column of the schema is a TIMESTAMP"),
        ({"decimal_separator": ","}, "no column of the schema is a DOUBLE"),
    ],
)
def test_a_value_that_can_not_be_used_is_refused_when_the_declaration_is_loaded(csv: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Source(path="{period}.csv", schema={"b": "BIGINT", "c": "DATE"}, csv=csv)


@pytest.mark.parametrize(
    ("text", "csv", "value"),
    [
        ("1.234.567,5", {"decimal_separator": ",", "thousands": "."}, 1234567.5),
        ("-1 234,5", {"decimal_separator": ",", "thousands": " "}, -1234.5),
        ("1'234.5e2", {"thousands": "'"}, 123450.0),
        ("12,34,567", {"thousands": ","}, 1234567.0),
        ("1234567", {"thousands": ","}, 1234567.0),
        (",5", {"decimal_separator": ","}, 0.5),
        ("nan", {"decimal_separator": ","}, None),
    ],
)
def test_numbers_are_read_as_they_are_written(tmp_path: Path, text: str, csv: dict, value: float | None) -> None:
    found = reading(text_file(tmp_path, f'b\n"{text}"\n'), {"b": "DOUBLE"}, csv=csv)
    assert (found.problems, rows(found)) == ((), [{"b": value}])


@pytest.mark.parametrize(
    ("text", "csv"),
    [("1.5", {"decimal_separator": ","}), ("1,5", {"thousands": ","}), ("1,23,4", {"thousands": ","})],
)
def test_a_number_that_is_written_otherwise_is_no_value_and_no_other_number(
    tmp_path: Path, text: str, csv: dict
) -> None:
    (problem,) = reading(text_file(tmp_path, f'b\n"{text}"\n'), {"b": "DOUBLE"}, csv=csv).problems
    assert (problem.code, problem.examples) == ("wrong_value", (text,))


def test_numbers_of_integer_columns_have_thousands_too(tmp_path: Path) -> None:
    found = reading(text_file(tmp_path, 'b\n"12,345"\n'), {"b": "BIGINT"}, csv={"thousands": ","})
    assert rows(found) == [{"b": 12345}]


def test_a_format_of_days_is_also_that_of_times_that_are_days(tmp_path: Path) -> None:
    path = text_file(tmp_path, "b\n31/01/2021\n2021-02-01 10:00\n")
    found = reading(path, {"b": "TIMESTAMP"}, csv={"dateformat": "%d/%m/%Y"})
    assert rows(found) == [{"b": datetime(2021, 1, 31)}, {"b": datetime(2021, 2, 1, 10)}]
