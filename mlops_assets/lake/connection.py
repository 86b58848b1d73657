"""DuckDB over the lake: an in-memory database whose views are the lake's tables.

Nothing is stored in DuckDB and nothing is locked: the views read the Parquet files when they are queried.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.lake.store import ROW_GROUP_ROWS, Lake, identifier

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MEMORY_VARIABLE = "MLOPS_DUCKDB_MEMORY"
DEFAULT_MEMORY = "1GB"

# A table is named for what one partition is, a view for what all of them are.
_VIEW_NAMES = {"champion": "champions", "challenger": "challengers", "drift_report": "drift"}


def connect(
    lake: Lake, *, read_views: bool = True, views: Mapping[str, str | pa.Table] | None = None
) -> duckdb.DuckDBPyConnection:
    """Open an in-memory DuckDB with a schema per model and a view per table, `period` first.

    The memory limit is taken from MLOPS_DUCKDB_MEMORY (default 1GB); what doesn't fit spills to the system's
    temporary folder. The views show the lake as it is now; `refresh_views` brings an open connection up to date.

    Args:
        read_views: False leaves the views out, for work that names its partitions by `Lake.scan`.
        views: further views, by name "schema.view", each a SELECT statement or an Arrow table.
    """
    import duckdb

    memory = os.environ.get(MEMORY_VARIABLE, DEFAULT_MEMORY)
    try:
        con = duckdb.connect(config={"memory_limit": memory, "temp_directory": spill_folder()})
    except duckdb.ParserException as error:
        raise ValueError(f"{MEMORY_VARIABLE}={memory!r} is no amount of memory; expected e.g. '1GB'") from error
    # Times with a zone are shown and cut into days in UTC, wherever this runs.
    con.execute("SET GLOBAL TimeZone = 'UTC'")
    lake.attach(con)
    if read_views:
        refresh_views(con, lake)
    for name, content in (views or {}).items():
        add_view(con, name, content)
    return con


def spill_folder() -> str:
    """Where DuckDB puts what does not fit into memory; it makes the folder when it needs it."""
    return str(Path(tempfile.gettempdir()) / f"mlops_assets_duckdb_{os.getpid()}")


def refresh_views(con: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Let the views of a connection show the lake as it is now."""
    for model in lake.models():
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(model)}")
        for table in lake.tables(model):
            con.execute(
                f"CREATE OR REPLACE VIEW {identifier(model)}.{identifier(view_name(table))} AS "
                f"SELECT period, * EXCLUDE (period) FROM {lake.scan(model, table)}"
            )


@functools.cache
def reserved_schemas() -> frozenset[str]:
    """The names that a schema can't have: those of DuckDB's own schemas and databases, in lower case."""
    import duckdb

    with duckdb.connect(config={"threads": 1}) as con:
        found = con.execute(
            "SELECT schema_name FROM duckdb_schemas() UNION SELECT database_name FROM duckdb_databases()"
        ).fetchall()
    return frozenset(name.lower() for (name,) in found)


def view_name(table: str) -> str:
    """What the view of a table is called."""
    return _VIEW_NAMES.get(table, table)


def add_view(con: duckdb.DuckDBPyConnection, name: str, content: str | pa.Table) -> None:
    """Add the view "schema.view": a SELECT statement, or an Arrow table that is copied into the database."""
    schema, dot, view = name.partition(".")
    if not (schema and dot and view):
        raise ValueError(f"{name!r} can't name a view; expected 'schema.view', e.g. 'monitoring.periods'")
    con.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)}")
    target = f"{identifier(schema)}.{identifier(view)}"
    if isinstance(content, str):
        con.execute(f"CREATE OR REPLACE VIEW {target} AS {content}")
        return
    con.register("_added", content)
    con.execute(f"CREATE OR REPLACE TABLE {target} AS FROM _added")
    con.unregister("_added")


def query_batches(con: duckdb.DuckDBPyConnection, sql: str, rows: int = ROW_GROUP_ROWS) -> pa.RecordBatchReader:
    """The result of a query as a stream of record batches of up to `rows` rows.

    Only what the query itself has to hold (a sort, a join) is in memory. Until the stream is read to its end or
    dropped, DuckDB refuses other queries on `con`; pass `con.cursor()` to keep it free, but a cursor doesn't see
    the temporary views, variables and registered tables of `con`.
    """
    return con.sql(sql).to_arrow_reader(rows)
