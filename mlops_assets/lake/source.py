"""Reading a model's records: find the publisher's file, cast it to the declared schema, say what is odd.

Here: one period's rows out of a Parquet or CSV file, and the problems that can be told from the file alone.
Nothing is repaired and no row is dropped. Judging values against a feature's rules is `lake.validation`.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import os
import re
import tempfile
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlops_assets.lake.connection import DEFAULT_MEMORY, MEMORY_VARIABLE, query_batches
from mlops_assets.lake.store import ROW_GROUP_ROWS, identifier, quoted

if TYPE_CHECKING:
    import duckdb
    import numpy as np

    from mlops_assets.lake.periods import Calendar

Format = Literal["parquet", "csv"]

RECORD_ID = "record_id"
CONNECT_SECONDS, READ_SECONDS = 10, 60
EXAMPLES = 3
HASHED_ROWS = 5_000_000  # above it copies are counted on a sample of the row hashes

_RESERVED = {RECORD_ID, "period"}
_FLOATS = {"FLOAT", "DOUBLE"}
_INTEGERS = {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
}
_CSV_SYNONYMS = {"sep": "delim", "delimiter": "delim"}
_WIDTHS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")


class NoData(LookupError):
    """A period's file is nowhere to be had."""


with warnings.catch_warnings():
    # `schema` is the word of the YAML, and Dagster looks each YAML key up as an attribute to report its line.
    # What it shadows is a deprecated method of pydantic's that nobody calls here.
    warnings.filterwarnings("ignore", message='Field name "schema"')

    class Source(BaseModel):
        """Where a model's records come from, and which columns they have."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        path: str = Field(
            description="The file below the data folder, or an fsspec URL. With {period} in it there is "
            "a file per period; without it one file holds all periods."
        )
        url: str | None = Field(
            default=None,
            description="Where the file is fetched from when it is not there; may contain {period}.",
        )
        advice: str | None = Field(
            default=None, description="What to do when a file is nowhere to be had and there is no url: told then."
        )
        format: Format | None = Field(default=None, description="Default: by the path's ending.")
        schema: dict[str, str] = Field(  # type: ignore[assignment]
            description="The columns that are read, in this order, each with its DuckDB type."
        )
        time_column: str | None = Field(default=None, description="When the record happened; picks its period.")
        keys: list[str] = Field(
            default=[], description="Columns that identify a record. Default: the row's number in the source."
        )
        query: str | None = Field(
            default=None,
            description="SQL that makes records of the file's rows, when they are shaped otherwise: a SELECT from "
            "`source`, e.g. an UNPIVOT of a wide table. The macros period(), period_start() and period_end() work.",
        )
        max_missing_days: int | None = Field(
            default=None,
            ge=0,
            description="How many days of a period may be without any record; with more, the period is incomplete. "
            "Default: days are not counted.",
        )
        csv: dict[str, Any] = Field(
            default={},
            description="Options of DuckDB's read_csv, e.g. {delim: ';', nullstr: 'NA'}; `names` for no header.",
        )

        @model_validator(mode="after")
        def _is_consistent(self) -> Self:
            if not self.schema:
                raise ValueError("schema names no column; list each column with its DuckDB type")
            reserved = sorted(name for name in self.schema if name.lower() in _RESERVED)
            if reserved:
                raise ValueError(f"schema column {reserved[0]!r} is made by the platform; leave it out")
            for name, kind in self.schema.items():
                _check_type(name, kind)
            for role, names in (
                ("time_column", [self.time_column] if self.time_column else []),
                ("keys", self.keys),
            ):
                for name in names:
                    if name not in self.schema:
                        raise ValueError(f"{role} {name!r} is not in schema" + _did_you_mean(name, self.schema))
            if self.time_column and not re.match(r"(?i)timestamp|date", self.schema[self.time_column]):
                found = self.schema[self.time_column]
                raise ValueError(f"time_column {self.time_column!r} is declared {found}; expected DATE or TIMESTAMP")
            if not self.per_period and not self.time_column:
                raise ValueError(
                    f"path {self.path!r} holds all periods, so time_column has to say which row is in which; "
                    "or put {period} into the path"
                )
            _check_template("path", self.path)
            _check_template("url", self.url or "")
            if "://" not in self.path:
                parts = PurePosixPath(self.path)
                if parts.is_absolute() or ".." in parts.parts:
                    raise ValueError(f"path {self.path!r} has to lie below the data folder, or be a URL")
            if self.kind_of_file != "csv" and self.csv:
                raise ValueError("csv options are given, but the format is parquet")
            for option in self.csv:
                _check_csv_option(option)
            if self.query is not None:
                _check_query(self.query)
            if self.max_missing_days is not None and not self.time_column:
                raise ValueError("max_missing_days counts days by the time_column; declare one")
            return self

        @property
        def per_period(self) -> bool:
            """Whether each period has a file of its own."""
            return "{period}" in self.path

        @property
        def kind_of_file(self) -> Format:
            """The format, declared or by the path's ending."""
            if self.format:
                return self.format
            name = self.path.lower()
            if name.endswith((".parquet", ".pq")):
                return "parquet"
            if name.endswith((".csv", ".csv.gz", ".tsv", ".txt", ".csv.zst")):
                return "csv"
            raise ValueError(f"can't tell the format of {self.path!r} by its ending; set format: parquet or csv")


