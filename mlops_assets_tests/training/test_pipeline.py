from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlops_assets.training.candidates import Candidate, Target
from mlops_assets.training.encoding import FeatureValueError, MissingFeatureError, as_category, as_number
from mlops_assets.training.pipeline import ScoreError, build_pipeline, encoding_of, importances, scores
from mlops_assets_tests.training.taxi import COLUMNS, KINDS

EBM = "interpret.glassbox.ExplainableBoostingClassifier"
SMALL_EBM = {"outer_bags": 1, "interactions": 2, "max_rounds": 20}
CLASSIFIERS = {
    EBM: SMALL_EBM,
    "sklearn.ensemble.HistGradientBoostingClassifier": {"max_iter": 10},
    "xgboost.XGBClassifier": {"n_estimators": 10},
    "sklearn.linear_model.LogisticRegression": {"max_iter": 300},
    "sklearn.ensemble.RandomForestClassifier": {"n_estimators": 10},
    "sklearn.naive_bayes.GaussianNB": {},
    "sklearn.neural_network.MLPClassifier": {"max_iter": 15, "hidden_layer_sizes": [8]},
}
REGRESSORS = {
    "interpret.glassbox.ExplainableBoostingRegressor": SMALL_EBM,
    "sklearn.ensemble.HistGradientBoostingRegressor": {"max_iter": 10},
    "xgboost.XGBRegressor": {"n_estimators": 10},
    "sklearn.linear_model.Ridge": {},
}
CASH = Target(column="is_cash")
FARE = Target(column="fare_amount", task="regression")


def fitted(path, trips, params=None, **more):
    candidate = Candidate(estimator=path, **more)
    pipeline = build_pipeline(candidate, KINDS, CLASSIFIERS.get(path, {}) | (params or {}), 42, "classification")
    return pipeline.fit(trips[COLUMNS], trips["is_cash"].to_numpy())


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("path", CLASSIFIERS)
def test_a_fitted_classifier_takes_whatever_a_later_period_brings(path, trips):
    pipeline = fitted(path, trips)
    assert pd.Series(scores(pipeline, trips, CASH)).corr(trips["is_cash"], method="spearman") + 0.5 > 0.55
    strange = trips[COLUMNS].head(6).copy()
    strange["PULocationID"] = [999_999, 1, 2, 3, 4, 5]
    strange["DOLocationID"] = None
    strange["improvement_surcharge"] = np.nan
    strange["passenger_count"] = np.inf
    scored = scores(pipeline, strange, CASH)
    assert scored.shape == (6,)
    assert ((scored >= 0) & (scored <= 1)).all()
    assert scores(pipeline, strange.head(0), CASH).shape == (0,)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("path", CLASSIFIERS)
def test_training_survives_columns_without_information(path, trips):
    rows = trips.copy()
    rows["tolls_amount"] = np.nan
    rows["PULocationID"] = None
    rows["extra"] = 1.0
    pipeline = fitted(path, rows)
    assert np.isfinite(scores(pipeline, rows, CASH)).all()
    assert np.isfinite(scores(pipeline, trips, CASH)).all()


@pytest.mark.parametrize("path", REGRESSORS)
def test_regressors_predict_amounts(path, trips):
    kinds = {c: k for c, k in KINDS.items() if c != "fare_amount"}
    pipeline = build_pipeline(Candidate(estimator=path), kinds, REGRESSORS[path], 42, "regression")
    pipeline.fit(trips, trips["fare_amount"].to_numpy())
    predicted = scores(pipeline, trips, FARE)
    assert np.corrcoef(predicted, trips["fare_amount"])[0, 1] > 0.5
    shares = importances(pipeline, trips, trips["fare_amount"].to_numpy(), kinds)
    assert sum(shares.values()) == pytest.approx(1)
    assert {"trip_distance", "trip_duration_minutes"} & set(list(shares)[:3])


@pytest.mark.parametrize("path", [EBM, "xgboost.XGBClassifier", "sklearn.linear_model.LogisticRegression"])
def test_json_like_records_score_as_the_partition_does(path, trips):
    pipeline = fitted(path, trips)
    rows = trips[COLUMNS].head(20)
    as_text = rows.astype(object).map(lambda v: None if pd.isna(v) else f"{v:g}" if isinstance(v, float) else str(v))
    as_text["PULocationID"] = rows["PULocationID"].astype(float)
    shuffled = as_text[COLUMNS[::-1]].assign(unknown_column=1)
    np.testing.assert_allclose(scores(pipeline, shuffled, CASH), scores(pipeline, rows, CASH), atol=1e-4)


