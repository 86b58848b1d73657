"""How good predictions were: realised metrics, the cut, calibration, and where a model is weakest.

A value that the rows can't define is NaN, with the reason in `Metrics.undefined`; it is never 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.lake.categories import text_of_each

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

HIGHER_IS_BETTER: dict[str, bool] = {
    "f1": True,
    "precision": True,
    "recall": True,
    "accuracy": True,
    "auc": True,
    "average_precision": True,
    "log_loss": False,
    "brier": False,
    "calibration_error": False,
    "mae": False,
    "rmse": False,
    "wmape": False,
    "r2": True,
}
CLASSIFICATION_METRICS = tuple(list(HIGHER_IS_BETTER)[:9])
REGRESSION_METRICS = tuple(list(HIGHER_IS_BETTER)[9:])
CALIBRATION_BINS = 20
CLIP = 1e-15  # how near to 0 and 1 a probability may come in the log loss


class Metrics(dict[str, float]):
    """Metric → value. Those that the rows can't define are NaN; `undefined` says why."""

    undefined: dict[str, str]

    def __init__(self, values: dict[str, float], undefined: dict[str, str] | None = None) -> None:
        super().__init__(values)
        self.undefined = undefined or {}
        for name in self.undefined:
            self[name] = math.nan

    def __reduce__(self) -> tuple[Any, ...]:
        return (Metrics, (dict(self), self.undefined))


@dataclass(frozen=True)
class CalibrationCurve:
    """Reliability by bins of equal size: mean score, observed rate and rows of each bin."""

    score: NDArray[np.float64]
    rate: NDArray[np.float64]
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class FisherResult:
    """Odds ratio (above 1: system a is right more often) and two-sided p-value of Fisher's exact test."""

    odds_ratio: float
    p_value: float


