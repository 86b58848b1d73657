"""The shipped taxi months with the shipped declaration: known outcomes, the fare change, quality, bad files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.drift.profile import Profile
from mlops_assets.drift.verdict import DriftReport, compare
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model import learning_plan
from mlops_assets.monitored_model.backfill import PeriodRunResult
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.steps import features as features_step
from mlops_assets.monitored_model.steps import raw as raw_step
from mlops_assets.monitoring import PeriodStatus, periods
from mlops_assets.training import search
from mlops_assets.training.candidates import Candidate
from mlops_assets_tests.end_to_end.green_taxi import (
    NAME,
    SMALL,
    as_small_as_the_replaced_system,
    backfilled,
    declared,
    ingest,
    path,
    workbench,
)

pytestmark = pytest.mark.real_data

FARE_CHANGE = date(2022, 12, 19)
FARES = {"improvement_surcharge", "mta_tax", "extra"}


@dataclass(frozen=True)
class Months:
    """What a backfill left: status and run by month, and the lake."""

    lake: Lake
    runs: Mapping[str, PeriodRunResult]
    status: Mapping[str, PeriodStatus]

    @classmethod
    def of(cls, root: Path, spec: ModelSpec, first: str, last: str) -> Months:
        lake, results = backfilled(root, spec, first, last)
        return cls(lake, {run.period: run for run in results}, {line.period: line for line in periods(lake, NAME)})

    def row(self, table: str, period: str) -> dict[str, Any]:
        """The only row of a champion or challenger partition."""
        (row,) = self._rows(table, period).to_pylist()
        return row

    def facts(self, table: str, period: str) -> Mapping[str, Any]:
        return self.lake.partition(NAME, table, period).facts

    def profile(self, period: str) -> Profile:
        return Profile.from_arrow(self._rows("profile", period))

    def _rows(self, table: str, period: str) -> pa.Table:
        with duckdb.connect() as con:
            return con.sql(f"FROM {self.lake.scan(NAME, table, [period])}").to_arrow_table()


# -- the replaced system's outcome ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spring(tmp_path_factory: pytest.TempPathFactory) -> Months:
    """2021-01 to 2021-05 with a model like the replaced system's."""
    root = tmp_path_factory.mktemp("spring")
    return Months.of(root, as_small_as_the_replaced_system(), "2021-01", "2021-05")


def test_the_known_months_end_first_retained_promoted(spring: Months) -> None:
    assert [run.outcome for run in spring.runs.values()] == ["success"] * 5
    assert [line.decision for line in spring.status.values()] == ["none", "none", "first", "retained", "promoted"]
    assert [line.champion_version for line in spring.status.values()] == [None, None, "1", "1", "3"]
    assert json.loads(spring.row("challenger", "2021-03")["params"])["max_bins"] == 11


def test_both_models_are_compared_on_the_same_month_at_the_same_cut(spring: Months) -> None:
    april, may = spring.row("champion", "2021-04"), spring.row("champion", "2021-05")
    # Measured with the replaced system's 14 bags; one bag differs in the third decimal.
    assert (april["champion_value"], april["challenger_value"]) == pytest.approx((0.413, 0.384), abs=0.006)
    assert (may["champion_value"], may["challenger_value"]) == pytest.approx((0.400, 0.476), abs=0.006)
    assert (april["test_periods"], may["test_periods"]) == ("2021-04", "2021-05")
    assert may["test_rows"] == spring.status["2021-05"].rows


def test_before_the_first_champion_nothing_is_served_and_after_it_everything(spring: Months) -> None:
    assert [line.gate for line in spring.status.values()] == ["none"] * 3 + ["champion"] * 2
    assert [line.served_rows for line in spring.status.values()] == [
        0,
        0,
        0,
        *(spring.status[m].rows for m in APRIL_MAY),
    ]
    assert spring.facts("predictions", "2021-05")["version"] == "1", "May is scored by the champion of April"


APRIL_MAY = ("2021-04", "2021-05")


# -- the fare change ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def winter(tmp_path_factory: pytest.TempPathFactory) -> Months:
    """2022-08 to 2023-01 with a small model; the first champion is that of 2022-10."""
    return Months.of(tmp_path_factory.mktemp("winter"), declared(**SMALL), "2022-08", "2023-01")


def test_the_month_before_the_fare_change_is_served(winter: Months) -> None:
    november = winter.status["2022-11"]
    assert (november.verdict, november.gate, november.served_rows) == ("ok", "champion", november.rows)


def test_the_fare_change_is_severe_named_dated_withheld_and_then_served_by_plan_b(winter: Months) -> None:
    december, report = winter.status["2022-12"], winter.facts("drift_report", "2022-12")
    assert december.verdict == report["verdict"] == "severe"
    assert set(report["severe_columns"]) == FARES
    assert report["since"] == str(FARE_CHANGE)
    assert all(any(reason.startswith(f"{name}: PSI") for reason in report["reasons"]) for name in FARES)
    run = winter.runs["2022-12"]
    assert run.outcome == "withheld"
    assert [(after.job, after.period, after.outcome) for after in run.served_after] == [
        (f"{NAME}_serve", "2022-12", "success")
    ]
    assert (december.gate, december.served_rows, december.served_source) == ("plan_b", december.rows, "plan_b")
    plan_b = winter.facts("fallback_predictions", "2022-12")
    assert (plan_b["rung"], plan_b["source_period"]) == ("segment_rate", "2022-11")
    assert winter.facts("performance", "2022-12")["served_value"] is not None
    assert winter.lake.partition(NAME, "predictions", "2022-12").rows == december.rows, "the scores are kept"


