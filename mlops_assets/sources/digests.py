"""Names for contents: of a file, of its rows, and of the rows of each period in it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.sources.casting import Cast, casts_of
from mlops_assets.sources.connection import create_period_macros, source_database
from mlops_assets.sources.declaration import Source
from mlops_assets.sources.failures import FILE_ERRORS, is_of_the_file
from mlops_assets.sources.inspection import last_row_is_cut
from mlops_assets.sources.opening import open_scan
from mlops_assets.sources.problems import Problem
from mlops_assets.sources.scan import Scan

if TYPE_CHECKING:
    import duckdb

    from mlops_assets.lake.periods import Calendar


def rows_digests(source: Source, path: Path, first: str, last: str, calendar: Calendar) -> dict[str, str] | None:
    """`Reading.rows_digest` of every period from `first` to `last` that a file of all periods has rows of, in one pass.

    None for a file that can't be read, or without a time in any row. What is wrong is said by the run that ingests it.
    Rows that a run sets aside count with the value that does not fit as NULL, so that correcting it changes the digest.
    """
    with source_database(source.timezone) as con:
        create_period_macros(con, first, calendar, last)
        try:
            scan = open_scan(source, path, con)
            if isinstance(scan, Problem):
                return None
            casts = casts_of(source, scan, con)
            if last_row_is_cut(scan, casts, con) is not None:
                return None
            when = next(cast.moment for cast in casts if cast.name == source.time_column)
            return digests_by_period(scan, "", casts, when, calendar, con) or None
        except FILE_ERRORS as error:
            if not is_of_the_file(error):
                raise
            return None


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests_by_period(
    scan: Scan, where: str, casts: Sequence[Cast], when: str, calendar: Calendar, con: duckdb.DuckDBPyConnection
) -> dict[str, str]:
    begins = f"date_trunc('{'month' if calendar.cadence == 'monthly' else 'week'}', ({when})::TIMESTAMP)"
    found = con.sql(f"SELECT {begins}, {_digest_sql(casts)} FROM {scan.sql}{where} GROUP BY ALL").fetchall()
    return {calendar.of(start): f"{rows}-{total}" for start, rows, total in found if start is not None}


def digest(casts: Sequence[Cast], scan: Scan, con: duckdb.DuckDBPyConnection) -> str:
    ((rows, total),) = con.sql(f"SELECT {_digest_sql(casts)} FROM {scan.sql}").fetchall()
    return f"{rows}-{total}"


def _digest_sql(casts: Sequence[Cast]) -> str:
    # MD5, because DuckDB's own hash may change with its version, and then every period would look changed.
    cells = " || chr(31) || ".join(f"coalesce(({cast.value})::VARCHAR, chr(0))" for cast in casts)
    return f"count(*), sum(md5_number_lower({cells})::HUGEINT)"
