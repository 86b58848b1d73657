"""Drawing one period's records from a generative model.

Every variable has a random stream of its own, seeded by the model's name, the period, the seed and the variable's
name. So a period does not depend on which others are drawn, and a drift changes what it touches and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.simulation.generative_model import GenerativeModel, SimulationError, Variable

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_DRAWN = 64  # times the rows wanted, when records are chosen by their outcome


@dataclass(frozen=True)
class ActiveDrift:
    """A kind of drift that is at work in a period, and how strongly: 1 is as declared."""

    name: str
    strength: float = 1.0


@dataclass(frozen=True)
class Records:
    """One period's records: the time, and each written variable's values with which of them are missing."""

    time: NDArray[np.datetime64]
    values: dict[str, NDArray[Any]]
    missing: dict[str, NDArray[np.bool_]]

    def __len__(self) -> int:
        return len(self.time)


def stream(model: str, period: str, seed: int, what: str) -> np.random.Generator:
    """The random stream of one purpose: the same for the same four, independent for different ones."""
    digest = hashlib.sha256("\0".join((model, period, str(seed), what)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def draw(
    declared: GenerativeModel,
    model: str,
    period: str,
    rows: int,
    *,
    first: datetime,
    end: datetime,
    seed: int,
    drifts: Sequence[ActiveDrift] = (),
) -> Records:
    """Records of a period in the order of time.

    Args:
        model, period, seed: what the random streams are seeded by.
        first, end: the period's first moment, and the first after it.
        drifts: those at work in this period.

    Raises:
        SimulationError: for a drift that is not declared, or an outcome share that can't be reached.
    """
    parameters = _parameters(declared, drifts)
    wanted = _outcome_share(declared, drifts)
    records = _sample(declared, model, period, rows, parameters, first=first, end=end, seed=seed)
    if wanted is None:
        return records
    drift, share, strength = wanted
    drawn = rows
    while True:
        drawn *= 2
        pool = _sample(declared, model, period, drawn, parameters, first=first, end=end, seed=seed)
        positive = pool.values[declared.outcome.column] == declared.outcome.positive
        natural = float(positive.mean())
        number = round(rows * min(max(natural + strength * (share - natural), 0.0), 1.0))
        if number <= positive.sum() and rows - number <= (~positive).sum():
            return _chosen(pool, positive, number, rows, stream(model, period, seed, f"choice by {drift}"))
        if drawn >= rows * MOST_DRAWN:
            raise SimulationError(
                f"drift {drift!r} wants {number:,} of {rows:,} records with {declared.outcome.column} = "
                f"{declared.outcome.positive!r}, but only {natural:.2%} are; choose a smaller strength"
            )


def _parameters(declared: GenerativeModel, drifts: Sequence[ActiveDrift]) -> dict[str, float]:
    found = dict(declared.parameters)
    for active in drifts:
        drift = declared.drifts.get(active.name)
        if drift is None:
            raise SimulationError(
                f"there is no drift {active.name!r}; declared are {', '.join(declared.drifts) or 'none'}"
            )
        for name, value in drift.parameters.items():
            found[name] += active.strength * (value - declared.parameters[name])
    return found


def _outcome_share(declared: GenerativeModel, drifts: Sequence[ActiveDrift]) -> tuple[str, float, float] | None:
    """The drift that sets the share of the outcome, the share, and its strength; None when none does."""
    found = [
        (active.name, share, active.strength)
        for active in drifts
        if (share := declared.drifts[active.name].outcome_share) is not None
    ]
    if len(found) > 1:
        raise SimulationError(
            f"the drifts {', '.join(name for name, *_ in found)} all set the outcome's share; keep one"
        )
    return found[0] if found else None


def _chosen(pool: Records, positive: NDArray[np.bool_], number: int, rows: int, random: np.random.Generator) -> Records:
    """`number` of the pool's positive records and `rows - number` of the others, in the order of time."""
    yes = random.choice(np.flatnonzero(positive), number, replace=False)
    no = random.choice(np.flatnonzero(~positive), rows - number, replace=False)
    kept = np.sort(np.concatenate([yes, no]))
    return Records(
        pool.time[kept],
        {name: values[kept] for name, values in pool.values.items()},
        {name: missing[kept] for name, missing in pool.missing.items()},
    )


