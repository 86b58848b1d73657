"""The calendar of a model: which periods there are, when they begin and end, and which follow each other.

A period is named by a string: a month `2021-03`, or a week by its Monday `2014-01-06`. Names sort in time.
All times are naive, as the sources' times are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

Cadence = Literal["monthly", "weekly"]

_SHAPE = {"monthly": re.compile(r"\d{4}-\d{2}"), "weekly": re.compile(r"\d{4}-\d{2}-\d{2}")}


class PeriodError(ValueError):
    """A text that names no period of the calendar."""


@dataclass(frozen=True)
class Calendar:
    """Periods of one length, without beginning or end."""

    cadence: Cadence

    def __post_init__(self) -> None:
        if self.cadence not in _SHAPE:
            raise PeriodError(f"{self.cadence!r} is not a cadence; expected 'monthly' or 'weekly'")

    def start(self, period: str) -> datetime:
        """The first moment of the period."""
        if not _SHAPE[self.cadence].fullmatch(str(period)):
            raise PeriodError(self._complaint(period))
        try:
            start = datetime.fromisoformat(f"{period}-01" if self.cadence == "monthly" else period)
        except ValueError:
            raise PeriodError(self._complaint(period)) from None
        if self.cadence == "weekly" and start.weekday() != 0:
            monday = start - timedelta(days=start.weekday())
            raise PeriodError(
                f"'{period}' is a {start:%A}, but a week is named by its Monday; "
                f"expected '{monday:%Y-%m-%d}' for the week that holds it"
            )
        return start

    def end(self, period: str) -> datetime:
        """The first moment after the period (exclusive)."""
        return self.start(self.shift(period, 1))

    def validate(self, period: str) -> str:
        """The period itself; `PeriodError` says what was found and expected when it is none."""
        self.start(period)
        return period

    def of(self, moment: date | datetime) -> str:
        """The period that holds the moment."""
        if self.cadence == "monthly":
            return f"{moment.year:04d}-{moment.month:02d}"
        monday = moment - timedelta(days=moment.weekday())
        return f"{monday.year:04d}-{monday.month:02d}-{monday.day:02d}"

    def shift(self, period: str, n: int) -> str:
        """The period that lies `n` periods later, or earlier when `n` is negative."""
        start = self.start(period)
        if self.cadence == "weekly":
            return self.of(start + timedelta(weeks=n))
        months = start.year * 12 + start.month - 1 + n
        return f"{months // 12:04d}-{months % 12 + 1:02d}"

    def window(self, period: str, offsets: tuple[int, int]) -> list[str]:
        """The periods from `offsets[0]` to `offsets[1]` (both included), relative to `period`."""
        low, high = offsets
        if low > high:
            raise PeriodError(f"window [{low}, {high}] ends before it begins; expected [first, last]")
        return [self.shift(period, n) for n in range(low, high + 1)]

    def between(self, first: str, last: str) -> list[str]:
        """All periods from `first` to `last`, both included."""
        if self.start(first) > self.start(last):
            raise PeriodError(f"the range {first}..{last} ends before it begins; expected EARLIER..LATER")
        found = [first]
        while found[-1] != last:
            found.append(self.shift(found[-1], 1))
        return found

    def parse_range(self, text: str) -> list[str]:
        """The periods of `FROM..TO` (both included), or of a single period."""
        first, dots, last = text.strip().partition("..")
        if dots and not (first.strip() and last.strip()):
            raise PeriodError(f"{text!r} is half a range; expected FROM..TO, e.g. '{self._range_example}'")
        if not dots:
            return [self.validate(first)]
        return self.between(first.strip(), last.strip())

    @property
    def _range_example(self) -> str:
        return "2021-01..2021-12" if self.cadence == "monthly" else "2014-01-06..2014-03-31"

    def _complaint(self, period: str) -> str:
        if self.cadence == "monthly":
            return f"'{period}' is not a month; expected e.g. '2021-03'"
        return f"'{period}' is not a week; expected its Monday, e.g. '2014-01-06'"
