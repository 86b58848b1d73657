"""Value-count profiles: what a table holds, exactly, in a form that adds up.

A profile keeps for every day and column the sorted distinct values with their counts, and the number of
nulls. Every distance in `mlops_assets.drift.distances` is a function of those counts alone, so no row is ever
read twice, and the profile of any window is the sum of the profiles of its periods.

Belongs here: making, adding, slicing and storing profiles. Does not: comparing two of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa

from mlops_assets.lake.categories import category_text, category_texts

if TYPE_CHECKING:
    import duckdb

    from mlops_assets.lake.columns import Kind

NO_DAY = int(np.iinfo(np.int32).min)
"""Day number of rows whose day is not known: the model has no time column, or the row's time is null."""

NULL = -1
"""Code of a null in a column's value codes."""

EPOCH = date(1970, 1, 1)

SCHEMA = pa.schema(
    [
        ("column", pa.string()),
        ("kind", pa.string()),
        ("day", pa.date32()),
        ("number", pa.float64()),
        ("text", pa.string()),
        ("count", pa.int64()),
        ("digits", pa.int8()),
    ]
)
"""The stored form: one row per column, day and value. Rows with neither `number` nor `text` count nulls."""


@dataclass(frozen=True)
class ColumnProfile:
    """Sorted distinct values of one column with their counts.

    Attributes:
        name: column name.
        kind: `numeric` or `categorical`.
        values: distinct values in ascending order, shape (distinct,); float64 when numeric, str objects when
            categorical. Never null, NaN or infinite.
        counts: rows per value, int64, shape (distinct,), all positive.
        nulls: rows without a value (NULL, NaN, ±inf).
        digits: significant digits that the values were rounded to; None when they are exact.
    """

    name: str
    kind: Kind
    values: np.ndarray
    counts: np.ndarray
    nulls: int
    digits: int | None = None

    @classmethod
    def of(cls, name: str, kind: Kind, values: Iterable[object]) -> ColumnProfile:
        """Profile of values in memory, one per row; None, NaN and ±inf are nulls."""
        given = list(values)
        if kind == "numeric":
            numbers = np.array([np.nan if v is None else v for v in given], dtype=np.float64)
            kept = numbers[np.isfinite(numbers)] + 0.0
        else:
            texts = [None if v is None else category_text(v) for v in given]
            kept = np.array([text for text in texts if text is not None], dtype=object)
        distinct, counts = np.unique(kept, return_counts=True)
        return cls(name, kind, distinct, counts.astype(np.int64), len(given) - len(kept))

    @property
    def rows(self) -> int:
        """All rows, nulls too."""
        return self.filled + self.nulls

    @property
    def filled(self) -> int:
        """Rows that hold a value."""
        return int(self.counts.sum())

    @property
    def distinct(self) -> int:
        """Number of distinct values, null not counted."""
        return len(self.values)

    @property
    def null_share(self) -> float:
        """Share of rows without a value, 0 when there are no rows."""
        return self.nulls / self.rows if self.rows else 0.0

    def coarser(self, digits: int) -> ColumnProfile:
        """The same counts with values rounded to `digits` significant digits."""
        if self.digits is not None and self.digits <= digits:
            return self
        values, position = np.unique(significant(self.values, digits), return_inverse=True)
        counts = _sum_by(position, self.counts, len(values))
        return replace(self, values=values, counts=counts, digits=digits)


