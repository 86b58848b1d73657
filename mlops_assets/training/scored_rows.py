"""Scores of rows beside their outcomes, and the exact metrics of them, however many rows there are.

Few rows stay in memory and are measured by `training.metrics`. More are kept in a table of DuckDB, which spills to
disk, and are measured from a sorted stream: the same metrics up to the rounding of floating point sums.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa

from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.store import identifier
from mlops_assets.training.metrics import (
    CALIBRATION_BINS,
    CLIP,
    CalibrationCurve,
    Metrics,
    binary,
    calibration_curve,
    classification_metrics,
    classification_values,
    curve_error,
    regression_metrics,
    regression_values,
)

if TYPE_CHECKING:
    import duckdb
    from numpy.typing import ArrayLike, NDArray

IN_MEMORY_ROWS = 1_000_000
CHUNK_ROWS = 262_144

Chunk = tuple["NDArray[np.float64]", "NDArray[np.float64]"]


class ScoredRows:
    """Outcomes and scores of rows, added in batches.

    Outcomes are 0/1 (1 = the positive class) or amounts, scores probabilities or predicted amounts.

    Parameters
    ----------
    con
        A database for the rows beyond `in_memory`; without one all rows stay in memory. Use the object in a `with`
        block, or `close` it: its table takes memory and disk until then.
    in_memory
        How many rows are kept as arrays, in the order in which they were added.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection | None = None, in_memory: int = IN_MEMORY_ROWS) -> None:
        # A cursor, because the stream that the rows come from may be open on the connection itself.
        self._con = None if con is None else con.cursor()
        self._in_memory = in_memory
        self._arrays: list[Chunk] = []
        self._table: str | None = None
        self._sorted = False
        self._classes = False
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free what the rows take; there are none afterwards."""
        if self._con is not None and self._table is not None:
            self._con.execute(f"DROP TABLE IF EXISTS {self._table}")
        self._arrays, self._table, self._sorted, self.rows = [], None, False, 0

    def add(self, outcomes: ArrayLike, scores: ArrayLike) -> None:
        """Add rows: outcomes and scores of equal length, shape (n,)."""
        actual, scored = np.asarray(outcomes), np.asarray(scores, dtype=np.float64)
        if actual.shape != scored.shape or actual.ndim != 1:
            raise ValueError(
                f"outcomes and scores must be one column of equal length, found {actual.shape} and {scored.shape}"
            )
        self.rows += len(scored)
        if self._table is not None:
            self._insert(actual, scored)
            return
        self._arrays.append((actual, scored))
        if self._con is not None and self.rows > self._in_memory:
            self._table = identifier(f"scored {uuid.uuid4().hex}")
            # Classes take an eighth of what amounts take.
            self._classes = all(outcomes.dtype == np.int8 for outcomes, _ in self._arrays)
            kind = "TINYINT" if self._classes else "DOUBLE"
            self._con.execute(f"CREATE TABLE {self._table} (outcome {kind}, score DOUBLE)")
            for chunk in self._arrays:
                self._insert(*chunk)
            self._arrays = []

    def arrays(self) -> Chunk:
        """Outcomes and scores of all rows, shape (rows,) each, in the order in which they were added.

        Raises ValueError when there are too many for that.
        """
        if self._table is not None:
            raise ValueError(f"{self.rows:,} rows are kept in a table, not in memory; read them by `chunks`")
        if len(self._arrays) > 1:
            self._arrays = [tuple(np.concatenate(side) for side in zip(*self._arrays, strict=True))]  # type: ignore[list-item]
        return self._arrays[0] if self._arrays else (np.empty(0), np.empty(0))

    def chunks(self) -> Iterator[Chunk]:
        """Outcomes and scores in parts: all as they were added, or sorted by score where they were too many.

        Until the stream is read to its end, nothing can be added.
        """
        if self._table is None:
            if self.rows:
                yield self.arrays()
            return
        self._sort()
        assert self._con is not None
        stream = query_batches(self._con, f"FROM {self._table}", CHUNK_ROWS)
        # Of a fixed size, so that sums over them don't depend on how DuckDB cuts its result.
        waiting: list[pa.RecordBatch] = []
        rows = 0
        for batch in stream:
            waiting.append(batch)
            rows += batch.num_rows
            while rows >= CHUNK_ROWS:
                table = pa.Table.from_batches(waiting)
                yield _numpy(table.slice(0, CHUNK_ROWS))
                waiting, rows = table.slice(CHUNK_ROWS).to_batches(), rows - CHUNK_ROWS
        if rows:
            yield _numpy(pa.Table.from_batches(waiting))

    def metrics(self, cut: float | None) -> Metrics:
        """The metrics of a classification with a cut, those of a regression without one; see `training.metrics`."""
        if self._table is None:
            outcomes, scores = self.arrays()
            if cut is None:
                return regression_metrics(outcomes, scores)
            return classification_metrics(outcomes, scores, cut)
        return _regression(self) if cut is None else _classification(self, cut)

    def calibration_curve(self) -> CalibrationCurve:
        """The reliability of probabilities; see `metrics.calibration_curve`."""
        return calibration_curve(*self.arrays()) if self._table is None else _curve(self)

    def draw(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """Scores of `size` rows, drawn with replacement."""
        if self._table is None:
            drawn: NDArray[np.float64] = rng.choice(self.arrays()[1], size=size)
            return drawn
        places = rng.integers(0, self.rows, size)
        return self._at(places)

    @contextmanager
    def relation(self, con: duckdb.DuckDBPyConnection) -> Iterator[str]:
        """A table expression of `con`, over the database of these rows, with the columns outcome and score."""
        if self._table is not None:
            yield self._table
            return
        name = f"scored_{uuid.uuid4().hex}"
        outcomes, scores = self.arrays()
        con.register(name, pa.table({"outcome": outcomes, "score": scores}))
        try:
            yield name
        finally:
            con.unregister(name)

    def _insert(self, outcomes: NDArray[np.float64], scores: NDArray[np.float64]) -> None:
        assert self._con is not None
        if self._classes and outcomes.dtype != np.int8:
            raise ValueError(f"outcomes are {outcomes.dtype} after batches of classes (int8); add one kind only")
        self._sorted = False
        self._con.register("added", pa.table({"outcome": outcomes, "score": scores}))
        self._con.execute(f"INSERT INTO {self._table} FROM added")
        self._con.unregister("added")

    def _sort(self) -> None:
        if self._sorted:
            return
        assert self._con is not None
        unsorted, self._table = self._table, identifier(f"scored {uuid.uuid4().hex}")
        self._con.execute(f"CREATE TABLE {self._table} AS FROM {unsorted} ORDER BY score, outcome")
        self._con.execute(f"DROP TABLE {unsorted}")
        self._sorted = True

    def _at(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """The scores at places in ascending order of all scores, 0 is the lowest."""
        found = np.empty(len(places))
        before = 0
        for _, scores in self.chunks():
            here = (places >= before) & (places < before + len(scores))
            found[here] = scores[places[here] - before]
            before += len(scores)
        return found


def _numpy(table: pa.Table) -> Chunk:
    return table["outcome"].to_numpy(), table["score"].to_numpy()


# -- classification ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Groups:
    """Distinct scores, ascending, with their rows and positive rows: shape (distinct,) each."""

    scores: NDArray[np.float64]
    rows: NDArray[np.int64]
    positives: NDArray[np.int64]


def _groups(scored: ScoredRows) -> Iterator[_Groups]:
    """The distinct scores of sorted chunks; no score is in two of the parts."""
    held: _Groups | None = None
    for outcomes, scores in scored.chunks():
        labels, probabilities = binary(outcomes, scores)
        starts = np.flatnonzero(np.r_[True, probabilities[1:] != probabilities[:-1]])
        found = _Groups(
            probabilities[starts],
            np.diff(np.r_[starts, len(probabilities)]),
            np.add.reduceat(labels.astype(np.int64), starts),
        )
        if held is not None:
            found = _joined(held, found)
        # The next chunk may begin with the score that this one ends with.
        held = _Groups(found.scores[-1:], found.rows[-1:], found.positives[-1:])
        if len(found.scores) > 1:
            yield _Groups(found.scores[:-1], found.rows[:-1], found.positives[:-1])
    if held is not None:
        yield held


def _joined(one: _Groups, more: _Groups) -> _Groups:
    same = int(one.scores[-1] == more.scores[0])
    rows, positives = more.rows.copy(), more.positives.copy()
    if same:
        rows[0] += one.rows[-1]
        positives[0] += one.positives[-1]
    kept = slice(0, len(one.scores) - same)
    return _Groups(
        np.concatenate([one.scores[kept], more.scores]),
        np.concatenate([one.rows[kept], rows]),
        np.concatenate([one.positives[kept], positives]),
    )


@dataclass
class _Sum:
    """A sum of many terms, added chunk by chunk, rounded once."""

    parts: list[float] = field(default_factory=list)

    def add(self, terms: NDArray[np.float64]) -> None:
        self.parts.append(float(terms.sum()))

    @property
    def value(self) -> float:
        return math.fsum(self.parts)


def _classification(scored: ScoredRows, cut: float) -> Metrics:
    n = scored.rows
    positives = sum(int(group.positives.sum()) for group in _groups(scored))
    hits = called = doubled_ranks = before = positives_before = 0
    precision, log_loss, brier = _Sum(), _Sum(), _Sum()
    for group in _groups(scored):
        negatives = group.rows - group.positives
        below = before + np.cumsum(group.rows) - group.rows
        positives_below = positives_before + np.cumsum(group.positives) - group.positives
        above = group.scores >= cut
        hits += int(group.positives[above].sum())
        called += int(group.rows[above].sum())
        # Twice the mean rank of a tie is whole, so the sum is exact.
        doubled_ranks += int((group.positives * (2 * below + group.rows + 1)).sum())
        if positives:
            precision.add(group.positives / positives * ((positives - positives_below) / (n - below)))
        clipped = np.clip(group.scores, CLIP, 1 - CLIP)
        log_loss.add(-(group.positives * np.log(clipped) + negatives * np.log(1 - clipped)))
        brier.add(group.positives * (group.scores - 1) ** 2 + negatives * group.scores**2)
        before += int(group.rows.sum())
        positives_before += int(group.positives.sum())
    pairs = 2 * positives * (n - positives)
    return classification_values(
        n,
        positives,
        hits=hits,
        called=called,
        cut=cut,
        auc=(doubled_ranks - positives * (positives + 1)) / pairs if pairs else math.nan,
        average_precision=precision.value if positives else math.nan,
        log_loss=log_loss.value / n,
        brier=brier.value / n,
        calibration_error=curve_error(_curve(scored)),
    )


def _curve(scored: ScoredRows) -> CalibrationCurve:
    edges = np.unique(_quantiles(scored, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]))
    size = len(edges) + 1
    rows, positives = np.zeros(size, np.int64), np.zeros(size, np.int64)
    sums = [_Sum() for _ in range(size)]
    for group in _groups(scored):
        bin_of = np.searchsorted(edges, group.scores, side="left")
        rows += np.bincount(bin_of, weights=group.rows, minlength=size).astype(np.int64)
        positives += np.bincount(bin_of, weights=group.positives, minlength=size).astype(np.int64)
        for place, total in enumerate(np.bincount(bin_of, weights=group.rows * group.scores, minlength=size)):
            sums[place].parts.append(float(total))
    used = rows > 0
    score = np.array([total.value for total in sums])[used] / rows[used]
    return CalibrationCurve(score, positives[used] / rows[used], rows[used])


def _quantiles(scored: ScoredRows, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """What `np.quantile` gives of all scores."""
    places = shares * (scored.rows - 1)
    lower = np.floor(places).astype(np.int64)
    ends = scored._at(np.concatenate([lower, np.minimum(lower + 1, scored.rows - 1)])).reshape(2, -1)
    fractions = places - lower
    return np.array([np.quantile(pair, fraction) for pair, fraction in zip(ends.T, fractions, strict=True)])


# -- regression -------------------------------------------------------------------------------------------------


@dataclass
class RegressionSums:
    """What the metrics of a regression are made of, added chunk by chunk."""

    rows: int = 0
    first: float = 0.0
    mean: float = 0.0
    spread: float = 0.0
    actual: _Sum = field(default_factory=_Sum)
    error: _Sum = field(default_factory=_Sum)
    absolute: _Sum = field(default_factory=_Sum)
    squared: _Sum = field(default_factory=_Sum)

    def add(self, outcomes: NDArray[np.float64], scores: NDArray[np.float64]) -> None:
        """Add at least one row; raises ValueError for values that are not finite."""
        if not (np.isfinite(outcomes).all() and np.isfinite(scores).all()):
            raise ValueError("actual and predicted values must be finite; leave rows without an outcome out")
        error = scores - outcomes
        self.actual.add(np.abs(outcomes))
        self.error.add(error)
        self.absolute.add(np.abs(error))
        self.squared.add(error**2)
        if not self.rows:
            self.first = float(outcomes[0])
        # Distances from one of the values: equal values have a spread of exactly 0.
        shifted = outcomes - self.first
        mean = float(shifted.mean())
        gap, total = mean - self.mean, self.rows + len(outcomes)
        # Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances, 1979.
        self.spread += float(((shifted - mean) ** 2).sum()) + gap**2 * self.rows * len(outcomes) / total
        self.mean += gap * len(outcomes) / total
        self.rows = total

    def metrics(self) -> Metrics:
        """The metrics of `metrics.regression_metrics`."""
        return regression_values(
            self.rows,
            actual_sum=self.actual.value,
            spread=self.spread,
            error_sum=self.error.value,
            absolute_error=self.absolute.value,
            squared_error=self.squared.value,
        )


def _regression(scored: ScoredRows) -> Metrics:
    sums = RegressionSums()
    for outcomes, scores in scored.chunks():
        sums.add(outcomes, scores)
    return sums.metrics()
