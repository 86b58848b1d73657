"""Looking through a file's rows: counts, times, values that don't fit, copies, missing columns and days."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.store import identifier
from mlops_assets.sources.casting import Cast
from mlops_assets.sources.problems import Problem
from mlops_assets.sources.scan import FileColumn, Scan, other_delimiter

if TYPE_CHECKING:
    import duckdb
    import numpy as np

    from mlops_assets.lake.periods import Calendar

EXAMPLES = 3
HASHED_ROWS = 5_000_000  # above it copies of rows are counted on a sample of the row hashes
GROSS_COPIES = 0.03  # what an approximate count of distinct rows, which errs by 2 %, can tell from none


@dataclass(frozen=True)
class Counts:
    """What one pass over rows has found.

    Attributes:
        rows: number of rows.
        outside, timeless: rows of another period, and without a time.
        first, last: earliest and latest time.
        misfits: number of values that don't fit, by declared column; only columns that have some.
        odd_rows: number of rows with such a value, among the columns of which some values fit.
    """

    rows: int
    outside: int = 0
    timeless: int = 0
    first: datetime | None = None
    last: datetime | None = None
    misfits: dict[str, int] | None = None
    odd_rows: int = 0


def odd(casts: Sequence[Cast]) -> str | None:
    """SQL that is true for a row with a value that does not fit, None when every value fits.

    A column of another type is no matter of single rows.
    """
    conditions = [f"({cast.misfit})" for cast in casts if cast.misfit and not cast.hopeless]
    return " OR ".join(conditions) or None


def look(
    scan: Scan,
    where: str,
    casts: Sequence[Cast],
    when: str | None,
    inside: str | None,
    con: duckdb.DuckDBPyConnection,
) -> Counts:
    """Row count, times and the number of misfits of every column, in one pass."""
    wanted = {"rows": "count(*)"}
    if when:
        wanted |= {
            "outside": f"count(*) FILTER (NOT ({inside}))",
            "timeless": f"count(*) FILTER (({when}) IS NULL)",
            "first": f"min({when})",
            "last": f"max({when})",
        }
    wanted |= {f"misfit {cast.name}": f"count(*) FILTER ({cast.misfit})" for cast in casts if cast.misfit}
    if list(wanted) == ["rows"] and scan.rows is not None and not where:
        return Counts(scan.rows)
    columns = ", ".join(f"{sql} AS {identifier(name)}" for name, sql in wanted.items())
    values = con.sql(f"SELECT {columns} FROM {scan.sql}{where}").fetchall()[0]
    found = dict(zip(wanted, values, strict=True))
    misfits = {cast.name: int(n) for cast in casts if (n := found.pop(f"misfit {cast.name}", 0))}
    for cast in casts:
        cast.hopeless = cast.hopeless or (cast.name in misfits and _none_fits(scan, where, cast, con))
    odd_rows = 0
    if any(cast.name in misfits and not cast.hopeless for cast in casts):
        condition = odd([cast for cast in casts if cast.name in misfits])
        odd_rows = con.sql(f"SELECT count(*) FROM {scan.sql}{also(where, condition)}").fetchall()[0][0]
    return Counts(**found, misfits=misfits, odd_rows=int(odd_rows))


def _none_fits(scan: Scan, where: str, cast: Cast, con: duckdb.DuckDBPyConnection) -> bool:
    """Whether a column of another type, which a text is not, has no value at all that fits."""
    if cast.column is None or cast.column.kind in ("VARCHAR", cast.kind):
        return False
    return not con.sql(f"SELECT 1 FROM {scan.sql}{also(where, f'{cast.value} IS NOT NULL')} LIMIT 1").fetchall()


def last_row_is_cut(scan: Scan, casts: Sequence[Cast], con: duckdb.DuckDBPyConnection) -> str | None:
    """The last row's text, when it has a value that does not fit and no line end: the file was cut there."""
    condition = odd(casts) if scan.open_end else None
    if condition is None:
        return None
    cells = ", ".join(column.sql for column in scan.columns)
    last = f"__row = (SELECT max(__row) FROM {scan.sql})"
    found = con.sql(f"SELECT concat_ws(',', {cells}) FROM {scan.sql} WHERE {last} AND ({condition})").fetchall()
    return str(found[0][0]) if found else None


def also(where: str, condition: str | None) -> str:
    """A WHERE clause, narrowed by a further condition."""
    if condition is None:
        return where
    return f"{where} AND ({condition})" if where else f" WHERE ({condition})"