@dataclass(frozen=True)
class DayCounts:
    """Counts of one column by day and value, in canonical form: sorted by (day, code), no zero, no repeat.

    Attributes:
        kind: `numeric` or `categorical`.
        values: sorted distinct values over all days, shape (distinct,).
        day: days since 1970-01-01 of each entry, int32, or `NO_DAY`.
        code: index of each entry's value in `values`, int32, or `NULL`.
        count: rows of each entry, int64.
        digits: significant digits that `values` were rounded to, None when exact.
    """

    kind: Kind
    values: np.ndarray
    day: np.ndarray
    code: np.ndarray
    count: np.ndarray
    digits: int | None = None

    def total(self, name: str) -> ColumnProfile:
        """The column's counts summed over all days."""
        filled = self.code != NULL
        counts = _sum_by(self.code[filled], self.count[filled], len(self.values))
        return ColumnProfile(name, self.kind, self.values, counts, int(self.count[~filled].sum()), self.digits)

    def where(self, mask: np.ndarray) -> DayCounts:
        """The entries that `mask` (bool, one per entry) keeps; values that no entry uses are dropped."""
        code = self.code[mask]
        used = np.zeros(len(self.values), dtype=bool)
        used[code[code != NULL]] = True
        renumbered = np.concatenate([np.cumsum(used) - 1, [NULL]]).astype(np.int32)
        return replace(
            self, values=self.values[used], day=self.day[mask], code=renumbered[code], count=self.count[mask]
        )

    def coarser(self, digits: int) -> DayCounts:
        """The same counts with values rounded to `digits` significant digits."""
        if self.digits is not None and self.digits <= digits:
            return self
        return _day_counts(self.kind, self.day, significant(self.values, digits), self.code, self.count, digits)

    def rows_by_day(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted day numbers and the rows of each."""
        days, position = np.unique(self.day, return_inverse=True)
        return days, _sum_by(position, self.count, len(days))


def _sum_by(position: np.ndarray, count: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(position, weights=count, minlength=size).astype(np.int64)


def significant(values: np.ndarray, digits: int) -> np.ndarray:
    """Round to `digits` significant decimal digits, so that equal decimals become equal doubles.

    The mantissa is an integer and powers of ten up to 10²² are exact, hence one division or product gives the
    double nearest to the decimal, whichever way a value came to be rounded before.
    """
    magnitude = np.abs(values)
    exponent = np.floor(np.log10(np.where(magnitude > 0, magnitude, 1.0))) - (digits - 1)
    # Doubles below 1e-300 would need powers of ten that overflow; they are zero for every purpose here.
    exponent = np.clip(exponent, -300, 300)
    up, down = 10.0 ** np.maximum(exponent, 0), 10.0 ** np.maximum(-exponent, 0)
    mantissa = np.rint(values / up * down)
    return mantissa * up / down + 0.0


def _day_counts(
    kind: Kind, day: np.ndarray, values: np.ndarray, code: np.ndarray, count: np.ndarray, digits: int | None
) -> DayCounts:
    """Canonical form of entries whose `values` may repeat, be unsorted, or not be finite."""
    if kind == "numeric":
        finite = np.isfinite(values)
        distinct, position = np.unique(values[finite] + 0.0, return_inverse=True)
        renumbered = np.full(len(values) + 1, NULL, dtype=np.int64)
        renumbered[:-1][finite] = position
    else:
        distinct, position = np.unique(values, return_inverse=True)
        renumbered = np.concatenate([position, [NULL]])
    code = renumbered[code]
    # One integer key per (day, value) keeps this a single sort; the null code sorts first.
    width = len(distinct) + 1
    key = day.astype(np.int64) * width + (code + 1)
    entries, position = np.unique(key, return_inverse=True)
    entry_day, entry_code = np.divmod(entries, width)
    return DayCounts(
        kind,
        distinct,
        entry_day.astype(np.int32),
        (entry_code - 1).astype(np.int32),
        _sum_by(position, count, len(entries)),
        digits,
    )


def _no_entries(kind: Kind) -> DayCounts:
    values = np.empty(0, dtype=np.float64 if kind == "numeric" else object)
    return DayCounts(kind, values, np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int64), digits=None)


class Profile:
    """Counts by column, day and value of some rows; exact, and mergeable with `+`.

    Adding profiles of disjoint rows gives the profile of their union. When one side was rounded to fewer
    significant digits, the sum is on the coarser grid. A column that one side lacks counts as null there.
    NaN and ±inf count as null.
    """

    def __init__(self, columns: Mapping[str, DayCounts]) -> None:
        self._columns = dict(columns)

    @classmethod
    def empty(cls, kinds: Mapping[str, Kind]) -> Profile:
        """A profile of no rows."""
        return cls({name: _no_entries(kind) for name, kind in kinds.items()})

    @property
    def kinds(self) -> dict[str, Kind]:
        """Column names in order, with their kind."""
        return {name: entries.kind for name, entries in self._columns.items()}

    @property
    def columns(self) -> list[str]:
        """Column names in order."""
        return list(self._columns)

    @property
    def rows(self) -> int:
        """Number of rows profiled; every column counts each row once, as a value or as null."""
        return max((int(entries.count.sum()) for entries in self._columns.values()), default=0)

    @property
    def days(self) -> list[date]:
        """Days that have rows, ascending; empty when the rows have no time column."""
        days = _first(self._columns).rows_by_day()[0] if self._columns else np.empty(0, np.int32)
        return [to_date(int(day)) for day in days if day != NO_DAY]

    def column(self, name: str) -> ColumnProfile:
        """The column's counts over all days. Raises KeyError for a column that the profile does not have."""
        return self.day_counts(name).total(name)

    def day_counts(self, name: str) -> DayCounts:
        """The column's counts by day. Raises KeyError for a column that the profile does not have."""
        if name not in self._columns:
            raise KeyError(f"the profile has no column {name!r}; it has {', '.join(self._columns) or 'none'}")
        return self._columns[name]

    def between(self, first: date, last: date) -> Profile:
        """The rows of the days from `first` to `last`, both included. Rows without a day are left out."""
        low, high = day_number(first), day_number(last)
        return Profile({n: e.where((e.day >= low) & (e.day <= high)) for n, e in self._columns.items()})

    def on(self, days: Iterable[date]) -> Profile:
        """The rows of the given days."""
        wanted = np.array([day_number(day) for day in days], dtype=np.int32)
        return Profile({n: e.where(np.isin(e.day, wanted)) for n, e in self._columns.items()})

    def only(self, columns: Sequence[str]) -> Profile:
        """The given columns, in the given order."""
        return Profile({name: self.day_counts(name) for name in columns})

    def __add__(self, other: Profile) -> Profile:
        names = list(dict.fromkeys([*self._columns, *other._columns]))
        return Profile({name: _add(name, self._or_nulls(name, other), other._or_nulls(name, self)) for name in names})

    def _or_nulls(self, name: str, other: Profile) -> DayCounts:
        if name in self._columns:
            return self._columns[name]
        missing = _no_entries(other._columns[name].kind)
        if not self._columns:
            return missing
        days, rows = _first(self._columns).rows_by_day()
        return replace(missing, day=days.astype(np.int32), code=np.full(len(days), NULL, np.int32), count=rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Profile):
            return NotImplemented
        return self.kinds == other.kinds and self.to_arrow().equals(other.to_arrow())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Profile(rows={self.rows}, columns={len(self.columns)}, days={len(self.days)})"

    def to_arrow(self) -> pa.Table:
        """The stored form, with the columns of `SCHEMA`."""
        return pa.concat_tables([_to_arrow(n, e) for n, e in self._columns.items()] or [SCHEMA.empty_table()])

    @classmethod
    def from_arrow(cls, table: pa.Table, kinds: Mapping[str, Kind] | None = None) -> Profile:
        """Read the stored form back. Columns beyond those of `SCHEMA` (a period, say) are ignored.

        `kinds` gives the columns' order and those that have no entry because there were no rows; without it
        the order is that of the table.
        """
        missing = [name for name in SCHEMA.names if name not in table.column_names]
        if missing:
            raise ValueError(
                f"not a stored profile: columns {missing} are missing, found {table.column_names}; "
                "write it with Profile.to_arrow()"
            )
        table = table.select(SCHEMA.names).cast(SCHEMA).combine_chunks()
        names = table["column"].combine_chunks().dictionary_encode()
        index = names.indices.to_numpy(zero_copy_only=False)
        found: dict[str, DayCounts] = {}
        for position, name in enumerate(names.dictionary.to_pylist()):
            found[name] = _from_arrow(table.take(pa.array(np.flatnonzero(index == position))))
        order = dict(kinds) if kinds is not None else {name: found[name].kind for name in found}
        return cls({n: found.pop(n, _no_entries(kind)) for n, kind in order.items()} | found)


def _first(columns: Mapping[str, DayCounts]) -> DayCounts:
    return next(iter(columns.values()))


def _add(name: str, left: DayCounts, right: DayCounts) -> DayCounts:
    if left.kind != right.kind:
        raise ValueError(
            f"column {name!r} is {left.kind} on one side and {right.kind} on the other; "
            "profiles of different feature definitions don't add up, make one of them again"
        )
    known = [side.digits for side in (left, right) if side.digits is not None]
    digits = min(known) if known else None
    if digits is not None:
        left, right = left.coarser(digits), right.coarser(digits)
    shifted = np.where(right.code == NULL, NULL, right.code + len(left.values))
    return _day_counts(
        left.kind,
        np.concatenate([left.day, right.day]),
        np.concatenate([left.values, right.values]),
        np.concatenate([left.code, shifted]),
        np.concatenate([left.count, right.count]),
        digits,
    )


def _to_arrow(name: str, entries: DayCounts) -> pa.Table:
    size = len(entries.code)
    value_type = pa.float64() if entries.kind == "numeric" else pa.string()
    values = pa.array(entries.values, type=value_type).take(pa.array(entries.code, mask=entries.code == NULL))
    number, text = (values, None) if entries.kind == "numeric" else (None, values)
    return pa.table(
        [
            pa.repeat(name, size),
            pa.repeat(entries.kind, size),
            pa.array(entries.day, mask=entries.day == NO_DAY).cast(pa.date32()),
            pa.nulls(size, pa.float64()) if number is None else number,
            pa.nulls(size, pa.string()) if text is None else text,
            pa.array(entries.count),
            pa.repeat(pa.scalar(entries.digits, pa.int8()), size),
        ],
        schema=SCHEMA,
    )


def _from_arrow(table: pa.Table) -> DayCounts:
    """The counts of one column; `table` has at least one row."""
    kind = cast("Kind", table["kind"][0].as_py())
    day = table["day"].cast(pa.int32()).fill_null(NO_DAY).to_numpy()
    values = table["number" if kind == "numeric" else "text"].combine_chunks()
    filled = values.is_valid().to_numpy(zero_copy_only=False)
    code = np.where(filled, np.cumsum(filled) - 1, NULL)
    distinct = values.drop_null().to_numpy(zero_copy_only=False)
    return _day_counts(kind, day, distinct, code, table["count"].to_numpy(), table["digits"][0].as_py())


def on_one_grid(one: ColumnProfile, other: ColumnProfile) -> tuple[ColumnProfile, ColumnProfile]:
    """Both profiles rounded as the coarser of them is; as they are when both are exact."""
    known = [side.digits for side in (one, other) if side.digits is not None]
    return (one.coarser(min(known)), other.coarser(min(known))) if known else (one, other)


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - EPOCH).days


