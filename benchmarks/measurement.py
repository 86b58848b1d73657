"""What a benchmark gives back, and how it is written down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Measurement:
    """One figure, beside its target where it has one.

    Attributes
    ----------
    what
        What was measured, in words that need no context.
    value, unit
        The figure; the unit is `s`, `µs`, `MB`, or `×` for a ratio.
    target, bound
        What it must reach: at most or at least. None for figures that only explain another.
    """

    what: str
    value: float
    unit: Literal["s", "µs", "MB", "×"]
    target: float | None = None
    bound: Literal["at most", "at least"] = "at most"

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached, None without a target."""
        if self.target is None:
            return None
        return self.value <= self.target if self.bound == "at most" else self.value >= self.target

    def cells(self) -> tuple[str, str, str, str]:
        """Words, figure, target and whether it is reached, for a table."""
        target = "" if self.target is None else f"{self.bound} {_number(self.target)} {self.unit}"
        verdict = {None: "", True: "yes", False: "**no**"}[self.reached]
        return self.what, f"{_number(self.value)} {self.unit}", target, verdict


HEADER = ("what", "measured", "target", "reached")


def _number(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 3)}f}".rstrip("0").rstrip(".") if decimals else f"{value:,.0f}"
