"""What one step leaves behind, with tiny frames and no Dagster: rows, reasons, facts, checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace as changed
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.incidents.store import Cause, CauseKind
from mlops_assets.monitored_model import learning_plan, scoring
from mlops_assets.monitored_model.learning_plan import Part
from mlops_assets.monitored_model.outcome import Outcome, table
from mlops_assets.monitored_model.steps import challenger as challenger_step
from mlops_assets.monitored_model.steps import champion as champion_step
from mlops_assets.monitored_model.steps import drift_report as drift_report_step
from mlops_assets.monitored_model.steps import fallback_predictions as fallback_predictions_step
from mlops_assets.monitored_model.steps import features as features_step
from mlops_assets.monitored_model.steps import performance as performance_step
from mlops_assets.monitored_model.steps import predictions as predictions_step
from mlops_assets.monitored_model.steps import profile as profile_step
from mlops_assets.monitored_model.steps import raw as raw_step
from mlops_assets.monitored_model.steps import served_predictions as served_predictions_step
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets_tests import tiny_model

JANUARY, FEBRUARY, MARCH = "2021-01", "2021-02", "2021-03"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def bench(tmp_path: Path, files: Path) -> Iterator[Workbench]:
    """A workbench without an MLflow run, for the steps that log nothing."""
    import duckdb

    from mlops_assets.home import Home
    from mlops_assets.incidents.store import Store
    from mlops_assets.lake.store import Lake

    with duckdb.connect() as con:
        home = Home(tmp_path / "home")
        yield Workbench(
            spec=tiny_model.spec(),
            sql=tiny_model.SQL,
            home=home,
            lake=Lake(home.lake_url),
            con=con,
            store=Store(home.store_url),
            data_dir=files,
        )


def ingest(bench: Workbench, period: str) -> None:
    for step in (raw_step.make, features_step.make, profile_step.make):
        step(bench, period)


def replace(files: Path, period: str, **columns: Any) -> None:
    """Write a month whose columns are partly replaced."""
    rides = tiny_model.rides(period)
    for name, values in columns.items():
        rides = rides.set_column(rides.schema.get_field_index(name), name, pa.array(values))
    (files / "rides").mkdir(parents=True, exist_ok=True)
    pq.write_table(rides, files / "rides" / f"{period}.parquet")


def check(outcome: Outcome, name: str) -> Any:
    (found,) = [given for given in outcome.checks if given.name == name]
    return found


# -- raw ------------------------------------------------------------------------------------------------------


def test_raw_holds_the_declared_columns_and_says_where_they_came_from(bench: Workbench, files: Path) -> None:
    tiny_model.write_rides(files, [JANUARY])
    outcome = raw_step.make(bench, JANUARY)
    names = bench.lake.schema("rides", "raw_rides").names
    assert names == ["record_id", "started_at", "fare", "fee", "zone", "payment"]
    assert (outcome.partition.rows, outcome.partition.reason) == (600, None)
    assert outcome.partition.facts["origin"] == f"file rides/{JANUARY}.parquet"
    assert outcome.partition.facts["quality_failure"] is None
    assert len(outcome.metadata["sha256"]) == 64
    assert all(given.passed for given in outcome.checks)


def test_a_month_much_smaller_than_the_ones_before_warns_but_is_used(bench: Workbench, files: Path) -> None:
    tiny_model.write_rides(files, [JANUARY])
    tiny_model.write_rides(files, [FEBRUARY], rows=150)
    raw_step.make(bench, JANUARY)
    outcome = raw_step.make(bench, FEBRUARY)
    volume = check(outcome, "volume")
    assert (volume.passed, volume.severity) == (False, "WARN")
    assert volume.description.startswith("150 rows; the median of the 1 periods before is 600")
    assert outcome.partition.facts["quality_failure"] is None


def test_a_few_rows_of_another_month_warn_and_are_kept(bench: Workbench, files: Path) -> None:
    times = tiny_model.rides(JANUARY)["started_at"].to_pylist()
    replace(files, JANUARY, started_at=[moment.replace(year=2008) for moment in times[:3]] + times[3:])
    outcome = raw_step.make(bench, JANUARY)
    found = check(outcome, "in_period")
    assert (found.passed, found.severity) == (False, "WARN")
    assert "3 of 600 rows (0.50%) have a started_at outside 2021-01: it runs from 2008-01-01" in found.description
    assert (outcome.partition.rows, outcome.partition.facts["quality_failure"]) == (600, None)


def test_rows_that_were_ingested_are_kept_when_the_source_is_gone(bench: Workbench, files: Path) -> None:
    tiny_model.write_rides(files, [JANUARY])
    digest = raw_step.make(bench, JANUARY).partition.digest
    (files / "rides" / f"{JANUARY}.parquet").unlink()
    outcome = raw_step.make(bench, JANUARY)
    assert (outcome.partition.rows, outcome.partition.digest) == (600, digest)
    assert all(given.passed for given in outcome.checks)
    assert "600 rows ingested earlier are kept" in check(outcome, "volume").description


# -- features -------------------------------------------------------------------------------------------------


def test_features_hold_key_time_features_and_target(bench: Workbench, files: Path) -> None:
    tiny_model.write_rides(files, [JANUARY])
    raw_step.make(bench, JANUARY)
    outcome = features_step.make(bench, JANUARY)
    assert bench.lake.schema("rides", "features").names == [
        *("record_id", "started_at", "fare", "fee", "zone", "hour", "is_cash")
    ]
    assert outcome.metadata["kept_share"] == 1.0
    assert 0 < outcome.metadata["share_is_cash"] < 1
    assert all(given.passed for given in outcome.checks)


def test_rows_without_outcome_are_left_out_only_where_the_target_is_required(bench: Workbench, files: Path) -> None:
    replace(files, JANUARY, payment=[None if n % 4 == 0 else 1 + n % 2 for n in range(600)])
    raw_step.make(bench, JANUARY)
    assert features_step.make(bench, JANUARY).partition.rows == 450
    optional = tiny_model.spec(target={"column": "is_cash", "required": False})
    assert features_step.make(changed(bench, spec=optional), JANUARY).partition.rows == 600


def test_values_out_of_range_within_the_tolerance_are_shown_and_used(bench: Workbench, files: Path) -> None:
    replace(files, JANUARY, fare=[5000.0] * 3 + [10.0] * 597)
    spec = tiny_model.spec(columns={**tiny_model.SPEC["columns"], "fare": {"gt": 0, "le": 1000, "tolerance": 0.01}})
    bench = changed(bench, spec=spec)
    raw_step.make(bench, JANUARY)
    outcome = features_step.make(bench, JANUARY)
    found = check(outcome, "feature_schema")
    assert found.passed
    assert "1 rules broken within their tolerance" in found.description
    assert r"| fare | \<= 1000 | 3 | 0.005 | 0.01 | tolerated |" in found.metadata["violations"].text
    assert bench.unusable(JANUARY) is None


def test_too_many_missing_values_warn(bench: Workbench, files: Path) -> None:
    replace(files, JANUARY, fee=[None if n % 2 else 1.0 for n in range(600)])
    spec = tiny_model.spec(columns={**tiny_model.SPEC["columns"], "fee": {"max_null": 0.1}})
    bench = changed(bench, spec=spec)
    raw_step.make(bench, JANUARY)
    found = check(features_step.make(bench, JANUARY), "completeness")
    assert (found.passed, found.severity) == (False, "WARN")
    assert found.description == "fee: 50.0% missing, limit 10.0%"


def test_a_query_that_keeps_much_less_than_usual_warns(bench: Workbench, files: Path) -> None:
    tiny_model.write_rides(files, [JANUARY])
    replace(files, FEBRUARY, fare=[0.0 if n % 10 else 9.0 for n in range(600)])
    ingest(bench, JANUARY)
    raw_step.make(bench, FEBRUARY)
    found = check(features_step.make(bench, FEBRUARY), "completeness")
    assert (found.passed, found.severity) == (False, "WARN")
    assert found.description == "10.0% of the raw rides reach the features; the periods before had 100.0%."


def test_a_class_that_the_target_does_not_have_is_no_silent_no(bench: Workbench, files: Path) -> None:
    replace(files, JANUARY, payment=[3] * 6 + [1, 2] * 297)
    spec = tiny_model.spec(target={"column": "payment", "positive": 2, "isin": [1, 2]})
    sql = tiny_model.SQL.replace("(payment = 2)::INTEGER AS is_cash", "payment")
    bench = changed(bench, spec=spec, sql=sql)
    raw_step.make(bench, JANUARY)
    found = check(features_step.make(bench, JANUARY), "feature_schema")
    assert not found.passed
    assert found.description.startswith("payment breaks in [1, 2] in 6 rows (1.00%, tolerance 0.00%), e.g. 0: 3")


# -- profile --------------------------------------------------------------------------------------------------


def test_a_profile_counts_every_record_once_a_column(bench: Workbench, files: Path) -> None:
    tiny_model.write_rides(files, [JANUARY])
    ingest(bench, JANUARY)
    outcome = profile_step.make(bench, JANUARY)
    assert outcome.metadata["rides_profiled"] == 600
    assert outcome.metadata["days"] == 31
    counted = learning_plan.sum_of_profiles(bench, [JANUARY])
    assert set(counted.columns) == {"fare", "fee", "zone", "hour"}
    assert counted.rows == 600


# -- which rows a challenger learns from ----------------------------------------------------------------------


def test_a_severe_period_with_too_few_rows_since_the_break_takes_the_whole_period(
    bench: Workbench, files: Path
) -> None:
    tiny_model.write_rides(files, [JANUARY, FEBRUARY])
    tiny_model.write_rides(files, [MARCH], since=date(2021, 3, 10))
    for period in (JANUARY, FEBRUARY, MARCH):
        ingest(bench, period)
    plan = learning_plan.learning_plan(bench, MARCH)
    assert (plan.trained_on, plan.since) == ("since_break", plan.window_report.since)
    assert plan.since is not None
    assert plan.since >= date(2021, 3, 10)
    scarce = changed(bench, spec=tiny_model.spec(since_break={"min_rows": 550}))
    assert learning_plan.learning_plan(scarce, MARCH).since == date(2021, 3, 1)
    hopeless = changed(bench, spec=tiny_model.spec(since_break={"min_rows": 700}))
    assert learning_plan.learning_plan(hopeless, MARCH).trained_on == "window"


def test_a_part_with_too_few_rows_trains_nothing_and_the_champion_stays(tmp_path: Path, files: Path) -> None:
    for period, rows in zip((JANUARY, FEBRUARY, MARCH, "2021-04"), (600, 600, 600, 12), strict=True):
        tiny_model.write_rides(files, [period], rows=rows)
    window = {"train": [-2, -2], "validation": [-1, -1], "test": [0, 0], "min_rows": 100}
    with tiny_model.workbench(tmp_path / "home", files, tiny_model.spec(window=window)) as bench:
        for period in (JANUARY, FEBRUARY, MARCH, "2021-04"):
            ingest(bench, period)
            made = challenger_step.make(bench, period).partition
            decided = champion_step.make(bench, period).partition.facts
    assert made.reason == "too few rows to test on: 12 in 2021-04, window.min_rows is 100"
    assert (decided["decision"], decided["version"], decided["reason"]) == ("retained", "1", made.reason)


def test_a_champion_is_not_compared_on_days_that_it_has_learned(tmp_path: Path, files: Path) -> None:
    months = [JANUARY, FEBRUARY, MARCH, "2021-04", "2021-05"]
    tiny_model.write_rides(files, months)
    tiny_model.write_rides(files, ["2021-04"], since=date(2021, 4, 1))  # an odd month; the next is as before
    window = {"train": [-3, -3], "validation": [-2, -2], "test": [-1, 0]}
    with tiny_model.workbench(tmp_path / "home", files, tiny_model.spec(window=window)) as bench:
        for period in months:
            ingest(bench, period)
            challenger_step.make(bench, period)
            champion_step.make(bench, period)
        parts = bench.partition("challenger", "2021-04").facts["parts"]
        assert bench.partition("champion", "2021-04").facts["version"] == "1", "the one of April's own days"
        assert bench.partition("challenger", "2021-05").facts["trained_on"] == "window"
        ((compared_on, rows),) = bench.con.sql(
            f"SELECT test_periods, test_rows FROM {bench.scan('champion', ['2021-05'])}"
        ).fetchall()
        learned = sorted(parts["train"]["days"] + parts["validation"]["days"])
        assert compared_on == f"2021-04..2021-05 without {len(learned)} days of {learned[0]}..{learned[-1]}"
        days = ", ".join(f"DATE '{day}'" for day in learned)
        both = bench.scan("features", months[-2:])
        ((left,),) = bench.con.sql(
            f"SELECT count(*) FROM {both} WHERE CAST(started_at AS DATE) NOT IN ({days})"
        ).fetchall()
        assert rows == left < 1200


FIRST, SECOND = date(2021, 4, 1), date(2021, 4, 2)


@pytest.mark.parametrize(
    ("part", "learned", "left"),
    [
        (Part(["a", "b"]), [Part(["x"])], Part(["a", "b"])),
        (Part(["a", "b"]), [Part(["x"]), Part(["a"])], Part(["b"], but_not=[])),
        (Part(["a", "b"]), [Part(["b"], [SECOND])], Part(["a", "b"], but_not=[SECOND])),
        (Part(["a"]), [Part(["b"], [SECOND])], Part(["a"])),
        (Part(["a"], [FIRST, SECOND]), [Part(["a"], [SECOND])], Part(["a"], [FIRST])),
        (Part(["a"], [SECOND]), [Part(["a"], [SECOND])], None),
        (Part(["a"]), [Part(["a"])], None),
    ],
)
def test_rows_that_a_version_has_not_learned(part: Part, learned: list[Part], left: Part | None) -> None:
    assert part.without(learned) == left


def cause(kind: CauseKind, period: str) -> Cause:
    return Cause(1, "rides", period, kind, f"why {kind}", "test", f"{kind}/{period}", datetime(2021, 4, 1), None, None)


def test_a_failed_performance_check_of_the_period_leaves_a_window_that_looks_the_same(
    bench: Workbench, files: Path
) -> None:
    tiny_model.write_rides(files, [JANUARY, FEBRUARY, MARCH])
    for period in (JANUARY, FEBRUARY, MARCH):
        ingest(bench, period)
    plan = learning_plan.learning_plan(bench, MARCH, [cause("performance", MARCH)])
    assert plan.window_report.verdict == "ok"
    assert (plan.trained_on, plan.since, plan.because) == ("since_break", date(2021, 3, 1), ["why performance"])
    assert all(part.periods == [MARCH] for part in plan.parts.values())
    for others in ([], [cause("performance", FEBRUARY)], [cause("person", MARCH)], [cause("severe_drift", MARCH)]):
        assert learning_plan.learning_plan(bench, MARCH, others).trained_on == "window"


def test_after_a_severe_report_of_the_period_a_warning_suffices_to_leave_the_window(
    bench: Workbench, files: Path
) -> None:
    tiny_model.write_rides(files, [JANUARY, FEBRUARY])
    replace(files, MARCH, fare=[fare * 1.14 for fare in tiny_model.rides(MARCH)["fare"].to_pylist()])
    for period in (JANUARY, FEBRUARY, MARCH):
        ingest(bench, period)
    alone = learning_plan.learning_plan(bench, MARCH)
    assert (alone.trained_on, alone.window_report.verdict) == ("window", "warning")
    plan = learning_plan.learning_plan(bench, MARCH, [cause("severe_drift", MARCH)])
    assert (plan.trained_on, plan.because[0]) == ("since_break", "why severe_drift")
    assert "fare: PSI" in plan.because[1]
    assert learning_plan.learning_plan(bench, MARCH, [cause("severe_drift", JANUARY)]).trained_on == "window"


def test_a_period_that_was_skipped_leaves_the_window_incomplete(bench: Workbench, files: Path) -> None:
    tiny_model.write_rides(files, [JANUARY, MARCH])
    ingest(bench, JANUARY)
    ingest(bench, MARCH)
    with pytest.raises(learning_plan.NothingToLearn, match="the features of 2021-02 have not been made"):
        learning_plan.learning_plan(bench, MARCH)


@given(
    st.lists(st.integers(1, 500), min_size=3, max_size=31),
    st.sampled_from([[0.6, 0.2, 0.2], [0.8, 0.1, 0.1], [1 / 3, 1 / 3, 1 / 3]]),
)
@settings(max_examples=50, deadline=None)
def test_days_take_turns_and_every_day_is_in_exactly_one_part(counts: list[int], shares: list[float]) -> None:
    days = [date(2021, 3, 1) + timedelta(days=n) for n in range(len(counts))]
    rows = dict(zip(days, counts, strict=True))
    parts = learning_plan.split_days(rows, shares)
    assert sorted(day for part in parts for day in part) == days
    assert all(part and part == sorted(part) for part in parts)
    if len(days) >= 10:
        got = [sum(rows[day] for day in part) / sum(counts) for part in parts]
        assert all(
            abs(share - wanted) <= max(counts) / sum(counts) + 0.1 for share, wanted in zip(got, shares, strict=True)
        )


def test_a_window_of_one_class_trains_nothing_and_says_so(tmp_path: Path, files: Path) -> None:
    for period in (JANUARY, FEBRUARY, MARCH):
        replace(files, period, payment=[1] * 600)
    with tiny_model.workbench(tmp_path / "home", files) as bench:
        for period in (JANUARY, FEBRUARY, MARCH):
            ingest(bench, period)
        outcome = challenger_step.make(bench, MARCH)
        assert outcome.partition.rows == 0
        assert str(outcome.partition.reason).startswith("one class only: ")
        assert champion_step.make(bench, MARCH).partition.facts["decision"] == "none"


# -- champion to served ---------------------------------------------------------------------------------------


def test_without_a_champion_every_later_step_is_empty_with_that_reason(bench: Workbench, files: Path) -> None:
    tiny_model.write_rides(files, [JANUARY])
    ingest(bench, JANUARY)
    steps = (
        predictions_step.make,
        drift_report_step.make,
        fallback_predictions_step.make,
        served_predictions_step.make,
        performance_step.make,
    )
    outcomes = [step(bench, JANUARY) for step in steps]
    assert [outcome.partition.rows for outcome in outcomes] == [0] * 5
    assert all("no champion yet" in str(outcome.partition.reason) for outcome in outcomes)
    assert all(given.passed for outcome in outcomes for given in outcome.checks)
    assert scoring.predictions_schema(bench).names == [
        *("record_id", "started_at", "fare", "fee", "zone", "hour", "score", "prediction", "cut", "model_version")
    ]


def test_features_whose_records_were_never_made_say_how_to_make_them(bench: Workbench) -> None:
    from mlops_assets.lake.store import MissingPartition

    with pytest.raises(MissingPartition, match="mlops-assets backfill rides 2021-01"):
        features_step.make(bench, JANUARY)


def test_a_step_whose_input_was_never_made_is_empty_and_says_so(bench: Workbench) -> None:
    for step in (profile_step.make, predictions_step.make, challenger_step.make):
        outcome = step(bench, JANUARY)
        assert (outcome.partition.rows, outcome.partition.reason) == (0, "the features of 2021-01 have not been made")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((None, ""), (float("nan"), "nan"), (float("inf"), "inf"), (0.123456, "0.1235"), (1234.0, "1,234")),
        *((5_000_000, "5,000,000"), (True, "True"), ("a|b\nc", "a\\|b c")),
    ],
)
def test_a_table_shows_any_value_in_one_line(value: Any, shown: str) -> None:
    assert table([{"value": value}]).text.splitlines()[-1] == f"| {shown} |"
