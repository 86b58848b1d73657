"""The shipped pasta sales: weeks of a wide table, two scenarios, a plan that is known before its units are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from mlops_assets.definitions import shared_resources
from mlops_assets.home import Home
from mlops_assets.incidents.store import Store
from mlops_assets.lake.connection import connect
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model import decisions
from mlops_assets.monitored_model.arrivals import arrivals
from mlops_assets.monitored_model.component import build_definitions
from mlops_assets.monitored_model.gates import newest_to_train, period_gate
from mlops_assets.monitored_model.jobs import CHAMPION_KIND
from mlops_assets.monitored_model.outcome import Check
from mlops_assets.monitored_model.reconciling import FOLLOWS_TAG, difference, opened_periods, order_runs, retrain_runs
from mlops_assets.monitored_model.scoring import champion_model
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.steps import drift_report as drift_report_step
from mlops_assets.monitored_model.steps import features as features_step
from mlops_assets.monitored_model.steps import predictions as predictions_step
from mlops_assets.monitored_model.steps import profile as profile_step
from mlops_assets.monitored_model.steps import raw as raw_step
from mlops_assets.monitored_model.steps import served_predictions as served_step
from mlops_assets.monitored_model.versions import by_number
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets.training import tracking
from mlops_assets_tests.end_to_end.shipped import DATA, ShippedModel

pytestmark = pytest.mark.real_data

SALES = ShippedModel("unit_sales")
FILE = "unit_sales/hierarchical_sales_data.csv"
WEEKS = SALES.declared().calendar.between("2016-01-04", "2016-03-07")
FIRST, CHAMPION, OPENED, LAST = WEEKS[0], WEEKS[5], WEEKS[8], WEEKS[9]
METRICS = {"mae", "rmse", "wmape", "bias"}


def quick(**changes: Any) -> ModelSpec:
    """The shipped declaration with windows of a few weeks, a quarter of history and a small search."""
    window = {"train": [-5, -3], "validation": [-2, -2], "test": [-1, 0], "min_rows": 1}
    return SALES.declared(**({"start": FIRST, "window": window, "history": 12, "trials": 2} | changes))


def wide() -> pd.DataFrame:
    return pd.read_csv(DATA / FILE, dtype=str, keep_default_na=False)


def write(folder: Path, table: pd.DataFrame, **options: Any) -> Path:
    """A data folder with this table in place of the shipped one."""
    (folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / FILE, index=False, **options)
    return folder


def in_week(table: pd.DataFrame, week: str, weeks: int = 1) -> pd.Series:
    end = datetime.fromisoformat(week) + timedelta(weeks=weeks)
    return (table["DATE"] >= week) & (table["DATE"] < f"{end:%Y-%m-%d}")


def units(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if name.startswith("QTY_")]


def made(bench: Workbench, week: str) -> pd.DataFrame:
    """The week's features, with raw rows of all weeks before it."""
    for earlier in bench.spec.calendar.window(week, (-bench.spec.history, 0)):
        if bench.find("raw_sales", earlier) is None:
            raw_step.make(bench, earlier)
    features_step.make(bench, week)
    return bench.con.sql(f"FROM {bench.scan('features', [week])} ORDER BY article, scenario").df()


# -- features -------------------------------------------------------------------------------------------------


def replaced_by_pandas(week: str) -> pd.DataFrame:
    """A few of the features of a week, from the wide table by pandas: the index is the article."""
    table = pd.read_csv(DATA / FILE, parse_dates=["DATE"]).set_index("DATE")
    sums = table.filter(like="QTY_").resample("W-MON", label="left", closed="left").sum()
    promoted = table.filter(like="PROMO_").resample("W-MON", label="left", closed="left").max()
    sums.columns = sums.columns.str.replace("QTY_", "")
    promoted.columns = promoted.columns.str.replace("PROMO_", "")
    start = pd.Timestamp(week)
    past = sums[(sums.index < start) & (sums.index >= start - pd.Timedelta(weeks=53))]
    offers = promoted.loc[past.index]
    return pd.DataFrame(
        {
            "units": sums.loc[start],
            "promotion": promoted.loc[start],
            "units_1_week_ago": past.iloc[-1],
            "units_52_weeks_ago": past.iloc[-52],
            "mean_units_4_weeks": past.iloc[-4:].mean(),
            "deviation_units_12_weeks": past.iloc[-12:].std(ddof=0),
            "mean_units_52_weeks": past.iloc[-52:].mean(),
            "promoted_weeks_12": offers.iloc[-12:].sum(),
        }
    )