def to_date(day: int) -> date:
    """The date of a day number."""
    return EPOCH + timedelta(days=day)


def profile(
    con: duckdb.DuckDBPyConnection,
    sql: str,
    kinds: Mapping[str, Kind],
    time_column: str | None,
    quantise_above: int = 100_000,
) -> Profile:
    """Count the values of every column by day.

    Args:
        con: DuckDB connection; its memory limit and threads bound the work.
        sql: what stands behind FROM: a table, view, `read_parquet(...)`, or a SELECT in parentheses. It is
            scanned once per column and reads that column only, so give a Parquet scan, not a heavy query.
        kinds: the columns to profile. Numeric columns may have any numeric or boolean type. Categories are
            kept as their text (`lake.categories.category_text`): `7` for 7, 7.0 and DECIMAL 7.00.
        time_column: a timestamp or date column that gives the day; None when the rows have no time.
        quantise_above: numeric columns with more distinct values (estimated by HyperLogLog) are rounded to 4
            significant digits, or 3 if these are still too many; `digits` says so.

    Raises:
        ValueError: when the relation lacks a column, or a numeric column is not numeric.
    """
    types = _types(con, sql, kinds, time_column)
    day = "NULL" if time_column is None else f"CAST({_quoted(time_column)} AS DATE)"
    numeric = {name: types[name] for name, kind in kinds.items() if kind == "numeric"}
    many = _many_valued(con, sql, numeric, quantise_above)
    return Profile(
        {
            name: _count(con, sql, name, kind, types[name], day, quantise_above if name in many else None)
            for name, kind in kinds.items()
        }
    )


