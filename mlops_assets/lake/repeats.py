"""Which of many numbers occur more than once, in bounded memory."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.store import identifier

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

IN_MEMORY = 4_000_000


class Repeats:
    """Counts how often 64-bit numbers repeat an earlier one.

    Up to `in_memory` numbers are kept as arrays, more in a table of the database, which spills to disk. Use it in a
    `with` block.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, in_memory: int = IN_MEMORY) -> None:
        # A cursor, because the stream that the numbers come from may be open on the connection itself.
        self._con = con.cursor()
        self._in_memory = in_memory
        self._arrays: list[NDArray[np.uint64]] = []
        self._waiting = 0
        self._table: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._table is not None:
            self._con.execute(f"DROP TABLE IF EXISTS {self._table}")
        self._arrays = []

    def add(self, numbers: NDArray[np.uint64]) -> None:
        """Add numbers, shape (n,)."""
        # A copy: a column of a batch is a view that would keep the whole batch in memory.
        self._arrays.append(numbers.copy())
        self._waiting += len(numbers)
        if self._waiting > self._in_memory:
            self._store()

    def count(self, examples: int) -> tuple[int, list[int]]:
        """How many numbers repeat an earlier one, and the lowest of those that are repeated, at most `examples`."""
        import numpy as np

        repeats = 0
        lowest: list[int] = []
        last = np.empty(0, np.uint64)
        for ordered in self._ordered():
            joined = np.concatenate([last, ordered])
            again = joined[1:][joined[1:] == joined[:-1]]
            repeats += len(again)
            if len(lowest) < examples and len(again):
                lowest = sorted({*lowest, *np.unique(again)[:examples].tolist()})[:examples]
            last = joined[-1:]
        return repeats, lowest

    def _store(self) -> None:
        import numpy as np
        import pyarrow as pa

        if self._table is None:
            self._table = identifier(f"numbers {uuid.uuid4().hex}")
            self._con.execute(f"CREATE TABLE {self._table} (number UBIGINT)")
        self._con.register("added", pa.table({"number": np.concatenate(self._arrays)}))
        self._con.execute(f"INSERT INTO {self._table} FROM added")
        self._con.unregister("added")
        self._arrays, self._waiting = [], 0

    def _ordered(self) -> Iterator[NDArray[np.uint64]]:
        """All numbers in ascending order, in parts."""
        import numpy as np

        if self._table is None:
            if self._arrays:
                yield np.sort(np.concatenate(self._arrays))
            return
        if self._arrays:
            self._store()
        for batch in query_batches(self._con, f"FROM {self._table} ORDER BY number"):
            yield batch.column(0).to_numpy()