def binary(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Labels as bool and scores as float64, shape (n,) each; raises ValueError for what can't be measured."""
    y = np.asarray(labels)
    s = np.asarray(scores, dtype=np.float64)
    if y.shape != s.shape or y.ndim != 1:
        raise ValueError(f"labels and scores must be one column of equal length, found {y.shape} and {s.shape}")
    if not len(y):
        raise ValueError("no rows to measure; metrics need at least one label and score")
    if not np.isin(y, (0, 1)).all():
        odd = sorted({str(v) for v in y[~np.isin(y, (0, 1))][:3]})
        raise ValueError(f"labels must be 0 or 1 (1 = the positive class), found {', '.join(odd)}")
    if not ((s >= 0) & (s <= 1)).all():
        raise ValueError(f"scores must be probabilities from 0 to 1, found {s[~((s >= 0) & (s <= 1))][:3].tolist()}")
    return y.astype(bool), s


def classification_metrics(labels: ArrayLike, scores: ArrayLike, cut: float) -> Metrics:
    """Metrics of probabilities against 0/1 labels; a row is predicted positive when its score ≥ `cut`.

    Returns f1, precision, recall, accuracy, auc (area under the ROC curve), average_precision, log_loss
    (nats, scores clipped to 1e-15), brier, calibration_error (see `calibration_error`), positive_rate,
    predicted_positive_rate, rows, and f1_all_positive: the F1 of calling every row positive, the floor that
    any F1 has to be read against.

    Raises ValueError for other labels than 0/1, scores outside 0–1, and no rows.
    """
    y, s = binary(labels, scores)
    n, positives = len(y), int(y.sum())
    predicted = s >= cut
    clipped = np.clip(s, CLIP, 1 - CLIP)
    return classification_values(
        n,
        positives,
        hits=int((predicted & y).sum()),
        called=int(predicted.sum()),
        cut=cut,
        auc=_auc(y, s) if positives not in (0, n) else math.nan,
        average_precision=_average_precision(y, s) if positives else math.nan,
        log_loss=float(-np.log(np.where(y, clipped, 1 - clipped)).mean()),
        brier=float(((s - y) ** 2).mean()),
        calibration_error=calibration_error(labels, scores),
    )


def classification_values(
    n: int,
    positives: int,
    *,
    hits: int,
    called: int,
    cut: float,
    auc: float,
    average_precision: float,
    log_loss: float,
    brier: float,
    calibration_error: float,
) -> Metrics:
    """The metrics of `classification_metrics` from what was counted: `hits` are the positive rows among the `called`.

    Those that the counts leave undefined are NaN, with the reason.
    """
    undefined: dict[str, str] = {}
    if not positives:
        undefined |= dict.fromkeys(("f1", "recall", "average_precision", "f1_all_positive"), "no row is positive")
    if not called:
        undefined["precision"] = f"no score reaches the cut {cut:g}"
    if positives in (0, n):
        undefined["auc"] = f"all rows are {'positive' if positives else 'negative'}"
    values = {
        "f1": 2 * hits / max(called + positives, 1),
        "precision": hits / max(called, 1),
        "recall": hits / max(positives, 1),
        "accuracy": (n - positives - called + 2 * hits) / n,
        "auc": auc,
        "average_precision": average_precision,
        "log_loss": log_loss,
        "brier": brier,
        "calibration_error": calibration_error,
        "positive_rate": positives / n,
        "predicted_positive_rate": called / n,
        "f1_all_positive": 2 * positives / (n + positives),
        "rows": float(n),
    }
    return Metrics(values, undefined)


def _auc(y: NDArray[np.bool_], s: NDArray[np.float64]) -> float:
    """Mann–Whitney statistic over mean ranks (ties count one half)."""
    _, inverse, counts = np.unique(s, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    positives = int(y.sum())
    return float((ranks[y].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives)))


def _descending_counts(
    y: NDArray[np.bool_], s: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Distinct scores from the highest down; true positives and rows at or above each."""
    distinct, inverse, counts = np.unique(s, return_inverse=True, return_counts=True)
    positives = np.bincount(inverse, weights=y, minlength=len(distinct)).astype(np.int64)
    return distinct[::-1], np.cumsum(positives[::-1]), np.cumsum(counts[::-1]).astype(np.int64)


def _average_precision(y: NDArray[np.bool_], s: NDArray[np.float64]) -> float:
    _, hits, called = _descending_counts(y, s)
    recall_gain = np.diff(hits, prepend=0) / hits[-1]
    return float((recall_gain * hits / called).sum())


def calibration_curve(labels: ArrayLike, scores: ArrayLike, bins: int = CALIBRATION_BINS) -> CalibrationCurve:
    """Mean score against observed rate in up to `bins` bins of (nearly) equal size; ties share one."""
    y, s = binary(labels, scores)
    edges = np.unique(np.quantile(s, np.linspace(0, 1, bins + 1)[1:-1]))
    bin_of = np.searchsorted(edges, s, side="left")
    rows = np.bincount(bin_of, minlength=len(edges) + 1)
    used = rows > 0
    score = np.bincount(bin_of, weights=s, minlength=len(rows))[used] / rows[used]
    rate = np.bincount(bin_of, weights=y, minlength=len(rows))[used] / rows[used]
    return CalibrationCurve(score, rate, rows[used].astype(np.int64))


def calibration_error(labels: ArrayLike, scores: ArrayLike, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error: mean |score − observed rate| over bins of equal size, weighted by rows.

    Naeini, Cooper, Hauskrecht: Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015.
    """
    return curve_error(calibration_curve(labels, scores, bins))


def curve_error(curve: CalibrationCurve) -> float:
    """The expected calibration error of a curve."""
    return float((np.abs(curve.score - curve.rate) * curve.rows).sum() / curve.rows.sum())


def regression_metrics(actual: ArrayLike, predicted: ArrayLike) -> Metrics:
    """Metrics of predicted against actual values, in the target's unit.

    mae, rmse, wmape (Σ|error| / Σ|actual|), bias (mean of predicted − actual), r2, rows. wmape is undefined
    when every actual value is 0, r2 when they are all equal, each of them beyond the range of a double. Raises
    ValueError for NaN and no rows.
    """
    a, p = np.asarray(actual, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if a.shape != p.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"expected two equally long columns with rows, found shapes {a.shape} and {p.shape}")
    if not (np.isfinite(a).all() and np.isfinite(p).all()):
        raise ValueError("actual and predicted values must be finite; leave rows without an outcome out")
    with np.errstate(over="ignore", invalid="ignore"):
        error = p - a
        return regression_values(
            len(a),
            actual_sum=float(np.abs(a).sum()),
            spread=float(((a - a.mean()) ** 2).sum()),
            error_sum=float(error.sum()),
            absolute_error=float(np.abs(error).sum()),
            squared_error=float((error**2).sum()),
        )


def regression_values(
    n: int, *, actual_sum: float, spread: float, error_sum: float, absolute_error: float, squared_error: float
) -> Metrics:
    """The metrics of `regression_metrics` from sums over `n` rows: of the absolute actual values, of their squared
    distances from their mean (`spread`), of the errors, their absolute values and their squares.
    """
    undefined: dict[str, str] = {}
    if actual_sum == 0:
        undefined["wmape"] = "every actual value is 0"
    if spread == 0:
        undefined["r2"] = "all actual values are equal"
    values = {
        "mae": absolute_error / n,
        "rmse": math.sqrt(squared_error / n),
        "wmape": absolute_error / actual_sum if actual_sum else math.nan,
        "bias": error_sum / n,
        "r2": 1 - squared_error / spread if spread else math.nan,
        "rows": float(n),
    }
    for name, value in values.items():
        if not math.isfinite(value) and name not in undefined:
            values[name] = math.nan
            undefined[name] = "the errors are too large for a number of double precision"
    return Metrics(values, undefined)


def tune_cut(labels: ArrayLike, scores: ArrayLike, metric: str = "f1") -> float:
    """The cut that is best for a metric, exact over all distinct scores.

    Accuracy is maximised as it is. Every other metric gets the cut of the best F1: the rank and probability
    metrics don't depend on a cut, and precision or recall alone would pick a trivial one. The cut lies half
    way between two neighbouring scores, so that rounding of a score doesn't flip it. Of equally good cuts
    the highest one is taken. Raises ValueError when no row is positive and F1 is asked for.
    """
    y, s = binary(labels, scores)
    positives = int(y.sum())
    distinct, hits, called = _descending_counts(y, s)
    if metric == "accuracy":
        value = (hits + (len(y) - positives) - (called - hits)) / len(y)
    elif positives:
        value = 2 * hits / (called + positives)
    else:
        raise ValueError(f"no cut can be tuned for {metric}: none of {len(y)} rows is positive")
    best = int(np.argmax(value))
    below = distinct[best + 1] if best + 1 < len(distinct) else 0.0
    return float((distinct[best] + below) / 2) if distinct[best] > below else float(distinct[best])


def fisher_exact(correct_a: int, incorrect_a: int, correct_b: int, incorrect_b: int) -> FisherResult:
    """Fisher's exact test whether two sets of predictions are right equally often.

    With large counts the p-value falls below any limit for differences that don't matter: read it together
    with the odds ratio.
    """
    from scipy.stats import fisher_exact as test

    result = test([[correct_a, incorrect_a], [correct_b, incorrect_b]])
    return FisherResult(float(result.statistic), float(result.pvalue))


def wilson_interval(
    successes: NDArray[np.float64], rows: NDArray[np.float64], confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interval of a rate that holds for few rows too (Wilson, JASA 1927)."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / rows
    centre = (rate + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(rate * (1 - rate) / rows + z**2 / (4 * rows**2))
    return centre - half, centre + half


def weakest_segments(
    segments: pd.DataFrame, correct: ArrayLike, *, min_rows: int = 50, confidence: float = 0.95
) -> pd.DataFrame:
    """Where a model is right less often than overall, worst first.

    Parameters
    ----------
    segments
        One row per prediction, one column per way to divide them (values of any type; null is a segment).
    correct
        Per prediction: was it right (0/1)? For a regression: was the error within a tolerance.
    min_rows
        Segments with fewer rows are left out.

    Returns
    -------
    Columns: column, segment (text), rows, accuracy, low, high (Wilson interval), gap (accuracy − overall),
    certain (the interval lies below the overall accuracy, so it is not the thinness of the segment). Sorted
    by the interval's upper end: a thin segment has to be much worse to come first.
    """
    counts = SegmentCounts()
    counts.add(segments, correct)
    return counts.weakest(min_rows=min_rows, confidence=confidence)


class SegmentCounts:
    """Rows and right predictions by segment, added in batches; see `weakest_segments`."""

    def __init__(self) -> None:
        self._counts: dict[str, pd.DataFrame] = {}
        self._rows, self._right = 0, 0.0

    def add(self, segments: pd.DataFrame, correct: ArrayLike) -> None:
        """Add predictions: their segments, a column for each way to divide them, and whether they were right."""
        import pandas as pd

        right = np.asarray(correct, dtype=np.float64)
        if len(right) != len(segments):
            raise ValueError(f"{len(segments)} rows of segments, but {len(right)} of correct; expected the same")
        self._rows += len(right)
        self._right += float(right.sum())
        for column in segments.columns:
            texts = text_of_each(segments[column])
            found = pd.Series(right).groupby(texts, dropna=False).agg(["sum", "size"])
            if column in self._counts:
                found = pd.concat([self._counts[column], found]).groupby(level=0, dropna=False).sum()
            self._counts[column] = found

    def weakest(self, *, min_rows: int, confidence: float = 0.95) -> pd.DataFrame:
        """The table of `weakest_segments`."""
        import pandas as pd

        parts = []
        for column, counted in self._counts.items():
            grouped = counted[counted["size"] >= min_rows]
            if not len(grouped):
                continue
            low, high = wilson_interval(grouped["sum"].to_numpy(float), grouped["size"].to_numpy(float), confidence)
            parts.append(
                pd.DataFrame(
                    {
                        "column": column,
                        "segment": ["null" if pd.isna(v) else v for v in grouped.index],
                        "rows": grouped["size"].to_numpy(np.int64),
                        "accuracy": (grouped["sum"] / grouped["size"]).to_numpy(float),
                        "low": low,
                        "high": high,
                    }
                )
            )
        names = ["column", "segment", "rows", "accuracy", "low", "high", "gap", "certain"]
        if not parts:
            return pd.DataFrame({name: [] for name in names})
        table = pd.concat(parts, ignore_index=True)
        overall = self._right / self._rows
        table["gap"] = table["accuracy"] - overall
        table["certain"] = table["high"] < overall
        return table.sort_values(["high", "column", "segment"], ignore_index=True)[names]