_FLOATS = ("FLOAT", "DOUBLE")
_SMALL = ("BOOLEAN", "TINYINT", "UTINYINT", "SMALLINT", "USMALLINT", "NULL", '"NULL"')
_INTEGERS = ("INTEGER", "UINTEGER", "BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT")


def _types(
    con: duckdb.DuckDBPyConnection, sql: str, kinds: Mapping[str, Kind], time_column: str | None
) -> dict[str, str]:
    types = {row[0]: str(row[1]) for row in con.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()}
    wanted = [*kinds, *([time_column] if time_column else [])]
    missing = [name for name in wanted if name not in types]
    if missing:
        raise ValueError(
            f"columns {missing} are not in the data to be profiled; it has {', '.join(types)}. "
            "Correct the column names, or the query that makes the features."
        )
    for name, kind in kinds.items():
        if kind == "numeric" and not _is_numeric(types[name]):
            raise ValueError(
                f"column {name!r} is declared numeric but has type {types[name]}; "
                "cast it in the features' SQL, or declare it categorical"
            )
    return types


def _is_numeric(type_: str) -> bool:
    return type_ in (*_FLOATS, *_SMALL, *_INTEGERS) or type_.startswith("DECIMAL")


def _many_valued(con: duckdb.DuckDBPyConnection, sql: str, types: Mapping[str, str], limit: int) -> set[str]:
    """Names of the columns that have more than about `limit` distinct values."""
    # A type that can't hold so many values need not be scanned.
    candidates = [name for name, type_ in types.items() if type_ not in _SMALL]
    if not candidates:
        return set()
    rows = int(con.execute(f"SELECT count(*) FROM {sql}").fetchall()[0][0])
    if rows <= limit:
        return set()
    counts = ", ".join(f"approx_count_distinct({_quoted(name)})" for name in candidates)
    estimates = con.execute(f"SELECT {counts} FROM {sql}").fetchall()[0]
    return {name for name, estimate in zip(candidates, estimates, strict=True) if estimate > limit}


