"""The estimate without labels: equal to its definition, and near the truth on real quiet months."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.drift.estimate import ScoreCalibration, ScoreHistogram, expected_metrics, why_no_estimate
from mlops_assets.drift.profile import ColumnProfile
from mlops_assets.training.metrics import classification_metrics

TAXI = Path(__file__).parents[2] / "data" / "green_taxi"


def labelled(n: int, seed: int, low: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that understate the probability of being positive, which is their square root."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(low, 3.0, n)
    return scores, rng.random(n) < np.sqrt(scores)


labelled_rows = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


@given(labelled_rows, labelled_rows)
@settings(max_examples=50, deadline=None)
def test_histograms_add_up_to_the_histogram_of_all_rows(
    first: list[tuple[float, bool]], second: list[tuple[float, bool]]
) -> None:
    added = ScoreHistogram.of(*zip(*first, strict=True)) + ScoreHistogram.of(*zip(*second, strict=True))
    assert added.to_arrow().equals(ScoreHistogram.of(*zip(*first, *second, strict=True)).to_arrow())


@given(labelled_rows, st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_scores_that_are_certain_let_expect_the_metrics_of_scikit_learn(
    rows: list[tuple[float, bool]], cut: float
) -> None:
    from sklearn import metrics

    scores, labels = (np.array(side) for side in zip(*rows, strict=True))
    # Scores of positive rows lie above those of negative ones, and a calibration that knows it.
    scores = (scores / 2.1 + labels / 2).round(4)
    certain = ScoreCalibration(np.array([0.4999, 0.5]), np.array([0.0, 1.0]), len(rows))
    found, judged = expected_metrics(ScoreHistogram.of(scores), certain, cut), scores >= cut
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, judged))
    assert found["positive_rate"] == pytest.approx(labels.mean())
    for name, function in (
        ("f1", metrics.f1_score),
        ("precision", metrics.precision_score),
        ("recall", metrics.recall_score),
    ):
        if found[name] is not None:  # type: ignore[literal-required]
            assert found[name] == pytest.approx(function(labels, judged))  # type: ignore[literal-required]
    assert (found["auc"] is None) == (len(set(labels)) < 2)
    if found["auc"] is not None:
        assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, scores))


def test_the_calibration_is_scikit_learns_isotonic_regression() -> None:
    from sklearn.isotonic import IsotonicRegression

    scores, labels = labelled(3000, seed=0)
    scores = scores.round(4)
    expected = IsotonicRegression(out_of_bounds="clip").fit(scores, labels)
    grid = np.linspace(0, 1, 501)
    assert np.allclose(ScoreCalibration.fit(scores, labels)(grid), expected.predict(grid), atol=1e-12)


def test_the_estimate_is_the_expected_confusion_matrix_of_the_rows() -> None:
    calibration = ScoreCalibration.fit(*labelled(5000, seed=0))
    scores = np.round(labelled(2000, seed=1)[0], 4)
    found = expected_metrics(ScoreHistogram.of(scores), calibration, cut=0.4)
    p, above = calibration(scores), scores >= 0.4
    assert found["accuracy"] == pytest.approx((p[above].sum() + (1 - p[~above]).sum()) / 2000)
    assert found["precision"] == pytest.approx(p[above].mean())
    assert found["recall"] == pytest.approx(p[above].sum() / p.sum())
    assert found["f1"] == pytest.approx(2 * p[above].sum() / (above.sum() + p.sum()))


def test_the_estimate_follows_scores_that_move_while_their_meaning_stays() -> None:
    """Uncalibrated scores are repaired by the calibration, and a shift of the features is no obstacle."""
    calibration = ScoreCalibration.fit(*labelled(60_000, seed=0))
    scores, labels = labelled(60_000, seed=1, low=1.3)
    estimated = expected_metrics(ScoreHistogram.of(scores), calibration, cut=0.5)
    realised = classification_metrics(labels, scores, cut=0.5)
    assert {name: pytest.approx(realised[name], abs=0.015) for name in estimated} == estimated


def test_a_histogram_survives_storage_with_and_without_labels() -> None:
    scores, labels = labelled(500, seed=0)
    for histogram in (ScoreHistogram.of(scores, labels), ScoreHistogram.of(scores)):
        read = ScoreHistogram.from_arrow(histogram.to_arrow())
        assert read.to_arrow().equals(histogram.to_arrow())
        assert (read.positives is None) == (histogram.positives is None)


def test_a_profile_of_scores_gives_the_same_estimate_as_the_scores() -> None:
    calibration = ScoreCalibration.fit(*labelled(1000, seed=0))
    scores = labelled(1000, seed=1)[0]
    profile = ColumnProfile.of("score", "numeric", scores)
    assert expected_metrics(profile, calibration, 0.5) == expected_metrics(ScoreHistogram.of(scores), calibration, 0.5)


def test_metrics_that_are_not_defined_are_none_and_not_zero() -> None:
    never = ScoreCalibration(np.array([0.0, 1.0]), np.array([0.0, 0.0]), 2)
    none_above = expected_metrics(ScoreHistogram.of([0.1, 0.2]), never, cut=0.5)
    assert (none_above["precision"], none_above["recall"], none_above["f1"]) == (None, None, None)
    assert none_above["auc"] is None
    assert none_above["accuracy"] == 1.0


@pytest.mark.parametrize("scores", [[0.5, 1.5], [0.5, float("nan")], [-0.1]])
def test_values_that_are_no_probabilities_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        ScoreHistogram.of(scores)


def test_labels_must_be_there_for_every_row_and_of_both_classes() -> None:
    with pytest.raises(ValueError, match="one for each of the 2 scores"):
        ScoreHistogram.of([0.1, 0.2], [1])
    with pytest.raises(ValueError, match="0 or 1"):
        ScoreHistogram.of([0.1, 0.2], [1, float("nan")])
    with pytest.raises(ValueError, match="0 of 2 are positive"):
        ScoreCalibration.fit([0.1, 0.2], [0, 0])
    with pytest.raises(ValueError, match="has none"):
        ScoreCalibration.fit_histogram(ScoreHistogram.of([0.1]))
    with pytest.raises(ValueError, match="without"):
        ScoreHistogram.of([0.1]) + ScoreHistogram.of([0.1], [1])


def test_no_rows_and_missing_scores_are_errors() -> None:
    calibration = ScoreCalibration.fit([0.1, 0.9], [0, 1])
    with pytest.raises(ValueError, match="no scores"):
        expected_metrics(ScoreHistogram.of([]), calibration, 0.5)
    with pytest.raises(ValueError, match="1 of 2 rows have no value in 'score'"):
        expected_metrics(ColumnProfile.of("score", "numeric", [0.5, None]), calibration, 0.5)


def test_what_can_not_be_estimated_has_a_reason_instead_of_a_number() -> None:
    both = ScoreHistogram.of([0.1, 0.2, 0.2], [0, 1, 0])
    assert why_no_estimate("classification", both) is None
    assert "regression" in (why_no_estimate("regression", None) or "")
    for missing in (None, ScoreHistogram.of([0.1])):
        assert "without its scores and outcomes" in (why_no_estimate("classification", missing) or "")
    for label, positives in ((0, 0), (1, 2)):
        reason = why_no_estimate("classification", ScoreHistogram.of([0.1, 0.2], [label, label]))
        assert f"{positives} of the 2 test rows" in (reason or "")


@pytest.mark.real_data
def test_on_quiet_taxi_months_the_estimate_is_near_the_truth() -> None:
    """Trained on 2021-01, calibrated on 2021-03, judged on months whose outcomes it has not seen."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=40, learning_rate=0.2, max_leaf_nodes=15, random_state=0)
    model.fit(*trips("2021-01"))

    def scored(month: str) -> tuple[np.ndarray, np.ndarray]:
        features, labels = trips(month)
        return model.predict_proba(features)[:, 1], labels

    calibration = ScoreCalibration.fit(*scored("2021-03"))
    for month in ("2021-04", "2021-05"):
        scores, labels = scored(month)
        estimated = expected_metrics(ScoreHistogram.of(scores), calibration, cut=0.5)
        realised = classification_metrics(labels, scores, cut=0.5)
        assert estimated["auc"] == pytest.approx(realised["auc"], abs=0.01)
        assert estimated["accuracy"] == pytest.approx(realised["accuracy"], abs=0.02)


def trips(month: str) -> tuple[np.ndarray, np.ndarray]:
    import duckdb

    found = duckdb.execute(
        f"""
        SELECT fare_amount, trip_distance, passenger_count, PULocationID, DOLocationID, RatecodeID, trip_type,
            congestion_surcharge, extra, hour(lpep_pickup_datetime) AS pickup_hour,
            epoch(lpep_dropoff_datetime - lpep_pickup_datetime) / 60 AS minutes,
            (payment_type = 2)::INT AS is_cash
        FROM read_parquet('{TAXI}/green_tripdata_{month}.parquet')
        WHERE payment_type IS NOT NULL AND fare_amount > 0 AND trip_distance > 0
            AND lpep_dropoff_datetime > lpep_pickup_datetime
        """
    ).fetchnumpy()
    columns = {name: np.ma.filled(np.ma.asarray(c).astype(float), np.nan) for name, c in found.items()}
    labels = columns.pop("is_cash")
    return np.column_stack(list(columns.values())), labels
