"""Which rows a period learns from: its window, or its own days since the world changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from mlops_assets.drift.profile import Profile
from mlops_assets.drift.verdict import DriftReport, compare
from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.frames import exact_frame
from mlops_assets.lake.store import identifier
from mlops_assets.monitored_model.provenance import not_made_reason
from mlops_assets.monitored_model.sampling import Sampled, sample_sql
from mlops_assets.monitored_model.tables import FEATURES, PROFILE
from mlops_assets.monitored_model.workbench import Workbench

if TYPE_CHECKING:
    import pandas as pd

    from mlops_assets.incidents.store import Cause
    from mlops_assets.monitored_model.spec import ModelSpec
    from mlops_assets.training.search import Split

NO_WINDOW = "no full window yet"
ROLES = ("train", "validation", "test")
SAMPLED_ROLES = ("train", "validation")  # test metrics are those of all rows


@dataclass(frozen=True)
class Part:
    """The rows of one role: whole periods, or some days of one, or periods without some days (`but_not`)."""

    periods: Sequence[str]
    days: Sequence[date] = ()
    but_not: Sequence[date] = ()

    def __str__(self) -> str:
        if self.days:
            return f"{len(self.days)} days of {self.days[0]}..{self.days[-1]}"
        whole = self.periods[0] if len(self.periods) == 1 else f"{self.periods[0]}..{self.periods[-1]}"
        if self.but_not:
            return f"{whole} without {len(self.but_not)} days of {self.but_not[0]}..{self.but_not[-1]}"
        return whole

    @classmethod
    def from_facts(cls, stored: Mapping[str, Sequence[str]]) -> Part:
        """A part as the facts of a challenger hold it."""
        return cls(stored["periods"], [date.fromisoformat(day) for day in stored["days"]])

    def without(self, learned: Sequence[Part]) -> Part | None:
        """The rows that are in none of the other parts; None when there are none left."""
        whole = {period for part in learned if not part.days for period in part.periods}
        periods = [period for period in self.periods if period not in whole]
        known = sorted({day for part in learned for day in part.days if not set(periods).isdisjoint(part.periods)})
        days = [day for day in self.days if day not in known]
        if not periods or (self.days and not days):
            return None
        if self.days:
            return self if len(days) == len(self.days) else Part(self.periods, days)
        return self if len(periods) == len(self.periods) and not known else Part(periods, but_not=known)


@dataclass(frozen=True)
class LearningPlan:
    """What a period trains on, and why.

    `trained_on` is `window` or `since_break`; `since` the day of the break; `left_out` the unusable periods of the
    window with their reasons; `window_report` the comparison of the period with its window; `because` says why the
    window was left.
    """

    parts: Mapping[str, Part]
    trained_on: str
    since: date | None
    left_out: Mapping[str, str]
    window_report: DriftReport
    because: Sequence[str] = ()


class NothingToLearn(Exception):
    """A period has no rows to train on; the message is the reason that its empty partition carries."""


def learning_plan(bench: Workbench, period: str, alarms: Sequence[Cause] = ()) -> LearningPlan:
    """The rows that the period's challenger learns from.

    The standard window, unless the period's profile is severely apart from the training periods': then the window is
    no longer this world, and the period's own rows since the break are split by days.

    `alarms` are the causes for training. Those of this very period may show what the columns alone do not: after a
    severe report, a warning of the comparison with the window suffices; after a failed performance check the outcome
    no longer follows from the columns as it did in the window, however alike they look.

    Raises NothingToLearn when the window is not complete yet, or too little that is usable is left in one of its parts.
    """
    spec = bench.spec
    unusable = bench.unusable(period)
    if unusable is not None:
        raise NothingToLearn(unusable)
    parts, left_out = _window_parts(bench, period)
    if not spec.target.required and not bench.con.execute(f"{part_sql(bench, Part([period]))} LIMIT 1").fetchall():
        raise NothingToLearn(f"no outcome of {period} is known yet: it trains when they come")
    reference = sum_of_profiles(bench, parts["train"].periods)
    current = sum_of_profiles(bench, [period])
    first_day, last_day = bench.days(period)
    report = compare(
        reference,
        current,
        spec.kinds,
        spec.drift,
        importances=None,
        scores=None,
        first_day=first_day,
        last_day=last_day,
    )
    because = _why_not_the_window(report, [cause for cause in alarms if cause.period == period])
    own = _parts_since_break(bench, period, current, report.since, first_day, last_day) if because else None
    if own is None:
        _check_rows(bench, parts)
        return LearningPlan(parts, "window", None, left_out, report)
    return LearningPlan(own, "since_break", min(part.days[0] for part in own.values()), {}, report, because)


def _why_not_the_window(report: DriftReport, alarms: Sequence[Cause]) -> list[str]:
    """Why the window is another world than the period; empty when it is not."""
    if report.verdict == "severe":
        return report.reasons
    failed = [cause.why for cause in alarms if cause.kind == "performance"]
    if report.verdict == "warning":
        failed += [cause.why for cause in alarms if cause.kind == "severe_drift"]
    return [*failed, *report.reasons] if failed else []


def _window_parts(bench: Workbench, period: str) -> tuple[dict[str, Part], dict[str, str]]:
    spec = bench.spec
    calendar = spec.calendar
    first = calendar.shift(period, spec.window.first)
    if calendar.start(first) < calendar.start(spec.start):
        raise NothingToLearn(f"{NO_WINDOW}: it begins with {first}, the data begins with {spec.start}")
    wanted = {role: calendar.window(period, getattr(spec.window, role)) for role in ROLES}
    made = {p: bench.find(FEATURES, p) and bench.find(PROFILE, p) for periods in wanted.values() for p in periods}
    not_made = [p for p, partition in made.items() if partition is None]
    if not_made:
        raise NothingToLearn(f"{NO_WINDOW}: {not_made_reason(FEATURES, *not_made)}")
    left_out = {p: why for periods in wanted.values() for p in periods if (why := _unusable(bench, p)) is not None}
    parts = {}
    for role, periods in wanted.items():
        usable = [p for p in periods if p not in left_out]
        if not usable:
            reasons = "; ".join(f"{p} {left_out[p]}" for p in periods)
            raise NothingToLearn(f"no usable period to {_verb(role)} on: {reasons}")
        parts[role] = Part(usable)
    return parts, left_out


def _unusable(bench: Workbench, period: str) -> str | None:
    """Why a period of the window is left out; None when it is not."""
    return bench.damaged(FEATURES, period) or bench.damaged(PROFILE, period) or bench.unusable(period)


def _check_rows(bench: Workbench, parts: Mapping[str, Part]) -> None:
    least = bench.spec.window.min_rows
    for role, part in parts.items():
        rows = count_rows(bench, part)
        if rows < least:
            raise NothingToLearn(f"too few rows to {_verb(role)} on: {rows:,} in {part}, window.min_rows is {least:,}")


def _verb(role: str) -> str:
    return {"train": "train", "validation": "validate", "test": "test"}[role]


def sum_of_profiles(bench: Workbench, periods: Sequence[str]) -> Profile:
    kinds = bench.spec.kinds
    total = Profile.empty(kinds)
    for period in periods:
        bench.partition(PROFILE, period)
        stored = bench.con.sql(f"FROM {bench.scan(PROFILE, [period])}").to_arrow_table()
        total = total + Profile.from_arrow(stored, kinds)
    return total


def _parts_since_break(
    bench: Workbench, period: str, current: Profile, since: date | None, first_day: date, last_day: date
) -> dict[str, Part] | None:
    """Train, validation and test by days of the period since the break; the whole period when that is too little.

    None when even the whole period can't be split: it has no days, or fewer than three.
    """
    for start in dict.fromkeys([since or first_day, first_day]):
        rows = _rows_by_day(current, start, last_day)
        if len(rows) >= len(ROLES) and sum(rows.values()) >= bench.spec.since_break.min_rows:
            parts = split_days(rows, bench.spec.since_break.shares)
            return {role: Part([period], days) for role, days in zip(ROLES, parts, strict=True)}
    return None


def _rows_by_day(current: Profile, first: date, last: date) -> dict[date, int]:
    span = current.between(first, last)
    return {day: span.on([day]).rows for day in span.days}


def split_days(rows: Mapping[date, int], shares: Sequence[float]) -> list[list[date]]:
    """The days of each part, ascending, so that their rows come close to `shares`; no day is in two parts.

    `rows` are the rows by day, at least as many days as shares. Mondays are dealt first, then Tuesdays, and so on, each
    day to the part that is furthest behind its share: so every part has its weekdays and its holidays, and a few odd
    days at the end of a period don't decide alone, as they would if the parts followed each other.
    """
    parts: list[list[date]] = [[] for _ in shares]
    counts = [0] * len(shares)
    total = 0
    for left, day in zip(range(len(rows), 0, -1), sorted(rows, key=lambda day: (day.weekday(), day)), strict=True):
        total += rows[day]
        empty = [index for index, days in enumerate(parts) if not days]
        # Towards the end, days are kept for the parts that have none yet.
        open_to = empty if len(empty) >= left else range(len(shares))
        behind = max(open_to, key=lambda index: shares[index] * total - counts[index])
        parts[behind].append(day)
        counts[behind] += rows[day]
    return [sorted(days) for days in parts]


def part_sql(bench: Workbench, part: Part) -> str:
    """A SELECT of a part's rows with known target, with the columns of a features partition and the period."""
    spec = bench.spec
    conditions = [f"{identifier(spec.target.column)} IS NOT NULL"]
    for days, condition in ((part.days, "IN"), (part.but_not, "NOT IN")):
        if days:
            listed = ", ".join(f"DATE '{day}'" for day in days)
            conditions.append(f"CAST({identifier(spec.source.time_column or '')} AS DATE) {condition} ({listed})")
    return f"SELECT * FROM {bench.records(FEATURES, part.periods)} WHERE {' AND '.join(conditions)}"


