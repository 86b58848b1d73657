"""A model's features.sql: what it reads, what it must return, and a check that it does before anything runs.

The query reads the view `raw_<records>`: the raw rows of the period (and of `history` earlier periods, told apart by
the column `period`). The macros `period()`, `period_start()` and `period_end()` (exclusive) tell it which period is
wanted. It returns the record's key, the source's time column, the feature columns and the
target, and never filters on the target: the same query serves records whose outcome is not known yet.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.lake.store import identifier
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.sources.connection import create_period_macros

if TYPE_CHECKING:
    import duckdb

NUMERIC_TYPES = ("INT", "DOUBLE", "FLOAT", "DECIMAL", "BOOLEAN", "HUGEINT")


class FeatureSqlError(ValueError):
    """features.sql can't be run, or does not return what the model declares."""


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
    """
    con.execute(f"CREATE OR REPLACE VIEW {identifier(spec.raw_table)} AS {raw_sql}")
    create_period_macros(con, period, spec.calendar)
    body = f"(\n{sql.rstrip().rstrip(';')}\n)"
    types = {row[0]: str(row[1]) for row in con.execute(f"DESCRIBE SELECT * FROM {body}").fetchall()}
    query = f"SELECT {', '.join(_column_sql(name, types) for name in columns_of(spec))} FROM {body}"
    if spec.target.required:
        query += f" WHERE {identifier(spec.target.column)} IS NOT NULL"
    return query


def _column_sql(name: str, types: dict[str, str]) -> str:
    """The column as it is stored: exact decimals (a literal like 1.0, a sum of integers) as doubles.

    They would reach estimators as Python objects otherwise. A column that the query lacks is left for DuckDB to name.
    """
    column = identifier(name)
    if types.get(name, "").startswith(("DECIMAL", "HUGEINT", "UHUGEINT")):
        return f"{column}::DOUBLE AS {column}"
    return column


def check_features_sql(spec: ModelSpec, sql: str, path: Path) -> None:
    """Run the query over no rows and compare its columns with the declaration.

    Raises FeatureSqlError naming the file and the column when it does not parse, reads an unknown column, lacks a
    declared column, returns an undeclared one, or gives text for a numeric feature.
    """
    import duckdb

    with duckdb.connect(config={"threads": 1}) as con:
        first = spec.start
        try:
            bind(con, spec, sql, first, raw_columns_sql(spec))
            described = con.execute(f"DESCRIBE SELECT * FROM (\n{sql.rstrip().rstrip(';')}\n)").fetchall()
        except duckdb.Error as error:
            raise FeatureSqlError(
                f"{path}: the query can't be run over {spec.raw_table} with the columns "
                f"{['record_id', *spec.source.schema]}: {error}"
            ) from error
    found = {row[0]: str(row[1]) for row in described}
    wanted = columns_of(spec)
    for name in wanted:
        if name not in found:
            close = difflib.get_close_matches(name, found, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise FeatureSqlError(f"{path}: the query does not return {name!r}{hint} It returns {list(found)}")
    undeclared = [name for name in found if name not in wanted]
    if undeclared:
        raise FeatureSqlError(
            f"{path}: the query returns {undeclared}, which defs.yaml does not declare; list them under `columns`, "
            "or leave them out of the query"
        )
    _check_types(spec, found, path)


def _check_types(spec: ModelSpec, found: dict[str, str], path: Path) -> None:
    numeric: Sequence[str] = [name for name, kind in spec.kinds.items() if kind == "numeric"]
    for name in numeric:
        if not any(part in found[name] for part in NUMERIC_TYPES) or "[" in found[name]:
            raise FeatureSqlError(
                f"{path}: feature {name!r} has type {found[name]}, but is declared numeric; cast it in the query, or "
                "declare it `categorical: true`"
            )
