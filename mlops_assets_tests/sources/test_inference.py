"""A publisher's files are declared so that they are read as they are: all of them, however they are written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.lake.periods import Calendar
from mlops_assets.sources.connection import source_database
from mlops_assets.sources.declaration import Source
from mlops_assets.sources.inference import InferenceError, Inferred, infer
from mlops_assets.sources.location import Located
from mlops_assets.sources.reading import read


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with source_database() as con:
        yield con


def text(folder: Path, *files: str | bytes) -> list[Path]:
    """Files of text, in the order of their names."""
    paths = []
    for number, content in enumerate(files):
        path = folder / f"file{number}.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        paths.append(path)
    return paths


def rows(path: Path, found: Inferred, time: str | None = None) -> list[tuple[Any, ...]]:
    """What the platform reads of a file that is declared so; without the number of the row."""
    kind = "parquet" if path.suffix == ".parquet" else "csv"
    source = Source(path="{period}", format=kind, csv=found.csv, schema=found.schema, time_column=time)
    with source_database() as con:
        reading = read(source, Located(path, "file"), "2025-01", Calendar("monthly"), con)
        assert reading.problems == ()
        return [tuple(row.values())[1:] for row in reading.reader.read_all().to_pylist()]


def test_all_files_are_looked_at_not_the_last_alone(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    paths = text(tmp_path, "zip,n\n09000,1\n80331,2\n", "zip,n\n80331,1.5\n", "zip,n\n80331,7\n")
    found = infer(paths, "csv", con)
    assert found.schema == {"zip": "VARCHAR", "n": "DOUBLE"}
    assert rows(paths[0], found) == [("09000", 1.0), ("80331", 2.0)]


WRITTEN = [
    ("a;b\n1,5;2\n-3,25;4\n", {"delim": ";", "decimal_separator": ","}, [(1.5, 2), (-3.25, 4)]),
    (
        "a;b\n1.234,5;2\n7,25;1.000\n",
        {"delim": ";", "decimal_separator": ",", "thousands": "."},
        [(1234.5, 2), (7.25, 1000)],
    ),
    ('a,b\n"1,234.5",2\n7.25,"1,000"\n', {"thousands": ","}, [(1234.5, 2), (7.25, 1000)]),
    ("a\tb\n1.5\t2\n", {"delim": "\t"}, [(1.5, 2)]),
    ("a|b\n1.5|2\n", {"delim": "|"}, [(1.5, 2)]),
    ("a,b\n1.5,2\nNA,4\n", {"nullstr": ["NA"]}, [(1.5, 2), (None, 4)]),
    ("Report of sales\n\na,b\n1.5,2\n2.5,3\n3.5,4\n", {"skip": 2}, [(1.5, 2), (2.5, 3), (3.5, 4)]),
    ('a,b\r\n1.5,2\r\n"2.5",3\r\n', {}, [(1.5, 2), (2.5, 3)]),
]


@pytest.mark.parametrize(("content", "options", "expected"), WRITTEN, ids=lambda value: str(value)[:30])
def test_numbers_are_read_as_they_are_written(
    content: str, options: dict[str, Any], expected: list[Any], tmp_path: Path, con: duckdb.DuckDBPyConnection
) -> None:
    (path,) = text(tmp_path, content)
    found = infer([path], "csv", con)
    assert found.csv == options
    assert found.schema == {"a": "DOUBLE", "b": "BIGINT"}
    assert rows(path, found) == expected


@pytest.mark.parametrize(
    ("written", "kind", "options"),
    [
        ("2025-01-31", "DATE", {}),
        ("2025-01-31 10:20", "TIMESTAMP", {}),
        ("2025-01-31T10:20:00Z", "TIMESTAMP", {}),
        ("31.01.2025", "DATE", {"dateformat": "%d.%m.%Y"}),
        ("31/01/2025", "DATE", {"dateformat": "%d/%m/%Y"}),
        ("01/31/2025", "DATE", {"dateformat": "%m/%d/%Y"}),
        ("31.01.25", "DATE", {"dateformat": "%d.%m.%y"}),
        ("31 Jan 2025", "DATE", {"dateformat": "%d %b %Y"}),
        ("31/01/2025 10:20", "TIMESTAMP", {"timestampformat": "%d/%m/%Y %H:%M"}),
        ("31.01.2025 10:20:30", "TIMESTAMP", {"timestampformat": "%d.%m.%Y %H:%M:%S"}),
        ("01/31/2025 10:20 AM", "TIMESTAMP", {"timestampformat": "%m/%d/%Y %I:%M %p"}),
    ],
)
def test_times_are_read_as_they_are_written(
    written: str, kind: str, options: dict[str, Any], tmp_path: Path, con: duckdb.DuckDBPyConnection
) -> None:
    (path,) = text(tmp_path, f"at;n\n{written};1\n{written};2\n")
    found = infer([path], "csv", con)
    assert found.schema == {"at": kind, "n": "BIGINT"}
    assert found.csv == {"delim": ";"} | options
    ((at, _), _) = rows(path, found, "at")
    assert (at.year, at.month, at.day) == (2025, 1, 31)


def test_days_that_can_not_be_told_from_months_are_a_guess_and_said(
    tmp_path: Path, con: duckdb.DuckDBPyConnection
) -> None:
    found = infer(text(tmp_path, "at,n\n01/02/2025,1\n03/04/2025,2\n"), "csv", con)
    assert found.csv == {"dateformat": "%d/%m/%Y"}
    assert found.notes == ("%d/%m/%Y is a guess: no value tells days from months; the other way is %m/%d/%Y",)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("größe,n\nMünchen,1\n".encode("latin-1"), {"encoding": "latin-1"}),
        ("größe,n\nMünchen,1\n".encode("utf-16"), {"encoding": "utf-16"}),
        ("\ufeffgröße,n\nMünchen,1\n", {}),
    ],
    ids=["latin-1", "utf-16", "utf-8 with mark"],
)
def test_encodings_are_recognised(
    content: str | bytes, options: dict[str, Any], tmp_path: Path, con: duckdb.DuckDBPyConnection
) -> None:
    (path,) = text(tmp_path, content)
    found = infer([path], "csv", con)
    assert (found.schema, found.csv) == ({"größe": "VARCHAR", "n": "BIGINT"}, options)
    assert rows(path, found) == [("München", 1)]


def test_what_would_lose_something_stays_text(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    lines = "id,code,word,flag,none\n1234567890123456789,12E4,nan,true,\n1234567890123456788,12F4,inf,FALSE,\n"
    found = infer(text(tmp_path, lines), "csv", con)
    assert found.schema == {"id": "VARCHAR", "code": "VARCHAR", "word": "VARCHAR", "flag": "BOOLEAN"}


def test_a_mistyped_year_stops_nothing_and_is_said(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    days = "".join(f"2025-01-{day:02},{day}\n" for day in range(1, 29))
    found = infer(text(tmp_path, f"at,n\n{days}20250-01-31,5\n"), "csv", con)
    assert found.schema == {"at": "DATE", "n": "BIGINT"}
    assert found.notes == ("'at': 1 values are no DATE, e.g. '20250-01-31'",)


def test_a_number_that_is_none_in_a_thousand_stays_a_number(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    numbers = "".join(f"{number},x{number}\n" for number in range(2000))
    found = infer(text(tmp_path, f"n,name\n{numbers}about 7,y\n"), "csv", con)
    assert found.schema == {"n": "BIGINT", "name": "VARCHAR"}
    assert "'n': 1 values are no BIGINT, e.g. 'about 7'" in found.notes


def test_only_columns_that_every_file_has_and_sql_can_tell_apart_are_declared(
    tmp_path: Path, con: duckdb.DuckDBPyConnection
) -> None:
    paths = text(tmp_path, "Fare,KM,km,old,record_id\n1,2,3,4,5\n", "fare,KM,km,new,,record_id\n1,2,3,4,5,6\n")
    found = infer(paths, "csv", con)
    assert list(found.schema) == ["fare", "KM"]
    assert [note.split(",")[0] for note in found.notes] == [
        "left out: 'km'",
        "left out: 'new'",
        "left out: 'column4'",
    ]
    assert found.notes[1].endswith("which file0.csv does not have")


def test_a_column_that_a_file_has_twice_is_left_out_and_said_once(
    tmp_path: Path, con: duckdb.DuckDBPyConnection
) -> None:
    found = infer(text(tmp_path, "id,x,x\n1,2,3\n"), "csv", con)
    assert (list(found.schema), found.notes) == (["id"], ("left out: 'x', which file0.csv has more than once",))


def test_parquet_types_are_those_that_all_files_can_be_cast_to(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    moment = datetime(2025, 1, 31, 10, 20)
    first = {
        "zone": pa.array([1, 2]),
        "fare": pa.array([1, 2]),
        "at": pa.array([moment, moment], pa.timestamp("ns", "Europe/Berlin")),
        "id": pa.array([Decimal(10**17), Decimal(3)], pa.decimal128(38, 0)),
        "tags": pa.array([["a"], []]),
        "none": pa.nulls(2),
        "kind": pa.array(["a", "b"]).dictionary_encode(),
    }
    second = first | {"zone": pa.array([1.0, None]), "fare": pa.array([1.5, 2.0])}
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path, columns in zip(paths, (first, second), strict=True):
        pq.write_table(pa.table(columns), path)
    found = infer(paths, "parquet", con)
    assert found.schema == {
        "zone": "BIGINT",
        "fare": "DOUBLE",
        "at": "TIMESTAMP",
        "id": "DECIMAL(38,0)",
        "kind": "VARCHAR",
    }
    assert rows(paths[1], found, "at")[0][:4] == (1, 1.5, moment, Decimal(10**17))
    assert any("'at' has a time zone" in note for note in found.notes)
    assert any("left out: 'tags'" in note for note in found.notes)
    assert "left out: 'none', which has no value in any row" in found.notes


def test_times_that_a_parquet_file_holds_as_text_are_times(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"at": ["2025-01-31 10:20:00"], "n": [1]}), path)
    assert infer([path], "parquet", con).schema == {"at": "TIMESTAMP", "n": "BIGINT"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["a;b\n1;2\n", "a\tb\n1\t2\n"], "has delim"),
        ([""], "is empty"),
        (["a,b\n1,2\n" + "x,y,z\n" * 3 + '"never closed,1\n' * 3], "file0.csv"),
    ],
)
def test_files_that_no_declaration_can_read_are_refused(
    files: list[str], said: str, tmp_path: Path, con: duckdb.DuckDBPyConnection
) -> None:
    with pytest.raises(InferenceError, match=said):
        infer(text(tmp_path, *files), "csv", con)
