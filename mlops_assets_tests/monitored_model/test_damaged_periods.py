"""One damaged file makes its period damaged, and nothing else; making the period again repairs it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import mlops_assets
from mlops_assets import monitoring
from mlops_assets.cli import main
from mlops_assets.lake.connection import DamagedWarning
from mlops_assets.lake.store import DamagedPartition
from mlops_assets.monitored_model.arrivals import arrivals
from mlops_assets.monitored_model.reconciling import order_runs, period_runs, plan_b_runs, retrain_runs
from mlops_assets.monitored_model.steps import features, predictions, served_predictions
from mlops_assets_tests import rides_graph, tiny_model
from mlops_assets_tests.monitored_model.conftest import MADE, TURNED, History

PERIOD = "2021-05"


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[random.Random(len(content)).randrange(len(content))] ^= 1
    path.write_bytes(content)


KINDS: list[Callable[[Path], object]] = [
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:100]),
    lambda path: pq.write_table(pa.table({"x": [1]}), path),
    flip_a_bit,
]


@contextmanager
def damaged(history: History, table: str, period: str, kind: Callable[[Path], object]) -> Iterator[None]:
    """A damaged partition, put right at the end. Bytes are known to be compared: a verification has been made."""
    path = Path(history.lake.files("rides", table, [period], verify=False)[0])
    before = path.read_bytes()
    path.chmod(0o644)
    try:
        kind(path)
        history.lake.forget_verified()
        assert history.lake.find("rides", table, period, verify=True).damaged
        yield
    finally:
        path.write_bytes(before)
        history.lake.forget_verified()


def statuses(history: History) -> dict[str, monitoring.PeriodStatus]:
    return {line.period: line for line in monitoring.periods(history.lake, "rides")}


@pytest.mark.parametrize("kind", KINDS, ids=["empty", "truncated", "foreign", "flipped"])
def test_status_sql_and_what_is_due_go_on_with_the_other_periods(
    own_history: History, kind: Callable[[Path], object]
) -> None:
    spec, lake, store = tiny_model.spec(), own_history.lake, own_history.store
    before = statuses(own_history)
    for table in rides_graph.TABLES:
        with damaged(own_history, table, PERIOD, kind):
            now = statuses(own_history)
            assert list(now) == MADE
            assert now[PERIOD].gate == "damaged"
            assert f"rides/{table} of {PERIOD} is damaged" in str(now[PERIOD].reason)
            assert "mlops-assets backfill rides 2021-05" in str(now[PERIOD].reason)
            for period in MADE:
                if period != PERIOD:
                    assert (now[period].gate, now[period].verdict) == (before[period].gate, before[period].verdict)
            with pytest.warns(DamagedWarning, match=f"{table} of {PERIOD} is damaged"):
                con = mlops_assets.connect(lake, store, verify=[f"rides.{view}" for view in ("features", "drift")])
            with con:
                periods = con.execute(
                    f"SELECT DISTINCT period FROM rides.{_view(table)} WHERE period <> '{PERIOD}' ORDER BY ALL"
                ).fetchall()
                assert {period for (period,) in periods} <= set(MADE)
                assert con.execute("SELECT count(*) FROM rides.served_predictions").fetchall()
            found = arrivals(spec, lake, MADE, {})
            due = [
                *plan_b_runs(spec, lake, store, own_history.instance).runs,
                *period_runs(spec, lake, store, own_history.instance, found).runs,
                *order_runs(spec, lake, store, own_history.instance).runs,
                *retrain_runs(spec, lake, store, own_history.instance).runs,
            ]
            assert {wanted.period for wanted in due} <= {PERIOD}
    assert statuses(own_history) == before


def _view(table: str) -> str:
    return {"champion": "champions", "challenger": "challengers", "drift_report": "drift"}.get(table, table)


def test_commands_about_a_period_or_a_model_answer_whatever_is_damaged(own_history: History) -> None:
    runner = CliRunner()
    for number, table in enumerate(rides_graph.TABLES):
        with damaged(own_history, table, PERIOD, KINDS[number % len(KINDS)]):
            for command in (
                ["status", "rides", PERIOD],
                ["incidents", "list", "--all"],
                ["incidents", "show", "rides", PERIOD],
                ["champion", "show", "rides"],
                ["champion", "history", "rides"],
                ["log", "rides"],
            ):
                said = runner.invoke(main, command)
                assert (said.exit_code, said.exception) == (0, None), (table, command, said.output)
            assert "is damaged" in runner.invoke(main, ["status", "rides", PERIOD]).output


def test_making_the_period_again_repairs_it(own_history: History) -> None:
    newest = MADE[-1]
    before = statuses(own_history)
    for number, table in enumerate(rides_graph.TABLES):
        path = Path(own_history.lake.files("rides", table, [newest], verify=False)[0])
        path.chmod(0o644)
        KINDS[number % len(KINDS)](path)
    own_history.lake.forget_verified()
    assert statuses(own_history)[newest].gate == "damaged"
    result = own_history.run(newest)[newest]
    assert result.outcome == "success", result.errors
    assert statuses(own_history) == before
    assert own_history.lake.sound("rides", "features", verify=True)[1] == {}


def test_a_damaged_period_of_a_window_is_left_out_with_the_reason(own_history: History) -> None:
    with damaged(own_history, "features", PERIOD, KINDS[3]):
        result = own_history.run("2021-06")["2021-06"]
        assert result.outcome in ("success", "withheld"), result.errors
        reason = own_history.partition("challenger", "2021-06").reason
        assert reason is not None
        assert f"no usable period to validate on: {PERIOD} rides/features of {PERIOD} is damaged" in reason


def test_a_step_whose_own_input_is_damaged_fails_and_replaces_nothing(own_history: History) -> None:
    before = own_history.partition("predictions", PERIOD).digest
    with (
        damaged(own_history, "features", PERIOD, KINDS[3]),
        tiny_model.workbench(own_history.home.root, own_history.data) as bench,
        pytest.raises(DamagedPartition, match=f"rides/features of {PERIOD} is damaged"),
    ):
        predictions.make(bench, PERIOD)
    with (
        damaged(own_history, "predictions", PERIOD, KINDS[3]),  # a rewritten score is not served
        tiny_model.workbench(own_history.home.root, own_history.data) as bench,
        pytest.raises(DamagedPartition, match=f"rides/predictions of {PERIOD} is damaged"),
    ):
        served_predictions.make(bench, PERIOD)
    assert own_history.partition("predictions", PERIOD).digest == before
    assert own_history.partition("served_predictions", PERIOD).rows == 600


def test_without_the_champion_before_it_a_period_is_withheld_and_scored_by_nobody(own_history: History) -> None:
    newest = MADE[-1]
    with (
        damaged(own_history, "champion", newest, KINDS[3]),
        tiny_model.workbench(own_history.home.root, own_history.data) as bench,
    ):
        gate = bench.gate(TURNED)
        assert gate.state == "withheld"
        assert f"rides/champion of {newest} is damaged" in gate.reason
        with pytest.raises(DamagedPartition, match="rides/champion"):
            bench.champion_before(TURNED)


def test_raw_rows_that_are_damaged_are_kept_when_their_source_is_gone(own_history: History) -> None:
    (own_history.data / "rides" / f"{PERIOD}.parquet").unlink()
    with damaged(own_history, "raw_rides", PERIOD, KINDS[3]):
        result = own_history.run(PERIOD)[PERIOD]
        assert result.outcome == "failed"
        assert "but its source is not there" in str(result.errors)
    assert own_history.partition("features", PERIOD).rows == 600


def test_the_query_sees_the_raw_rows_of_its_period_and_history_only(own_history: History) -> None:
    other = own_history.lake.files("rides", "raw_rides", ["2021-01"])[0]
    sql = f"SELECT * REPLACE ((SELECT count(*) FROM '{other}') AS fare) FROM ({tiny_model.SQL})"
    with (
        tiny_model.workbench(own_history.home.root, own_history.data, sql=sql) as bench,
        pytest.raises(Exception, match="Cannot access file"),
    ):
        features.make(bench, PERIOD)
    assert own_history.partition("features", PERIOD).rows == 600


def test_verify_says_what_is_damaged_and_sql_warns_of_it(own_history: History) -> None:
    runner = CliRunner()
    assert runner.invoke(main, ["verify", "rides"]).exit_code == 0
    with damaged(own_history, "features", PERIOD, KINDS[3]):
        said = runner.invoke(main, ["verify", "--json"])
        assert said.exit_code == 1
        assert '"period": "2021-05"' in said.stdout
        said = runner.invoke(main, ["sql", "select distinct period from rides.features order by all"])
        assert said.exit_code == 0
        assert said.stdout.split() == ["period", *(period for period in MADE if period != PERIOD)]
        assert "left out of rides.features: rides/features of 2021-05 is damaged" in said.stderr
        shown = runner.invoke(main, ["status", "rides"])
        assert shown.exit_code == 0
        assert "1 damaged" in shown.stdout
    for refused in ("copy (select 1) to 'x.csv'", "select 1; select 2", "from read_csv('/etc/hostname')"):
        said = runner.invoke(main, ["sql", refused])
        assert said.exit_code == 1
        assert not said.stdout
