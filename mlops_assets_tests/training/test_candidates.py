from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from mlops_assets.training.candidates import (
    Candidate,
    EstimatorError,
    SearchSpace,
    Target,
    check_parameters,
    check_path,
    resolve_estimator,
)

EBM = "interpret.glassbox.ExplainableBoostingClassifier"


@pytest.mark.parametrize(
    "path",
    [
        EBM,
        "sklearn.ensemble.RandomForestClassifier",
        "sklearn.linear_model.LogisticRegression",
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
        "xgboost.XGBClassifier",
        "xgboost.sklearn.XGBRegressor",
    ],
)
def test_real_estimators_pass(path):
    check_path(path)
    assert hasattr(resolve_estimator(path), "fit")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("interpret.glassbox.ExplainableBostingClassifier", "ExplainableBoostingClassifier"),
        ("sklearn.ensamble.RandomForestClassifier", "sklearn.ensemble"),
        ("sklern.ensemble.RandomForestClassifier", "sklearn"),
        ("xgboost.XGBClasifier", "xgboost.XGBClassifier"),
        ("RandomForestClassifier", "dotted path"),
        ("sklearn.ensemble.", "dotted path"),
        ("sklearn..RandomForestClassifier", "dotted path"),
    ],
)
def test_a_typo_is_reported_with_the_close_name(path, hint):
    with pytest.raises(ValidationError, match=hint):
        Candidate(estimator=path)


def test_reading_a_candidate_imports_no_estimator():
    code = (
        "import sys; from mlops_assets.training import candidates as c;"
        f"c.Candidate(estimator='{EBM}'); c.Candidate(estimator='xgboost.XGBClassifier');"
        "c.Candidate(estimator='sklearn.svm.SVC');"
        "import mlops_assets.training.search, mlops_assets.training.registry, mlops_assets.training.pictures;"
        "import mlops_assets.training.decision;"
        "heavy = {'interpret', 'xgboost', 'sklearn', 'mlflow', 'optuna', 'pandas', 'matplotlib', 'scipy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_something_that_is_no_estimator_is_refused():
    with pytest.raises(EstimatorError, match="not a class with scikit-learn's fit"):
        resolve_estimator("sklearn.metrics.f1_score")


@pytest.mark.parametrize("place", ["params", "search", "final"])
def test_an_unknown_parameter_is_reported_where_it_stands(place):
    value = {"int": [1, 2]} if place == "search" else 1
    candidate = Candidate(estimator="sklearn.ensemble.RandomForestClassifier", **{place: {"max_dept": value}})
    said = rf"{place} of candidate RandomForestClassifier \(sklearn.*'max_dept'; did you mean max_depth"
    with pytest.raises(EstimatorError, match=said):
        check_parameters(candidate, "classification")


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("max_dept", "max_depth"), ("learning_rat", "learning_rate"), ("min_child_wieght", "min_child_weight")],
)
def test_a_typo_is_found_where_the_estimator_would_take_it_without_using_it(wrong, meant):
    candidate = Candidate(estimator="xgboost.XGBClassifier", name="trees", params={wrong: 1})
    with pytest.raises(EstimatorError, match=rf"candidate trees \(xgboost.*unknown parameter '{wrong}'.*{meant}"):
        check_parameters(candidate, "classification")


@pytest.mark.parametrize("known", ["eta", "alpha", "lambda", "seed", "tweedie_variance_power", "quantile_alpha"])
def test_what_an_estimator_takes_without_naming_it_is_left_to_it(known):
    check_parameters(Candidate(estimator="xgboost.XGBRegressor", params={known: 1}), "regression")


def test_an_estimator_that_needs_another_is_refused_with_the_reason():
    with pytest.raises(EstimatorError, match=r"OneVsRestClassifier\) can't be made with its params.*'estimator'"):
        check_parameters(Candidate(estimator="sklearn.multiclass.OneVsRestClassifier"), "classification")


def test_an_estimator_of_the_other_task_is_refused():
    with pytest.raises(EstimatorError, match="no estimator for classification"):
        check_parameters(Candidate(estimator="sklearn.linear_model.Ridge"), "classification")
    check_parameters(Candidate(estimator="sklearn.linear_model.Ridge"), "regression")
    check_parameters(Candidate(estimator="xgboost.XGBClassifier", params={"max_depth": 3}), "classification")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "exactly one"),
        ({"int": [1, 2], "float": [0.1, 0.2]}, "exactly one"),
        ({"int": [3, 2]}, "lowest, highest"),
        ({"int": [3]}, "lowest, highest"),
        ({"float": [0.0, 1.0], "log": True}, "above 0"),
        ({"float": [0.1, 1.0], "log": True, "step": 0.1}, "exclude each other"),
        ({"categorical": []}, "nothing to choose"),
        ({"categorical": [1], "log": True}, "belong to int and float"),
        ({"int": [1, 5], "step": 0.5}, "step of int"),
        ({"int": [1, 2], "steps": 1}, "Extra inputs"),
    ],
)
def test_a_contradictory_search_space_is_refused(space, message):
    with pytest.raises(ValidationError, match=message):
        SearchSpace.model_validate(space)


@pytest.mark.parametrize(
    ("space", "size"),
    [
        ({"int": [1, 5]}, 5),
        ({"int": [1, 5], "step": 2}, 3),
        ({"float": [0.0, 1.0]}, None),
        ({"float": [0.0, 1.0], "step": 0.1}, 11),
        ({"categorical": ["a", "b"]}, 2),
        ({"float": [0.5, 0.5]}, 1),
    ],
)
def test_the_size_of_a_search_space(space, size):
    assert SearchSpace.model_validate(space).size == size


def test_a_positive_value_keeps_its_type():
    assert Target(column="y", positive=True).positive is True
    assert Target(column="y", positive="yes").positive == "yes"
    assert Target(column="y", positive=2).positive == 2


def test_a_number_that_yaml_reads_as_text_is_refused():
    with pytest.raises(ValidationError, match=r"tol: '1e-4' is text.*1\.0e-04"):
        Candidate(estimator="sklearn.linear_model.LogisticRegression", params={"tol": "1e-4"})


@pytest.mark.parametrize(
    ("value", "space"),
    [
        (0.5, {"float": [0.6, 1.0]}),
        (9, {"int": [1, 8]}),
        ("auto", {"int": [1, 8]}),
        ([5], {"categorical": [[2], [3]]}),
    ],
)
def test_a_parameter_outside_its_own_search_space_is_refused(value, space):
    with pytest.raises(ValueError, match=r"params.max_depth is .* where the search begins, but search.max_depth"):
        Candidate(
            estimator="sklearn.ensemble.RandomForestClassifier",
            params={"max_depth": value},
            search={"max_depth": space},
        )
