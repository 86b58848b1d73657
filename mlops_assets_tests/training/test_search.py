from __future__ import annotations

import numpy as np
import optuna
import pytest

from mlops_assets.training.candidates import Candidate, Target
from mlops_assets.training.decision import decide
from mlops_assets.training.pipeline import scores
from mlops_assets.training.search import OneClassError, SearchError, Split, encode_target, measure, train
from mlops_assets_tests.training.taxi import COLUMNS, KINDS, split

CASH = Target(column="is_cash")
FOREST = "sklearn.ensemble.RandomForestClassifier"
LOGISTIC = Candidate(estimator="sklearn.linear_model.LogisticRegression", params={"max_iter": 300})


def search(splits, candidates, **more):
    options = {"kinds": KINDS, "target": CASH, "metric": "f1", "trials": 4} | more
    return train(*splits, candidates=candidates, **options)


def test_the_same_arguments_give_the_same_model(splits, trained, small_ebm, tmp_path):
    journal = tmp_path / "study.log"
    # A journal that was left over must not change what the sampler proposes.
    search((splits[0], splits[1], splits[2]), [small_ebm], trials=1, seed=7, storage=journal)
    again = search(splits, [small_ebm], trials=2, storage=journal)
    assert [t.params for t in again.trials] == [t.params for t in trained.trials]
    np.testing.assert_array_equal(again.test_scores, trained.test_scores)
    assert again.cut == trained.cut
    assert journal.exists()


def test_the_final_fit_has_the_final_parameters_and_a_cut_of_its_own(trained, splits):
    assert trained.params["outer_bags"] == 2
    assert trained.chosen.params["outer_bags"] == 1
    assert len(trained.pipeline[-1].bagged_scores_[0]) == 2
    validation = splits[1]
    scored = scores(trained.pipeline, validation.features, CASH)
    tuned = measure(validation.target, scored, trained.cut)
    assert tuned == trained.metrics["validation"]
    assert tuned["f1"] >= measure(validation.target, scored, 0.5)["f1"]


def test_test_scores_are_those_of_the_model_on_the_test_rows(trained, splits):
    np.testing.assert_array_equal(trained.test_scores, scores(trained.pipeline, splits[2].features, CASH))
    assert trained.metrics["test"]["auc"] > 0.6


def test_the_test_rows_have_no_say_in_the_choice(splits):
    forest = Candidate(estimator=FOREST, params={"n_estimators": 5}, search={"max_depth": {"int": [1, 12]}})
    turned = Split(splits[2].features, 1 - splits[2].target)
    first = search(splits, [forest, LOGISTIC])
    second = search((splits[0], splits[1], turned), [forest, LOGISTIC])
    assert first.chosen.number == second.chosen.number
    assert first.chosen.metrics["f1"] == max(t.metrics["f1"] for t in first.trials)


def test_candidates_share_the_trials_and_each_gets_one(splits):
    forest = Candidate(estimator=FOREST, params={"n_estimators": 3}, search={"max_depth": {"int": [1, 50]}})
    found = search(splits, [LOGISTIC, forest, forest.model_copy()], trials=6)
    names = [t.candidate for t in found.trials]
    assert names.count("LogisticRegression") == 1
    assert names.count("RandomForestClassifier-1") == 3
    assert names.count("RandomForestClassifier-2") == 2
    assert [t.number for t in found.trials] == list(range(6))
    assert len(search(splits, [LOGISTIC, forest], trials=1).trials) == 2


def test_a_candidate_with_nothing_to_search_runs_once(splits):
    assert len(search(splits, [LOGISTIC], trials=8).trials) == 1


def test_a_finite_space_is_not_searched_twice(splits):
    forest = Candidate(estimator=FOREST, params={"n_estimators": 3}, search={"max_depth": {"categorical": [2, 4]}})
    found = search(splits, [forest], trials=8)
    fitted = [t.params["max_depth"] for t in found.trials if t.state == "complete"]
    assert sorted(fitted) == [2, 4]
    assert all(t.seconds == 0 for t in found.trials if t.state == "repeated")
    assert len(found.trials) < 8


def test_the_search_begins_at_the_parameters_that_the_yaml_names(splits):
    forest = Candidate(
        estimator=FOREST, params={"n_estimators": 3, "max_depth": 7}, search={"max_depth": {"int": [1, 50]}}
    )
    assert search(splits, [forest], trials=2).trials[0].params["max_depth"] == 7