def _count(
    con: duckdb.DuckDBPyConnection,
    sql: str,
    name: str,
    kind: Kind,
    type_: str,
    day: str,
    quantise_above: int | None,
) -> DayCounts:
    value = _quoted(name) if quantise_above is None else _significant_sql(f"{_quoted(name)}::DOUBLE", 4)
    shown = "value::DOUBLE" if kind == "numeric" else _exact_sql(type_)
    # Casts stand outside the grouping, where they touch distinct values instead of rows.
    counted = con.sql(
        f"SELECT CAST(datediff('day', DATE '1970-01-01', day) AS INTEGER) AS day, {shown} AS value, rows "
        f"FROM (SELECT {_day_sql(day)} AS day, {value} AS value, count(*) AS rows FROM {sql} GROUP BY ALL)"
    ).to_arrow_table()
    days = counted["day"].fill_null(NO_DAY).to_numpy()
    values = counted["value"].combine_chunks()
    if kind == "categorical":
        values = category_texts(values)
    filled = values.is_valid().to_numpy(zero_copy_only=False)
    code = np.where(filled, np.cumsum(filled) - 1, NULL)
    found = values.drop_null().to_numpy(zero_copy_only=False)
    digits = None if quantise_above is None else 4
    if digits is not None:
        found = significant(found, digits)
    entries = _day_counts(kind, days, found, code, counted["rows"].to_numpy(), digits)
    return entries.coarser(3) if quantise_above is not None and len(entries.values) > quantise_above else entries


def _day_sql(time: str) -> str:
    """The day of a time; unknown beyond the years that Python's dates have, which SQL may compute by mistake."""
    return f"CASE WHEN {time}::DATE BETWEEN DATE '{date.min}' AND DATE '{date.max}' THEN {time}::DATE END"


def _significant_sql(value: str, digits: int) -> str:
    """The expression that rounds as `significant` does; the exact decimal is restored afterwards."""
    exponent = f"(floor(log10(abs({value}))) - {digits - 1})"
    rounded = f"round({value} / pow(10.0, {exponent})) * pow(10.0, {exponent})"
    return f"CASE WHEN isfinite({value}) THEN CASE WHEN {value} = 0 THEN 0.0 ELSE {rounded} END END"


def _exact_sql(type_: str) -> str:
    """The value in a form that Arrow takes as it is; integers may have more digits than an Arrow decimal."""
    return "value::VARCHAR" if type_ in ("HUGEINT", "UHUGEINT") else "value"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
