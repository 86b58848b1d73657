"""Verifying a Parquet file before its rows are used: a second reader decodes it and compares the checksums it has.

DuckDB reads some damaged pages as other values: it compares neither the checksums of pages nor that of gzip. Arrow's
reader does both. What neither can see is a changed bit in a page without any checksum (other codecs, or none, in files
of writers that leave page checksums out, which most do), where the result still decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.sources.failures import FILE_ERRORS, is_of_the_file
from mlops_assets.sources.problems import Problem

BATCH_ROWS = 65_536
BUFFER_BYTES = 1 << 20


def parquet_damage(path: Path, columns: Sequence[str] | None = None) -> Problem | None:
    """What is wrong with the pages of a Parquet file; None when all of them decode and fit their checksums.

    It streams: memory is bounded by a batch of rows and a buffer for each column.

    Parameters
    ----------
    columns
        The columns that are used, in any case of letters; by default all.
    """
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False, buffer_size=BUFFER_BYTES)
        wanted = None if columns is None else _matching(file.schema_arrow, columns)
        if wanted == []:
            return None
        rows = 0
        for batch in file.iter_batches(BATCH_ROWS, columns=wanted, use_threads=False):
            rows += batch.num_rows
    except NotImplementedError:
        # An encoding or type that Arrow does not know is no damage; DuckDB may know it.
        return None
    except FILE_ERRORS as error:
        if not is_of_the_file(error):
            raise
        return _damaged(path, str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__)
    if rows != file.metadata.num_rows:
        return _damaged(path, f"{rows:,} rows instead of the {file.metadata.num_rows:,} that its footer counts")
    return None


def _matching(schema: pa.Schema, columns: Sequence[str]) -> list[str]:
    used = {name.lower() for name in columns}
    return [name for name in schema.names if name.lower() in used]


def _damaged(path: Path, why: str) -> Problem:
    return Problem(
        "unreadable",
        None,
        f"{path.name}: a damaged Parquet file: {why}",
        "pages that decode and fit their checksums",
        fix="Fetch the file again: it was changed in transfer or in storage.",
    )