def test_a_missing_column_is_named_with_what_it_may_be_called_now(trips):
    pipeline = fitted("sklearn.naive_bayes.GaussianNB", trips)
    with pytest.raises(MissingFeatureError, match=r"missing feature column PULocationID; is it called PULocation_ID"):
        scores(pipeline, trips.rename(columns={"PULocationID": "PULocation_ID"}), CASH)


def test_text_in_a_numeric_column_is_an_error_with_examples():
    with pytest.raises(FeatureValueError, match=r"column fare must be numeric, found 'ten' in 1 rows"):
        as_number(pd.Series(["10", None, "ten"], name="fare"))


def test_numbers_of_every_type_become_doubles():
    for values in (
        [1, 0],
        [True, False],
        ["1", "0"],
        pd.array([1, 0], "Int64"),
        pd.array([True, False], "boolean"),
    ):
        np.testing.assert_array_equal(as_number(pd.Series(values)), [1.0, 0.0])
    assert np.isnan(as_number(pd.Series(pd.array([1, None], "Int64")))[1])
    assert np.isnan(as_number(pd.Series([1.0, np.inf]))[1])


def test_a_category_has_one_name_whatever_its_type():
    found = as_category(pd.Series([5, 5.0, "5", None, True, "x"], dtype=object))
    assert list(found.astype(object))[:3] == ["5", "5", "5"]
    assert found.codes[3] == -1
    assert set(found.categories) == {"5", "true", "x"}
    assert list(as_category(pd.Series([264.0, np.nan])).categories) == ["264"]


def test_the_same_seed_gives_the_same_scores(trips):
    first, second = (scores(fitted(EBM, trips), trips, CASH) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_more_categories_than_the_estimator_takes_are_no_error(trips):
    rows = pd.concat([trips] * 2, ignore_index=True)
    rows["PULocationID"] = np.arange(len(rows)) // 2
    pipeline = fitted("sklearn.ensemble.HistGradientBoostingClassifier", rows)
    assert np.isfinite(scores(pipeline, rows, CASH)).all()


def test_native_encoding_is_the_default_where_the_family_takes_it():
    assert encoding_of(Candidate(estimator=EBM)) == "native"
    assert encoding_of(Candidate(estimator="xgboost.XGBClassifier")) == "native"
    assert encoding_of(Candidate(estimator="sklearn.ensemble.RandomForestClassifier")) == "one_hot"
    with pytest.raises(ValueError, match="use `encoding: one_hot`"):
        build_pipeline(
            Candidate(estimator="sklearn.ensemble.RandomForestClassifier", encoding="native"),
            KINDS, {}, 42, "classification",
        )  # fmt: skip


def test_an_estimator_without_probabilities_asks_for_calibration(trips):
    with pytest.raises(ScoreError, match="calibration: sigmoid"):
        fitted("sklearn.svm.LinearSVC", trips)
    pipeline = fitted("sklearn.svm.LinearSVC", trips, calibration="sigmoid")
    scored = scores(pipeline, trips, CASH)
    assert ((scored >= 0) & (scored <= 1)).all()


def test_excluded_pairs_stay_out_of_the_model(trips):
    excluded = fitted(EBM, trips, {"interactions": 30, "exclude": [["PULocationID", "DOLocationID"]]})
    assert (9, 10) not in excluded[-1].term_features_
    assert len(excluded[-1].term_features_) > len(COLUMNS)


def test_ebm_importances_share_interactions_between_their_columns(trips):
    pipeline = fitted(EBM, trips)
    ebm = pipeline[-1]
    shares = importances(pipeline, trips, trips["is_cash"].to_numpy(), KINDS)
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    raw = ebm.term_importances()
    own = {i: v for (i, *rest), v in zip(ebm.term_features_, raw, strict=True) if not rest}
    pairs = [(f, v) for f, v in zip(ebm.term_features_, raw, strict=True) if len(f) == 2]
    expected = own[10] + sum(v / 2 for f, v in pairs if 10 in f)
    assert shares["DOLocationID"] == pytest.approx(expected / sum(raw))


def test_permutation_importances_find_the_column_that_decides(rng):
    rows = pd.DataFrame({"signal": rng.normal(size=600), "noise": rng.normal(size=600)})
    labels = (rows["signal"] > 0).to_numpy(int)
    kinds = {"signal": "numeric", "noise": "numeric"}
    candidate = Candidate(estimator="sklearn.linear_model.LogisticRegression")
    pipeline = build_pipeline(candidate, kinds, {}, 0, "classification").fit(rows, labels)
    assert importances(pipeline, rows, labels, kinds)["signal"] > 0.95