@dataclass(frozen=True)
class Located:
    """A file that is on this machine now, and where it came from."""

    path: Path
    origin: str


@dataclass(frozen=True)
class Problem:
    """Something about the source that differs from what was declared.

    Attributes:
        code: `unreadable`, `missing_column`, `wrong_type`, `wrong_value` or `duplicate_key`.
        rows: how many rows it touches, where that can be counted.
        examples: up to three offending values.
        fix: what to do about it.
    """

    code: str
    column: str | None
    found: str
    expected: str
    rows: int | None = None
    examples: tuple[str, ...] = ()
    fix: str = ""

    def __str__(self) -> str:
        where = f"column {self.column}: " if self.column else ""
        rows = f" ({self.rows} rows)" if self.rows is not None else ""
        return f"{where}found {self.found}{rows}, expected {self.expected}. {self.fix}".rstrip()


@dataclass(frozen=True)
class Outside:
    """Rows of a file that happened in another period than the file's, or at an unknown time.

    Attributes:
        rows: rows of another period; none in a file of all periods.
        unknown: rows without a time, or with one that can't be read. In a file of all periods no period has them.
        first, last: earliest and latest time in the whole file.
        file_rows: number of rows in the whole file.
    """

    rows: int
    unknown: int
    first: datetime | None
    last: datetime | None
    file_rows: int


@dataclass(frozen=True)
class Reading:
    """A period's rows and what is known about them before they are read.

    Attributes:
        reader: `record_id` (BIGINT, the row's number in the source from 0) and the declared columns, in their
            order and types. A missing column is all NULL; NaN is NULL.
        rows: number of rows in `reader`.
        sha256, bytes: of the file.
        variant: which schema the source really has, as a short name; sources of the same schema share it.
        extra: columns of the file that are not declared.
        outside: rows of another period or of none; None when the file has no time column.
        duplicates: rows that are copies of an earlier row in every column of the source. Above five million
            rows it is estimated, from all rows whose hash falls into a sample of hashes.
        rows_digest: digest of the period's rows, whatever their order, when the file holds other periods too. Of a
            period's own file, where nothing in it needs to say which period it is (no time column, or one that
            `query` computes): digest of its rows without their time.
        missing_days: days of the period without any row, where the source declares how many there may be.
    """

    reader: pa.RecordBatchReader
    rows: int
    sha256: str
    bytes: int
    variant: str
    extra: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    outside: Outside | None = None
    duplicates: int = 0
    rows_digest: str | None = None
    missing_days: tuple[date, ...] = ()


