"""Reading a period: its rows as a stream of the declared columns, with every problem that the file shows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.store import ROW_GROUP_ROWS, identifier
from mlops_assets.sources.casting import casts_of
from mlops_assets.sources.connection import create_period_macros
from mlops_assets.sources.declaration import RECORD_ID, Source
from mlops_assets.sources.digests import digest, digests_by_period, file_sha256
from mlops_assets.sources.failures import FILE_ERRORS, UnreadableSource, is_of_the_file
from mlops_assets.sources.inspection import copies_of, look, misfits_of, missing_column, missing_days_of
from mlops_assets.sources.location import Located
from mlops_assets.sources.opening import Scan, open_scan, unreadable
from mlops_assets.sources.problems import Problem

if TYPE_CHECKING:
    import duckdb

    from mlops_assets.lake.periods import Calendar


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


def read(source: Source, located: Located, period: str, calendar: Calendar, con: duckdb.DuckDBPyConnection) -> Reading:
    """The rows of a period as a stream, cast to the declared schema, with every problem that the file shows.

    The file is looked through first (types, values that don't fit, times, copies), then streamed: memory
    stays bounded whatever its size. An unreadable file is a `Reading` with a problem and no rows; one whose damage
    shows in the middle of the stream raises UnreadableSource there.
    """
    con = con.cursor()  # the stream stays open, and `con` free
    create_period_macros(con, period, calendar)
    size, sha256 = located.path.stat().st_size, file_sha256(located.path)
    try:
        scan = open_scan(source, located.path, con)
        if isinstance(scan, Problem):
            return _no_rows(source, sha256, size, scan)
        return _read_open(source, scan, period, calendar, con, sha256, size)
    except FILE_ERRORS as error:
        if not is_of_the_file(error):
            raise
        return _no_rows(source, sha256, size, unreadable(source, located.path, error))


def read_nothing(source: Source, located: Located, error: Exception) -> Reading:
    """The `Reading` of a file that turned out to be unreadable."""
    path = located.path
    return _no_rows(source, file_sha256(path), path.stat().st_size, unreadable(source, path, error))


def _read_open(
    source: Source,
    scan: Scan,
    period: str,
    calendar: Calendar,
    con: duckdb.DuckDBPyConnection,
    sha256: str,
    size: int,
) -> Reading:
    casts = casts_of(source, scan, con)
    by_name = {cast.name: cast for cast in casts}
    when = by_name[source.time_column].value if source.time_column else None
    start, end = (f"TIMESTAMP '{moment:%Y-%m-%d}'" for moment in (calendar.start(period), calendar.end(period)))
    inside = f"{when}::TIMESTAMP >= {start} AND {when}::TIMESTAMP < {end}" if when else None
    # A file of all periods gives the period's rows; a period's file gives all its rows, and says what is odd.
    where = "" if source.per_period else f" WHERE {inside}"

    extra = tuple(name for name in scan.types if name not in {cast.source_name for cast in casts})
    problems = [missing_column(cast.name, cast.kind, extra, scan.types) for cast in casts if cast.source_name is None]
    facts = look(scan, where, casts, when, inside, con)
    if when and not source.per_period:
        # Rows whose time is missing or can't be read are in no period's rows. Nobody knows where they belong, so every
        # period that is made from the file may lack them, and every one says so.
        times = [cast if cast.name == source.time_column else replace(cast, misfit=None) for cast in casts]
        whole = look(scan, "", times, when, inside, con)
        problems += misfits_of(scan, "", times, whole, con)
    else:
        whole = facts
    problems += misfits_of(scan, where, casts, facts, con)
    known_keys = [by_name[key].value for key in source.keys if by_name[key].source_name]
    duplicates, repeated_keys = copies_of(scan, where, known_keys, int(facts["rows"]), con)
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
        rows_digest = digests_by_period(scan, where, casts, when or "", calendar, con).get(period)
    elif source.query or not source.time_column:
        rows_digest = digest([cast for cast in casts if cast.name != source.time_column], scan, con)
    else:
        rows_digest = None
    missing_days = (
        missing_days_of(scan, where, when or "", period, calendar, con) if _counts_days(source, facts) else ()
    )
    return Reading(
        reader=_guarded(
            query_batches(con, f"SELECT __row::BIGINT AS {RECORD_ID}, {columns} FROM {scan.sql}{where}", ROW_GROUP_ROWS)
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


def _guarded(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The same rows; an error that is the file's is UnreadableSource."""

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from reader
        except FILE_ERRORS as error:
            if is_of_the_file(error):
                raise UnreadableSource(str(error)) from error
            raise

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def _counts_days(source: Source, facts: dict[str, Any]) -> bool:
    return source.max_missing_days is not None and bool(facts["rows"])


def _no_rows(source: Source, sha256: str, size: int, problem: Problem) -> Reading:
    import duckdb

    columns = ", ".join(f"NULL::{kind} AS {identifier(name)}" for name, kind in source.schema.items())
    with duckdb.connect() as con:
        empty = con.sql(f"SELECT NULL::BIGINT AS {RECORD_ID}, {columns} LIMIT 0").to_arrow_table()
    return Reading(empty.to_reader(), 0, sha256, size, variant="unreadable", problems=(problem,))


def _variant(types: dict[str, str]) -> str:
    spelled = ", ".join(f"{name} {kind}" for name, kind in types.items())
    return f"{len(types)} columns, {hashlib.blake2b(spelled.encode(), digest_size=4).hexdigest()}"
