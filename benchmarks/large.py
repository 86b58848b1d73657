"""A whole month of 50 million rows: `make bench-large`. It takes long, and about 40 GB in the temporary folder."""

from __future__ import annotations

from benchmarks import scale
from benchmarks.measurement import Measurement

TITLE = "A whole month of 50 million rows"
METHOD = "The same as whole months of millions of rows, five times as large."


def run(quick: bool) -> list[Measurement]:
    return scale.run(quick, rows=50_000_000)
