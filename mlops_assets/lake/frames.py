"""Arrow to pandas without a change of any value.

DuckDB's `.df()` and Arrow's defaults turn exact decimals, and integers beside a missing value, into doubles, of which
from 2^53 on not every integer is one. Keys and categories must not pass through them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

EXACT_IN_A_DOUBLE = 2**53
"""Integers up to here, in absolute value, are all doubles."""


def exact_frame(rows: pa.Table | pa.RecordBatch) -> pd.DataFrame:
    """The rows as pandas, every value as it is.

    Decimals are `decimal.Decimal`, dates `datetime.date`. A column of integers with missing values is float64 with
    NaN, as usual in pandas, where that is exact, and a column of objects (int and None) otherwise.
    """
    import numpy as np
    import pyarrow as pa

    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    frame: pd.DataFrame = table.to_pandas()
    for position, column in enumerate(table.columns):
        if pa.types.is_integer(column.type) and column.null_count and not _exact_as_doubles(column):
            frame.isetitem(position, np.array(column.to_pylist(), dtype=object))
    return frame


def _exact_as_doubles(column: pa.ChunkedArray) -> bool:
    import pyarrow.compute as pc

    if column.type.bit_width < 64 or column.null_count == len(column):
        return True
    extremes = pc.min_max(column).as_py()
    return bool(extremes["min"] >= -EXACT_IN_A_DOUBLE and extremes["max"] <= EXACT_IN_A_DOUBLE)
