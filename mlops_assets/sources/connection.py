"""What a database connection needs to read a source: the declared time zone, bounded memory, the period's macros.

Every session that reads a source goes through `pin_timezone`, so that the zone of the machine decides nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlops_assets.lake.connection import DEFAULT_MEMORY, MEMORY_VARIABLE
from mlops_assets.lake.store import quoted

if TYPE_CHECKING:
    import duckdb

    from mlops_assets.lake.periods import Calendar

DEFAULT_TIMEZONE = "UTC"


@contextmanager
def source_database(timezone: str = DEFAULT_TIMEZONE) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory database of its own to read a source with: bounded memory, spilling to disk, the zone pinned."""
    import duckdb

    memory = os.environ.get(MEMORY_VARIABLE, DEFAULT_MEMORY)
    with (
        tempfile.TemporaryDirectory(prefix="mlops_assets_duckdb_") as spill,
        duckdb.connect(config={"memory_limit": memory, "temp_directory": spill}) as con,
    ):
        yield pin_timezone(con, timezone)


def pin_timezone(con: duckdb.DuckDBPyConnection, timezone: str) -> duckdb.DuckDBPyConnection:
    """Let times with a zone be read and shown in `timezone` by this connection and all cursors made of it later.

    Raises duckdb.Error for a zone that DuckDB doesn't know.
    """
    # A cursor takes the database's setting, not that of the connection it was made of.
    con.execute(f"SET GLOBAL TimeZone = {quoted(timezone)}")
    con.execute(f"SET TimeZone = {quoted(timezone)}")
    return con


def create_period_macros(
    con: duckdb.DuckDBPyConnection, period: str, calendar: Calendar, last: str | None = None
) -> None:
    """Make `period()`, `period_start()` and `period_end()` (exclusive) tell a query which period is wanted.

    With `last` the end is that of a later period. They belong to the connection's database; the next period's replace
    them.
    """
    # Macros, because the variables of a connection are not seen by its cursors.
    con.execute(f"CREATE OR REPLACE MACRO period() AS {quoted(period)}")
    for name, moment in (("period_start", calendar.start(period)), ("period_end", calendar.end(last or period))):
        con.execute(f"CREATE OR REPLACE MACRO {name}() AS TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S}'")
