"""Small files and what is read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.lake.periods import Calendar
from mlops_assets.sources.declaration import Source
from mlops_assets.sources.location import Located
from mlops_assets.sources.reading import Reading, read

MONTHLY = Calendar("monthly")


def source(path: Path, schema: dict[str, str], /, **more: Any) -> Source:
    """A source whose only file is `path`: that of 2021-01, or without {period} in `path` that of all periods."""
    return Source(**({"path": "{period}" + "".join(path.suffixes), "schema": schema} | more))


def reading(path: Path, schema: dict[str, str], period: str = "2021-01", /, **more: Any) -> Reading:
    return read(source(path, schema, **more), Located(path, "test"), period, MONTHLY, duckdb.connect())


def rows(found: Reading) -> list[dict[str, Any]]:
    return list(found.reader.read_all().drop_columns(["record_id"]).to_pylist())


def text_file(folder: Path, content: str | bytes, name: str = "file.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet_file(folder: Path, columns: Any, names: list[str] | None = None) -> Path:
    path = folder / "file.parquet"
    pq.write_table(pa.table(columns) if names is None else pa.Table.from_arrays(columns, names=names), path)
    return path