def locate(source: Source, period: str, data_dir: Path, downloads: Path) -> Located:
    """The period's file: below `data_dir`, else an earlier download, else fetched from the source's `url`.

    A path that is an fsspec URL is copied anew each time, because it may have changed.

    Raises:
        NoData: none of these has it; the message says where was looked and what was answered.
    """
    path = source.path.replace("{period}", period)
    if "://" in path:
        return _copied(path, downloads)
    local, downloaded = data_dir / path, downloads / path
    if local.is_file():
        return Located(local, f"file {path}")
    looked = f"no file {local}"
    if source.url is None:
        if downloaded.is_file():
            return Located(downloaded, f"file {path} in {downloads.name}")
        what_to_do = source.advice or "put the file there"
        raise NoData(f"{looked}, and the source has no url to fetch it from; {what_to_do}")
    url = source.url.replace("{period}", period)
    if not downloaded.is_file():
        _download(url, downloaded, looked)
    return Located(downloaded, url)


def read(source: Source, located: Located, period: str, calendar: Calendar, con: duckdb.DuckDBPyConnection) -> Reading:
    """The rows of a period as a stream, cast to the declared schema, with every problem that the file shows.

    The file is looked through first (types, values that don't fit, times, copies), then streamed: memory
    stays bounded whatever its size. An unreadable file is a `Reading` with a problem and no rows.
    """
    import duckdb

    con = con.cursor()  # the stream stays open, and `con` free
    create_period_macros(con, period, calendar)
    size, sha256 = located.path.stat().st_size, file_sha256(located.path)
    try:
        scan = _open(source, located.path, con)
        if isinstance(scan, Problem):
            return _no_rows(source, sha256, size, scan)
        return _read_open(source, scan, period, calendar, con, sha256, size)
    except duckdb.Error as error:
        if not _is_of_the_file(error):
            raise
        return _no_rows(source, sha256, size, _unreadable(source, located.path, error))


def rows_digests(source: Source, path: Path, first: str, last: str, calendar: Calendar) -> dict[str, str] | None:
    """`Reading.rows_digest` of every period from `first` to `last` that a file of all periods has rows of, in one pass.

    None for a file that can't be read, or without a time in any row. What is wrong is said by the run that ingests it.
    """
    import duckdb

    memory = os.environ.get(MEMORY_VARIABLE, DEFAULT_MEMORY)
    with (
        tempfile.TemporaryDirectory(prefix="mlops_assets_duckdb_") as spill,
        duckdb.connect(config={"memory_limit": memory, "temp_directory": spill}) as con,
    ):
        create_period_macros(con, first, calendar, last)
        try:
            scan = _open(source, path, con)
            if isinstance(scan, Problem):
                return None
            casts = _casts(source, scan, con)
            when = next(cast.value for cast in casts if cast.name == source.time_column)
            return _digests_by_period(scan, "", casts, when, calendar, con) or None
        except duckdb.Error as error:
            if not _is_of_the_file(error):
                raise
            return None


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- finding the file ------------------------------------------------------------------------------


def _copied(url: str, downloads: Path) -> Located:
    from upath import UPath

    remote = UPath(url)
    target = downloads / re.sub(r"[^A-Za-z0-9_.-]+", "_", url)
    if not remote.exists():
        raise NoData(f"no file {url}; put it there, or correct the source's path")
    with Arriving(target) as temporary:
        remote.fs.get_file(remote.path, str(temporary))
    return Located(target, url)