def misfits_of(
    scan: Scan,
    where: str,
    casts: Sequence[Cast],
    counts: Counts,
    con: duckdb.DuckDBPyConnection,
    *,
    set_aside: bool,
) -> list[Problem]:
    """A problem for each column with values that don't fit; `set_aside` says whether their rows were."""
    problems = []
    for cast in casts:
        rows = (counts.misfits or {}).get(cast.name)
        if not rows or cast.column is None:
            continue
        raw = cast.column.sql
        query = f"SELECT DISTINCT {raw}::VARCHAR FROM {scan.sql}{also(where, cast.misfit)} LIMIT {EXAMPLES}"
        shown = tuple(str(value)[:80] for (value,) in con.sql(query).fetchall())
        problems.append(
            Problem(
                "wrong_type" if cast.hopeless else "wrong_value",
                cast.name,
                f"{cast.column.kind} values" if cast.hopeless else f"values like {', '.join(map(repr, shown))}",
                f"values that fit {cast.kind}",
                rows,
                shown,
                f"Correct the source, or declare {cast.name} as a type that holds these values.{_hint(cast)}",
                set_aside=set_aside and not cast.hopeless,
            )
        )
    return problems


def _hint(cast: Cast) -> str:
    if not cast.is_time or cast.column is None or cast.column.kind != "VARCHAR":
        return ""
    return " Times are read as 2025-01-31 23:59, in the years 1 to 9999; see csv: timestampformat and dateformat."


def copies_of(
    scan: Scan, where: str, keys: Sequence[str], rows: int, con: duckdb.DuckDBPyConnection
) -> tuple[int, int]:
    """How many rows repeat an earlier row, and how many repeat an earlier key.

    Rows are compared by 64-bit hashes. Up to `HASHED_ROWS` they are sorted, 8 bytes a row. Of more, DuckDB counts the
    distinct keys, spilling to disk; copies of whole rows, which are counted for a warning, are estimated from those
    whose hash falls into every n-th residue class, unless they are so many that an approximate count shows them.
    """
    if rows < 2:
        return 0, 0
    row = f"hash({', '.join(column.sql for column in scan.columns)})"
    key = f"hash({', '.join(keys)})" if keys else None
    if rows <= HASHED_ROWS:
        return _repeated(scan, where, row, con), _repeated(scan, where, key, con) if key else 0
    ((distinct,),) = con.sql(f"SELECT approx_count_distinct({row}) FROM {scan.sql}{where}").fetchall()
    if rows - distinct > GROSS_COPIES * rows:
        copies = rows - _distinct(scan, where, row, con)
    else:
        copies = _repeated(scan, where, row, con, every=-(-rows // HASHED_ROWS))
    return copies, rows - _distinct(scan, where, key, con) if key else 0


def _distinct(scan: Scan, where: str, hashed: str, con: duckdb.DuckDBPyConnection) -> int:
    return int(con.sql(f"SELECT count(DISTINCT {hashed}) FROM {scan.sql}{where}").fetchall()[0][0])


def _repeated(scan: Scan, where: str, hashed: str, con: duckdb.DuckDBPyConnection, every: int = 1) -> int:
    import numpy as np

    sampled = f" WHERE h % {every} = 0" if every > 1 else ""
    query = f"SELECT h FROM (SELECT {hashed} AS h FROM {scan.sql}{where}){sampled}"
    found: list[np.ndarray] = [batch.column(0).to_numpy() for batch in query_batches(con, query)]
    ordered = np.sort(np.concatenate(found)) if found else np.empty(0, np.uint64)
    return int((ordered[1:] == ordered[:-1]).sum()) * every


def missing_days_of(
    scan: Scan, where: str, when: str, period: str, calendar: Calendar, con: duckdb.DuckDBPyConnection
) -> tuple[date, ...]:
    """The days of the period that no row has."""
    found = {day for (day,) in con.sql(f"SELECT DISTINCT ({when})::DATE FROM {scan.sql}{where}").fetchall()}
    first, end = calendar.start(period).date(), calendar.end(period).date()
    return tuple(day for n in range((end - first).days) if (day := first + timedelta(days=n)) not in found)


def absent_column(cast: Cast, extra: Sequence[FileColumn], scan: Scan) -> Problem:
    """The problem of a declared column that the file does not have, or has more than once."""
    if cast.ambiguous:
        return Problem(
            "ambiguous_column",
            cast.name,
            f"several columns that it could be: {', '.join(map(repr, cast.ambiguous))}",
            f"one column {cast.name!r}",
            fix="Rename one of them in the file, or declare the column as the file spells it.",
        )
    close = difflib.get_close_matches(cast.name.lower(), [other.name.lower() for other in extra], 1, 0.6)
    if close:
        renamed = next(other for other in extra if other.name.lower() == close[0])
        return Problem(
            "missing_column",
            cast.name,
            f"no such column, but an undeclared {renamed.name!r} of type {renamed.kind}",
            cast.kind,
            fix=f"Probably renamed: rename it in the file, or declare {renamed.name!r}.",
        )
    separated = other_delimiter(scan.columns)
    if separated:
        found = f"one single column {scan.columns[0].name[:60]!r}"
        return Problem("missing_column", cast.name, found, cast.kind, fix=separated)
    names = [column.name for column in scan.columns]
    return Problem(
        "missing_column",
        cast.name,
        "no such column; the file has " + ", ".join(names[:30]) + (", …" if len(names) > 30 else ""),
        cast.kind,
        fix="Ask the publisher for the column, or remove it from the schema and the features.",
    )