def test_features_are_those_of_an_independent_calculation(tmp_path: Path) -> None:
    week = "2016-02-01"
    spec = SALES.declared(start="2015-01-05")
    with SALES.workbench(tmp_path, spec) as bench:
        ours = made(bench, week)
    theirs = replaced_by_pandas(week)
    planned = ours[ours["planned"]].set_index("article")
    assert len(planned) > 100
    assert set(planned.index) <= set(theirs.index)
    assert not theirs.loc[theirs.index.difference(planned.index), "mean_units_52_weeks"].any()
    for column in theirs:
        np.testing.assert_allclose(
            planned[column].astype(float), theirs.loc[planned.index, column].astype(float), err_msg=column
        )


def test_each_article_has_both_scenarios_and_the_planned_one_alone_has_an_outcome(tmp_path: Path) -> None:
    with SALES.workbench(tmp_path, quick()) as bench:
        found = made(bench, WEEKS[2])
        assert bench.partition("features", WEEKS[2]).facts["records"] == found["article"].nunique()
    pairs = found.groupby("article")["promotion"].agg(["min", "max", "size"])
    assert pairs.drop_duplicates().to_numpy().tolist() == [[0, 1, 2]]
    assert found.groupby("article")["planned"].sum().eq(1).all()
    assert found["units"].notna().equals(found["planned"])


def test_no_row_of_the_week_or_later_can_change_a_feature_but_the_plan(tmp_path: Path) -> None:
    week, spec = "2016-02-01", SALES.declared(start="2015-01-05")
    table = wide()
    changed = table.copy()
    later = table["DATE"] >= week
    changed.loc[later, units(table)] = "999"
    after = table["DATE"] > max(table.loc[in_week(table, week), "DATE"])
    changed.loc[after, [name for name in table.columns if name.startswith("PROMO_")]] = "1"
    found = []
    for number, data in enumerate((DATA, write(tmp_path / "data", changed))):
        with SALES.workbench(tmp_path / str(number), spec, data) as bench:
            for weeks_back in ((-53, -52), (-4, 0)):
                for known in spec.calendar.window(week, weeks_back):
                    raw_step.make(bench, known)
            features_step.make(bench, week)
            found.append(rows_of(bench, "features", week))
    before, now = found
    assert before[["units_1_week_ago", "units_52_weeks_ago", "mean_units_52_weeks"]].notna().to_numpy().all()
    columns = [name for name in before.columns if name != "units"]
    pd.testing.assert_frame_equal(before[columns], now[columns])
    sold = now.loc[now["planned"], "units"]
    assert (sold > before.loc[before["planned"], "units"]).all(), "the table was really changed"


# -- the weeks through the graph ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weeks:
    """What a backfill of the weeks left behind; the last two were planned only when they were made first."""

    home: Home
    data: Path
    lake: Lake
    opened: dict[str, str]  # digest of each table of the opened week, as it was then
    served: pd.DataFrame  # what was served for it then


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> Weeks:
    root = tmp_path_factory.mktemp("unit_sales")
    table, data = wide(), root / "data"
    table = table[table["DATE"] < f"{datetime.fromisoformat(LAST) + timedelta(weeks=1):%Y-%m-%d}"]
    planned = table.copy()
    planned.loc[planned["DATE"] >= OPENED, units(table)] = ""
    write(data, planned)
    spec = quick()
    lake, results = SALES.backfilled(root / "home", spec, FIRST, OPENED, data)
    assert [result.outcome for result in results] == ["success"] * 9, [result.errors for result in results]
    opened = {name: lake.partition("unit_sales", name, OPENED).digest for name in lake.tables("unit_sales")}
    with connect(lake) as con:
        served = con.sql(f"FROM unit_sales.served_predictions WHERE period = '{OPENED}' ORDER BY article").df()
    assert lake.partition("unit_sales", "challenger", OPENED).reason == (
        f"no outcome of {OPENED} is known yet: it trains when they come"
    )
    assert opened_periods(spec, lake, datetime.fromisoformat(LAST)) == [OPENED]
    arrived = table.copy()
    arrived.loc[arrived["DATE"] >= LAST, units(table)] = ""
    write(data, arrived)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOPS_DATA_DIR", str(data))
        found = arrivals(spec, lake, WEEKS, {})
        assert [(one.period, one.why) for one in found] == [
            (OPENED, "its rows have changed since they were ingested"),
            (LAST, "its rows have arrived"),
        ]
    _, results = SALES.backfilled(root / "home", spec, OPENED, LAST, data)
    assert [result.outcome for result in results] == ["success"] * 2, [result.errors for result in results]
    return Weeks(Home(root / "home"), data, lake, opened, served)


