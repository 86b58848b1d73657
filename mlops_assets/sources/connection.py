"""What a database connection needs to read a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_assets.lake.store import quoted

if TYPE_CHECKING:
    import duckdb

    from mlops_assets.lake.periods import Calendar


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
