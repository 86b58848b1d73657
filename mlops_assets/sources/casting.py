"""How the declared columns are made of the file's.

A value that does not fit its type is NULL, and the cast's `misfit` is true for its row. Times lose what their type
does not hold, and are never rounded up; one with a zone or an offset becomes the wall clock of the source's `timezone`,
which the connection has to be pinned to (`connection.pin_timezone`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_assets.lake.categories import number_text_sql
from mlops_assets.lake.store import identifier, quoted
from mlops_assets.sources.csv_options import CsvOptions, csv_options
from mlops_assets.sources.declaration import Source
from mlops_assets.sources.scan import AmbiguousColumn, FileColumn, Scan, find_column

if TYPE_CHECKING:
    import duckdb

_FLOATS = {"FLOAT", "DOUBLE"}
_INTEGERS = {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
}
_WIDTHS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")

_ZONED, _ZONED_NS = "TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"
_UNITS = {"TIMESTAMP_S": "second", "TIMESTAMP_MS": "milliseconds"}
_TIMES = {"DATE", "TIMESTAMP", "TIMESTAMP_NS", _ZONED, _ZONED_NS, *_UNITS}
# A time of day, and something behind it that is no fraction: Z, an offset or the name of a zone.
_WITH_ZONE = r":[0-9]{2}(:[0-9]{2}([.][0-9]*)?)?\s*[A-Za-z+-].*$"
# What Python and pandas can hold. With a zone a day less, so that no other zone leads out of it.
_FIRST, _LAST = "0001-01-01", "9999-12-31 23:59:59.999999"
_FIRST_ZONED, _LAST_ZONED = "0001-01-02", "9999-12-30"


@dataclass
class Cast:
    """How a declared column is made: SQL for its value, and for "there is a value, but it doesn't fit".

    Attributes:
        column: the file's column, None when it has none; `ambiguous` names those that it could be.
        value, misfit: SQL expressions; no misfit where every value fits.
        hopeless: whether no value of the column fits, because the file's column is of another type.
    """

    name: str
    kind: str
    column: FileColumn | None = None
    ambiguous: tuple[str, ...] = ()
    value: str = ""
    misfit: str | None = None
    hopeless: bool = False

    @property
    def is_time(self) -> bool:
        return self.kind in _TIMES

    @property
    def moment(self) -> str:
        """The value of a time column as a TIMESTAMP: the wall clock of the source's zone."""
        return _truncated(self.value, self.kind, "TIMESTAMP")


def moment_sql(value: str, kind: str) -> str:
    """SQL of a TIMESTAMP for a value of any type that holds a time, as a declared TIMESTAMP would be read of it.

    NULL for what is no time, or none that Python can hold.
    """
    moment = _plain(value, kind, "TIMESTAMP", CsvOptions())
    return f"CASE WHEN {_is_in_range(moment, 'TIMESTAMP')} THEN {moment} END"


def casts_of(source: Source, scan: Scan, con: duckdb.DuckDBPyConnection) -> list[Cast]:
    """How each declared column is made of the file's."""
    kinds = _canonical_types(source.schema, con)
    casts = [Cast(name, kinds[name]) for name in source.schema]
    for cast in casts:
        try:
            cast.column = find_column(cast.name, scan.columns)
        except AmbiguousColumn as several:
            cast.ambiguous = tuple(several.found)
    pairs = {(cast.column.kind, cast.kind) for cast in casts if cast.column}
    castable = {pair for pair in pairs if _castable(*pair, con)}
    options = csv_options(source.csv)
    for cast in casts:
        _fill(cast, castable, options)
    return casts


