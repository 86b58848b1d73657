"""Looking through a file's rows: counts, times, values that don't fit, copies, missing columns and days."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.store import identifier
from mlops_assets.sources.casting import Cast
from mlops_assets.sources.opening import Scan, other_delimiter
from mlops_assets.sources.problems import Problem

if TYPE_CHECKING:
    import duckdb
    import numpy as np

    from mlops_assets.lake.periods import Calendar

EXAMPLES = 3
HASHED_ROWS = 5_000_000  # above it copies are counted on a sample of the row hashes


def missing_days_of(
    scan: Scan, where: str, when: str, period: str, calendar: Calendar, con: duckdb.DuckDBPyConnection
) -> tuple[date, ...]:
    found = {day for (day,) in con.sql(f"SELECT DISTINCT ({when})::DATE FROM {scan.sql}{where}").fetchall()}
    first, end = calendar.start(period).date(), calendar.end(period).date()
    return tuple(day for n in range((end - first).days) if (day := first + timedelta(days=n)) not in found)


def look(
    scan: Scan,
    where: str,
    casts: Sequence[Cast],
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


def misfits_of(
    scan: Scan,
    where: str,
    casts: Sequence[Cast],
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


def copies_of(
    scan: Scan, where: str, keys: Sequence[str], rows: int, con: duckdb.DuckDBPyConnection
) -> tuple[int, int]:
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


def missing_column(name: str, kind: str, extra: Sequence[str], found: dict[str, str]) -> Problem:
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
    separated = other_delimiter(found)
    if separated:
        return Problem("missing_column", name, f"one single column {next(iter(found))[:60]!r}", kind, fix=separated)
    return Problem(
        "missing_column",
        name,
        "no such column; the file has " + ", ".join(list(found)[:30]) + (", …" if len(found) > 30 else ""),
        kind,
        fix="Ask the publisher for the column, or remove it from the schema and the features.",
    )