def test_the_month_of_the_change_promotes_a_challenger_that_knows_the_new_fares(winter: Months) -> None:
    challenger = winter.row("challenger", "2022-12")
    assert (challenger["trained_on"], challenger["since"]) == ("since_break", FARE_CHANGE)
    assert challenger["train_rows"] + challenger["validation_rows"] + challenger["test_rows"] == 26_284
    assert winter.status["2022-12"].decision == "promoted"
    assert winter.status["2022-12"].champion_version == challenger["version"]


def test_january_is_quiet_under_the_new_champion_and_severe_against_august(winter: Months) -> None:
    january = winter.status["2023-01"]
    assert (january.verdict, january.gate, january.served_rows) == ("ok", "champion", january.rows)
    assert winter.runs["2023-01"].served_after == ()
    assert winter.facts("drift_report", "2023-01")["champion_version"] == winter.status["2022-12"].champion_version
    old = against(winter, "2022-08", "2023-01")
    assert old.verdict == "severe"
    assert set(old.severe_columns) >= FARES


def against(months: Months, reference: str, current: str) -> DriftReport:
    spec = declared()
    first, end = spec.calendar.start(current), spec.calendar.end(current)
    return compare(
        months.profile(reference),
        months.profile(current),
        spec.kinds,
        spec.drift,
        first_day=first.date(),
        last_day=date.fromordinal(end.toordinal() - 1),
    )


# -- the default candidate ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("test_month", ["2021-03", "2021-08", "2022-10"])
def test_the_default_search_beats_the_replaced_system_and_the_floor(test_month: str, tmp_path: Path) -> None:
    spec = declared()
    with workbench(tmp_path, spec) as bench:
        ingest(bench, spec.calendar.window(test_month, (-2, 0)))
        plan = learning_plan.learning_plan(bench, test_month)
        assert plan.trained_on == "window"
        train, validation, test = [learning_plan.load_split(bench, plan.parts[role]) for role in learning_plan.ROLES]
    ours = search.train(
        train,
        validation,
        test,
        candidates=spec.candidates,
        kinds=spec.kinds,
        target=spec.target,
        metric=spec.metric,
        cut=spec.cut,
        trials=spec.trials,
        seed=spec.seed,
    )
    theirs = search.train(
        train,
        validation,
        test,
        candidates=[Candidate.model_validate(candidate) for candidate in SMALL["candidates"]],
        kinds=as_small_as_the_replaced_system().kinds,
        target=spec.target,
        metric=spec.metric,
        cut="tuned",
        trials=1,
        seed=42,
    )
    found, small = ours.metrics["test"], theirs.metrics["test"]
    assert len(ours.trials) >= 8
    assert found["auc"] >= 0.72
    assert found["auc"] > small["auc"] + 0.02
    # Above the other model at its own tuned cut, not only at the 0.5 that it was judged by.
    assert found["f1"] > small["f1"]
    assert found["f1"] > search.measure(test.target, theirs.test_scores, 0.5)["f1"]
    assert found["f1"] > found["f1_all_positive"]


# -- the replaced system's cleaning ---------------------------------------------------------------------------


def cleaned(period: str) -> pd.DataFrame:
    """The replaced system's rules, in pandas."""
    trips = pd.read_parquet(path(period))
    trips["record_id"] = np.arange(len(trips))
    pickup, dropoff = trips["lpep_pickup_datetime"], trips["lpep_dropoff_datetime"]
    trips["trip_duration_minutes"] = (dropoff - pickup).dt.total_seconds() / 60
    trips["pickup_hour"] = pickup.dt.hour
    trips["pickup_weekday"] = pickup.dt.weekday
    needed = ["payment_type", "fare_amount", "trip_distance", "lpep_pickup_datetime", "lpep_dropoff_datetime"]
    trips = trips.dropna(subset=needed)
    trips = trips[(trips["fare_amount"] > 0) & (trips["trip_distance"] > 0) & (trips["trip_duration_minutes"] > 0)]
    ones = ["RatecodeID", "VendorID", "trip_type"]
    zeros = ["PULocationID", "DOLocationID"]
    zeros += ["congestion_surcharge", "extra", "tolls_amount", "mta_tax", "improvement_surcharge"]
    trips = trips.fillna(dict.fromkeys(ones, 1) | dict.fromkeys(zeros, 0))
    trips["is_cash"] = (trips["payment_type"] == 2).astype(int)
    return trips


