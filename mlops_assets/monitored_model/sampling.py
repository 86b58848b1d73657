"""A sample of the rows that a model learns from, for parts that are larger than `max_rows`.

Which rows are in it follows from their keys, the model's seed and the values of the target alone: not from the order of
files or rows, threads, or the version of DuckDB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_assets.lake.store import identifier

if TYPE_CHECKING:
    import duckdb

# A target with more distinct values has no classes to be stratified by.
STRATA = 50
_SEPARATOR = "chr(31)"
PLACES = 2**64


@dataclass(frozen=True)
class Sampled:
    """How many rows of a part were used, and how many there are."""

    rows: int
    of: int

    def __str__(self) -> str:
        return f"{self.rows:,} of {self.of:,} rows"


def sample_sql(
    con: duckdb.DuckDBPyConnection,
    sql: str,
    *,
    keys: Sequence[str],
    seed: int,
    max_rows: int,
    target: str | None,
) -> tuple[str, list[Any]]:
    """A condition for WHERE, with its parameters, that holds for at most `max_rows` of a query's rows.

    Each row has the MD5 of its keys and the seed as its place; the lowest places of each class are taken, as many as
    the class's share of the rows. Classes whose share is less than one row get one.

    Parameters
    ----------
    sql
        A SELECT statement.
    keys
        Columns that identify a row.
    target
        The column whose values are the classes; None for a plain sample.
    """
    place = place_sql(keys, seed)
    counts = _counts(con, sql, target)
    if target is None or len(counts) > STRATA:
        total = sum(counts.values())
        return f"{place} < ?", [_limit(con, sql, place, "true", [], max_rows, total)]
    conditions, parameters = [], []
    for value, quota in quotas(counts, max_rows).items():
        mine = f"{identifier(target)} = ?"
        limit = _limit(con, sql, place, mine, [value], quota, counts[value])
        conditions.append(f"({mine} AND {place} < ?)")
        parameters += [value, limit]
    return f"({' OR '.join(conditions)})", parameters


def place_sql(keys: Sequence[str], seed: int) -> str:
    """A whole number from 0 to 2^64 - 1 for each row, evenly spread and the same on every machine."""
    cells = ", ".join(f"coalesce({identifier(key)}::VARCHAR, chr(0))" for key in keys)
    # MD5, because DuckDB's own hash may change with its version, and every model with it.
    return f"md5_number_lower(concat_ws({_SEPARATOR}, '{seed}', {cells}))"


def quotas(counts: Mapping[Any, int], wanted: int) -> dict[Any, int]:
    """How many rows of each class are taken, at most `wanted` in all: by largest remainder, at least one of each."""
    total = sum(counts.values())
    if total <= wanted:
        return dict(counts)
    found = {value: max(rows * wanted // total, 1) for value, rows in counts.items()}
    left = wanted - sum(found.values())
    by_remainder = sorted(counts, key=lambda value: (-(counts[value] * wanted % total), str(value)))
    for value in by_remainder[: max(left, 0)]:
        found[value] += 1
    for _ in range(-left):
        found[max(found, key=lambda value: (found[value], str(value)))] -= 1
    return found


def _counts(con: duckdb.DuckDBPyConnection, sql: str, target: str | None) -> dict[Any, int]:
    if target is None:
        return {None: int(con.execute(f"SELECT count(*) FROM ({sql})").fetchall()[0][0])}
    found = con.execute(f"SELECT {identifier(target)}, count(*) FROM ({sql}) GROUP BY 1 ORDER BY 1").fetchall()
    return {value: int(rows) for value, rows in found}


def _limit(
    con: duckdb.DuckDBPyConnection,
    sql: str,
    place: str,
    where: str,
    parameters: list[Any],
    quota: int,
    rows: int,
) -> int:
    """The place below which `quota` of the rows lie."""
    if quota >= rows:
        return PLACES
    # Places are spread evenly, so the wanted one is most probably below this bound: few places have to be sorted.
    bound = min(PLACES, int(PLACES * (quota + 6 * quota**0.5 + 10) / rows))
    for below in (bound, PLACES):
        near = (
            f"SELECT {place} AS place FROM ({sql}) WHERE {where} AND {place} < ? ORDER BY place LIMIT 1 OFFSET {quota}"
        )
        found = con.execute(near, [*parameters, below]).fetchall()
        if found:
            return int(found[0][0])
    raise AssertionError(f"{rows} rows were counted, but there are not more than {quota}")
