from __future__ import annotations

import numpy as np
import optuna
import pytest

from mlops_assets.training.candidates import Candidate, EstimatorError, Target
from mlops_assets.training.decision import decide
from mlops_assets.training.pipeline import scores
from mlops_assets.training.search import (
    OneClassError,
    SearchError,
    Split,
    UndefinedMetricError,
    encode_target,
    measure,
    train,
)
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


@pytest.mark.parametrize("plan", ["together", "compare_then_tune"])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Candidate(estimator="xgboost.XGBClassifier", params={"max_dept": 3}), "'max_dept'; did you mean max_depth"),
        (Candidate(estimator=FOREST, search={"max_dept": {"int": [2, 3]}}), "search of candidate RandomForest"),
        (Candidate(estimator=FOREST, final={"n_estimator": 9}), "final of candidate RandomForest"),
        (Candidate(estimator="sklearn.linear_model.Ridge"), "Ridge.* is no estimator for classification"),
    ],
)
def test_a_wrong_candidate_is_an_error_before_any_fit(splits, plan, wrong, said):
    seen = []
    with pytest.raises(EstimatorError, match=said):
        search(splits, [LOGISTIC, wrong], plan=plan, on_trial=seen.append)
    assert seen == []


@pytest.mark.parametrize("plan", ["together", "compare_then_tune"])
def test_a_candidate_without_a_complete_trial_is_told(splits, plan):
    broken = Candidate(estimator=FOREST, name="broken", params={"max_depth": -1})
    found = search(splits, [broken, TREE, LOGISTIC], plan=plan, metric="auc", runners_up=1)
    assert list(found.failed) == ["broken"]
    assert "max_depth" in found.failed["broken"]
    assert found.runners_up[0].failed == found.failed
    sometimes = Candidate(estimator=FOREST, params={"n_estimators": 3}, search={"max_depth": {"categorical": [-1, 3]}})
    assert search(splits, [sometimes], trials=6).failed == {}


def test_training_rows_of_one_class_are_refused(splits):
    only = Split(splits[0].features, np.zeros(len(splits[0].target), int))
    with pytest.raises(OneClassError, match="both classes are needed"):
        search((only, *splits[1:]), [LOGISTIC])


def test_validation_rows_without_positives_are_a_clear_error(splits):
    none = Split(splits[1].features, np.zeros(len(splits[1].target), int))
    with pytest.raises(OneClassError, match=r"all .* validation rows have is_cash ≠ 1.*wider validation window"):
        search((splits[0], none, splits[2]), [LOGISTIC])


def test_test_rows_of_one_class_leave_the_metric_undefined_and_not_zero(splits):
    none = Split(splits[2].features, np.zeros(len(splits[2].target), int))
    found = search((splits[0], splits[1], none), [LOGISTIC], metric="average_precision")
    assert np.isnan(found.metrics["test"]["average_precision"])
    assert found.metrics["validation"]["average_precision"] > 0


def few_positives(split, positives):
    """The split's rows with as many positives, the others negative."""
    target = np.zeros(len(split.target), int)
    target[np.flatnonzero(split.target)[:positives]] = 1
    return Split(split.features, target)


def test_a_calibrated_estimator_takes_as_many_folds_as_the_rarer_class_has_rows(splits):
    svc = Candidate(estimator="sklearn.svm.LinearSVC", calibration="sigmoid", params={"C": 0.01})
    found = search((few_positives(splits[0], 2), *splits[1:]), [svc])
    assert len(found.pipeline[-1].calibrated_classifiers_) == 2
    assert len(search(splits, [svc]).pipeline[-1].calibrated_classifiers_) == 3


def test_one_positive_is_too_few_to_calibrate_and_the_other_candidates_go_on(splits):
    svc = Candidate(estimator="sklearn.svm.LinearSVC", calibration="sigmoid")
    found = search((few_positives(splits[0], 1), *splits[1:]), [svc, LOGISTIC])
    failed, kept = found.trials
    assert "calibration needs two rows of each class, found 1 of one" in failed.error
    assert (kept.state, found.chosen.candidate) == ("complete", "LogisticRegression")
    assert found.failed == {"LinearSVC": failed.error}


def test_when_every_trial_fails_for_its_rows_no_candidate_is_blamed(splits):
    one = (few_positives(splits[0], 1), *splits[1:])
    svc = Candidate(estimator="sklearn.svm.LinearSVC", calibration="sigmoid")
    with pytest.raises(UndefinedMetricError, match=r"none of 1 trials.*LinearSVC: .*two rows of each class.*wider"):
        search(one, [svc])
    # One that is wrong on any rows is what has to be told.
    with pytest.raises(SearchError, match=r"all 2 trials failed; first RandomForest.*max_depth"):
        search(one, [svc, Candidate(estimator=FOREST, params={"max_depth": -1})])


@pytest.mark.parametrize(("metric", "amount"), [("wmape", 0.0), ("r2", 0.0), ("r2", 7.5)])
@pytest.mark.parametrize("plan", ["together", "compare_then_tune"])
def test_a_metric_that_validation_can_not_define_is_told_as_such(trips, metric, amount, plan):
    kinds = {c: k for c, k in KINDS.items() if c != "fare_amount"}
    parts = [Split(trips[i::3], trips["fare_amount"].to_numpy()[i::3]) for i in range(3)]
    parts[1] = Split(parts[1].features, np.full(len(parts[1].target), amount))
    ridge = Candidate(estimator="sklearn.linear_model.Ridge", search={"alpha": {"float": [0.01, 100], "log": True}})
    fare = Target(column="fare_amount", task="regression")
    mean = Candidate(estimator="sklearn.dummy.DummyRegressor")
    with pytest.raises(UndefinedMetricError, match=f"{metric} is undefined on validation: (every|all) actual value"):
        train(*parts, candidates=[mean, ridge], kinds=kinds, target=fare, metric=metric, trials=3, plan=plan)


