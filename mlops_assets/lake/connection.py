"""DuckDB over the lake: an in-memory database whose views are the lake's tables.

Nothing is stored in DuckDB, and no writer is held up: the views read the Parquet files when they are queried.

A connection for somebody's own SQL is locked (`lock`): it opens the files it was made for and no other, loads no
extension, and keeps its configuration. A file that may be read may be written too, as far as the file system lets it;
so queries that come as a text have to pass `lake.statements.require_select` as well.
"""

from __future__ import annotations

import functools
import glob
import os
import tempfile
import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.lake.store import ROW_GROUP_ROWS, Lake, identifier, quoted

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MEMORY_VARIABLE = "MLOPS_DUCKDB_MEMORY"
DEFAULT_MEMORY = "1GB"

# A table is named for what one partition is, a view for what all of them are.
_VIEW_NAMES = {"champion": "champions", "challenger": "challengers", "drift_report": "drift"}


class DamagedWarning(UserWarning):
    """Damaged partitions are left out of a view."""


def connect(
    lake: Lake,
    *,
    read_views: bool = True,
    views: Mapping[str, str | pa.Table] | None = None,
    locked: bool = False,
    verify: Collection[str] = (),
) -> duckdb.DuckDBPyConnection:
    """Open an in-memory DuckDB with a schema per model and a view per table, `period` first.

    The memory limit is taken from MLOPS_DUCKDB_MEMORY (default 1GB); what doesn't fit spills to the system's
    temporary folder. The views show the lake as it is now; `refresh_views` brings an open connection up to date.

    Args:
        read_views: False leaves the views out, for work that names its partitions by `Lake.scan`.
        views: further views, by name "schema.view", each a SELECT statement or an Arrow table.
        locked: whether it opens no other files than those of its views, as they are now; see `lock`.
        verify: the views, as "schema.view" in lower case, whose files are read and compared with their hashes first.
    """
    con = lake.attach(open_database())
    files = refresh_views(con, lake, verify) if read_views else []
    for name, content in (views or {}).items():
        add_view(con, name, content)
    return lock(con, files) if locked else con


def open_database() -> duckdb.DuckDBPyConnection:
    """An empty in-memory DuckDB with the memory limit of MLOPS_DUCKDB_MEMORY; see `connect`."""
    import duckdb

    config = database_config()
    try:
        con = duckdb.connect(config=config)
    except duckdb.ParserException as error:
        raise ValueError(
            f"{MEMORY_VARIABLE}={config['memory_limit']!r} is no amount of memory; expected e.g. '1GB'"
        ) from error
    # Times with a zone are shown and cut into days in UTC, wherever this runs.
    con.execute("SET GLOBAL TimeZone = 'UTC'")
    return con


def lock(con: duckdb.DuckDBPyConnection, files: Iterable[str]) -> duckdb.DuckDBPyConnection:
    """Let a connection open the given files (paths or URLs) and no other, load nothing and keep its configuration.

    What doesn't fit into memory still spills. A DataFrame in a variable is not found by its name any more; `register`
    it. The connection can't be unlocked; only its time zone can still be set.
    """
    # A path is compared as the query names it, so as a glob that stands for itself too.
    allowed = dict.fromkeys(name for file in files for name in (file, glob.escape(file)))
    con.execute(f"SET allowed_paths = [{', '.join(quoted(path) for path in allowed)}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET allowed_configs = ['TimeZone']")  # may still be chosen: it opens nothing
    con.execute("SET lock_configuration = true")
    return con


def database_config() -> dict[str, str | bool | int | float | list[str]]:
    """How much memory a database may take, and where it puts what does not fit."""
    return {
        "memory_limit": os.environ.get(MEMORY_VARIABLE, DEFAULT_MEMORY),
        "temp_directory": spill_folder(),
        # Otherwise what a sort has freed stays with the process, beside what a fit takes after it.
        "allocator_background_threads": "true",
    }


def spill_folder() -> str:
    """Where DuckDB puts what does not fit into memory; it makes the folder when it needs it."""
    return str(Path(tempfile.gettempdir()) / f"mlops_assets_duckdb_{os.getpid()}")


def refresh_views(con: duckdb.DuckDBPyConnection, lake: Lake, verify: Collection[str] = ()) -> list[str]:
    """Let the views of a connection show the lake as it is now. Returns the files that they read.

    A damaged partition is left out, with a DamagedWarning that says what to do: the others are still there. So is a
    model that was declared, before such names were refused, by a name that no schema can have.
    """
    read: list[str] = []
    for model in lake.models():
        if model.lower() in reserved_schemas():
            why = f"{model} is the name of one of DuckDB's own schemas; declare the model by another, and backfill it"
            warnings.warn(f"left out all tables of the model {model}: {why}", DamagedWarning, stacklevel=3)
            continue
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(model)}")
        for table in lake.tables(model):
            name = f"{model}.{view_name(table)}"
            view = f"{identifier(model)}.{identifier(view_name(table))}"
            files, left_out = _create_view(con, lake, model, table, view, verify=name.lower() in verify)
            read += files
            for why in left_out:
                warnings.warn(f"left out of {name}: {why}", DamagedWarning, stacklevel=3)
    return read


def _create_view(
    con: duckdb.DuckDBPyConnection, lake: Lake, model: str, table: str, view: str, *, verify: bool
) -> tuple[list[str], list[str]]:
    """Make a view over the files of a table. Returns those that it reads, and what is wrong with the others."""
    import duckdb

    periods, damaged = lake.sound(model, table, verify=verify)
    files = lake.files(model, table, periods, verify=False)
    con.execute(f"DROP VIEW IF EXISTS {view}")
    if not files:
        return [], list(damaged.values())
    try:
        con.execute(f"CREATE VIEW {view} AS SELECT period, * EXCLUDE (period) FROM {lake.scan_files(files)}")
    except duckdb.Error as error:
        if verify:
            return [], [*damaged.values(), f"all of it, as DuckDB can't read it: {str(error).splitlines()[0]}"]
        # A changed footer may still be one to Arrow, but not to DuckDB; the bytes tell which file it is.
        return _create_view(con, lake, model, table, view, verify=True)
    return files, list(damaged.values())


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