def _download(url: str, target: Path, looked: str) -> None:
    import requests

    what_to_do = f"put the file there, or fetch {url} by hand"
    try:
        with (
            Arriving(target) as temporary,
            requests.get(url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as answer,
        ):
            if not answer.ok:
                raise NoData(f"{looked}, and {url} answered {answer.status_code} {answer.reason}; {what_to_do}")
            with temporary.open("wb") as file:
                for chunk in answer.iter_content(1 << 20):
                    file.write(chunk)
    except requests.RequestException as error:
        cause = f"{type(error).__name__}: {error}"
        raise NoData(f"{looked}, and {url} could not be fetched ({cause}); {what_to_do}") from error


class Arriving:
    """A temporary file beside the target: it takes its place when the block succeeds, else it disappears."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")

    def __enter__(self) -> Path:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        return self._temporary

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            os.replace(self._temporary, self._target)  # noqa: PTH105 - the atomic step
        else:
            self._temporary.unlink(missing_ok=True)


# -- opening it ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scan:
    """A file that DuckDB can read: a FROM expression with its columns and `__row`, the row's number."""

    sql: str
    types: dict[str, str]
    rows: int | None


def _open(source: Source, path: Path, con: duckdb.DuckDBPyConnection) -> _Scan | Problem:
    """The records of a file: its rows, or what the source's query makes of them."""
    scan = _open_file(source, path, con)
    if isinstance(scan, Problem) or source.query is None:
        return scan
    shaped = _shaped(source.query, scan, path, con)
    if source.kind_of_file == "csv":
        con.execute(f"DROP TABLE {scan.sql}")
    return shaped


def _open_file(source: Source, path: Path, con: duckdb.DuckDBPyConnection) -> _Scan | Problem:
    if path.stat().st_size == 0:
        expected = "a Parquet file" if source.kind_of_file == "parquet" else "a CSV file with a header line"
        return Problem(
            "unreadable", None, f"{path.name}: an empty file (0 bytes)", expected, fix="Fetch the file again."
        )
    literal = quoted(re.sub(r"([\[*?])", r"[\1]", str(path)))
    if source.kind_of_file == "parquet":
        damage = _parquet_damage(path)
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
    return _Scan(numbered, {name: kind.strip('"') for name, kind, *_ in described}, rows)


def _shaped(query: str, scan: _Scan, path: Path, con: duckdb.DuckDBPyConnection) -> _Scan | Problem:
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
            fix=_other_delimiter(scan.types) or "Correct the file, or the source's query in defs.yaml.",
        )
    described = con.sql(f"DESCRIBE SELECT * EXCLUDE (__row) FROM {table}").fetchall()
    return _Scan(table, {name: kind.strip('"') for name, kind, *_ in described}, None)


def create_period_macros(
    con: duckdb.DuckDBPyConnection, period: str, calendar: Calendar, last: str | None = None
) -> None:
    """Make `period()`, `period_start()` and `period_end()` (exclusive) tell a query which period is wanted.

    With `last` the end is that of a later period. They belong to the connection's database; the next period's replace
    them.
    """
    # Macros, because the variables of a connection are not seen by its cursors.
    con.execute(f"CREATE OR REPLACE MACRO period() AS {quoted(period)}")
    for name, moment in (("period_start", calendar.start(period)), ("period_end", calendar.end(last or period))):
        con.execute(f"CREATE OR REPLACE MACRO {name}() AS TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S}'")


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


def _parquet_damage(path: Path) -> Problem | None:
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


def _is_of_the_file(error: duckdb.Error) -> bool:
    """Whether the file is to blame for an error."""
    import duckdb

    # What a damaged page raises is a plain duckdb.Error, so it is told by what it is not.
    not_the_file = (
        *(duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException),
        *(duckdb.OutOfMemoryException, duckdb.InterruptException, duckdb.InternalException),
    )
    return not isinstance(error, not_the_file)


def _unreadable(source: Source, path: Path, error: Exception) -> Problem:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = re.split(r"Possible (?:fixes|Solution)", " ".join(lines))[0].strip()[:300]
    fix = "Fetch the file again."
    if source.kind_of_file == "csv":
        fix = "Set the source's csv options (delim, quote, encoding, …) to what the file has."
        if re.search(r"(?i)invalid unicode|not utf-8", said):
            fix = "The file is not UTF-8: set csv: {encoding: latin-1}, or convert it."
    return Problem("unreadable", None, f"{path.name}: {said}", f"a readable {source.kind_of_file} file", fix=fix)


def _no_rows(source: Source, sha256: str, size: int, problem: Problem) -> Reading:
    import duckdb

    columns = ", ".join(f"NULL::{kind} AS {identifier(name)}" for name, kind in source.schema.items())
    with duckdb.connect() as con:
        empty = con.sql(f"SELECT NULL::BIGINT AS {RECORD_ID}, {columns} LIMIT 0").to_arrow_table()
    return Reading(empty.to_reader(), 0, sha256, size, variant="unreadable", problems=(problem,))


