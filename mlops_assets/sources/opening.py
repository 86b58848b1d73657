"""Opening a file: a scan of its rows that DuckDB can run, or the reason why it can't be read."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.lake.statements import require_select
from mlops_assets.lake.store import identifier, quoted
from mlops_assets.sources.csv_file import open_csv
from mlops_assets.sources.declaration import Source
from mlops_assets.sources.parquet_verification import parquet_damage
from mlops_assets.sources.problems import Problem
from mlops_assets.sources.scan import FileColumn, Scan, other_delimiter

if TYPE_CHECKING:
    import duckdb


def open_scan(source: Source, path: Path, con: duckdb.DuckDBPyConnection) -> Scan | Problem:
    """The records of a file: its rows, or what the source's query makes of them.

    Raises duckdb.Error, which `is_of_the_file` judges, for a file that DuckDB can't read.
    """
    scan = _open_file(source, path, con)
    if isinstance(scan, Problem) or source.query is None:
        return scan
    shaped = _shaped(source.query, scan, path, con)
    if source.kind_of_file == "csv":
        con.execute(f"DROP TABLE {scan.sql}")
    return shaped


def _open_file(source: Source, path: Path, con: duckdb.DuckDBPyConnection) -> Scan | Problem:
    if path.stat().st_size == 0:
        expected = "a Parquet file" if source.kind_of_file == "parquet" else "a CSV file with a header line"
        return Problem(
            "unreadable", None, f"{path.name}: an empty file (0 bytes)", expected, fix="Fetch the file again."
        )
    literal = quoted(re.sub(r"([\[*?])", r"[\1]", str(path)))
    if source.kind_of_file == "csv":
        return open_csv(source, path, literal, con)
    # A query may use any column, and names the file's as they are.
    damage = _no_parquet(path) or parquet_damage(path, None if source.query else list(source.schema))
    return damage or _open_parquet(literal, con)


def _open_parquet(literal: str, con: duckdb.DuckDBPyConnection) -> Scan:
    # hive_partitioning off: a folder above the file that is named like a=b is none of the file's columns.
    # can_have_nan: a file's statistics leave NaN out, and DuckDB believes them: it would find no NaN and keep it.
    options = "hive_partitioning = false, can_have_nan = true"
    described = con.sql(f"DESCRIBE SELECT * FROM read_parquet({literal}, {options})").fetchall()
    rows = con.sql(f"SELECT num_rows FROM parquet_file_metadata({literal})").fetchall()[0][0]
    names = _names(con.sql(f"SELECT name, coalesce(num_children, 0) FROM parquet_schema({literal})").fetchall())
    # DuckDB names columns anew that differ in case only; their order stays.
    columns = tuple(
        FileColumn(name, alias, kind.strip('"')) for name, (alias, kind, *_) in zip(names, described, strict=True)
    )
    numbered = (
        f"(SELECT * RENAME (file_row_number AS __row) FROM read_parquet({literal}, file_row_number = true, {options}))"
    )
    return Scan(numbered, columns, rows)


def _names(elements: list[tuple[str, int]]) -> list[str]:
    """The names of a Parquet file's columns, of its schema: each element with its number of children, which follow."""
    names, children = [], 0
    for name, number in elements[1:]:  # the first one is the root
        if children:
            children -= 1
        else:
            names.append(name)
        children += number
    return names


def _shaped(query: str, scan: Scan, path: Path, con: duckdb.DuckDBPyConnection) -> Scan | Problem:
    """The records that the source's query makes of the file, numbered in the order in which it gives them."""
    import duckdb

    # Made once: the records are looked through several times, and a query may be anything.
    table = identifier(f"records of {uuid.uuid4().hex}")
    body = require_select(con, query, "source.query")
    try:
        con.execute(
            f"CREATE TEMP TABLE {table} AS "
            f"WITH source AS (SELECT * EXCLUDE (__row) FROM {scan.sql} ORDER BY __row) "
            f"SELECT *, row_number() OVER () - 1 AS __row FROM (\n{body}\n)"
        )
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException) as error:
        return Problem(
            "unreadable",
            None,
            f"{path.name}: the source's query can't be run over its columns "
            f"{', '.join(column.alias for column in scan.columns[:12])}"
            f"{', …' if len(scan.columns) > 12 else ''}: {str(error).splitlines()[0]}",
            "a file that the query understands",
            fix=other_delimiter(scan.columns) or "Correct the file, or the source's query in defs.yaml.",
        )
    described = con.sql(f"DESCRIBE SELECT * EXCLUDE (__row) FROM {table}").fetchall()
    columns = tuple(FileColumn(name, name, kind.strip('"')) for name, kind, *_ in described)
    return Scan(table, columns, None, scan.bad_lines, scan.bad_rows)


def _no_parquet(path: Path) -> Problem | None:
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(0, path.stat().st_size - 4))
        tail = file.read(4)
    if head != b"PAR1":
        with path.open("rb") as file:
            start = file.read(24)
        text = start.lstrip().lower()
        looks = " (a web page, not data)" if text.startswith((b"<!doc", b"<html", b"<?xml")) else ""
        return Problem(
            "unreadable",
            None,
            f"{path.name}: not a Parquet file, it begins with {start!r}{looks}",
            "a Parquet file, which begins with b'PAR1'",
            fix="Fetch the file again, or set the source's format.",
        )
    if tail != b"PAR1":
        return Problem(
            "unreadable",
            None,
            f"{path.name}: a truncated Parquet file of {path.stat().st_size} bytes, its footer is missing",
            "a whole Parquet file, which ends with b'PAR1'",
            fix="Fetch the file again: the transfer was probably interrupted.",
        )
    return None
