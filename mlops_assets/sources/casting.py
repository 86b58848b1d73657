"""How the declared columns are made of the file's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_assets.lake.categories import number_text_sql
from mlops_assets.lake.store import identifier
from mlops_assets.sources.declaration import Source
from mlops_assets.sources.opening import Scan

if TYPE_CHECKING:
    import duckdb

_FLOATS = {"FLOAT", "DOUBLE"}
_INTEGERS = {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
}
_WIDTHS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")


@dataclass
class Cast:
    """How a declared column is made: SQL for its value, and for "there is a value, but it doesn't fit"."""

    name: str
    kind: str
    source_name: str | None = None
    source_kind: str | None = None
    value: str = ""
    misfit: str | None = None


def casts_of(source: Source, scan: Scan, con: duckdb.DuckDBPyConnection) -> list[Cast]:
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


def _cast(name: str, kind: str, source_name: str | None, found: dict[str, str], castable: set[tuple[str, str]]) -> Cast:
    if source_name is None:
        return Cast(name, kind, value=f"NULL::{kind}")
    source_kind = found[source_name]
    cast = Cast(name, kind, source_name, source_kind)
    raw = identifier(source_name)
    if source_kind == "NULL":
        cast.value = f"NULL::{kind}"
        return cast
    if (source_kind, kind) not in castable:
        cast.value, cast.misfit = f"NULL::{kind}", f"{raw} IS NOT NULL"
        return cast
    if source_kind in _FLOATS:
        raw = f"nullif({raw}, 'NaN'::{source_kind})"
    if kind == "VARCHAR" and (source_kind in _FLOATS or source_kind.startswith("DECIMAL")):
        value = number_text_sql(raw)  # the same text whether a file holds integers or doubles
    else:
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