def count_rows(bench: Workbench, part: Part) -> int:
    """How many rows with known target a part has."""
    ((rows,),) = bench.con.execute(f"SELECT count(*) FROM ({part_sql(bench, part)})").fetchall()
    return int(rows)


def samples(bench: Workbench, plan: LearningPlan) -> dict[str, Sampled]:
    """The parts that are too large to learn from as a whole (`max_rows`), and how much of them is used."""
    found = {}
    for role in SAMPLED_ROLES:
        rows = count_rows(bench, plan.parts[role])
        if rows > bench.spec.max_rows:
            found[role] = Sampled(bench.spec.max_rows, rows)
    return found


def load_split(bench: Workbench, part: Part, max_rows: int | None = None) -> Split:
    """A part's feature columns and encoded target, in the order of period and record key; a sample of more rows than
    `max_rows`.
    """
    spec = bench.spec
    columns = bench.columns_sql([*spec.columns, spec.target.column])
    keys = ["period", *spec.record_keys]
    sql = part_sql(bench, part)
    parameters: list[Any] = []
    if max_rows is not None and count_rows(bench, part) > max_rows:
        target = spec.target.column if spec.target.task == "classification" else None
        condition, parameters = sample_sql(bench.con, sql, keys=keys, seed=spec.seed, max_rows=max_rows, target=target)
        sql = f"SELECT * FROM ({sql}) WHERE {condition}"
    ordered = f"SELECT {columns} FROM ({sql}) ORDER BY {bench.columns_sql(keys)}"
    return _split(spec, exact_frame(bench.con.sql(ordered, params=parameters).to_arrow_table()))


class PartRows(Iterable["Split"]):
    """All rows of a part: in one piece as `load_split` gives them, or in batches where there are more than `max_rows`.

    It can be read any number of times. Until a reading has come to its end, `bench.con` is free for other queries.
    """

    def __init__(self, bench: Workbench, part: Part) -> None:
        self._bench, self._part = bench, part
        self.rows = count_rows(bench, part)
        self._whole: Split | None = None

    def __iter__(self) -> Iterator[Split]:
        bench, spec = self._bench, self._bench.spec
        if self.rows <= spec.max_rows:
            self._whole = self._whole or load_split(bench, self._part)
            yield self._whole
            return
        columns = bench.columns_sql([*spec.columns, spec.target.column])
        sql = f"SELECT {columns} FROM ({part_sql(bench, self._part)})"
        for batch in query_batches(bench.con.cursor(), sql):
            yield _split(spec, exact_frame(batch))


def _split(spec: ModelSpec, frame: pd.DataFrame) -> Split:
    from mlops_assets.training.search import Split, encode_target

    return Split(frame[list(spec.columns)], encode_target(frame[spec.target.column], spec.target))