# -- looking through it ----------------------------------------------------------------------------


@dataclass
class _Cast:
    """How a declared column is made: SQL for its value, and for "there is a value, but it doesn't fit"."""

    name: str
    kind: str
    source_name: str | None = None
    source_kind: str | None = None
    value: str = ""
    misfit: str | None = None


def _read_open(
    source: Source,
    scan: _Scan,
    period: str,
    calendar: Calendar,
    con: duckdb.DuckDBPyConnection,
    sha256: str,
    size: int,
) -> Reading:
    casts = _casts(source, scan, con)
    by_name = {cast.name: cast for cast in casts}
    when = by_name[source.time_column].value if source.time_column else None
    start, end = (f"TIMESTAMP '{moment:%Y-%m-%d}'" for moment in (calendar.start(period), calendar.end(period)))
    inside = f"{when}::TIMESTAMP >= {start} AND {when}::TIMESTAMP < {end}" if when else None
    # A file of all periods gives the period's rows; a period's file gives all its rows, and says what is odd.
    where = "" if source.per_period else f" WHERE {inside}"

    extra = tuple(name for name in scan.types if name not in {cast.source_name for cast in casts})
    problems = [_missing_column(cast.name, cast.kind, extra, scan.types) for cast in casts if cast.source_name is None]
    facts = _look(scan, where, casts, when, inside, con)
    if when and not source.per_period:
        # Rows whose time is missing or can't be read are in no period's rows. Nobody knows where they belong, so every
        # period that is made from the file may lack them, and every one says so.
        times = [cast if cast.name == source.time_column else replace(cast, misfit=None) for cast in casts]
        whole = _look(scan, "", times, when, inside, con)
        problems += _misfits(scan, "", times, whole, con)
    else:
        whole = facts
    problems += _misfits(scan, where, casts, facts, con)
    known_keys = [by_name[key].value for key in source.keys if by_name[key].source_name]
    duplicates, repeated_keys = _copies(scan, where, known_keys, int(facts["rows"]), con)
    if repeated_keys and len(known_keys) == len(source.keys):
        problems.append(
            Problem(
                "duplicate_key",
                ", ".join(source.keys),
                "the same key more than once",
                "one row per key",
                repeated_keys,
                fix="Remove the repeated rows from the source, or declare keys that identify a record.",
            )
        )
    outside = None
    if when and by_name[source.time_column or ""].source_name:
        outside = Outside(
            int(whole["outside"]) if source.per_period else 0,
            int(whole["timeless"]),
            whole["first"],
            whole["last"],
            int(whole["rows"]),
        )
    columns = ", ".join(f"{cast.value} AS {identifier(cast.name)}" for cast in casts)
    if not source.per_period:
        rows_digest = _digests_by_period(scan, where, casts, when or "", calendar, con).get(period)
    elif source.query or not source.time_column:
        rows_digest = _digest([cast for cast in casts if cast.name != source.time_column], scan, con)
    else:
        rows_digest = None
    missing_days = _missing_days(scan, where, when or "", period, calendar, con) if _counts_days(source, facts) else ()
    return Reading(
        reader=query_batches(
            con, f"SELECT __row::BIGINT AS {RECORD_ID}, {columns} FROM {scan.sql}{where}", ROW_GROUP_ROWS
        ),
        rows=int(facts["rows"]),
        sha256=sha256,
        bytes=size,
        variant=_variant(scan.types),
        extra=extra,
        problems=tuple(problems),
        outside=outside,
        duplicates=duplicates,
        rows_digest=rows_digest,
        missing_days=missing_days,
    )


def _counts_days(source: Source, facts: dict[str, Any]) -> bool:
    return source.max_missing_days is not None and bool(facts["rows"])


