"""How far apart two columns are: pure functions of two value-count profiles.

All of them work on sorted counts; rows are never expanded, but for the exact p-value of small samples.
A function returns None where its quantity is not defined (a side without values); it never guesses.

Belongs here: distances, their noise, and the wording of a change. Does not: thresholds and verdicts.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlops_assets.drift.profile import ColumnProfile
    from mlops_assets.lake.columns import Kind

SHARE_FLOOR = 1e-4
"""Smallest share of a bin in a PSI: one row in ten thousand. Keeps the logarithm of an empty bin bounded."""

PSEUDO_COUNT = 0.5
"""Rows added to every bin before shares are taken (Jeffreys' prior), so that small samples don't shout."""

TOP_CATEGORIES = 20
"""Categories of the reference that have a bin of their own."""

FEW_VALUES = 10
"""Numeric columns with at most so many values have a bin for each."""

_STURGES_ABOVE = 20
_UNREADABLE = 1e12
_SHARES = re.compile(r"(?P<label>.*): \S+ % → \S+ %", re.DOTALL)
NOVELTY_VALUES = 50
"""Columns with more values in the reference have no novelty."""

HUGE = 1e150
"""Absolute values from here on are divided by the largest of them: their squares and differences are no doubles."""

LARGEST = float(np.finfo(np.float64).max)

UNSEEN_COVERAGE = 0.05
"""Largest Good–Turing share of unseen values at which a list of values is taken as complete."""


@dataclass(frozen=True)
class Bins:
    """A partition of a column's values made from a reference; the last bin holds the nulls.

    Attributes:
        kind: of the column.
        values: each of these values is a bin of its own, followed by one bin for all others, when `exact`;
            otherwise the inner edges: bin i holds the values in (values[i-1], values[i]].
        exact: whether `values` are values or edges.
    """

    kind: Kind
    values: np.ndarray
    exact: bool

    @property
    def size(self) -> int:
        """Number of bins, that of the others and that of the nulls included."""
        return len(self.values) + 2

    def index(self, values: np.ndarray) -> np.ndarray:
        """The bin of each value, int, shape of `values`."""
        position = np.searchsorted(self.values, values, side="left")
        if not self.exact:
            return position
        inside = np.minimum(position, max(len(self.values) - 1, 0))
        hit = (self.values[inside] == values) if len(self.values) else np.zeros(len(values), dtype=bool)
        return np.where(hit, position, len(self.values))

    def counts(self, column: ColumnProfile) -> np.ndarray:
        """Rows of `column` per bin, int64, shape (size,)."""
        filled = np.bincount(self.index(column.values), weights=column.counts, minlength=self.size)
        filled[-1] += column.nulls
        return filled.astype(np.int64)

    def label(self, bin_: int) -> str:
        """How a person names the bin."""
        if bin_ == self.size - 1:
            return "null"
        if self.exact:
            return format_value(self.values[bin_]) if bin_ < len(self.values) else "other values"
        if bin_ == 0:
            return f"≤ {format_value(self.values[0])}"
        if bin_ == len(self.values):
            return f"> {format_value(self.values[-1])}"
        return f"{format_value(self.values[bin_ - 1])} to {format_value(self.values[bin_])}"


def unseen_share(reference: ColumnProfile) -> float:
    """Chance that a further row of the reference's world holds a value the reference lacks.

    The Good–Turing estimate (Good 1953, Biometrika 40): values seen once / rows with a value; 1 without rows.
    """
    return float((reference.counts == 1).sum() / reference.filled) if reference.filled else 1.0


def is_few_valued(column: ColumnProfile, limit: int = FEW_VALUES) -> bool:
    """Whether the values are a short list that the column's rows have shown in full, or nearly.

    A few continuous numbers from a small sample are not: by Good–Turing most of the values are unseen.
    """
    return 0 < column.distinct <= limit and unseen_share(column) <= UNSEEN_COVERAGE


def reference_bins(reference: ColumnProfile, bins: int = 10) -> Bins:
    """The bins of a PSI, made from the reference alone.

    Numeric: quantiles of the reference as edges; a value that holds at least 1/bins of the rows is a bin of
    its own; with few distinct values (`is_few_valued`) each value is. Categorical: the 20 most frequent
    categories. All others are one bin, and so are the nulls.
    """
    if bins < 2:
        raise ValueError(f"bins must be 2 or more, found {bins}")
    if reference.kind == "categorical":
        # Ties go by name, so that the same counts always give the same bins.
        order = np.argsort(-reference.counts, kind="stable")[:TOP_CATEGORIES]
        return Bins(reference.kind, reference.values[np.sort(order)], exact=True)
    if is_few_valued(reference):
        return Bins(reference.kind, reference.values, exact=True)
    if reference.distinct == 0:
        return Bins(reference.kind, reference.values, exact=True)
    cumulative = np.cumsum(reference.counts)
    ranks = np.arange(1, bins) / bins * cumulative[-1]
    positions = np.searchsorted(cumulative, ranks, side="left")
    heavy = np.flatnonzero(reference.counts >= cumulative[-1] / bins)
    positions = np.union1d(positions, np.concatenate([heavy, heavy[heavy > 0] - 1]))
    return Bins(reference.kind, reference.values[positions], exact=False)


def shares(counts: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Smoothed shares of bins, float, shape of `counts`; the last axis holds the bins.

    Half a row is added to each bin of `used` (Jeffreys' prior), and no share is below `SHARE_FLOOR`.
    """
    smoothed = counts + np.where(used, PSEUDO_COUNT, 0.0)
    return np.maximum(smoothed / smoothed.sum(axis=-1, keepdims=True), SHARE_FLOOR)


def psi_of_counts(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Population stability index of binned counts: Σ (q - p) ln(q / p) over smoothed shares p, q.

    Both have shape (bins,) or (samples, bins). Bins that are empty on both sides have no part in it.
    """
    used = (reference > 0) | (current > 0)
    p, q = shares(reference, used), shares(current, used)
    return np.sum(np.where(used, (q - p) * np.log(q / p), 0.0), axis=-1)


def psi(reference: ColumnProfile, current: ColumnProfile, bins: int = 10) -> float | None:
    """Population stability index over the bins of the reference, null being a bin of its own.

    0 for equal shares; by the usual reading below 0.1 is stable and from 0.25 on is a different population
    (Siddiqi 2006, Credit Risk Scorecards). None when a side has no rows.
    """
    if not reference.rows or not current.rows:
        return None
    partition = reference_bins(reference, bins)
    return float(psi_of_counts(partition.counts(reference), partition.counts(current)))


def psi_noise_floor(bins: int | np.ndarray, n: float | np.ndarray, m: float | np.ndarray) -> np.ndarray:
    """The PSI that samples of n and m rows from one population exceed once in a hundred times.

    χ²(bins-1, .99) · (1/n + 1/m); Yurdakul and Naranjo 2020, Statistical properties of the population
    stability index, Journal of Risk Model Validation 14(4). `bins` counts bins in use; n or m of 0 gives
    infinity.
    """
    from scipy.special import chdtri

    with np.errstate(divide="ignore"):
        spread = 1.0 / np.asarray(n, dtype=float) + 1.0 / np.asarray(m, dtype=float)
    freedom = np.asarray(bins) - 1
    quantile_ = chdtri(np.maximum(freedom, 1), 0.01)
    # A single bin has no spread: its PSI is 0 whatever the samples.
    return np.where((freedom > 0) | np.isinf(spread), quantile_ * spread, 0.0)


def _aligned(reference: ColumnProfile, current: ColumnProfile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All values of both sides in order, and the counts of each side over them."""
    values = np.concatenate([reference.values, current.values])
    distinct, position = np.unique(values, return_inverse=True)
    split, size = len(reference.values), len(distinct)
    return (
        distinct,
        np.bincount(position[:split], weights=reference.counts, minlength=size),
        np.bincount(position[split:], weights=current.counts, minlength=size),
    )


def _numeric_and_filled(reference: ColumnProfile, current: ColumnProfile) -> bool:
    return reference.kind == current.kind == "numeric" and bool(reference.filled and current.filled)


def kolmogorov_smirnov(reference: ColumnProfile, current: ColumnProfile) -> float | None:
    """D: the largest gap between the two distribution functions, in [0, 1]; nulls left out.

    None for categorical columns, and when a side has no values.
    """
    if not _numeric_and_filled(reference, current):
        return None
    _, left, right = _aligned(reference, current)
    return float(np.abs(np.cumsum(left) / left.sum() - np.cumsum(right) / right.sum()).max())


def wasserstein(reference: ColumnProfile, current: ColumnProfile) -> float | None:
    """First Wasserstein distance: the area between the distribution functions, in the column's unit.

    Nulls are left out. None for categorical columns, and when a side has no values.
    """
    if not _numeric_and_filled(reference, current):
        return None
    values, left, right = _aligned(reference, current)
    unit = _unit(values)
    gap = np.cumsum(left) / left.sum() - np.cumsum(right) / right.sum()
    return min(float(np.sum(np.abs(gap[:-1]) * np.diff(values / unit))) * unit, LARGEST)


def standard_deviation(column: ColumnProfile) -> float | None:
    """Standard deviation (ddof 0) of the values; None without values or for a categorical column."""
    if column.kind != "numeric" or not column.filled:
        return None
    unit = _unit(column.values)
    values = column.values / unit
    mean = np.average(values, weights=column.counts)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=column.counts))) * unit


