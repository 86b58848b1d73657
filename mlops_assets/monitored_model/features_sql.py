"""A model's features.sql: what it reads, what it must return, and a check that it does before anything runs.

The query is one SELECT. It reads the view `raw_<records>`, and no file of its own: the raw rows of the period (and of
`history` earlier periods, told apart by the column `period`). The macros `period()`, `period_start()` and
`period_end()` (exclusive) tell it which period is wanted. It returns the record's key, the source's time column, the
feature columns and the target, and never filters on the target: the same query serves records whose outcome is not
known yet.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.lake.connection import lock
from mlops_assets.lake.statements import StatementRefused, require_select
from mlops_assets.lake.store import identifier
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.sources.connection import create_period_macros, pin_timezone

if TYPE_CHECKING:
    import duckdb

_BITS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64, "HUGEINT": 128}
# The types of whole numbers with their smallest and largest.
WHOLE_NUMBERS = {kind: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for kind, bits in _BITS.items()} | {
    f"U{kind}": (0, 2**bits - 1) for kind, bits in _BITS.items()
}
NUMERIC_TYPES = ("INT", "DOUBLE", "FLOAT", "DECIMAL", "BOOLEAN", "HUGEINT")


# Declarations and queries that fit each other: checked before Dagster loads them, and again when it does.
_FITTING: set[tuple[str, str]] = set()


class FeatureSqlError(ValueError):
    """features.sql can't be run, or does not return what the model declares.

    `text` is the message without the file, `line` where in it (from 1) when that is known. What rather the declaration
    has to be changed for is at `declared_at` among its attributes: `("target", "positive")`.
    """

    def __init__(self, path: Path, text: str, *, line: int | None = None, declared_at: tuple[str, ...] = ()) -> None:
        super().__init__(f"{path}: {text}")
        self.text = text
        self.line = line
        self.declared_at = declared_at


def columns_of(spec: ModelSpec) -> list[str]:
    """What a features partition holds, in order: key, time column, features, target."""
    # A key may be a feature too: the article whose units are forecast.
    return list(dict.fromkeys([*identifying_columns(spec), *spec.columns, spec.target.column]))


def identifying_columns(spec: ModelSpec) -> list[str]:
    """What tells a row of the features from others: the record's key and time, and its scenario."""
    time = [spec.source.time_column] if spec.source.time_column else []
    scenario = [spec.scenarios.column, spec.scenarios.planned] if spec.scenarios else []
    return list(dict.fromkeys([*spec.record_keys, *time, *scenario]))


def raw_columns_sql(spec: ModelSpec) -> str:
    """The raw table without rows, as a SELECT: for checks, and for a period without any raw row."""
    columns = ", ".join(f"NULL::{kind} AS {identifier(name)}" for name, kind in spec.source.schema.items())
    return f"SELECT NULL::VARCHAR AS period, NULL::BIGINT AS record_id, {columns} LIMIT 0"


def bind(con: duckdb.DuckDBPyConnection, spec: ModelSpec, sql: str, period: str, raw_sql: str) -> str:
    """Make the query runnable for a period: create its view over `raw_sql` and its macros.

    Returns a SELECT of the declared columns in order. With `target.required`, rows without the target are left out.
    They belong to the database of `con`; binding another period replaces them.

    Raises StatementRefused when it is not one SELECT.
    """
    con.execute(f"CREATE OR REPLACE VIEW {identifier(spec.raw_table)} AS {raw_sql}")
    pin_timezone(con, spec.source.timezone)
    create_period_macros(con, period, spec.calendar)
    body = f"(\n{require_select(con, sql, spec.features)}\n)"
    types = {row[0]: str(row[1]) for row in con.execute(f"DESCRIBE SELECT * FROM {body}").fetchall()}
    query = f"SELECT {', '.join(_column_sql(name, types, spec) for name in columns_of(spec))} FROM {body}"
    if spec.target.required:
        query += f" WHERE {identifier(spec.target.column)} IS NOT NULL"
    return query


def _column_sql(name: str, types: dict[str, str], spec: ModelSpec) -> str:
    """The column as it is stored: an exact decimal (a literal like 1.0, a sum of integers) as a double where it is a
    number to the model, a feature or the target. Keys and categories stay as they are: of two that differ in the 17th
    digit doubles make one.

    A column that the query lacks is left for DuckDB to name.
    """
    column = identifier(name)
    number = spec.kinds.get(name, "numeric") == "numeric" and name not in identifying_columns(spec)
    if number and types.get(name, "").startswith(("DECIMAL", "HUGEINT", "UHUGEINT")):
        return f"{column}::DOUBLE AS {column}"
    return column


