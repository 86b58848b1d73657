"""Opening a file: a scan of its rows that DuckDB can run, or the reason why it can't be read."""

from __future__ import annotations

import csv
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.lake.store import identifier, quoted
from mlops_assets.sources.declaration import Source
from mlops_assets.sources.parquet_verification import parquet_damage
from mlops_assets.sources.problems import Problem

if TYPE_CHECKING:
    import duckdb

_CSV_SYNONYMS = {"sep": "delim", "delimiter": "delim"}


@dataclass(frozen=True)
class Scan:
    """A file that DuckDB can read: a FROM expression with its columns and `__row`, the row's number."""

    sql: str
    types: dict[str, str]
    rows: int | None


def open_scan(source: Source, path: Path, con: duckdb.DuckDBPyConnection) -> Scan | Problem:
    """The records of a file: its rows, or what the source's query makes of them."""
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
    if source.kind_of_file == "parquet":
        # A query may use any column, and names the file's as they are.
        damage = _no_parquet(path) or parquet_damage(path, None if source.query else list(source.schema))
        if damage:
            return damage
        # hive_partitioning off: a folder above the file that is named like a=b is none of the file's columns.
        # can_have_nan: a file's statistics leave NaN out, and DuckDB believes them: it would find no NaN and keep it.
        options = "hive_partitioning = false, can_have_nan = true"
        numbered = (
            "(SELECT * RENAME (file_row_number AS __row) "
            f"FROM read_parquet({literal}, file_row_number = true, {options}))"
        )
        table = f"read_parquet({literal}, {options})"
        rows = con.sql(f"SELECT num_rows FROM parquet_file_metadata({literal})").fetchall()[0][0]
    else:
        # As text, so that one odd value is a problem with a name and not an unreadable file. As a table, because
        # DuckDB would push a TRY_CAST into read_csv, where it raises; beyond the memory limit it spills to disk.
        table = _csv_table(source, literal, con)
        numbered = identifier(f"lines of {uuid.uuid4().hex}")
        rows = con.execute(
            f"CREATE TEMP TABLE {numbered} AS SELECT *, row_number() OVER () - 1 AS __row FROM {table}"
        ).fetchall()[0][0]
    described = con.sql(f"DESCRIBE SELECT * FROM {table}").fetchall()
    return Scan(numbered, {name: kind.strip('"') for name, kind, *_ in described}, rows)


def _shaped(query: str, scan: Scan, path: Path, con: duckdb.DuckDBPyConnection) -> Scan | Problem:
    """The records that the source's query makes of the file, numbered in the order in which it gives them."""
    import duckdb

    # Made once: the records are looked through several times, and a query may be anything.
    table = identifier(f"records of {uuid.uuid4().hex}")
    body = query.rstrip().rstrip(";")
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
            f"{path.name}: the source's query can't be run over its columns {', '.join(list(scan.types)[:12])}"
            f"{', …' if len(scan.types) > 12 else ''}: {str(error).splitlines()[0]}",
            "a file that the query understands",
            fix=other_delimiter(scan.types) or "Correct the file, or the source's query in defs.yaml.",
        )
    described = con.sql(f"DESCRIBE SELECT * EXCLUDE (__row) FROM {table}").fetchall()
    return Scan(table, {name: kind.strip('"') for name, kind, *_ in described}, None)


def _csv_table(source: Source, path: str, con: duckdb.DuckDBPyConnection) -> str:
    """The FROM expression of a CSV file, every column as text."""
    # RFC 4180 unless said otherwise, and nothing is guessed: DuckDB's sniffer takes half a second for 200 columns,
    # again for every query, and steps over the lines at the top that don't fit its guess.
    delimiter = "\t" if ".tsv" in source.path.lower() else ","
    given = {_CSV_SYNONYMS.get(name.lower(), name.lower()): value for name, value in source.csv.items()}
    names = given.pop("names", None)
    options = {"header": names is None, "delim": delimiter, "quote": '"', "escape": '"', "skip": 0} | given
    if names is None:
        names = _csv_header(path, options, con)
    columns = dict.fromkeys(_distinct(names), "VARCHAR")
    options |= {"auto_detect": False, "columns": columns, "hive_partitioning": False}
    return f"read_csv({path}, {', '.join(f'{name} = {_literal(value)}' for name, value in options.items())})"


def _csv_header(path: str, options: dict[str, Any], con: duckdb.DuckDBPyConnection) -> list[str]:
    # Read by DuckDB as one column of text, because it knows the compression and the encoding.
    whole = {"delim": "\x01", "quote": "", "escape": "", "header": False, "columns": {"line": "VARCHAR"}}
    wanted = {name: options[name] for name in ("skip", "encoding", "compression") if name in options}
    spelled = ", ".join(f"{name} = {_literal(value)}" for name, value in (whole | wanted).items())
    found = con.sql(f"SELECT line FROM read_csv({path}, auto_detect = false, {spelled}) LIMIT 1").fetchall()
    line = str(found[0][0] or "") if found else ""
    cells = next(csv.reader([line], delimiter=options["delim"], quotechar=options["quote"] or None), [])
    return [cell.strip() for cell in cells] or [""]


def _distinct(names: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    distinct = []
    for n, given in enumerate(names):
        name = given or f"column{n}"
        while name.lower() in seen:
            name += "_"
        seen.add(name.lower())
        distinct.append(name)
    return distinct


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


def unreadable(source: Source, path: Path, error: Exception) -> Problem:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = re.split(r"Possible (?:fixes|Solution)", " ".join(lines))[0].strip()[:300]
    fix = "Fetch the file again."
    if source.kind_of_file == "csv":
        fix = "Set the source's csv options (delim, quote, encoding, …) to what the file has."
        if re.search(r"(?i)invalid unicode|not utf-8", said):
            fix = "The file is not UTF-8: set csv: {encoding: latin-1}, or convert it."
    return Problem("unreadable", None, f"{path.name}: {said}", f"a readable {source.kind_of_file} file", fix=fix)


def other_delimiter(found: dict[str, str]) -> str | None:
    """What to do about a CSV file whose header is one single column; None when it is not that."""
    (only, *others) = found
    split = next((mark for mark in (";", "\t", "|", ",") if mark in only), None)
    if others or split is None:
        return None
    return f"The file is separated by {split!r}: set csv: {{delim: {split!r}}}."


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(str(key))}: {_literal(item)}" for key, item in value.items()) + "}"
    return quoted(str(value))