def _unit(values: np.ndarray) -> float:
    """What to divide numbers by before they are added, subtracted or squared: 1, or for huge ones a power of 2."""
    largest = float(np.abs(values).max(initial=0.0))
    return 1.0 if largest < HUGE else 2.0 ** min(math.frexp(largest)[1], 1023)


def wasserstein_normed(reference: ColumnProfile, current: ColumnProfile) -> float | None:
    """Wasserstein distance over the reference's standard deviation (at least 0.001), as Evidently has it."""
    distance, spread = wasserstein(reference, current), standard_deviation(reference)
    return None if distance is None or spread is None else min(distance / max(spread, 0.001), LARGEST)


def jensen_shannon(reference: ColumnProfile, current: ColumnProfile) -> float | None:
    """Jensen–Shannon distance (natural logarithm, at most √ln 2 ≈ 0.833); null is a bin of its own.

    Symmetric. Over values and categories; over Sturges bins of both sides together when there are more
    than 20 numbers. None when a side has no rows.
    """
    if not reference.rows or not current.rows:
        return None
    values, left, right = _aligned(reference, current)
    if reference.kind == "numeric" and len(values) > _STURGES_ABOVE:
        values = values / _unit(values)
        edges = _sturges_edges(values, left.sum() + right.sum())
        left, right = _histogram(values, left, edges), _histogram(values, right, edges)
    return _jensen_shannon(np.append(left, reference.nulls), np.append(right, current.nulls))


