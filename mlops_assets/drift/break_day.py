"""Since when: the day from which columns differ from the reference and stay different.

Belongs here: PSI day by day, and the day it turned. Does not: whether a period is severe (`drift.verdict`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from mlops_assets.drift.distances import Bins, psi_noise_floor, psi_of_counts, reference_bins
from mlops_assets.drift.profile import NO_DAY, DayCounts, Profile, to_date

if TYPE_CHECKING:
    from collections.abc import Iterable

WEEKDAY_DAYS = 3
"""Days of a weekday that the reference needs before that weekday is compared with its like."""

UNSTEADY_SHARE = 0.1
"""Share of the reference's own days that may be severe before a column is said to tell nothing by day."""


@dataclass(frozen=True)
class DailyPsi:
    """PSI of each day's rows against the reference's rows of that weekday.

    Attributes:
        days: the days with rows, ascending.
        columns: column names.
        psi: float, shape (days, columns).
        noise_floor: the PSI that so few rows may show by chance, shape (days, columns).
        rows: rows of each day, shape (days,).
    """

    days: list[date]
    columns: list[str]
    psi: np.ndarray
    noise_floor: np.ndarray
    rows: np.ndarray

    def states(self, limits: Mapping[str, float]) -> np.ndarray:
        """1 where a day is severe, 0 where not, -1 where it has too few rows to tell; (days, columns)."""
        limit = np.array([limits[column] for column in self.columns])
        severe = (self.psi >= limit) & (self.psi > self.noise_floor)
        return np.where(severe, 1, np.where(self.noise_floor >= limit, -1, 0))


def psi_by_day(reference: Profile, current: Profile, columns: Iterable[str]) -> DailyPsi:
    """PSI of every day of `current` against `reference`, for columns that both profiles have.

    A Sunday is compared with the reference's Sundays, so that a weekly rhythm is no drift; a weekday on fewer
    than `WEEKDAY_DAYS` days of the reference is compared with all of it. Bins are those of the whole
    reference. Rows whose day is not known are left out.
    """
    names = list(columns)
    days = _known_days(current, names)
    reference_days = _known_days(reference, names)
    baseline = _baselines(reference_days, days)
    found = [_psi_by_day(reference, current, name, days, reference_days, baseline) for name in names]
    empty = np.empty((len(days), 0))
    return DailyPsi(
        [to_date(int(day)) for day in days],
        names,
        np.column_stack([psi for psi, _, _ in found]) if found else empty,
        np.column_stack([floor for _, floor, _ in found]) if found else empty,
        found[0][2] if found else np.zeros(len(days), dtype=np.int64),
    )


def _known_days(profile: Profile, names: Sequence[str]) -> np.ndarray:
    days = np.unique(np.concatenate([np.empty(0, np.int32), *(profile.day_counts(n).day for n in names)]))
    return days[days != NO_DAY]


def _baselines(reference_days: np.ndarray, days: np.ndarray) -> np.ndarray:
    """Which days of the reference each day is compared with; bool, shape (days, reference_days)."""
    same = (days[:, None] % 7) == (reference_days[None, :] % 7)
    return np.where(same.sum(axis=1, keepdims=True) >= WEEKDAY_DAYS, same, True)


def _psi_by_day(
    reference: Profile,
    current: Profile,
    name: str,
    days: np.ndarray,
    reference_days: np.ndarray,
    baseline: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """PSI, noise floor and rows of each day."""
    whole = reference.column(name)
    partition = reference_bins(whole)
    if baseline.shape[1]:
        by_day = _counts_by_day(reference.day_counts(name), partition, reference_days)
        before = baseline.astype(np.int64) @ by_day
    else:
        before = np.broadcast_to(partition.counts(whole), (len(days), partition.size))
    after = _counts_by_day(current.day_counts(name), partition, days)
    in_use = ((before > 0) | (after > 0)).sum(axis=1)
    rows = after.sum(axis=1)
    return psi_of_counts(before, after), psi_noise_floor(in_use, before.sum(axis=1), rows), rows


def _counts_by_day(entries: DayCounts, partition: Bins, days: np.ndarray) -> np.ndarray:
    """Rows per day and bin, int64, shape (days, bins)."""
    known = entries.day != NO_DAY
    # The null bin is the last one, which is where the null code -1 points.
    bins = np.append(partition.index(entries.values), partition.size - 1)[entries.code[known]]
    cell = np.searchsorted(days, entries.day[known]) * partition.size + bins
    counts = np.bincount(cell, weights=entries.count[known], minlength=len(days) * partition.size)
    return counts.astype(np.int64).reshape(len(days), partition.size)


@dataclass(frozen=True)
class Break:
    """Since when one column is severe.

    Attributes:
        since: the first day from which it stays severe; None when it does not, or can't be judged by day.
        is_jump: whether a day that was not severe came before, and more than one that is since then.
        judged: False when the reference's own days differ, or no day has enough rows.
    """

    since: date | None
    is_jump: bool
    judged: bool


def column_breaks(
    reference: Profile, current: Profile, limits: Mapping[str, float], *, first_day: date, last_day: date
) -> dict[str, Break]:
    """For each column of `limits` (its severe PSI) the day since which it stays severe until the last day.

    Only days from `first_day` to `last_day` count, and only those with enough rows to tell
    (`distances.psi_noise_floor`).
    """
    names = list(limits)
    daily = psi_by_day(reference, current.between(first_day, last_day), names)
    states = daily.states(limits)
    unsteady = _unsteady(reference, limits)
    return {name: _break(daily.days, states[:, i], name in unsteady) for i, name in enumerate(names)}


def _break(days: Sequence[date], states: np.ndarray, unsteady: bool) -> Break:
    if unsteady or not (states >= 0).any():
        return Break(None, False, judged=False)
    calm = np.flatnonzero(states == 0)
    after = calm[-1] + 1 if len(calm) else 0
    severe = np.flatnonzero(states[after:] == 1)
    since = days[after + severe[0]] if len(severe) else None
    return Break(since, is_jump=bool(len(calm)) and len(severe) > 1, judged=True)


def _unsteady(reference: Profile, limits: Mapping[str, float]) -> set[str]:
    daily = psi_by_day(reference, reference, limits)
    states = daily.states(limits)
    judged, severe = (states >= 0).sum(axis=0), (states == 1).sum(axis=0)
    return {n for i, n in enumerate(daily.columns) if severe[i] > UNSTEADY_SHARE * max(judged[i], 1)}


def break_day(
    reference: Profile, current: Profile, limits: Mapping[str, float], *, first_day: date, last_day: date
) -> date | None:
    """The first day from which all columns of `limits` stay severe until the last day with rows.

    Columns that can't be judged by day have no say. None when no column has one, or one does not stay severe.
    """
    breaks = column_breaks(reference, current, limits, first_day=first_day, last_day=last_day)
    return common_break(breaks.values())


def common_break(breaks: Iterable[Break]) -> date | None:
    """The day from which all of these stay severe; None when one does not, or none can be judged by day."""
    since = [b.since for b in breaks if b.judged]
    days = [day for day in since if day is not None]
    return max(days) if days and len(days) == len(since) else None
