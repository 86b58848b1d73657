from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from mlops_assets.training.metrics import (
    CLASSIFICATION_METRICS,
    HIGHER_IS_BETTER,
    calibration_curve,
    classification_metrics,
    fisher_exact,
    regression_metrics,
    tune_cut,
    weakest_segments,
    wilson_interval,
)

ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=4, max_size=60).filter(
    lambda rows: 0 < sum(label for label, _ in rows) < len(rows)
)


@settings(max_examples=50, deadline=None)
@given(rows=ROWS, cut=st.sampled_from([0.05, 0.25, 0.5]))
def test_classification_metrics_agree_with_scikit_learn(rows, cut):
    y = np.array([label for label, _ in rows]).astype(int)
    s = np.array([score for _, score in rows]) / 10
    found, called = classification_metrics(y, s, cut), (s >= cut).astype(int)
    assert found["auc"] == pytest.approx(reference.roc_auc_score(y, s))
    assert found["average_precision"] == pytest.approx(reference.average_precision_score(y, s))
    assert found["f1"] == pytest.approx(reference.f1_score(y, called))
    assert found["recall"] == pytest.approx(reference.recall_score(y, called))
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(y, called))
    assert found["brier"] == pytest.approx(reference.brier_score_loss(y, s))
    assert found["log_loss"] == pytest.approx(reference.log_loss(y, np.clip(s, 1e-15, 1 - 1e-15)))
    assert found["f1_all_positive"] == pytest.approx(reference.f1_score(y, np.ones_like(y)))
    if called.any():
        assert found["precision"] == pytest.approx(reference.precision_score(y, called))
    else:
        assert math.isnan(found["precision"])


@settings(max_examples=50, deadline=None)
@given(rows=ROWS, metric=st.sampled_from(["f1", "accuracy"]))
def test_no_cut_is_better_than_the_tuned_one(rows, metric):
    y = np.array([label for label, _ in rows]).astype(int)
    s = np.array([score for _, score in rows]) / 10
    best = classification_metrics(y, s, tune_cut(y, s, metric))[metric]
    if metric == "f1":
        every = [classification_metrics(y, s, cut)[metric] for cut in np.unique(s)]
    else:
        every = [classification_metrics(y, s, cut)[metric] for cut in np.unique(s)]
    assert best >= max(every) - 1e-12


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=40))
def test_regression_metrics_agree_with_scikit_learn(rows):
    a, p = np.array(rows).T
    found = regression_metrics(a, p)
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(a, p))
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(a, p))
    assert found["bias"] == pytest.approx((p - a).mean(), abs=1e-9)
    if "r2" not in found.undefined and np.ptp(a) > 1e-3:
        assert found["r2"] == pytest.approx(reference.r2_score(a, p))


def test_what_one_class_leaves_undefined_is_nan_with_the_reason():
    none = classification_metrics([0, 0, 0], [0.1, 0.6, 0.7], 0.5)
    assert {"f1", "recall", "auc", "average_precision"} <= set(none.undefined)
    assert all(math.isnan(none[name]) for name in none.undefined)
    assert none.undefined["f1"] == "no row is positive"
    assert none["accuracy"] == pytest.approx(1 / 3)
    everyone = classification_metrics([1, 1], [0.1, 0.2], 0.5)
    assert everyone.undefined == {
        "precision": "no score reaches the cut 0.5",
        "auc": "all rows are positive",
    }
    assert everyone["f1"] == 0


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], [], "no rows"),
        ([0, 2], [0.1, 0.2], "labels must be 0 or 1"),
        ([0, 1], [0.1, 1.2], "probabilities"),
        ([0, 1], [0.1, math.nan], "probabilities"),
        ([0, 1], [0.1], "equal length"),
    ],
)
def test_rows_that_can_not_be_measured_are_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(labels, scores, 0.5)


def test_undefined_regression_metrics():
    assert set(regression_metrics([0, 0], [1, 2]).undefined) == {"wmape", "r2"}
    with pytest.raises(ValueError, match="finite"):
        regression_metrics([1, math.nan], [1, 2])


def test_a_cut_can_not_be_tuned_without_positives():
    with pytest.raises(ValueError, match="none of 3 rows is positive"):
        tune_cut([0, 0, 0], [0.1, 0.2, 0.3])


def test_rounding_a_score_does_not_flip_it_over_the_tuned_cut():
    scores = np.array([0.2, 0.3, 0.6, 0.7])
    cut = tune_cut([0, 0, 1, 1], scores)
    assert cut == pytest.approx(0.45)


def test_calibration_error_of_perfect_and_of_shifted_scores(rng):
    s = rng.uniform(0.2, 0.8, 50_000)
    y = rng.uniform(size=s.size) < s
    assert classification_metrics(y, s, 0.5)["calibration_error"] < 0.01
    assert classification_metrics(y, s - 0.15, 0.5)["calibration_error"] == pytest.approx(0.15, abs=0.01)
    curve = calibration_curve(y, s)
    assert curve.rows.sum() == s.size
    assert len(calibration_curve([0, 1, 0], [0.5, 0.5, 0.5]).rows) == 1


def test_fisher_tells_a_real_change_from_none():
    assert fisher_exact(600, 400, 598, 402).p_value > 0.9
    changed = fisher_exact(700, 300, 500, 500)
    assert changed.p_value < 1e-10
    assert changed.odds_ratio == pytest.approx(7 / 3)


def test_weak_segments_are_named_and_thin_ones_do_not_cry_wolf(rng):
    zone = np.array(["bad"] * 500 + ["thin"] * 10 + ["good"] * 2_000)
    right = np.concatenate([rng.uniform(size=500) < 0.5, np.arange(10) < 5, rng.uniform(size=2_000) < 0.8])
    found = weakest_segments(pd.DataFrame({"zone": zone}), right, min_rows=5)
    assert found.iloc[0]["segment"] == "bad"
    assert found.set_index("segment")["certain"].to_dict() == {"bad": True, "thin": False, "good": False}
    assert "thin" not in set(weakest_segments(pd.DataFrame({"zone": zone}), right, min_rows=50)["segment"])
    assert not len(weakest_segments(pd.DataFrame({"zone": zone[:0]}), right[:0]))


def test_a_missing_segment_value_is_a_segment():
    found = weakest_segments(pd.DataFrame({"zone": [None, None, "a", "a"]}), [0, 1, 1, 1], min_rows=1)
    assert set(found["segment"]) == {"null", "a"}


def test_wilson_interval_of_a_textbook_case():
    low, high = wilson_interval(np.array([15.0]), np.array([50.0]))
    assert (low[0], high[0]) == (pytest.approx(0.191, abs=1e-3), pytest.approx(0.4375, abs=1e-3))


def test_every_metric_has_a_direction():
    found = classification_metrics([0, 1], [0.2, 0.7], 0.5)
    assert set(CLASSIFICATION_METRICS) <= set(found) & set(HIGHER_IS_BETTER)