def _jensen_shannon(left: np.ndarray, right: np.ndarray) -> float:
    p, q = left / left.sum(), right / right.sum()
    middle = (p + q) / 2

    def divergence(side: np.ndarray) -> float:
        used = side > 0
        return float(np.sum(side[used] * np.log(side[used] / middle[used])))

    # Rounding can leave a divergence of -1e-17 between equal distributions.
    return float(np.sqrt(max(divergence(p) + divergence(q), 0.0) / 2))


def _sturges_edges(values: np.ndarray, rows: float) -> np.ndarray:
    """What `numpy.histogram_bin_edges(rows, "sturges")` gives for the rows behind these distinct floats."""
    width = (values[-1] - values[0]) / (np.log2(rows) + 1.0)
    number = int(np.ceil((values[-1] - values[0]) / width)) if width else 1
    return np.linspace(values[0], values[-1], number + 1)


def _histogram(values: np.ndarray, counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.histogram(values, edges, weights=counts)[0]


@dataclass(frozen=True)
class EvidentlyScore:
    """What Evidently's DataDriftPreset says of a column by default.

    Attributes:
        method: Evidently's name: `wasserstein`, `jensenshannon`, `ks`, `chisquare` or `z`.
        value: distance, or p-value for the last three.
        threshold: distances drift from it on, p-values below it.
        drifted: Evidently's own decision.
    """

    method: str
    value: float
    threshold: float
    drifted: bool

    @property
    def display_name(self) -> str:
        """The name that Evidently's pages show."""
        return EVIDENTLY_NAMES[self.method]


EVIDENTLY_NAMES = {
    "wasserstein": "Wasserstein distance (normed)",
    "jensenshannon": "Jensen-Shannon distance",
    "ks": "K-S p_value",
    "chisquare": "chi-square p_value",
    "z": "Z-test p_value",
}
_SMALL_SAMPLE = 1000
_EVIDENTLY_FEW_VALUES = 5


def evidently_score(reference: ColumnProfile, current: ColumnProfile) -> EvidentlyScore | None:
    """The test that Evidently 0.7 picks by default, and its score, from counts (equal to 1e-6).

    Nulls are dropped first, as Evidently does. With more than 1000 reference values: Wasserstein normed for
    more than 5 distinct numbers, else Jensen–Shannon. Otherwise p-values: Kolmogorov–Smirnov for more than 5
    distinct numbers, chi-square for more than 2 values, else the z-test of proportions. Values rounded at
    profiling give the score of the rounded values. None when a side has no values, where Evidently raises.
    """
    if not reference.filled or not current.filled:
        return None
    values, left, right = _aligned(reference, current)
    many = reference.kind == "numeric" and len(values) > _EVIDENTLY_FEW_VALUES
    if reference.filled > _SMALL_SAMPLE:
        return _evidently_distance(reference, current)
    if many:
        p_value = _ks_p_value(reference, current)
        return EvidentlyScore("ks", p_value, 0.05, p_value <= 0.05)
    p_value = _chi_square_p_value(left, right) if len(values) > 2 else _z_p_value(left, right)
    return EvidentlyScore("chisquare" if len(values) > 2 else "z", p_value, 0.05, p_value < 0.05)


def evidently_distance(reference: ColumnProfile, current: ColumnProfile) -> EvidentlyScore | None:
    """Evidently's default score as a distance, larger when more has drifted, for a limit of one's own.

    `evidently_score` where that is a distance. Below its sample size Evidently gives a p-value, which says how
    sure and not how much: there it is the distance that Evidently takes for larger samples of such a column.
    `drifted` is Evidently's own decision at its limit of 0.1. None when a side has no values.
    """
    found = evidently_score(reference, current)
    if found is None or found.method in ("wasserstein", "jensenshannon"):
        return found
    return _evidently_distance(reference, current)


def _evidently_distance(reference: ColumnProfile, current: ColumnProfile) -> EvidentlyScore:
    values, left, right = _aligned(reference, current)
    many = reference.kind == "numeric" and len(values) > _EVIDENTLY_FEW_VALUES
    distance = wasserstein_normed(reference, current) if many else _jensen_shannon(left, right)
    assert distance is not None
    return EvidentlyScore("wasserstein" if many else "jensenshannon", distance, 0.1, distance >= 0.1)


_KS_EXACT_ROWS = 10_000


def _ks_p_value(reference: ColumnProfile, current: ColumnProfile) -> float:
    from scipy import stats

    n, m = reference.filled, current.filled
    if max(n, m) <= _KS_EXACT_ROWS:
        rows = [np.repeat(side.values, side.counts) for side in (reference, current)]
        return float(stats.ks_2samp(*rows).pvalue)
    # scipy's asymptotic branch, which it takes for larger samples.
    distance = kolmogorov_smirnov(reference, current)
    return float(np.clip(stats.kstwo.sf(distance, np.round(n * m / (n + m))), 0, 1))


def _chi_square_p_value(reference: np.ndarray, current: np.ndarray) -> float:
    from scipy.special import chdtrc

    expected = reference * (current.sum() / reference.sum())
    with np.errstate(divide="ignore"):
        statistic = np.sum((current - expected) ** 2 / expected)
    return float(chdtrc(len(current) - 1, statistic))


def _z_p_value(reference: np.ndarray, current: np.ndarray) -> float:
    from scipy.special import ndtr

    if len(reference) == 1:
        return 1.0
    n, m = reference.sum(), current.sum()
    p, q = reference[1] / n, current[1] / m
    pooled = (p * n + q * m) / (n + m)
    z = (p - q) / np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return float(2 * (1 - ndtr(abs(z))))


def evidently_binned(reference: ColumnProfile, current: ColumnProfile) -> tuple[np.ndarray, np.ndarray] | None:
    """Shares of each side over Evidently's bins for PSI and Jensen–Shannon, nulls dropped.

    Sturges bins over both sides together when the reference has more than 20 distinct numbers, else one per
    value. None when a side has no values.
    """
    if not reference.filled or not current.filled:
        return None
    values, left, right = _aligned(reference, current)
    if reference.kind == "numeric" and reference.distinct > _STURGES_ABOVE:
        values = values / _unit(values)
        edges = _sturges_edges(values, left.sum() + right.sum())
        left, right = _histogram(values, left, edges), _histogram(values, right, edges)
    return left / reference.filled, right / current.filled


def evidently_jensen_shannon(reference: ColumnProfile, current: ColumnProfile) -> float | None:
    """Jensen–Shannon distance as Evidently's `jensenshannon` method bins it."""
    binned = evidently_binned(reference, current)
    return None if binned is None else _jensen_shannon(*binned)


def evidently_psi(reference: ColumnProfile, current: ColumnProfile) -> float | None:
    """PSI as Evidently's `psi` method bins it and fills empty bins."""
    binned = evidently_binned(reference, current)
    if binned is None:
        return None
    for side in binned:
        least = side[side > 0].min()
        side[side == 0] = least / 1e6 if least <= 1e-4 else 1e-4
    p, q = binned
    return float(np.sum((p - q) * np.log(p / q)))


@dataclass(frozen=True)
class Novelty:
    """How much of the current data the reference has never seen.

    Attributes:
        share: of the current rows with a value, those whose value the reference lacks, in [0, 1].
        noise_floor: the share to be expected with nothing changed, by Good–Turing.
        unseen: the most frequent unseen values with their share of the current rows, at most five.
    """

    share: float
    noise_floor: float
    unseen: tuple[tuple[str, float], ...]


def novelty(reference: ColumnProfile, current: ColumnProfile) -> Novelty | None:
    """Share of current values that the reference never had.

    None when the reference has more than 50 distinct values or its rows have not shown all of them yet
    (`is_few_valued`): there, a new value is nothing new. None too when a side has no values.
    """
    if not current.filled or not is_few_valued(reference, NOVELTY_VALUES):
        return None
    share, unseen = unseen_values(reference, current)
    return Novelty(share, unseen_share(reference), unseen)


def unseen_values(reference: ColumnProfile, current: ColumnProfile) -> tuple[float, tuple[tuple[str, float], ...]]:
    """Share of the current values that the reference lacks, and the five most frequent with theirs."""
    new = ~np.isin(current.values, reference.values)
    counts, values = current.counts[new], current.values[new]
    filled = max(current.filled, 1)
    top = np.argsort(-counts, kind="stable")[:5]
    named = tuple((format_value(values[i]), float(counts[i] / filled)) for i in top)
    return float(counts.sum() / filled), named


def quantile(column: ColumnProfile, share: float) -> float | None:
    """The smallest value that at least `share` of the values don't exceed; None without values."""
    if column.kind != "numeric" or not column.filled:
        return None
    cumulative = np.cumsum(column.counts)
    return float(column.values[np.searchsorted(cumulative, share * cumulative[-1], side="left")])


def direction(reference: ColumnProfile, current: ColumnProfile) -> str:
    """What changed, in words: `median 12.5 → 15, +20 %`, `1: 0 % → 79 %`, `null share 0 % → 41 %`.

    For numbers the median; for few values, categories, and equal medians, the bin whose share moved most.
    """
    if not reference.rows or not current.rows:
        return "no rows to compare"
    partition = reference_bins(reference)
    before = partition.counts(reference) / reference.rows
    after = partition.counts(current) / current.rows
    change = after - before
    if abs(change[-1]) >= np.abs(change[:-1]).max(initial=0.0) and change[-1]:
        return f"null share {format_percent(before[-1])} → {format_percent(after[-1])}"
    old, new = quantile(reference, 0.5), quantile(current, 0.5)
    if not partition.exact and old is not None and new is not None and old != new:
        return f"median {format_value(old)} → {format_value(new)}{_relative(old, new)}"
    if not change.any():
        return "no change"
    # What came says more than what went, so a gain wins over a loss of about its size.
    gain, loss = int(np.argmax(change)), int(np.argmin(change))
    moved = gain if change[gain] >= -0.5 * change[loss] else loss
    if partition.exact and moved == len(partition.values):
        return _direction_of_others(reference, current, before[moved], after[moved])
    return f"{partition.label(moved)}: {format_percent(before[moved])} → {format_percent(after[moved])}"


def direction_in_words(direction: str, kind: Kind) -> str:
    """What `direction` says as people read it: `value 1: 0 % → 79 % of rows` for `1: 0 % → 79 %`.

    The short form is what a report's digest is made of, so it stays as it was.
    """
    found = _SHARES.fullmatch(direction)
    if found is None:
        return direction
    label = found["label"]
    of_several = kind == "numeric" and (label.startswith(("≤ ", "> ")) or " to " in label)
    what = "values " if of_several else "" if label == "other values" else "value "
    return f"{what}{direction} of rows"


def _relative(old: float, new: float) -> str:
    """The relative change in percent; nothing where there is none that a person could read."""
    relative = (new - old) / abs(old) if old else np.inf
    return f", {relative:+.0%}".replace("%", " %") if abs(relative) < _UNREADABLE else ""


def _direction_of_others(reference: ColumnProfile, current: ColumnProfile, before: float, after: float) -> str:
    """Name the single value when it is most of the change among the values outside the bins."""
    values, left, right = _aligned(reference, current)
    change = right / current.rows - left / reference.rows
    top = int(np.argmax(change))
    if change[top] >= 0.5 * (after - before):
        old, new = left[top] / reference.rows, right[top] / current.rows
        return f"{format_value(values[top])}: {format_percent(old)} → {format_percent(new)}"
    return f"other values: {format_percent(before)} → {format_percent(after)}"


def format_value(value: object) -> str:
    """A number at four significant digits, without an exponent where it fits; text as it is."""
    if isinstance(value, str):
        return value if len(value) <= 40 else value[:39] + "…"
    number = float(value)  # type: ignore[arg-type]
    if number == int(number) and abs(number) < 1e15:
        return str(int(number))
    return f"{number:.4g}"


def format_percent(share: float) -> str:
    """A share in percent, without decimals unless it would read as none or all."""
    percent = 100 * share
    if 0 < percent < 0.5:
        return f"{percent:.2g} %"
    return f"{percent:.0f} %" if percent < 99.5 or share == 1 else f"{percent:.4g} %"