def _canonical_types(schema: dict[str, str], con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The declared types as DuckDB spells them: `int` and `INTEGER` are the same."""
    columns = ", ".join(f"NULL::{kind} AS {identifier(name)}" for name, kind in schema.items())
    return dict(zip(schema, (row[1] for row in con.sql(f"DESCRIBE SELECT {columns}").fetchall()), strict=True))


def _castable(source_kind: str, kind: str, con: duckdb.DuckDBPyConnection) -> bool:
    import duckdb

    if source_kind == "NULL":
        return True
    try:
        con.sql(f"SELECT {_plain(f'NULL::{source_kind}', source_kind, kind, CsvOptions())}").fetchall()
    except (duckdb.BinderException, duckdb.ConversionException):
        return False
    return True


def _fill(cast: Cast, castable: set[tuple[str, str]], options: CsvOptions) -> None:
    kind = cast.kind
    if cast.column is None or cast.column.kind == "NULL":
        cast.value = f"NULL::{kind}"
        return
    raw, source_kind = cast.column.sql, cast.column.kind
    if (source_kind, kind) not in castable:
        cast.value, cast.misfit, cast.hopeless = f"NULL::{kind}", f"{raw} IS NOT NULL", True
        return
    if source_kind in _FLOATS:
        raw = f"nullif({raw}, 'NaN'::{source_kind})"
    value = _plain(raw, source_kind, kind, options)
    cast.value = value
    if kind in _TIMES:
        cast.value = f"CASE WHEN {_is_in_range(value, kind)} THEN {value} END"
        cast.misfit = f"{raw} IS NOT NULL AND {cast.value} IS NULL"
    elif kind in _FLOATS:
        if source_kind not in _INTEGERS:
            if source_kind not in _FLOATS:
                cast.value = f"nullif({value}, 'NaN'::{kind})"
            # An amount that doesn't fit becomes infinite in the cast, not NULL.
            cast.misfit = f"{raw} IS NOT NULL AND ({value} IS NULL OR isinf({value}))"
    elif kind in _INTEGERS and source_kind not in _INTEGERS:
        # DuckDB rounds 1.5 to 2, which would turn one category into another without a word.
        number = _number(raw, options) if source_kind == "VARCHAR" else raw
        cast.misfit = f"{raw} IS NOT NULL AND ({value} IS NULL OR TRY_CAST({number} AS DOUBLE) <> {value}::DOUBLE)"
    elif source_kind != kind and not _only_widens(source_kind, kind):
        cast.misfit = f"{raw} IS NOT NULL AND {value} IS NULL"


def _is_in_range(value: str, kind: str) -> str:
    if kind in ("TIMESTAMP_NS", _ZONED_NS):  # which end in 2262
        return f"isfinite({value}::TIMESTAMP_NS)"
    first, last = (_FIRST_ZONED, _LAST_ZONED) if kind == _ZONED else (_FIRST, _LAST)
    wide = "DATE" if kind == "DATE" else _ZONED if kind == _ZONED else "TIMESTAMP"
    return f"({value})::{wide} BETWEEN '{first}'::{wide} AND '{last}'::{wide}"


def _plain(raw: str, source_kind: str, kind: str, options: CsvOptions) -> str:
    """SQL that casts a value, NULL when it can't be cast."""
    if source_kind == kind:
        return raw
    if kind in _TIMES and source_kind == "VARCHAR":
        return _time_of_text(raw, kind, options)
    if kind in _TIMES and source_kind in _TIMES:
        return _truncated(raw, source_kind, kind)
    if kind == "VARCHAR" and (source_kind in _FLOATS or source_kind.startswith("DECIMAL")):
        return number_text_sql(raw)  # the same text whether a file holds integers or doubles
    if source_kind == "VARCHAR" and _is_number(kind):
        raw = _number(raw, options)
    return f"TRY_CAST({raw} AS {kind})"


def _is_number(kind: str) -> bool:
    return kind in _FLOATS or kind in _INTEGERS or kind.startswith("DECIMAL")


def _only_widens(source_kind: str, kind: str) -> bool:
    if kind == "VARCHAR" or (kind == "DOUBLE" and source_kind in {"FLOAT", *_INTEGERS}):
        return True
    return source_kind in _WIDTHS and kind in _WIDTHS and _WIDTHS.index(source_kind) <= _WIDTHS.index(kind)


def _number(raw: str, options: CsvOptions) -> str:
    """The text of a number with the separators that SQL expects, NULL when it is not written as declared."""
    if options.thousands is None and options.decimal_separator == ".":
        return raw
    point, text = re.escape(options.decimal_separator), raw
    whole = "[0-9]+"
    if options.thousands is not None:
        mark = re.escape(options.thousands)
        # Groups of two, too, as in 1,00,000; the last one has three, so that 1,5 is not 15.
        whole = f"([0-9]+|[0-9]{{1,3}}({mark}[0-9]{{2,3}})*{mark}[0-9]{{3}})"
        text = f"replace({text}, {quoted(options.thousands)}, '')"
    text = f"replace({text}, {quoted(options.decimal_separator)}, '.')"
    pattern = rf"(?i)\s*[+-]?({whole}({point}[0-9]*)?(e[+-]?[0-9]+)?|{point}[0-9]+|nan|inf|infinity)\s*"
    return f"CASE WHEN regexp_full_match({raw}, {quoted(pattern)}) THEN {text} END"


def _time_of_text(raw: str, kind: str, options: CsvOptions) -> str:
    wanted = options.date_format if kind == "DATE" else options.timestamp_format
    if wanted is not None:
        # With %z in the format the result has a zone, and its cast gives the wall clock of the session's.
        return f"TRY_CAST({_truncated_text(f'try_strptime({raw}, {quoted(wanted)})', kind)} AS {kind})"
    if kind in (_ZONED, _ZONED_NS):
        value = f"TRY_CAST({raw} AS {kind})"
    else:
        # DuckDB leaves an offset out of a TIMESTAMP without a word.
        zoned = _ZONED_NS if kind == "TIMESTAMP_NS" else _ZONED
        moment = "TIMESTAMP_NS" if kind == "TIMESTAMP_NS" else "TIMESTAMP"
        close = rf"regexp_replace({raw}, '\s+([+-])', '\1')"
        plain = (
            f"TRY_CAST({raw} AS {kind})"
            if kind not in _UNITS
            else _truncated_text(f"TRY_CAST({raw} AS TIMESTAMP)", kind)
        )
        local = f"TRY_CAST(TRY_CAST({close} AS {zoned}) AS {moment})"
        value = (
            f"CASE WHEN regexp_matches({raw}, {quoted(_WITH_ZONE)}) "
            f"THEN TRY_CAST({_truncated_text(local, kind)} AS {kind}) ELSE {plain} END"
        )
    if options.date_format is not None:
        # A column of times whose cells may be days.
        return f"coalesce(TRY_CAST(try_strptime({raw}, {quoted(options.date_format)}) AS {kind}), {value})"
    return value


def _truncated_text(moment: str, kind: str) -> str:
    """A TIMESTAMP cut to the unit of `kind`, where that is coarser: DuckDB's cast rounds."""
    return f"TRY_CAST(date_trunc('{_UNITS[kind]}', {moment}) AS {kind})" if kind in _UNITS else moment


def _truncated(raw: str, source_kind: str, kind: str) -> str:
    """A time as another type of time; what that does not hold is cut off, where DuckDB's cast rounds."""
    if source_kind == kind:
        return raw
    if source_kind == _ZONED_NS:
        if kind == _ZONED:
            return f"make_timestamptz({_microseconds(raw)})"
        raw, source_kind = f"CAST({raw} AS TIMESTAMP_NS)", "TIMESTAMP_NS"
    if source_kind == "TIMESTAMP_NS" and kind not in ("TIMESTAMP_NS", _ZONED_NS):
        raw, source_kind = f"make_timestamp({_microseconds(raw)})", "TIMESTAMP"
    if kind in _UNITS and source_kind not in ("DATE", kind):
        raw = f"date_trunc('{_UNITS[kind]}', TRY_CAST({raw} AS TIMESTAMP))"
    return raw if source_kind == kind else f"TRY_CAST({raw} AS {kind})"


def _microseconds(raw: str) -> str:
    # Integer division goes towards zero; before 1970 that is the future.
    return f"((epoch_ns({raw}) - ((epoch_ns({raw}) % 1000) + 1000) % 1000) // 1000)"