def _missing_days(
    scan: _Scan, where: str, when: str, period: str, calendar: Calendar, con: duckdb.DuckDBPyConnection
) -> tuple[date, ...]:
    found = {day for (day,) in con.sql(f"SELECT DISTINCT ({when})::DATE FROM {scan.sql}{where}").fetchall()}
    first, end = calendar.start(period).date(), calendar.end(period).date()
    return tuple(day for n in range((end - first).days) if (day := first + timedelta(days=n)) not in found)


def _digests_by_period(
    scan: _Scan, where: str, casts: Sequence[_Cast], when: str, calendar: Calendar, con: duckdb.DuckDBPyConnection
) -> dict[str, str]:
    begins = f"date_trunc('{'month' if calendar.cadence == 'monthly' else 'week'}', ({when})::TIMESTAMP)"
    found = con.sql(f"SELECT {begins}, {_digest_sql(casts)} FROM {scan.sql}{where} GROUP BY ALL").fetchall()
    return {calendar.of(start): f"{rows}-{total}" for start, rows, total in found if start is not None}


def _digest(casts: Sequence[_Cast], scan: _Scan, con: duckdb.DuckDBPyConnection) -> str:
    ((rows, total),) = con.sql(f"SELECT {_digest_sql(casts)} FROM {scan.sql}").fetchall()
    return f"{rows}-{total}"


def _digest_sql(casts: Sequence[_Cast]) -> str:
    # MD5, because DuckDB's own hash may change with its version, and then every period would look changed.
    cells = " || chr(31) || ".join(f"coalesce(({cast.value})::VARCHAR, chr(0))" for cast in casts)
    return f"count(*), sum(md5_number_lower({cells})::HUGEINT)"


def _casts(source: Source, scan: _Scan, con: duckdb.DuckDBPyConnection) -> list[_Cast]:
    """How each declared column is made of the file's."""
    names = _match_names(source.schema, scan.types)
    kinds = _canonical_types(source.schema, con)
    pairs = {(scan.types[found], kinds[name]) for name, found in names.items() if found}
    castable = {pair for pair in pairs if _castable(*pair, con)}
    return [_cast(name, kinds[name], names[name], scan.types, castable) for name in source.schema]


def _match_names(schema: dict[str, str], found: dict[str, str]) -> dict[str, str | None]:
    """For each declared column the file's, exact or differing in case only."""
    folded = {name.lower(): name for name in reversed(found)}
    return {name: name if name in found else folded.get(name.lower()) for name in schema}


