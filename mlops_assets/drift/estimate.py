"""What a classifier's performance probably is while the labels are not there yet.

Confidence-based performance estimation (CBPE): when a score is calibrated, it says how often it is right, so
the expected confusion matrix of unlabelled rows follows from their scores alone. Calibration is isotonic,
fitted on the champion's scores of its own *test* rows, which it was neither trained nor chosen on.

The estimate holds as long as what the score means holds: it follows a change of the features (the model meets
more hard rows), it can't see a change of the relation between features and target. Show it next to its past
error, and not as a measurement.

Here: score histograms, calibration, expected metrics. Not here: realised metrics, of rows with labels
(training).

References
----------
NannyML, "Confidence-based Performance Estimation (CBPE)", nannyml.readthedocs.io, *How it works*.
Zadrozny and Elkan (2002), "Transforming classifier scores into accurate multiclass probability estimates",
KDD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, TypedDict

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from mlops_assets.drift.profile import ColumnProfile

DECIMALS = 4
"""Scores are counted to this many decimals. Rows closer than 0.00005 to the cut may change sides by it."""

NO_ESTIMATE_FOR_REGRESSION = (
    "No estimate without labels for regression: a predicted amount does not say how wrong it is. "
    "Direct loss estimation would need a second model, trained on the first one's errors."
)

HISTOGRAM_SCHEMA = pa.schema(
    [pa.field("score", pa.float64()), pa.field("count", pa.int64()), pa.field("positives", pa.int64())]
)


class Metrics(TypedDict):
    """Metrics of a binary classifier at a cut; None where a metric would divide by no rows."""

    f1: float | None
    precision: float | None
    recall: float | None
    accuracy: float
    auc: float | None
    positive_rate: float


@dataclass(frozen=True, eq=False)
class ScoreHistogram:
    """Sorted distinct scores, rounded to `DECIMALS`, with their rows and, where labels are known, positives.

    `values`, `counts` and `positives` have one entry per distinct score. Histograms of disjoint rows add up.
    """

    values: np.ndarray
    counts: np.ndarray
    positives: np.ndarray | None = None

    @classmethod
    def of(cls, scores: ArrayLike, labels: ArrayLike | None = None) -> Self:
        """Count scores in [0, 1], shape (n,), and labels 0/1 or bool of the same rows.

        Raises ValueError for scores or labels outside of these values, nulls among them, and unequal lengths.
        """
        found = np.asarray(scores, dtype=np.float64)
        _check_scores(found)
        values, position = np.unique(np.round(found, DECIMALS), return_inverse=True)
        counts = np.bincount(position, minlength=len(values)).astype(np.int64)
        if labels is None:
            return cls(values, counts)
        truth = np.asarray(labels, dtype=np.float64)
        if truth.shape != found.shape or not np.isin(truth, (0.0, 1.0)).all():
            raise ValueError(
                f"Labels are 0 or 1, one for each of the {len(found):,} scores; found "
                f"{truth.size:,} labels with the values {np.unique(truth)[:5].tolist()}. "
                "Leave rows without a label out."
            )
        positives = np.bincount(position, weights=truth, minlength=len(values)).astype(np.int64)
        return cls(values, counts, positives)

    @classmethod
    def from_profile(cls, column: ColumnProfile) -> Self:
        """The scores of a profile, which knows no labels. Raises ValueError when rows have no score."""
        if column.nulls:
            raise ValueError(
                f"{column.nulls:,} of {column.rows:,} rows have no value in {column.name!r}: every "
                "prediction has a score, so this is not a column of scores or the predictions are incomplete."
            )
        found = np.asarray(column.values, dtype=np.float64)
        _check_scores(found)
        values, position = np.unique(np.round(found, DECIMALS), return_inverse=True)
        return cls(values, _summed(position, column.counts, len(values)))

    @property
    def rows(self) -> int:
        """Number of scores."""
        return int(self.counts.sum())

    @property
    def one_class(self) -> bool:
        """Whether the labels are known and all the same."""
        return self.positives is not None and int(self.positives.sum()) in (0, self.rows)

    def __add__(self, other: ScoreHistogram) -> ScoreHistogram:
        """The histogram of both sides' rows. Raises ValueError when only one side has labels."""
        if (self.positives is None) != (other.positives is None):
            raise ValueError("A histogram with labels can't be added to one without: drop the labels of the first.")
        values, position = np.unique(np.concatenate([self.values, other.values]), return_inverse=True)
        counts = _summed(position, np.concatenate([self.counts, other.counts]), len(values))
        if self.positives is None or other.positives is None:
            return ScoreHistogram(values, counts)
        positives = _summed(position, np.concatenate([self.positives, other.positives]), len(values))
        return ScoreHistogram(values, counts, positives)

    def to_arrow(self) -> pa.Table:
        """Columns score, count, positives (null where labels are not known)."""
        positives = pa.nulls(len(self.values), pa.int64()) if self.positives is None else self.positives
        return pa.table([self.values, self.counts, positives], schema=HISTOGRAM_SCHEMA)

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Self:
        """Inverse of `to_arrow`."""
        positives = table["positives"]
        return cls(
            table["score"].to_numpy(),
            table["count"].to_numpy(),
            None if positives.null_count else positives.to_numpy(),
        )