def test_a_week_is_served_before_its_units_are_known(weeks: Weeks) -> None:
    features = weeks.lake.partition("unit_sales", "features", LAST).facts
    assert (features["opened"], features["outcomes"]) == (True, 0)
    with connect(weeks.lake) as con:
        served = con.sql(f"FROM unit_sales.served_predictions WHERE period = '{LAST}'").df()
        scored = con.sql(f"FROM unit_sales.predictions WHERE period = '{LAST}'").df()
    assert len(served) == features["records"] == scored["article"].nunique()
    assert len(scored) == 2 * len(served), "both scenarios are scored"
    planned = scored[scored["planned"]].set_index("article")["score"]
    pd.testing.assert_series_equal(served.set_index("article")["score"].sort_index(), planned.sort_index())
    means = scored.groupby("promotion")["score"].mean()
    assert means[1] > means[0], "a promotion sells more"


def test_a_completed_week_is_measured_and_trained_on_without_changing_what_was_served(weeks: Weeks) -> None:
    now = {name: weeks.lake.partition("unit_sales", name, OPENED).digest for name in weeks.opened}
    same = {name for name, digest in now.items() if digest == weeks.opened[name]}
    assert {"profile", "predictions", "drift_report", "fallback_predictions", "served_predictions"} <= same
    assert not {"raw_sales", "features", "performance", "challenger"} & same
    with connect(weeks.lake) as con:
        served = con.sql(f"FROM unit_sales.served_predictions WHERE period = '{OPENED}' ORDER BY article").df()
    pd.testing.assert_frame_equal(served, weeks.served)
    assert weeks.lake.partition("unit_sales", "challenger", OPENED).rows == 1
    assert weeks.lake.partition("unit_sales", "performance", OPENED).facts["metric"] == "wmape"


def test_what_was_planned_otherwise_in_the_end_changes_nothing_of_what_was_served(weeks: Weeks, tmp_path: Path) -> None:
    """A promotion that was called off after the week began: outcomes are added, features stay as they were."""
    table = pd.read_csv(weeks.data / FILE, dtype=str, keep_default_na=False)
    table.loc[in_week(table, LAST), [name for name in table.columns if name.startswith("PROMO_")]] = "0"
    table.loc[in_week(table, LAST), units(table)] = "3"
    data = write(tmp_path / "data", table)
    shutil.copytree(weeks.home.root, tmp_path / "copy", symlinks=True)
    with SALES.workbench(tmp_path / "copy", quick(), data) as bench:
        before = bench.con.sql(f"FROM {bench.scan('features', [LAST])} ORDER BY article, scenario").df()
        gate = period_gate(bench.spec, bench.lake, bench.store, LAST)
        raw_step.make(bench, LAST)
        features_step.make(bench, LAST)
        after = bench.con.sql(f"FROM {bench.scan('features', [LAST])} ORDER BY article, scenario").df()
        pd.testing.assert_frame_equal(before.drop(columns="units"), after.drop(columns="units"))
        assert after.loc[after["promotion"].eq(0) & after["planned"], "units"].notna().all()
        assert period_gate(bench.spec, bench.lake, bench.store, LAST) == gate
        assert difference(bench.spec, bench.lake, LAST, gate) is None