def check_features_sql(spec: ModelSpec, sql: str, path: Path) -> None:
    """Run the query over no rows and compare its columns with the declaration.

    Raises FeatureSqlError naming the file and the column when it does not parse, reads an unknown column, lacks a
    declared column, returns an undeclared one, or gives text for a numeric feature.
    """
    import duckdb

    pair = (spec.model_dump_json(), sql)
    if pair in _FITTING:
        return
    with duckdb.connect(config={"threads": 1}) as con:
        lock(con, [])
        first = spec.start
        try:
            statement = require_select(con, sql, spec.features)
        except (StatementRefused, duckdb.ParserException) as error:
            line = re.search(r"LINE (\d+):", str(error))
            text = f"the query can't be run: {error}"
            raise FeatureSqlError(path, text, line=int(line[1]) if line else None) from error
        try:
            bind(con, spec, sql, first, raw_columns_sql(spec))
            described = con.execute(f"DESCRIBE SELECT * FROM (\n{statement}\n)").fetchall()
        except duckdb.PermissionException as error:
            text = f"the query reads {spec.raw_table} and no file of its own: {error}"
            raise FeatureSqlError(path, text) from error
        except duckdb.Error as error:
            text = (
                f"the query can't be run over {spec.raw_table} with the columns "
                f"{['record_id', *spec.source.schema]}: {error}"
            )
            # `bind` puts the query into brackets, on lines of its own.
            line = re.search(r"LINE (\d+):", str(error))
            raise FeatureSqlError(path, text, line=max(int(line[1]) - 1, 1) if line else None) from error
    found = {row[0]: str(row[1]) for row in described}
    wanted = columns_of(spec)
    for name in wanted:
        if name not in found:
            close = difflib.get_close_matches(name, found, 1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise FeatureSqlError(path, f"the query does not return {name!r}{hint} It returns {list(found)}")
    undeclared = [name for name in found if name not in wanted]
    if undeclared:
        raise FeatureSqlError(
            path,
            f"the query returns {undeclared}, which defs.yaml does not declare; list them under `columns`, "
            "or leave them out of the query",
        )
    _check_types(spec, found, path)
    _check_listed(spec, found, path)
    _FITTING.add(pair)


def _check_types(spec: ModelSpec, found: dict[str, str], path: Path) -> None:
    numeric: Sequence[str] = [name for name, kind in spec.kinds.items() if kind == "numeric"]
    for name in numeric:
        if not any(part in found[name] for part in NUMERIC_TYPES) or "[" in found[name]:
            raise FeatureSqlError(
                path,
                f"feature {name!r} has type {found[name]}, but is declared numeric; cast it in the query, or "
                "declare it `categorical: true`",
            )


def _check_listed(spec: ModelSpec, found: dict[str, str], path: Path) -> None:
    """Refuse values that a column of this type can never have: nothing would ever be the event, or pass the rule."""
    target = spec.target
    listed: list[tuple[tuple[str, ...], str, Sequence[Any]]] = []
    if target.task == "classification":
        listed.append((("target", "positive"), target.column, [target.positive]))
        listed.append((("target", "isin"), target.column, target.isin or []))
    listed += [(("columns", name, "isin"), name, column.isin or []) for name, column in spec.columns.items()]
    for place, name, values in listed:
        for value in values:
            expected = _never_in(found[name], value)
            if expected:
                text = (
                    f"{'.'.join(place)}: found {value!r}, expected {expected}, because features.sql returns {name!r} "
                    f"as {found[name]}; write it so, or cast the column in features.sql"
                )
                raise FeatureSqlError(path, text, declared_at=place)


def _never_in(kind: str, value: Any) -> str | None:
    """What values of a column's type look like, when this one is none of them; None when it may be one."""
    if "[" in kind:
        return None
    if kind.startswith(("VARCHAR", "ENUM")):
        return None if isinstance(value, str) else f'text like "{str(value).lower()}"'
    if kind == "BOOLEAN" and isinstance(value, str):
        return "true or false without quotes"
    if kind.startswith((*WHOLE_NUMBERS, "DOUBLE", "FLOAT", "DECIMAL")) and isinstance(value, str):
        return "a number without quotes"
    if kind in WHOLE_NUMBERS and isinstance(value, int | float):
        if isinstance(value, float) and not value.is_integer():
            return "a whole number"
        smallest, largest = WHOLE_NUMBERS[kind]
        if not smallest <= value <= largest:
            return f"a number from {smallest} to {largest}"
    return None
