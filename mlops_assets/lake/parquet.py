"""The Parquet file of a partition: its rows, the digest of its content, and what its footer says.

A digest names the content, whatever the order of rows and the encoding; the bytes have a hash of their own, which
`lake.versions` keeps.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    import duckdb

METADATA_KEY = "mlops_assets"
ROW_GROUP_ROWS = 122_880  # DuckDB's own row group size: its scans run one row group per thread
UNPARTITIONED = "all"  # the period of a table that has no periods


def without_period(data: pa.RecordBatchReader | pa.Table, period: str) -> pa.RecordBatchReader:
    reader = data.to_reader() if isinstance(data, pa.Table) else data
    names = reader.schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"columns occur twice: {', '.join(twice)}; every column needs its own name")
    if not names:
        raise ValueError("the data has no columns; an empty partition still has its table's columns")
    if "period" not in names or period == UNPARTITIONED:
        schema = reader.schema.remove_metadata()
        return pa.RecordBatchReader.from_batches(schema, (batch.replace_schema_metadata(None) for batch in reader))
    kept = [name for name in names if name != "period"]
    if not kept:
        raise ValueError("the data has no column besides `period`, which the partition's path already says")
    schema = pa.schema([reader.schema.field(name) for name in kept])

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            found = set(batch.column(names.index("period")).unique().to_pylist()) - {period}
            if found:
                raise ValueError(
                    f"column `period` holds {sorted(map(str, found))[:3]}, but the partition is {period!r}; "
                    "rename the column, or write each period to its own partition"
                )
            yield batch.select(kept).replace_schema_metadata(None)

    return pa.RecordBatchReader.from_batches(schema, batches())


def whole_row_groups(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The same rows in batches of a row group each: small row groups would make every later scan slow."""

    def batches() -> Iterator[pa.RecordBatch]:
        waiting: list[pa.RecordBatch] = []
        rows = 0
        for batch in reader:
            waiting.append(batch)
            rows += batch.num_rows
            if rows < ROW_GROUP_ROWS:
                continue
            table = pa.Table.from_batches(waiting, reader.schema).combine_chunks()
            whole = rows - rows % ROW_GROUP_ROWS
            yield from table.slice(0, whole).to_batches(ROW_GROUP_ROWS)
            waiting, rows = table.slice(whole).to_batches(), rows - whole
        if rows:
            yield from pa.Table.from_batches(waiting, reader.schema).combine_chunks().to_batches()

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def write_parquet(
    path: Path, reader: pa.RecordBatchReader, table: str, period: str, reason: str | None, facts: Mapping[str, Any]
) -> tuple[int, str]:
    """Write the batches and, into the footer, what the partition says about itself.

    Returns the number of rows and the digest of the content. Each page has a checksum, which pyarrow and others verify.
    """
    digest = _Digest(reader.schema)
    with pq.ParquetWriter(path, reader.schema, compression="zstd", write_page_checksum=True) as writer:
        for batch in reader:
            writer.write_batch(batch, row_group_size=ROW_GROUP_ROWS)
            digest.add(batch)
        known = {
            "table": table,
            "period": period,
            "reason": reason,
            "facts": facts,
            "digest": digest.text(),
            "rows": digest.rows,
        }
        writer.add_key_value_metadata({METADATA_KEY: json.dumps(known)})
    return digest.rows, digest.text()


@functools.cache
def _hashing(pid: int) -> duckdb.DuckDBPyConnection:
    """A database that only hashes. Opening one costs more than a small partition; a forked process needs its own."""
    import duckdb

    # Of a connection that outlives the interpreter DuckDB's binding prints pages of warnings.
    atexit.register(_hashing.cache_clear)
    return duckdb.connect(config={"threads": 1})


class _Digest:
    """The order-independent content hash that `Lake.write` documents."""

    def __init__(self, schema: pa.Schema) -> None:
        self._con = _hashing(os.getpid()).cursor()
        self._con.register("batch", schema.empty_table())
        # DuckDB's types, because Arrow has several for the same content (string, large_string, string_view).
        described = self._con.execute("DESCRIBE batch").fetchall()
        self._columns = [[name, kind] for name, kind, *_ in described]
        self._sum = 0
        self.rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self._con.register("batch", batch)
        total = self._con.execute("SELECT sum(hash(batch)) FROM batch").fetchall()[0][0]
        self._sum = (self._sum + int(total or 0)) % 2**128
        self.rows += batch.num_rows

    def text(self) -> str:
        content = json.dumps([self._columns, self.rows, self._sum])
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