def test_what_an_estimator_warns_of_is_noted_with_its_trial_and_not_printed(splits, recwarn):
    mlp = Candidate(estimator="sklearn.neural_network.MLPClassifier", params={"hidden_layer_sizes": [4], "max_iter": 2})
    found = search(splits, [mlp, LOGISTIC])
    assert [len(trial.warnings) for trial in found.trials] == [1, 0]
    assert found.trials[0].warnings[0].startswith("ConvergenceWarning: Stochastic Optimizer: Maximum iterations (2)")
    assert not [warning for warning in recwarn if "Maximum iterations" in str(warning.message)]


def test_a_search_may_begin_with_a_choice_that_is_a_list(splits):
    mlp = Candidate(
        estimator="sklearn.neural_network.MLPClassifier",
        params={"hidden_layer_sizes": [3], "max_iter": 5},
        search={"hidden_layer_sizes": {"categorical": [[2], [3]]}},
    )
    found = search(splits, [mlp], trials=1)
    assert found.trials[0].params["hidden_layer_sizes"] == [3]


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


TREE = Candidate(
    estimator="sklearn.tree.DecisionTreeClassifier",
    params={"min_samples_leaf": 20},
    search={"max_depth": {"int": [1, 12]}},
)
STUMP = Candidate(estimator="sklearn.tree.DecisionTreeClassifier", name="stump", params={"max_depth": 1})


def test_in_two_stages_every_candidate_is_fitted_once_and_the_best_gets_the_trials_that_are_left(splits):
    found = search(splits, [STUMP, TREE], plan="compare_then_tune", metric="auc", trials=7)
    stages = [(t.stage, t.candidate) for t in found.trials]
    assert stages[:2] == [("compare", "stump"), ("compare", "DecisionTreeClassifier")]
    better = max(found.trials[:2], key=lambda t: t.metrics["auc"]).candidate
    assert better == "DecisionTreeClassifier"
    assert stages[2:] == [("tune", better)] * 5
    assert found.trials[1].params == {"min_samples_leaf": 20}, "what is searched stays at its default"
    assert found.chosen.metrics["auc"] == max(t.metrics["auc"] for t in found.trials)


def test_the_second_stage_does_not_repeat_the_comparison(splits):
    tree = TREE.model_copy(update={"params": {"min_samples_leaf": 20, "max_depth": 3}})
    found = search(splits, [tree, STUMP], plan="compare_then_tune", metric="auc", trials=5)
    fitted = [t.params["max_depth"] for t in found.trials if t.candidate == "DecisionTreeClassifier"]
    assert fitted[0] == 3
    assert found.trials[2].params["max_depth"] != 3
    assert [t.stage for t in found.trials] == ["compare"] * 2 + ["tune"] * 3


def test_two_stages_with_nothing_left_to_tune_end_with_the_comparison(splits):
    only = search(splits, [TREE, STUMP], plan="compare_then_tune", metric="auc", trials=1)
    assert [t.stage for t in only.trials] == ["compare"] * 2
    fixed = search(splits, [STUMP], plan="compare_then_tune", metric="auc", trials=6)
    assert [t.stage for t in fixed.trials] == ["compare"]


def test_a_candidate_that_fails_the_comparison_is_not_tuned(splits):
    broken = Candidate(estimator=FOREST, params={"max_depth": -1}, search={"n_estimators": {"int": [2, 9]}})
    found = search(splits, [broken, TREE], plan="compare_then_tune", metric="auc", trials=4)
    assert found.trials[0].state == "failed"
    assert {t.candidate for t in found.trials if t.stage == "tune"} == {"DecisionTreeClassifier"}
    with pytest.raises(SearchError, match="all 1 trials failed"):
        search(splits, [broken], plan="compare_then_tune", trials=4)


def test_runners_up_of_several_candidates_have_one_place_each(splits):
    found = search(splits, [STUMP, TREE, LOGISTIC], metric="auc", trials=8, runners_up=5)
    ranked = [found, *found.runners_up]
    assert len(ranked) == 3
    assert len({model.chosen.candidate for model in ranked}) == 3
    values = [model.chosen.metrics["auc"] for model in ranked]
    assert values == sorted(values, reverse=True)
    for model in ranked:
        own = [t.metrics["auc"] for t in found.trials if t.candidate == model.chosen.candidate]
        assert model.chosen.metrics["auc"] == max(own)


@pytest.mark.parametrize("plan", ["together", "compare_then_tune"])
def test_runners_up_of_one_tuned_candidate_are_its_best_distinct_trials(splits, plan):
    candidates = [TREE] if plan == "together" else [STUMP, TREE]
    found = search(splits, candidates, plan=plan, metric="auc", trials=7, runners_up=2)
    tuned = {repr(t.params): t.metrics["auc"] for t in found.trials if t.candidate == "DecisionTreeClassifier"}
    expected = sorted(tuned.values(), reverse=True)[:3]
    assert [model.chosen.metrics["auc"] for model in (found, *found.runners_up)] == expected
    for model in found.runners_up:
        np.testing.assert_array_equal(model.test_scores, scores(model.pipeline, splits[2].features, CASH))
        assert model.metrics["validation"]["auc"] == pytest.approx(model.chosen.metrics["auc"])


def test_runners_up_change_nothing_about_the_best(splits):
    alone = search(splits, [TREE], metric="auc", trials=4)
    beside = search(splits, [TREE], metric="auc", trials=4, runners_up=2)
    np.testing.assert_array_equal(alone.test_scores, beside.test_scores)
    assert alone.chosen.params == beside.chosen.params


@pytest.mark.slow
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