def test_a_failing_trial_is_recorded_and_the_search_goes_on(splits):
    odd = Candidate(estimator=FOREST, params={"n_estimators": 3}, search={"max_depth": {"categorical": [-1, 3]}})
    seen = []
    found = search(splits, [odd], trials=6, on_trial=seen.append)
    states = {t.params["max_depth"]: t.state for t in found.trials if t.state != "repeated"}
    assert states == {-1: "failed", 3: "complete"}
    assert "max_depth" in next(t.error for t in found.trials if t.state == "failed")
    assert seen == found.trials


def test_when_every_trial_fails_the_first_cause_is_told(splits):
    with pytest.raises(SearchError, match=r"all 1 trials failed.*max_depth"):
        search(splits, [Candidate(estimator=FOREST, params={"max_depth": -1})])


def test_training_rows_of_one_class_are_refused(splits):
    only = Split(splits[0].features, np.zeros(len(splits[0].target), int))
    with pytest.raises(OneClassError, match="both classes are needed"):
        search((only, *splits[1:]), [LOGISTIC])


def test_validation_rows_without_positives_are_a_clear_error(splits):
    none = Split(splits[1].features, np.zeros(len(splits[1].target), int))
    with pytest.raises(SearchError, match=r"none of .* rows is positive"):
        search((splits[0], none, splits[2]), [LOGISTIC])


def test_a_split_without_rows_is_refused(splits):
    empty = Split(splits[2].features.head(0), splits[2].target[:0])
    with pytest.raises(ValueError, match="test has no rows"):
        search((*splits[:2], empty), [LOGISTIC])


def test_a_metric_of_the_other_task_is_refused(splits):
    with pytest.raises(ValueError, match="not one of classification"):
        search(splits, [LOGISTIC], metric="mae")


def test_regression_is_chosen_by_the_lowest_error(trips):
    kinds = {c: k for c, k in KINDS.items() if c != "fare_amount"}
    parts = [Split(trips[i::3], trips["fare_amount"].to_numpy()[i::3]) for i in range(3)]
    ridge = Candidate(estimator="sklearn.linear_model.Ridge", search={"alpha": {"float": [0.01, 100], "log": True}})
    mean = Candidate(estimator="sklearn.dummy.DummyRegressor")
    found = train(
        *parts,
        candidates=[mean, ridge],
        kinds=kinds,
        target=Target(column="fare_amount", task="regression"),
        metric="mae",
        trials=3,
    )
    assert found.chosen.candidate == "Ridge"
    assert found.cut is None
    assert found.chosen.metrics["mae"] == min(t.metrics["mae"] for t in found.trials)


def test_targets_are_encoded_by_the_positive_value():
    assert encode_target(["yes", "no"], Target(column="y", positive="yes")).tolist() == [1, 0]
    assert encode_target([True, False], Target(column="y", positive=True)).tolist() == [1, 0]
    with pytest.raises(ValueError, match="missing in 1 of 2"):
        encode_target(["yes", None], Target(column="y", positive="yes"))


def test_a_user_s_optuna_messages_are_left_as_they_were(splits):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    search(splits, [LOGISTIC])
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


@pytest.mark.real_data
def test_the_known_months_end_first_retained_promoted():
    """A small EBM, one trial, judged by F1 at .5 on whole months: the replaced system's known outcome."""
    kinds = dict.fromkeys(COLUMNS, "numeric")
    candidate = Candidate(
        estimator="interpret.glassbox.ExplainableBoostingClassifier",
        params={"interactions": 0, "outer_bags": 1},
        search={"max_bins": {"int": [8, 16]}},
    )
    months = [split(f"2021-0{i}") for i in range(1, 6)]
    champion, outcomes = None, []
    for i in range(3):
        found = train(
            *months[i : i + 3],
            candidates=[candidate],
            kinds=kinds,
            target=CASH,
            metric="f1",
            cut=0.5,
            trials=1,
        )
        assert found.params["max_bins"] == 11
        test = months[i + 2]
        theirs = None
        if champion is not None:
            theirs = measure(test.target, scores(champion.pipeline, test.features, CASH), 0.5)["f1"]
        outcomes.append(decide(theirs, found.metrics["test"]["f1"], "f1").outcome)
        if outcomes[-1] != "retained":
            champion = found
    assert outcomes == ["first", "retained", "promoted"]
