"""What the lake says about one partition, and how it says that there is none or that it is damaged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn


class MissingPartition(LookupError):
    """A partition was asked for that nobody has written."""


class DamagedPartition(RuntimeError):
    """A file that lies where a partition belongs, but was not written by the lake or was changed since."""


@dataclass(frozen=True)
class Partition:
    """One written partition.

    Attributes:
        url: where the Parquet file is: a local path or an fsspec URL.
        rows: number of rows; 0 when it is damaged.
        bytes: size of the file.
        digest: what the rows are, whatever their order; see `Lake.write`. `damaged` when it is.
        reason: why there are no rows, or why they are not to be used; None when all is well.
        facts: what the writer wanted to be known about the rows. Reading those of a damaged partition raises
            DamagedPartition, so that nothing is decided by a default.
        damaged: what is wrong with the file and what to do; None when nothing is known to be.
    """

    model: str
    table: str
    period: str
    url: str
    rows: int
    bytes: int
    digest: str
    reason: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    damaged: str | None = None


DAMAGED_DIGEST = "damaged"


def damaged_partition(model: str, table: str, period: str, url: str, why: str) -> Partition:
    """A partition of which nothing can be read."""
    return Partition(model, table, period, url, 0, 0, DAMAGED_DIGEST, why, _Unreadable(why), why)


class _Unreadable(Mapping[str, Any]):
    """The facts of a damaged partition."""

    def __init__(self, why: str) -> None:
        self._why = why

    def _raise(self) -> NoReturn:
        raise DamagedPartition(self._why)

    def __getitem__(self, name: str) -> Any:
        self._raise()

    def __iter__(self) -> Iterator[str]:
        self._raise()

    def __len__(self) -> int:
        return self._raise()
