"""Reading a period: its rows as a stream of the declared columns, with every problem that the file shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.store import ROW_GROUP_ROWS, identifier
from mlops_assets.sources.casting import Cast, casts_of
from mlops_assets.sources.connection import create_period_macros, pin_timezone
from mlops_assets.sources.declaration import RECORD_ID, Source
from mlops_assets.sources.digests import digest, digests_by_period, file_sha256
from mlops_assets.sources.failures import FILE_ERRORS, UnreadableSource, is_of_the_file
from mlops_assets.sources.inspection import (
    EXAMPLES,
    Counts,
    absent_column,
    also,
    copies_of,
    last_row_is_cut,
    look,
    misfits_of,
    missing_days_of,
    odd,
)
from mlops_assets.sources.location import Located
from mlops_assets.sources.opening import open_scan
from mlops_assets.sources.problems import Problem, cut_short, tolerated_rows, unreadable
from mlops_assets.sources.rejects import SHOWN, none_rejected, rejected_rows
from mlops_assets.sources.scan import Scan

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
            order and types. A missing column is all NULL; NaN is NULL. Rows that were set aside are not in it.
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
        rejected: what could not be read, as `rejects.REJECTED`; of a file of all periods with the rows of no period.
        rejected_rows: number of rows that were set aside; 0 when they are too many, and the period is quarantined.
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
    rejected: pa.Table = field(default_factory=none_rejected)
    rejected_rows: int = 0


def read(source: Source, located: Located, period: str, calendar: Calendar, con: duckdb.DuckDBPyConnection) -> Reading:
    """The rows of a period as a stream, cast to the declared schema, with every problem that the file shows.

    The file is looked through first (types, values that don't fit, times, copies), then streamed: memory
    stays bounded whatever its size. An unreadable file is a `Reading` with a problem and no rows; one whose damage
    shows in the middle of the stream raises UnreadableSource there. The zone of the database is set to the source's.
    """
    con = pin_timezone(con.cursor(), source.timezone)  # the stream stays open, and `con` free
    create_period_macros(con, period, calendar)
    size, sha256 = located.path.stat().st_size, file_sha256(located.path)
    try:
        scan = open_scan(source, located.path, con)
        if isinstance(scan, Problem):
            return _no_rows(source, sha256, size, scan)
        casts = casts_of(source, scan, con)
        cut = last_row_is_cut(scan, casts, con)
        if cut is not None:
            return _no_rows(source, sha256, size, cut_short(located.path.name, cut))
        return _read_open(source, scan, casts, period, calendar, con, sha256, size)
    except FILE_ERRORS as error:
        if not is_of_the_file(error):
            raise
        return _no_rows(source, sha256, size, unreadable(source.kind_of_file, located.path, error))


def read_nothing(source: Source, located: Located, error: Exception) -> Reading:
    """The `Reading` of a file that turned out to be unreadable."""
    path = located.path
    return _no_rows(source, file_sha256(path), path.stat().st_size, unreadable(source.kind_of_file, path, error))


@dataclass(frozen=True)
class _Sorted:
    """The rows of a period, apart from those that were set aside: a WHERE clause, what is in them, and the rest."""

    where: str
    counts: Counts
    problems: list[Problem]
    rejected: pa.Table
    rejected_rows: int


def _read_open(
    source: Source,
    scan: Scan,
    casts: list[Cast],
    period: str,
    calendar: Calendar,
    con: duckdb.DuckDBPyConnection,
    sha256: str,
    size: int,
) -> Reading:
    by_name = {cast.name: cast for cast in casts}
    time = by_name[source.time_column] if source.time_column else None
    when = time.moment if time else None
    start, end = (f"TIMESTAMP '{moment:%Y-%m-%d}'" for moment in (calendar.start(period), calendar.end(period)))
    inside = f"{when} >= {start} AND {when} < {end}" if when else None
    # A file of all periods gives the period's rows; a period's file gives all its rows, and says what is odd.
    of_period = "" if source.per_period else f" WHERE {inside}"

    used = {cast.column for cast in casts}
    extra = [column for column in scan.columns if column not in used]
    problems = [absent_column(cast, extra, scan) for cast in casts if cast.column is None]
    whole = Counts(0)
    lost: list[Problem] = []
    nowhere = none_rejected()
    if time and not source.per_period:
        whole, lost, nowhere = _of_no_period(source, scan, time, inside, con)
    found = _sorted(source, scan, of_period, casts, when, inside, con)
    problems += lost + found.problems
    counts = found.counts
    known_keys = [cast.value for key in source.keys if (cast := by_name[key]).column]
    duplicates, repeated_keys = copies_of(scan, found.where, known_keys, counts.rows, con)
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
    if time and time.column:
        of = counts if source.per_period else whole
        outside = Outside(of.outside if source.per_period else 0, of.timeless, of.first, of.last, of.rows)
    if not source.per_period:
        rows_digest = digests_by_period(scan, of_period, casts, when or "", calendar, con).get(period)
    elif source.query or not source.time_column:
        rows_digest = digest([cast for cast in casts if cast is not time], scan, con)
    else:
        rows_digest = None
    missing_days: tuple[date, ...] = ()
    if source.max_missing_days is not None and counts.rows:
        missing_days = missing_days_of(scan, found.where, when or "", period, calendar, con)
    columns = ", ".join(f"{cast.value} AS {identifier(cast.name)}" for cast in casts)
    rows = f"SELECT __row::BIGINT AS {RECORD_ID}, {columns} FROM {scan.sql}{found.where}"
    return Reading(
        reader=_guarded(query_batches(con, rows, ROW_GROUP_ROWS)),
        rows=counts.rows,
        sha256=sha256,
        bytes=size,
        variant=scan.variant,
        extra=tuple(column.name for column in extra),
        problems=tuple(problems),
        outside=outside,
        duplicates=duplicates,
        rows_digest=rows_digest,
        missing_days=missing_days,
        rejected=pa.concat_tables([nowhere, found.rejected]),
        rejected_rows=found.rejected_rows + sum(problem.rows or 0 for problem in lost if problem.set_aside),
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


def _sorted(
    source: Source,
    scan: Scan,
    where: str,
    casts: list[Cast],
    when: str | None,
    inside: str | None,
    con: duckdb.DuckDBPyConnection,
) -> _Sorted:
    """The rows to use and those to set aside: all rows with a value that does not fit, when they are few enough."""
    counts = look(scan, where, casts, when, inside, con)
    # The lines of a file of all periods that are no rows are none of the period's; `_of_no_period` counts them.
    lines = scan.bad_rows if source.per_period else 0
    odd_rows = counts.odd_rows + lines
    set_aside = odd_rows <= tolerated_rows(source.tolerance, counts.rows + lines)
    problems = _line_problems(scan, set_aside) if lines else []
    problems += misfits_of(scan, where, casts, counts, con, set_aside=set_aside)
    if not odd_rows:
        return _Sorted(where, counts, problems, none_rejected(), 0)
    shown = scan if lines else Scan(scan.sql, scan.columns, scan.rows)
    rejected = rejected_rows(shown, where, casts, con, limit=None if set_aside else SHOWN)
    if not set_aside:
        return _Sorted(where, counts, problems, rejected, 0)
    kept = also(where, f"NOT ({odd(casts)})") if counts.odd_rows else where
    return _Sorted(kept, look(scan, kept, casts, when, inside, con), problems, rejected, odd_rows)


def _of_no_period(
    source: Source, scan: Scan, time: Cast, inside: str | None, con: duckdb.DuckDBPyConnection
) -> tuple[Counts, list[Problem], pa.Table]:
    """The rows of a file of all periods whose time can't be read, and its lines that are no rows.

    Nobody knows where they belong, so every period that is made from the file may lack them, and every one says so.
    """
    whole = look(scan, "", [time], time.moment, inside, con)
    lost = whole.odd_rows + scan.bad_rows
    set_aside = lost <= tolerated_rows(source.tolerance, whole.rows + scan.bad_rows)
    problems = _line_problems(scan, set_aside) if scan.bad_rows else []
    problems += misfits_of(scan, "", [time], whole, con, set_aside=set_aside)
    rejected = rejected_rows(scan, "", [time], con, limit=None if set_aside else SHOWN) if lost else none_rejected()
    return whole, problems, rejected


def _line_problems(scan: Scan, set_aside: bool) -> list[Problem]:
    examples = tuple(bad.text[:80] for bad in scan.bad_lines[:EXAMPLES])
    said = "; ".join(f"line {bad.line}: {bad.reason[:120]}" for bad in scan.bad_lines[:EXAMPLES])
    return [
        Problem(
            "unreadable_line",
            None,
            f"lines that are no rows of the file ({said})",
            "rows with as many values as the header has names",
            scan.bad_rows,
            examples,
            "Correct the lines in the file.",
            set_aside=set_aside,
        )
    ]


def _no_rows(source: Source, sha256: str, size: int, problem: Problem) -> Reading:
    import duckdb

    columns = ", ".join(f"NULL::{kind} AS {identifier(name)}" for name, kind in source.schema.items())
    with duckdb.connect() as con:
        pin_timezone(con, source.timezone)
        empty = con.sql(f"SELECT NULL::BIGINT AS {RECORD_ID}, {columns} LIMIT 0").to_arrow_table()
    return Reading(empty.to_reader(), 0, sha256, size, variant="unreadable", problems=(problem,))
