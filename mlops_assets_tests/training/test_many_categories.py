"""Ordinary data with many categories: three columns of twelve values and a number, for every kind of estimator.

One-hot encoded, such columns are mostly zeros, and estimators that take sparse matrices get one.
"""

import numpy as np
import pandas as pd
import pytest

from mlops_assets.training.candidates import Candidate, Target
from mlops_assets.training.pictures import explanation_page
from mlops_assets.training.pipeline import scores
from mlops_assets.training.search import Split, train

KINDS = {"street": "categorical", "trade": "categorical", "weekday": "categorical", "amount": "numeric"}
EBM = {"outer_bags": 1, "max_rounds": 20, "interactions": 0}
CLASSIFIERS = [
    ("sklearn.linear_model.LogisticRegression", {}, {}),
    ("sklearn.linear_model.SGDClassifier", {"loss": "log_loss"}, {}),
    ("sklearn.linear_model.RidgeClassifier", {}, {"calibration": "sigmoid"}),
    ("sklearn.svm.SVC", {}, {"calibration": "sigmoid"}),
    ("sklearn.svm.LinearSVC", {}, {"calibration": "isotonic"}),
    ("sklearn.neural_network.MLPClassifier", {"max_iter": 60}, {}),
    ("sklearn.neighbors.KNeighborsClassifier", {}, {}),
    ("sklearn.naive_bayes.GaussianNB", {}, {}),
    ("sklearn.naive_bayes.BernoulliNB", {}, {}),
    ("sklearn.naive_bayes.MultinomialNB", {}, {}),
    ("sklearn.tree.DecisionTreeClassifier", {"max_depth": 6}, {}),
    ("sklearn.ensemble.RandomForestClassifier", {"n_estimators": 20}, {}),
    ("sklearn.ensemble.GradientBoostingClassifier", {"n_estimators": 20}, {}),
    ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 20}, {}),
    ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 20}, {"encoding": "one_hot"}),
    ("xgboost.XGBClassifier", {"n_estimators": 20}, {}),
    ("xgboost.XGBClassifier", {"n_estimators": 20}, {"encoding": "one_hot"}),
    ("interpret.glassbox.ExplainableBoostingClassifier", EBM, {}),
    ("interpret.glassbox.ExplainableBoostingClassifier", EBM, {"encoding": "one_hot"}),
]
REGRESSORS = [
    ("sklearn.linear_model.Ridge", {}),
    ("sklearn.svm.SVR", {}),
    ("sklearn.neighbors.KNeighborsRegressor", {}),
    ("sklearn.ensemble.RandomForestRegressor", {"n_estimators": 20}),
    ("xgboost.XGBRegressor", {"n_estimators": 20, "max_depth": 3}),
]


def rows(number: int, seed: int, task: str) -> Split:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: rng.integers(0, 12, number).astype(str) for name in ("street", "trade", "weekday")})
    frame["amount"] = rng.normal(size=number)
    signal = frame["street"].astype(int).to_numpy() / 3 + frame["amount"].to_numpy()
    if task == "regression":
        return Split(frame, signal + rng.normal(size=number) / 4)
    return Split(frame, (signal + rng.normal(size=number) / 4 > 2).astype("int8"))


def fitted(path, params, task, more):
    parts = [rows(500, seed, task) for seed in range(3)]
    candidate = Candidate(estimator=path, params=params, **more)
    metric = "auc" if task == "classification" else "r2"
    target = Target(column="y", task=task)
    return train(*parts, candidates=[candidate], kinds=KINDS, target=target, metric=metric, trials=1)


@pytest.mark.parametrize(("path", "params", "more"), CLASSIFIERS)
@pytest.mark.filterwarnings("ignore")
def test_a_classifier_learns_from_columns_of_many_categories(path, params, more):
    trained = fitted(path, params, "classification", more)
    assert trained.metrics["test"]["auc"] > 0.8
    assert next(iter(trained.importances)) in ("street", "amount")
    assert sum(trained.importances.values()) == pytest.approx(1)
    unseen = pd.DataFrame({"street": ["99"], "trade": [None], "weekday": ["3"], "amount": [np.nan]})
    assert 0 <= scores(trained.pipeline, unseen, trained.target)[0] <= 1
    assert scores(trained.pipeline, unseen.head(0), trained.target).shape == (0,)
    page = explanation_page(trained.pipeline, "many categories")
    assert (page is not None) == ("interpret" in path)


@pytest.mark.parametrize(("path", "params"), REGRESSORS)
@pytest.mark.filterwarnings("ignore")
def test_a_regressor_learns_from_columns_of_many_categories(path, params):
    trained = fitted(path, params, "regression", {})
    assert trained.metrics["test"]["r2"] > 0.5
    assert next(iter(trained.importances)) in ("street", "amount")
