"""A whole month of 50 million rows: `make bench-large`. It takes about half an hour, and up to 40 GB on disk."""

from __future__ import annotations

from benchmarks import scale
from benchmarks.measurement import Measurement

TITLE = "A whole month of 50 million rows"
METHOD = "The same as whole months of millions of rows, five times as large."


def run(quick: bool) -> list[Measurement]:
    return scale.run(quick, rows=50_000_000)
