"""The whole graph over months, as Dagster runs it: normal beginnings, a severe month, and life after it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlops_assets.lake.connection import connect
from mlops_assets.monitored_model.runs import run_outcome
from mlops_assets_tests.monitored_model.conftest import MADE, History, check_statuses
from mlops_assets_tests.rides_graph import TABLES

BEFORE, FIRST, SEVERE, AFTER = MADE[:2], MADE[2], MADE[3], MADE[4:]


def test_every_period_has_all_ten_partitions_and_only_the_severe_one_is_withheld(history: History) -> None:
    outcomes = {period: result.outcome for period, result in history.results.items()}
    assert outcomes == {period: "withheld" if period == SEVERE else "success" for period in MADE}
    then = {
        period: [(r.job, r.period, r.outcome) for r in result.served_after]
        for period, result in history.results.items()
    }
    assert then == {period: [("rides_serve", SEVERE, "withheld")] if period == SEVERE else [] for period in MADE}
    assert {table: history.lake.periods("rides", table) for table in TABLES} == dict.fromkeys(TABLES, MADE)


def test_before_the_first_champion_the_runs_are_green_and_empty_partitions_say_why(history: History) -> None:
    for period in BEFORE:
        challenger = history.partition("challenger", period)
        assert challenger.rows == 0
        assert (
            challenger.reason
            == "no full window yet: it begins with "
            + {
                "2021-01": "2020-11, the data begins with 2021-01",
                "2021-02": "2020-12, the data begins with 2021-01",
            }[period]
        )
        champion = history.partition("champion", period)
        assert champion.facts["decision"] == "none"
        assert str(champion.reason).startswith("no champion yet: no full window yet")
    for period in [*BEFORE, FIRST]:
        for table in ("predictions", "drift_report", "performance", "served_predictions"):
            assert (history.partition(table, period).rows, history.partition(table, period).reason) == (
                0,
                "no champion yet",
            )
        assert history.partition("fallback_predictions", period).reason == (
            "not needed: the gate is none (no champion yet)"
        )


def test_the_first_full_window_gives_the_first_champion(history: History) -> None:
    decision = history.partition("champion", FIRST).facts
    assert (decision["decision"], decision["version"], decision["previous_version"]) == ("first", "1", None)
    facts = history.partition("challenger", FIRST).facts
    assert facts["trained_on"] == "window"
    assert facts["parts"] == {
        "train": {"periods": ["2021-01"], "days": []},
        "validation": {"periods": ["2021-02"], "days": []},
        "test": {"periods": ["2021-03"], "days": []},
    }


def test_a_severe_periods_own_run_withholds_it_with_the_reason_and_the_day_since_when(history: History) -> None:
    report = history.partition("drift_report", SEVERE).facts
    assert report["verdict"] == "severe"
    # The fee jumps on the first day; twenty rides a day take two days more to show the higher fares.
    assert any(reason.startswith("fee: ") and "since 2021-04-11" in reason for reason in report["reasons"])
    assert report["since"] == "2021-04-13"
    assert set(report["severe_columns"]) == {"fee", "fare"}
    shown = materialized(history, history.results[SEVERE].run_id)
    served = shown["served_predictions"]
    assert (served["dagster/row_count"].value, served["gate"].value) == (0, "plan_b")
    assert served["reason"].value == "withheld: severe drift: fee, fare since 2021-04-13"
    assert shown["fallback_predictions"]["reason"].value == "plan B is due, the sensor rides_serving serves it"
    # The champion's own scores are kept, so that people can see what plan B costs or saves.
    assert history.partition("predictions", SEVERE).rows == 600
    assert history.partition("performance", SEVERE).facts["value"] is not None


def test_without_a_healthy_month_before_it_plan_b_has_no_source_and_the_period_stays_withheld(history: History) -> None:
    fallback, served = (history.partition(name, SEVERE) for name in ("fallback_predictions", "served_predictions"))
    assert (served.rows, served.facts["gate"]) == (0, "plan_b")
    assert str(served.reason).startswith("withheld: no rung of plan B can serve (segment_rate: ")
    assert "severe drift: fee" in str(served.reason)
    assert fallback.rows == 0
    assert all(rung in str(fallback.reason) for rung in ("segment_rate", "global_rate")), "each rung says why"
    assert history.partition("performance", SEVERE).facts["served_value"] is None


def test_a_severe_period_trains_on_its_own_days_since_the_break_and_promotes(history: History) -> None:
    facts = history.partition("challenger", SEVERE).facts
    assert (facts["trained_on"], facts["since"]) == ("since_break", "2021-04-11")
    days = [facts["parts"][role]["days"] for role in ("train", "validation", "test")]
    since_break = [f"2021-04-{day:02}" for day in range(11, 31)]
    assert sorted(day for part in days for day in part) == since_break, "every day is in exactly one part"
    assert [len(part) for part in days] == pytest.approx([12, 4, 4], abs=1)
    decision = history.partition("champion", SEVERE).facts
    assert (decision["decision"], decision["previous_version"]) == ("promoted", "1")


def test_the_next_period_is_judged_by_the_champion_that_knows_the_new_world(history: History) -> None:
    for period in AFTER:
        report = history.partition("drift_report", period).facts
        before = history.partition("champion", f"2021-{int(period[-2:]) - 1:02}")
        assert report["verdict"] in ("ok", "warning")
        assert report["champion_version"] == before.facts["version"]
        served = history.partition("served_predictions", period)
        assert (served.rows, served.facts["source"], served.reason) == (600, "champion", None)


def test_no_period_is_scored_by_a_version_that_was_trained_in_it(history: History) -> None:
    for period in [SEVERE, *AFTER]:
        own = history.partition("challenger", period).facts["version"]
        used = history.partition("predictions", period).facts["version"]
        assert int(used) < int(own)


def test_every_check_is_recorded_for_every_period(history: History) -> None:
    statuses = check_statuses(history.instance, history.definitions)
    assert set(statuses) == {
        ("raw_rides", "source_schema"),
        ("raw_rides", "volume"),
        ("raw_rides", "in_period"),
        ("features", "feature_schema"),
        ("features", "completeness"),
        ("challenger", "training_sane"),
        ("challenger", "new_data_size"),
        ("drift_report", "drift_within_limits"),
        ("served_predictions", "served_complete"),
        ("performance", "performance_within_limits"),
    }
    assert {check: sorted(found) for check, found in statuses.items()} == dict.fromkeys(statuses, MADE)
    failed = {(check, period) for check, found in statuses.items() for period in found if found[period] == "FAILED"}
    assert {check for check, period in failed if period == SEVERE} >= {
        ("drift_report", "drift_within_limits"),
        ("served_predictions", "served_complete"),
    }
    assert not [check for check, period in failed if period != SEVERE and check[1] == "served_complete"]
    assert not [check for check, _ in failed if check[0] in ("raw_rides", "features", "challenger")]


def test_a_consumer_is_stopped_while_the_severe_period_is_withheld_and_runs_otherwise(own_history: History) -> None:
    job = own_history.definitions.resolve_job_def("revenue")
    for period, succeeds in ((FIRST, True), (SEVERE, False), (AFTER[0], True)):
        result = job.execute_in_process(partition_key=period, instance=own_history.instance, raise_on_error=False)
        assert result.success == succeeds
        assert run_outcome(own_history.instance, result.run_id) == ("success" if succeeds else "withheld")
    assert own_history.lake.periods("rides", "revenue") == [FIRST, AFTER[0]]
    with connect(own_history.lake) as con:
        assert con.sql("SELECT * FROM rides.revenue").fetchall() == [(AFTER[0], "champion", 600)]


def test_materializations_carry_what_a_person_wants_to_see(history: History) -> None:
    wanted = {
        "raw_rides": {"origin", "sha256", "source_bytes", "schema_variant", "preview"},
        "features": {"share_is_cash", "kept_share", "preview"},
        "profile": {"columns", "days", "rides_profiled"},
        "challenger": {"trials", "mlflow_run"},
        "champion": {"decision", "reason", "metrics_on_the_same_test_rows", "mlflow_model"},
        "predictions": {"model_version", "mean_score", "cut", "scores"},
        "drift_report": {"verdict", "report", "drift_by_day", "what_changed", "evidently_page", "since"},
        "fallback_predictions": {"reason", "gate"},
        "served_predictions": {"gate", "decision_id", "reason"},
        "performance": {"metrics", "calibration", "weakest_segments", "fisher_p_value"},
    }
    found = materialized(history, history.results[SEVERE].run_id)
    for table, names in wanted.items():
        missing = (names | {"dagster/row_count", "file", "bytes", "digest"}) - found[table].keys()
        assert not missing, f"{table} lacks {missing}"
    page = found["drift_report"]["evidently_file"].value
    assert "<html" in open(page).read(2000).lower()  # noqa: PTH123, SIM115


def materialized(history: History, run_id: str) -> dict[str, Any]:
    """Metadata of what a run materialized, by asset."""
    found = {}
    for entry in history.instance.all_logs(run_id):
        if entry.dagster_event is not None and entry.dagster_event.is_step_materialization:
            materialization = entry.dagster_event.step_materialization_data.materialization
            found[materialization.asset_key.path[-1]] = materialization.metadata
    return found


def test_a_withheld_period_says_so_in_its_own_words_in_the_failed_check(history: History) -> None:
    (record,) = [
        entry.dagster_event.asset_check_evaluation_data
        for entry in history.instance.all_logs(history.results[SEVERE].run_id)
        if entry.dagster_event is not None
        and entry.dagster_event.event_type_value == "ASSET_CHECK_EVALUATION"
        and entry.dagster_event.asset_check_evaluation_data.check_name == "served_complete"
    ]
    assert record.description.startswith("Withheld: 0 of 600 records are served. severe drift")
    assert record.metadata["expected_rows"].value == 600
    assert record.blocking


def test_decisions_carry_the_metrics_of_both_models_on_the_same_rows(history: History) -> None:
    with connect(history.lake) as con:
        rows = con.execute(
            "SELECT period, champion_metrics, challenger_metrics, champion_value, challenger_value, decision "
            "FROM rides.champions WHERE decision IN ('promoted', 'retained') ORDER BY period"
        ).fetchall()
    assert [row[0] for row in rows] == [SEVERE, *AFTER]
    for _, theirs, ours, their_value, our_value, decision in rows:
        assert json.loads(theirs)["rows"] == json.loads(ours)["rows"]
        assert (json.loads(theirs)["f1"], json.loads(ours)["f1"]) == pytest.approx((their_value, our_value))
        assert (our_value > their_value) == (decision == "promoted")