@dataclass(frozen=True, eq=False)
class ScoreCalibration:
    """A monotone map from a score to the probability of the positive class.

    `scores` ascending and `probabilities` not descending are the corners of a piecewise linear function, flat
    outside of them; `rows` is the number of labelled rows it was fitted on.
    """

    scores: np.ndarray
    probabilities: np.ndarray
    rows: int

    @classmethod
    def fit(cls, scores: ArrayLike, labels: ArrayLike) -> Self:
        """Isotonic regression of labels on scores, both of shape (n,). Raises as `fit_histogram` does."""
        return cls.fit_histogram(ScoreHistogram.of(scores, labels))

    @classmethod
    def fit_histogram(cls, histogram: ScoreHistogram) -> Self:
        """Isotonic regression on a labelled histogram; adjacent violators are pooled, weighted by their rows.

        Raises ValueError without labels, and when all rows are of one class, which says nothing about the
        other.
        """
        if histogram.positives is None:
            raise ValueError("A calibration needs labels: this histogram of scores has none.")
        if histogram.one_class:
            raise ValueError(
                f"A calibration needs rows of both classes: {histogram.positives.sum():,} of {histogram.rows:,} "
                "are positive."
            )
        from scipy.optimize import isotonic_regression

        shares = histogram.positives / histogram.counts
        fitted = isotonic_regression(shares, weights=histogram.counts).x
        # Within a run of equal values only its two ends shape the function.
        inner = np.r_[False, (fitted[1:-1] == fitted[:-2]) & (fitted[1:-1] == fitted[2:]), False]
        corners = ~inner[: len(fitted)]
        return cls(histogram.values[corners], fitted[corners], histogram.rows)

    def __call__(self, scores: ArrayLike) -> np.ndarray:
        """Probabilities of the positive class, the shape of `scores`."""
        return np.interp(np.asarray(scores, dtype=np.float64), self.scores, self.probabilities)


def expected_metrics(histogram: ScoreHistogram | ColumnProfile, calibration: ScoreCalibration, cut: float) -> Metrics:
    """CBPE: the metrics that the scores let expect, from the expected confusion matrix at `score >= cut`.

    Of the rows with score s, calibration(s) are expected to be positive. F1, precision and recall are those
    of the expected matrix, not the expectation of the ratio; at the sizes of a period the difference is
    negligible.

    `histogram` may be the profile of the score column. Raises ValueError when there are no rows.
    """
    if not isinstance(histogram, ScoreHistogram):
        histogram = ScoreHistogram.from_profile(histogram)
    if not histogram.rows:
        raise ValueError("There are no scores to judge: expected at least one row.")
    positives = histogram.counts * calibration(histogram.values)
    negatives = histogram.counts - positives
    above = histogram.values >= cut
    true_positive, false_positive = positives[above].sum(), negatives[above].sum()
    false_negative, true_negative = positives[~above].sum(), negatives[~above].sum()
    return {
        "f1": _ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative),
        "precision": _ratio(true_positive, true_positive + false_positive),
        "recall": _ratio(true_positive, true_positive + false_negative),
        "accuracy": float((true_positive + true_negative) / histogram.rows),
        "auc": _auc(positives, negatives),
        "positive_rate": float(positives.sum() / histogram.rows),
    }


def why_no_estimate(task: Literal["classification", "regression"], test: ScoreHistogram | None) -> str | None:
    """The reason why there is no estimate without labels from a model's scores on its test rows; None when there is."""
    if task == "regression":
        return NO_ESTIMATE_FOR_REGRESSION
    if test is None or test.positives is None:
        return "No estimate without labels: the model was registered without its scores and outcomes of the test rows."
    if test.one_class:
        return (
            f"No estimate without labels: {test.positives.sum():,} of the {test.rows:,} test rows that the scores "
            "would be calibrated on are positive, and a calibration needs rows of both classes."
        )
    return None


def _auc(positives: np.ndarray, negatives: np.ndarray) -> float | None:
    """Mann-Whitney: the share of (positive, negative) pairs in order, ties half, of counts by ascending
    score.
    """
    negatives_below = np.cumsum(negatives) - negatives
    in_order = float((positives * (negatives_below + negatives / 2)).sum())
    return _ratio(in_order, float(positives.sum()) * float(negatives.sum()))


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole > 0 else None


def _summed(position: np.ndarray, counts: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(position, weights=counts, minlength=size).astype(np.int64)


def _check_scores(scores: np.ndarray) -> None:
    outside = ~((scores >= 0) & (scores <= 1))
    if outside.any():
        raise ValueError(
            f"Scores are probabilities between 0 and 1; {int(outside.sum()):,} of {len(scores):,} are not, "
            f"{scores[outside][0]} for one. Pass predict_proba's column of the positive class."
        )