@pytest.mark.parametrize("period", ["2021-01", "2023-02"])
def test_features_follow_the_replaced_systems_cleaning_exactly(period: str, tmp_path: Path) -> None:
    spec = declared()
    with workbench(tmp_path, spec) as bench:
        raw_step.make(bench, period)
        checks = features_step.make(bench, period).checks
        ours = bench.con.sql(f"FROM {bench.scan('features', [period])} ORDER BY record_id").df()
    theirs = cleaned(period)
    assert all(check.passed for check in checks)
    assert list(spec.columns) == FEATURES
    assert ours["record_id"].tolist() == theirs["record_id"].tolist()
    for column in [*FEATURES, "is_cash"]:
        np.testing.assert_array_equal(
            ours[column].to_numpy("float64", na_value=np.nan),
            theirs[column].to_numpy("float64", na_value=np.nan),
            err_msg=column,
        )
    assert (ours["lpep_pickup_datetime"].to_numpy() == theirs["lpep_pickup_datetime"].to_numpy()).all()


FEATURES = [
    "fare_amount",
    "trip_distance",
    "passenger_count",
    "pickup_hour",
    "pickup_weekday",
    "trip_duration_minutes",
    "RatecodeID",
    "VendorID",
    "trip_type",
    "PULocationID",
    "DOLocationID",
    "congestion_surcharge",
    "extra",
    "tolls_amount",
    "mta_tax",
    "improvement_surcharge",
]


# -- every shipped month, and files gone wrong ----------------------------------------------------------------


def test_every_shipped_month_passes_its_quality_checks(tmp_path: Path) -> None:
    spec = declared()
    with workbench(tmp_path, spec) as bench:
        for period in spec.calendar.between(spec.start, spec.end or spec.start):
            checks = [*raw_step.make(bench, period).checks, *features_step.make(bench, period).checks]
            assert [f"{check.name}: {check.description}" for check in checks if not check.passed] == [], period


def test_a_bad_file_is_quarantined_with_what_to_do_and_the_other_months_go_on(tmp_path: Path) -> None:
    spec = declared(source=declared().source.model_copy(update={"url": None}))
    folder = tmp_path / "data" / NAME
    folder.mkdir(parents=True)

    def file(period: str) -> Path:
        return folder / path(period).name

    whole = pq.read_table(path("2021-02"))
    file("2021-01").symlink_to(path("2021-01"))
    file("2021-02").write_bytes(path("2021-02").read_bytes()[:-5000])
    file("2021-03").symlink_to(path("2021-01"))
    pq.write_table(whole.rename_columns(["PickupZone" if c == "PULocationID" else c for c in whole.column_names]),
                   file("2021-04"))  # fmt: skip
    pq.write_table(whole.slice(0, 0), file("2021-05"))
    file("2021-07").symlink_to(path("2021-07"))
    expected = {
        "2021-02": ("source_schema", "2021-02"),
        "2021-03": ("volume", "2021-01"),
        "2021-04": ("source_schema", "PULocationID"),
        "2021-05": ("volume", "at least one"),
        "2021-06": ("volume", "green_tripdata_2021-06.parquet"),
    }
    with workbench(tmp_path / "home", spec, tmp_path / "data") as bench:
        for period in spec.calendar.between("2021-01", "2021-07"):
            checks = raw_step.make(bench, period).checks
            features = features_step.make(bench, period).partition
            failed = {check.name: check.description for check in checks if not check.passed}
            if period not in expected:
                assert failed == {}, period
                assert features.rows > 30_000
                continue
            name, said = expected[period]
            assert said in failed[name]
            assert features.rows == 0
            assert failed[name] in (features.reason or "")
    assert not list((tmp_path / "home").rglob("*.tmp"))


# -- all months, with the default search ----------------------------------------------------------------------


@pytest.mark.slow
def test_no_month_but_that_of_the_fare_change_is_severe(tmp_path: Path) -> None:
    spec = declared()
    months = Months.of(tmp_path, spec, spec.start, spec.end or spec.start)
    for line in months.status.values():
        value = "" if line.metric_value is None else f"{line.metric_value:.3f}"
        print(line.period, line.verdict, line.decision, line.champion_version, value, line.served_source)
    assert len(months.status) == 27
    assert {period: run.outcome for period, run in months.runs.items() if run.outcome != "success"} == {
        "2022-12": "withheld"
    }
    assert [line.verdict for line in months.status.values()][:3] == ["none"] * 3
    after = {period: line for period, line in months.status.items() if period >= "2021-04"}
    assert [period for period, line in after.items() if line.verdict == "severe"] == ["2022-12"]
    assert [period for period, line in after.items() if line.served_rows != line.rows] == []
    assert [period for period, line in after.items() if line.served_source != "champion"] == ["2022-12"]
    assert months.status["2022-12"].served_source == "plan_b"
    assert months.facts("drift_report", "2022-12")["since"] == str(FARE_CHANGE)
    assert set(months.facts("drift_report", "2022-12")["severe_columns"]) == FARES
    assert months.row("challenger", "2022-12")["trained_on"] == "since_break"
    assert months.status["2022-12"].decision == "promoted"
    for test_month in ("2021-03", "2021-08", "2022-10"):
        assert json.loads(months.row("challenger", test_month)["test_metrics"])["auc"] >= 0.72