def _canonical_types(schema: dict[str, str], con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The declared types as DuckDB spells them: `int` and `INTEGER` are the same."""
    columns = ", ".join(f"NULL::{kind} AS {identifier(name)}" for name, kind in schema.items())
    return dict(zip(schema, (row[1] for row in con.sql(f"DESCRIBE SELECT {columns}").fetchall()), strict=True))


def _castable(source_kind: str, kind: str, con: duckdb.DuckDBPyConnection) -> bool:
    import duckdb

    if source_kind == "NULL":
        return True
    try:
        con.sql(f"SELECT TRY_CAST(NULL::{source_kind} AS {kind})").fetchall()
    except (duckdb.BinderException, duckdb.ConversionException):
        return False
    return True


def _cast(
    name: str, kind: str, source_name: str | None, found: dict[str, str], castable: set[tuple[str, str]]
) -> _Cast:
    if source_name is None:
        return _Cast(name, kind, value=f"NULL::{kind}")
    source_kind = found[source_name]
    cast = _Cast(name, kind, source_name, source_kind)
    raw = identifier(source_name)
    if source_kind == "NULL":
        cast.value = f"NULL::{kind}"
        return cast
    if (source_kind, kind) not in castable:
        cast.value, cast.misfit = f"NULL::{kind}", f"{raw} IS NOT NULL"
        return cast
    if source_kind in _FLOATS:
        raw = f"nullif({raw}, 'NaN'::{source_kind})"
    value = raw if source_kind == kind else f"TRY_CAST({raw} AS {kind})"
    cast.value = f"nullif({value}, 'NaN'::{kind})" if kind in _FLOATS and source_kind not in _FLOATS else value
    if source_kind == kind or _only_widens(source_kind, kind):
        return cast
    cast.misfit = f"{raw} IS NOT NULL AND {value} IS NULL"
    if kind in _INTEGERS and source_kind not in _INTEGERS:
        # DuckDB rounds 1.5 to 2, which would turn one category into another without a word.
        cast.misfit = f"{raw} IS NOT NULL AND ({value} IS NULL OR TRY_CAST({raw} AS DOUBLE) <> {value}::DOUBLE)"
    if kind in _FLOATS and source_kind == "VARCHAR":
        # An amount that doesn't fit becomes infinite in the cast, not NULL.
        cast.misfit = f"{raw} IS NOT NULL AND ({value} IS NULL OR isinf({value}))"
    return cast


def _only_widens(source_kind: str, kind: str) -> bool:
    if kind == "VARCHAR" or (kind == "DOUBLE" and source_kind in {"FLOAT", *_INTEGERS}):
        return True
    return source_kind in _WIDTHS and kind in _WIDTHS and _WIDTHS.index(source_kind) <= _WIDTHS.index(kind)


def _look(
    scan: _Scan,
    where: str,
    casts: Sequence[_Cast],
    when: str | None,
    inside: str | None,
    con: duckdb.DuckDBPyConnection,
) -> dict[str, Any]:
    """Row count, times and the number of misfits of every column, in one pass."""
    wanted = {"rows": "count(*)"}
    if when:
        wanted |= {
            "outside": f"count(*) FILTER (NOT ({inside}))",
            "timeless": f"count(*) FILTER (({when}) IS NULL)",
            "first": f"min({when}::TIMESTAMP)",
            "last": f"max({when}::TIMESTAMP)",
        }
    wanted |= {f"misfit {n}": f"count(*) FILTER ({cast.misfit})" for n, cast in enumerate(casts) if cast.misfit}
    if list(wanted) == ["rows"] and scan.rows is not None and not where:
        return {"rows": scan.rows}
    columns = ", ".join(f"{sql} AS {identifier(name)}" for name, sql in wanted.items())
    found = con.sql(f"SELECT {columns} FROM {scan.sql}{where}").fetchall()[0]
    return dict(zip(wanted, found, strict=True))


def _misfits(
    scan: _Scan,
    where: str,
    casts: Sequence[_Cast],
    facts: dict[str, Any],
    con: duckdb.DuckDBPyConnection,
) -> list[Problem]:
    problems = []
    for n, cast in enumerate(casts):
        rows = facts.get(f"misfit {n}")
        if not rows:
            continue
        condition = f"{where} AND ({cast.misfit})" if where else f" WHERE {cast.misfit}"
        raw = identifier(cast.source_name or "")
        examples = con.sql(f"SELECT DISTINCT {raw}::VARCHAR FROM {scan.sql}{condition} LIMIT {EXAMPLES}").fetchall()
        shown = tuple(str(value)[:80] for (value,) in examples)
        all_wrong = cast.value.startswith("NULL::")
        problems.append(
            Problem(
                "wrong_type" if all_wrong else "wrong_value",
                cast.name,
                f"{cast.source_kind} values" if all_wrong else f"values like {', '.join(map(repr, shown))}",
                f"values that fit {cast.kind}",
                int(rows),
                shown,
                f"Correct the source, or declare {cast.name} as a type that holds these values.",
            )
        )
    return problems


def _copies(scan: _Scan, where: str, keys: Sequence[str], rows: int, con: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """How many rows repeat an earlier row, and how many repeat an earlier key.

    Rows are compared by 64-bit hashes, 8 bytes a row instead of the row. Copies share their hash, so rows
    whose hash falls into every n-th residue class hold 1/n of all copies: that bounds the memory.
    """
    import numpy as np

    if rows < 2:
        return 0, 0
    every = -(-rows // HASHED_ROWS)
    columns = ", ".join(identifier(name) for name in scan.types)
    hashes = {"row": f"hash({columns})"} | ({"key": f"hash({', '.join(keys)})"} if keys else {})
    counted = []
    for sql in hashes.values():
        sampled = f" WHERE h % {every} = 0" if every > 1 else ""
        query = f"SELECT h FROM (SELECT {sql} AS h FROM {scan.sql}{where}){sampled}"
        found: list[np.ndarray] = [batch.column(0).to_numpy() for batch in query_batches(con, query)]
        ordered = np.sort(np.concatenate(found)) if found else np.empty(0, np.uint64)
        counted.append(int((ordered[1:] == ordered[:-1]).sum()) * every)
    return counted[0], counted[1] if keys else 0


def _missing_column(name: str, kind: str, extra: Sequence[str], found: dict[str, str]) -> Problem:
    close = difflib.get_close_matches(name.lower(), [other.lower() for other in extra], 1, 0.6)
    if close:
        renamed = next(other for other in extra if other.lower() == close[0])
        return Problem(
            "missing_column",
            name,
            f"no such column, but an undeclared {renamed!r} of type {found[renamed]}",
            kind,
            fix=f"Probably renamed: rename it in the file, or declare {renamed!r}.",
        )
    separated = _other_delimiter(found)
    if separated:
        return Problem("missing_column", name, f"one single column {next(iter(found))[:60]!r}", kind, fix=separated)
    return Problem(
        "missing_column",
        name,
        "no such column; the file has " + ", ".join(list(found)[:30]) + (", …" if len(found) > 30 else ""),
        kind,
        fix="Ask the publisher for the column, or remove it from the schema and the features.",
    )


def _other_delimiter(found: dict[str, str]) -> str | None:
    """What to do about a CSV file whose header is one single column; None when it is not that."""
    (only, *others) = found
    split = next((mark for mark in (";", "\t", "|", ",") if mark in only), None)
    if others or split is None:
        return None
    return f"The file is separated by {split!r}: set csv: {{delim: {split!r}}}."


def _variant(types: dict[str, str]) -> str:
    spelled = ", ".join(f"{name} {kind}" for name, kind in types.items())
    return f"{len(types)} columns, {hashlib.blake2b(spelled.encode(), digest_size=4).hexdigest()}"


# -- declarations ----------------------------------------------------------------------------------


def _check_type(name: str, kind: str) -> None:
    import duckdb

    try:
        # Parsed as a type by DuckDB itself, so that also DECIMAL(10, 2) and INTEGER[] are known.
        duckdb.sqltype(kind)
    except duckdb.Error as error:
        raise ValueError(
            f"schema column {name!r} has the type {kind!r}, which DuckDB does not know; "
            "expected e.g. BIGINT, DOUBLE, VARCHAR, BOOLEAN, DATE or TIMESTAMP"
        ) from error


def _check_csv_option(name: str) -> None:
    import duckdb

    with duckdb.connect(config={"threads": 1}) as con:
        listed = con.sql(
            "SELECT DISTINCT unnest(parameters) FROM duckdb_functions() WHERE function_name = 'read_csv'"
        ).fetchall()
    known = sorted({option for (option,) in listed} - {"col0"})
    if name.lower() not in {*known, "names"}:
        raise ValueError(
            f"csv has the option {name!r}, which DuckDB's read_csv does not know{_did_you_mean(name, known)}"
        )


def _check_query(query: str) -> None:
    import duckdb

    with duckdb.connect(config={"threads": 1}) as con:
        try:
            statements = con.extract_statements(query)
        except duckdb.ParserException as error:
            raise ValueError(f"source.query can't be parsed: {str(error).splitlines()[0]}") from error
    if len(statements) != 1 or not re.search(r"(?i)\bsource\b", query):
        raise ValueError(
            "source.query has to be one SELECT that reads `source`, the rows of the file, "
            "e.g. SELECT *, make_date(year, month, day) AS date FROM source"
        )


def _check_template(role: str, text: str) -> None:
    unknown = set(re.findall(r"\{([^}]*)\}", text)) - {"period"}
    if unknown:
        raise ValueError(f"{role} {text!r} has the placeholder {{{unknown.pop()}}}; only {{period}} is known")


def _did_you_mean(name: str, known: Sequence[str] | dict[str, str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


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
