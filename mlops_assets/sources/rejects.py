"""The rows of a file that were set aside, with the text that was found and why: what `rejected_<records>` holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from mlops_assets.lake.store import identifier, quoted
from mlops_assets.sources.casting import Cast
from mlops_assets.sources.declaration import RECORD_ID
from mlops_assets.sources.inspection import also
from mlops_assets.sources.scan import Scan

if TYPE_CHECKING:
    import duckdb

# One row per value that does not fit, and one per line that is no row.
REJECTED = pa.schema(
    [
        (RECORD_ID, pa.int64()),  # the row's number in the source, null for a line that is no row
        ("line", pa.int64()),  # the line's number in the file from 1, null for a row
        ("column", pa.string()),  # null for a line
        ("found", pa.string()),  # the value, or the line, as the source has it
        ("reason", pa.string()),
    ]
)
SHOWN = 1_000  # of rows that were not set aside, because they are too many


def rejected_rows(
    scan: Scan, where: str, casts: Sequence[Cast], con: duckdb.DuckDBPyConnection, *, limit: int | None = None
) -> pa.Table:
    """A row of `REJECTED` for each line that is no row, then for each value that does not fit, in the file's order."""
    lines = pa.table(
        {
            RECORD_ID: [None] * len(scan.bad_lines),
            "line": [bad.line for bad in scan.bad_lines],
            "column": [None] * len(scan.bad_lines),
            "found": [bad.text for bad in scan.bad_lines],
            "reason": [bad.reason for bad in scan.bad_lines],
        },
        schema=REJECTED,
    )
    selects = [
        f"SELECT __row::BIGINT AS {RECORD_ID}, NULL::BIGINT AS line, {quoted(cast.name)} AS {identifier('column')}, "
        f"{cast.column.sql}::VARCHAR AS found, {quoted(f'does not fit {cast.kind}')} AS reason, {n} AS __n "
        f"FROM {scan.sql}{also(where, cast.misfit)}"
        for n, cast in enumerate(casts)
        if cast.misfit and cast.column and not cast.hopeless
    ]
    if not selects:
        return lines
    limited = f" LIMIT {limit}" if limit is not None else ""
    values = con.sql(
        f"SELECT * EXCLUDE (__n) FROM ({' UNION ALL '.join(selects)}) ORDER BY {RECORD_ID}, __n{limited}"
    ).to_arrow_table()
    return pa.concat_tables([lines, values.cast(REJECTED)])


def none_rejected() -> pa.Table:
    """No rows of `REJECTED`."""
    return REJECTED.empty_table()