def draw_times(
    declared: GenerativeModel, first: datetime, end: datetime, rows: int, random: np.random.Generator
) -> NDArray[np.datetime64]:
    """Times of records within a period, ascending, to the second: by the weights of hours and weekdays."""
    hours = np.arange(np.datetime64(first, "h"), np.datetime64(end, "h"))
    _, weekday, hour = _calendar(hours)
    weights = np.asarray(declared.time.hours)[hour] * np.asarray(declared.time.weekdays)[weekday]
    picked = random.choice(len(hours), rows, p=weights / weights.sum())
    seconds = random.integers(0, 3600, rows)
    return np.sort(hours[picked].astype("datetime64[s]") + seconds)


def _calendar(times: NDArray[np.datetime64]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Month (1 to 12), weekday (Monday is 0) and hour."""
    days = times.astype("datetime64[D]")
    month = days.astype("datetime64[M]").astype(int) % 12 + 1
    # 1970-01-01 was a Thursday.
    return month, (days.astype(int) + 3) % 7, (times.astype("datetime64[h]") - days).astype(int)


def _sample(
    declared: GenerativeModel,
    model: str,
    period: str,
    rows: int,
    parameters: Mapping[str, float],
    *,
    first: datetime,
    end: datetime,
    seed: int,
) -> Records:
    times = draw_times(declared, first, end, rows, stream(model, period, seed, "(time)"))
    month, weekday, hour = _calendar(times)
    known: dict[str, Any] = {**parameters, "month": month, "weekday": weekday, "hour": hour}
    missing = {}
    for name, variable in declared.variables.items():
        try:
            # A division by zero is reported with the variable, see `_drawn`.
            with np.errstate(all="ignore"):
                known[name] = _drawn(variable, known, rows, stream(model, period, seed, name))
            if variable.missing is not None:
                share = _array(variable.missing.value(known), rows)
                missing[name] = stream(model, period, seed, f"{name} (missing)").random(rows) < share
        except (ValueError, TypeError) as error:
            raise SimulationError(f"variable {name!r} can't be drawn: {error}") from error
    written = declared.written
    nothing = np.zeros(rows, dtype=bool)
    return Records(
        times, {name: known[name] for name in written}, {name: missing.get(name, nothing) for name in written}
    )


def _array(value: Any, rows: int) -> NDArray[Any]:
    return np.broadcast_to(np.asarray(value), (rows,))


def _drawn(variable: Variable, known: Mapping[str, Any], rows: int, random: np.random.Generator) -> NDArray[Any]:
    """A variable's values, clipped, rounded and labelled."""
    if variable.choice is not None:
        weights = np.stack([_array(weight.value(known), rows).astype(float) for weight in variable.choice.values()])
        if not (np.isfinite(weights).all() and (weights >= 0).all() and (weights.sum(axis=0) > 0).all()):
            raise ValueError("the weights of a choice have to be finite, not negative, and one of them above 0")
        reached = np.cumsum(weights, axis=0) / weights.sum(axis=0)
        # The last is left out: rounding may leave it below 1.
        return np.array(list(variable.choice))[(random.random(rows) >= reached[:-1]).sum(axis=0)]
    values = _numbers(variable, known, rows, random)
    if variable.clip is not None:
        values = np.clip(values, variable.clip[0], variable.clip[1])
    if variable.round is not None:
        values = np.round(values, variable.round)
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} values are not finite; does a formula divide by 0?")
    if variable.labels is None:
        return values
    if values.min() < 0 or values.max() >= len(variable.labels):
        raise ValueError(f"values from {values.min():g} to {values.max():g} have {len(variable.labels)} labels")
    return np.array(variable.labels)[values.astype(int)]


def _numbers(variable: Variable, known: Mapping[str, Any], rows: int, random: np.random.Generator) -> NDArray[Any]:
    def of(formula: Any) -> NDArray[Any]:
        return _array(formula.value(known), rows)

    if variable.value is not None:
        return np.array(of(variable.value), dtype=float)
    if variable.normal is not None:
        return of(variable.normal.mean) + of(variable.normal.sd) * random.standard_normal(rows)
    if variable.lognormal is not None:
        return of(variable.lognormal.median) * np.exp(of(variable.lognormal.sigma) * random.standard_normal(rows))
    if variable.poisson is not None:
        return random.poisson(of(variable.poisson)).astype(float)
    if variable.negative_binomial is not None:
        size = of(variable.negative_binomial.size)
        rate = random.gamma(size, of(variable.negative_binomial.mean) / size)
        return random.poisson(rate).astype(float)
    if variable.bernoulli is not None:
        return (random.random(rows) < of(variable.bernoulli)).astype(float)
    levels = variable.levels
    assert levels is not None
    return levels.first + np.searchsorted(levels.cuts, of(levels.score), side="right").astype(float)