def test_the_schedule_opens_the_week_that_begins_and_completes_those_before(
    weeks: Weeks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_HOME", str(weeks.home.root))
    shared = shared_resources()
    definitions = dg.Definitions.merge(build_definitions(quick(), SALES.sql), dg.Definitions(resources=shared))
    schedule = definitions.resolve_schedule_def("unit_sales_weekly_schedule")
    assert schedule.cron_schedule == "0 0 * * 1", "the midnight that ends Sunday"
    midnight = datetime.fromisoformat(LAST) + timedelta(weeks=1)
    with dg.build_schedule_context(
        scheduled_execution_time=midnight.replace(tzinfo=UTC),
        resources={name: shared[name] for name in ("lake", "store")},
        repository_def=definitions.get_repository_def(),
    ) as context:
        asked = schedule.evaluate_tick(context).run_requests
    assert [request.partition_key for request in asked or []] == [LAST, f"{midnight:%Y-%m-%d}"]


def test_metrics_are_kept_by_brand(weeks: Weeks) -> None:
    with connect(weeks.lake) as con:
        rows = con.sql(
            f"SELECT segment, metric FROM unit_sales.performance WHERE period = '{OPENED}' AND segment_column = 'brand'"
        ).fetchall()
    assert {"B1", "B2", "B3", "B4"} == {brand for brand, _ in rows}
    for brand in ("B1", "B4"):
        assert {metric for found, metric in rows if found == brand} >= METRICS


def test_drift_metrics_of_all_weeks_are_one_series_in_the_experiment_drift_detection(weeks: Weeks) -> None:
    client = tracking.client(weeks.home.tracking_uri)
    experiment = client.get_experiment_by_name("Drift Detection")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "unit_sales drift"
    steps = {metric.step for metric in client.get_metric_history(run.info.run_id, "psi/scores")}
    scored = [week for week in WEEKS if weeks.lake.partition("unit_sales", "predictions", week).rows]
    assert steps == {WEEKS.index(week) for week in scored}
    assert {"verdict", "share_of_severe_columns", "psi/units_1_week_ago"} <= run.data.metrics.keys()


def test_whoever_becomes_champion_has_beaten_the_same_week_a_year_ago(weeks: Weeks) -> None:
    decided = {}
    for week in WEEKS:
        baseline = weeks.lake.partition("unit_sales", "challenger", week).facts.get("baseline")
        if baseline is not None:
            decision = weeks.lake.partition("unit_sales", "champion", week).facts["decision"]
            decided[week] = (decision, baseline["beaten"])
            assert baseline["beaten"] == (baseline["challenger_value"] < baseline["value"])
    assert ("first", True) in decided.values()
    assert {decision for decision, beaten in decided.values() if not beaten} <= {"none", "retained"}


@pytest.mark.slow
def test_a_challenger_that_a_naive_forecast_beats_is_never_champion(tmp_path: Path) -> None:
    constant = {"estimator": "sklearn.dummy.DummyRegressor", "name": "mean"}
    lake, results = SALES.backfilled(tmp_path, quick(candidates=[constant]), FIRST, CHAMPION)
    assert {result.outcome for result in results} == {"success"}
    champion = lake.partition("unit_sales", "champion", CHAMPION)
    assert champion.facts["decision"] == "none"
    assert "the naive forecast seasonal_naive is not beaten: wmape" in str(champion.reason)


# -- what was served stays ------------------------------------------------------------------------------------


@pytest.fixture
def begun(weeks: Weeks, tmp_path: Path) -> Path:
    """A copy of the weeks' home: the last one is served, and its units are not known."""
    shutil.copytree(weeks.home.root, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def during(weeks: Weeks, tmp_path: Path, change: Callable[[pd.DataFrame, pd.Series], object]) -> Path:
    """A data folder whose table of the last week was changed."""
    table = pd.read_csv(weeks.data / FILE, dtype=str, keep_default_na=False)
    change(table, in_week(table, LAST))
    return write(tmp_path / "changed", table)


def again(bench: Workbench, week: str) -> None:
    for step in (raw_step, features_step, predictions_step):
        step.make(bench, week)


def rows_of(bench: Workbench, table: str, week: str) -> pd.DataFrame:
    return bench.con.sql(f"FROM {bench.scan(table, [week])} ORDER BY article, scenario").df()


def test_units_that_come_day_by_day_and_a_plan_that_changes_in_the_week_touch_nothing(
    weeks: Weeks, begun: Path, tmp_path: Path
) -> None:
    def change(table: pd.DataFrame, week: pd.Series) -> None:
        table.loc[week, [name for name in table.columns if name.startswith("PROMO_")]] = "0"
        table.loc[table.index[week][:2], units(table)] = "5"

    with SALES.workbench(begun, quick(), during(weeks, tmp_path, change)) as bench:
        before = {name: bench.partition(name, LAST).digest for name in ("raw_sales", "features", "predictions")}
        again(bench, LAST)
        now = {name: bench.partition(name, LAST).digest for name in before}
    assert before.pop("raw_sales") != now.pop("raw_sales"), "the file was really changed"
    assert now == before


def test_a_champion_that_came_after_the_week_was_opened_does_not_score_it_and_is_in_force_after_it(
    weeks: Weeks, begun: Path
) -> None:
    with SALES.workbench(begun, quick(), weeks.data) as bench:
        served_by = bench.partition("predictions", LAST).facts["version"]
        decided = bench.partition("champion", OPENED)
        other = next(v for v in ("1", "2", "3") if v != served_by)
        named = by_number(bench.lake, "unit_sales", other, OPENED)
        rows = bench.con.sql(
            f"SELECT * EXCLUDE (period) REPLACE ('{other}' AS version) FROM {bench.scan('champion', [OPENED])}"
        )
        bench.write("champion", OPENED, rows.to_arrow_table(), facts=decided.facts | named.facts() | {"version": other})
        assert champion_model(bench, LAST).version == other
        with dg.DagsterInstance.ephemeral() as instance:
            (wanted,) = order_runs(bench.spec, bench.lake, bench.store, instance).runs
        assert (wanted.kind, wanted.period, wanted.tags[FOLLOWS_TAG]) == (CHAMPION_KIND, LAST, other)
        before = bench.partition("predictions", LAST)
        again(bench, LAST)
        now = bench.partition("predictions", LAST)
    assert (now.digest, now.facts["version"]) == (before.digest, served_by)


def test_a_broken_file_with_the_units_takes_nothing_back_and_its_repair_completes_the_week(
    weeks: Weeks, begun: Path, tmp_path: Path
) -> None:
    def sold(table: pd.DataFrame, week: pd.Series) -> None:
        table.loc[week, units(table)] = "7"

    def three_days_missing(table: pd.DataFrame, week: pd.Series) -> None:
        sold(table, week)
        table.drop(index=table.index[week][1:4], inplace=True)

    broken = during(weeks, tmp_path / "broken", three_days_missing)
    with SALES.workbench(begun, quick(), broken) as bench:
        before = {name: bench.partition(name, LAST).digest for name in ("features", "predictions")}
        gate = period_gate(bench.spec, bench.lake, bench.store, LAST)
        again(bench, LAST)
        again(replace(bench, sql=bench.sql.replace("FILTER (age <= 4)", "FILTER (age <= 2)")), LAST)
        assert {name: bench.partition(name, LAST).digest for name in before} == before
        assert period_gate(bench.spec, bench.lake, bench.store, LAST) == gate
        assert difference(bench.spec, bench.lake, LAST, gate) is None
        (incident,) = bench.store.incidents(model="unit_sales", period=LAST, kind="quality")
        assert incident.state == "open"
    with SALES.workbench(begun, quick(), during(weeks, tmp_path / "repaired", sold)) as bench:
        again(bench, LAST)
        assert bench.partition("features", LAST).facts["outcomes"] > 100
        assert bench.partition("predictions", LAST).digest == before["predictions"]
        assert bench.store.incident(incident.id).state == "resolved"


def test_another_definition_of_a_feature_reaches_an_opened_week_and_leaves_what_was_served(
    weeks: Weeks, begun: Path, tmp_path: Path
) -> None:
    def one_article_less(table: pd.DataFrame, week: pd.Series) -> None:
        table.loc[week, units(table)] = "7"
        table.drop(columns=["QTY_B1_1", "PROMO_B1_1"], inplace=True)

    with SALES.workbench(begun, quick(), during(weeks, tmp_path, one_article_less)) as bench:
        features, predictions = rows_of(bench, "features", LAST), rows_of(bench, "predictions", LAST)
        served = bench.partition("served_predictions", LAST).digest
        gate = period_gate(bench.spec, bench.lake, bench.store, LAST)
        changed = replace(bench, sql=bench.sql.replace("FILTER (age <= 4)", "FILTER (age <= 2)"))
        again(changed, LAST)
        now = rows_of(bench, "features", LAST)
        assert len(now) == len(features) - 2
        both = features["article"].isin(now["article"])
        assert now["mean_units_4_weeks"].tolist() != features.loc[both, "mean_units_4_weeks"].tolist()
        assert now["units"].notna().any()
        pd.testing.assert_frame_equal(rows_of(bench, "predictions", LAST), predictions)
        for step in (profile_step, drift_report_step, served_step):
            step.make(changed, LAST)
        assert period_gate(bench.spec, bench.lake, bench.store, LAST) == gate
        assert bench.partition("served_predictions", LAST).digest == served
        assert difference(bench.spec, bench.lake, LAST, gate) is None


def test_a_wish_to_retrain_goes_to_the_newest_week_whose_units_are_known(weeks: Weeks, begun: Path) -> None:
    with SALES.workbench(begun, quick(), weeks.data) as bench:
        assert newest_to_train(bench.lake, "unit_sales") == OPENED
        cause = decisions.retrain("unit_sales", bench.lake, bench.store, "ann", "new range")
        assert cause.period == OPENED
        with dg.DagsterInstance.ephemeral() as instance:
            (wanted,) = retrain_runs(bench.spec, bench.lake, bench.store, instance).runs
    assert wanted.period == OPENED


# -- bad files ------------------------------------------------------------------------------------------------


def judged(tmp_path: Path, table: pd.DataFrame, week: str, **options: Any) -> dict[str, Check]:
    """The checks of a week's raw rows and features from this table."""
    data = write(tmp_path / "data", table, **options)
    with SALES.workbench(tmp_path / "home", quick(history=0), data) as bench:
        outcomes = [raw_step.make(bench, week), features_step.make(bench, week)]
    return {check.name: check for outcome in outcomes for check in outcome.checks}


def test_a_week_with_missing_days_is_quarantined_and_holidays_are_a_warning(tmp_path: Path) -> None:
    table = wide()
    christmas = judged(tmp_path / "christmas", table, "2018-12-24")["volume"]
    assert (christmas.passed, christmas.severity) == (False, "WARN")
    assert christmas.description.startswith("No row in 2018-12-24 of 2018-12-25, 2018-12-26. Up to 2 days may be")
    assert judged(tmp_path / "whole", table, FIRST)["volume"].passed
    days = table.loc[in_week(table, FIRST), "DATE"].tolist()
    cut = judged(tmp_path / "cut", table[~table["DATE"].isin(days[2:5])], FIRST)["volume"]
    assert (cut.passed, cut.severity) == (False, "ERROR")
    assert f"3 days of {FIRST} have no row ({', '.join(days[2:5])})" in cut.description


def test_a_day_without_its_date_is_told_by_each_week(tmp_path: Path) -> None:
    table = wide()
    table.loc[table.index[in_week(table, FIRST)][2], "DATE"] = ""
    for number, week in enumerate((FIRST, WEEKS[1])):
        check = judged(tmp_path / str(number), table, week)["in_period"]
        assert (check.passed, check.severity, check.metadata["rows_without_time"]) == (False, "WARN", 118)


def test_days_that_occur_twice_are_an_error_that_names_the_key(tmp_path: Path) -> None:
    table = wide()
    twice = judged(tmp_path, pd.concat([table, table[in_week(table, FIRST)]]), FIRST)
    assert not twice["volume"].passed
    assert "the same key more than once" in twice["source_schema"].description


@pytest.mark.parametrize("options", [{"sep": ";"}, {"encoding": "utf-16"}])
def test_another_delimiter_or_encoding_is_an_error_that_says_so(options: dict, tmp_path: Path) -> None:
    check = judged(tmp_path, wide(), FIRST, **options)["source_schema"]
    assert (check.passed, check.severity) == (False, "ERROR")
    assert "query can't be run over its columns" in check.description or "csv options" in check.description


def test_an_article_that_vanishes_is_scored_no_more_and_a_new_one_from_its_first_week(tmp_path: Path) -> None:
    table = wide()
    gone = table.drop(columns=["QTY_B1_1", "PROMO_B1_1"])
    gone["QTY_B9_1"], gone["PROMO_B9_1"] = "7", "0"
    with SALES.workbench(tmp_path / "home", quick(), DATA) as bench:
        made(bench, WEEKS[2])
    with SALES.workbench(tmp_path / "home", quick(), write(tmp_path / "data", gone)) as bench:
        articles = set(made(bench, WEEKS[3])["article"])
    assert "B1_1" not in articles
    assert "B9_1" in articles


def test_outcomes_that_are_wrong_are_a_failed_check(tmp_path: Path) -> None:
    table = wide()
    table.loc[in_week(table, FIRST), "QTY_B1_1"] = "many"
    check = judged(tmp_path, table, FIRST)["source_schema"]
    assert (check.passed, "values like 'many'" in check.description) == (False, True)


def test_weeks_before_the_first_have_no_incident_and_a_history_with_holes_warns(tmp_path: Path) -> None:
    with SALES.workbench(tmp_path, quick(), DATA) as bench:
        raw_step.make(bench, FIRST)
        (_, first) = features_step.make(bench, FIRST).checks
        raw_step.make(bench, WEEKS[3])
        (_, later) = features_step.make(bench, WEEKS[3]).checks
        assert Store(bench.home.store_url).incidents() == []
    assert first.passed
    assert (later.passed, later.severity) == (False, "WARN")
    assert f"2 of 12 periods of history can't be looked at ({WEEKS[1]}, {WEEKS[2]})" in later.description
