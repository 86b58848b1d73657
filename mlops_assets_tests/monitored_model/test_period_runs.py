"""A period whose file arrives, or whose run broke off, is made once, in order, and not for ever."""

from __future__ import annotations

import time

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.utils import make_new_run_id

from mlops_assets.home import sensor_seconds
from mlops_assets.monitored_model.arrivals import Arrival
from mlops_assets.monitored_model.jobs import KIND_TAG, MODEL_TAG, PERIOD_KIND
from mlops_assets.monitored_model.reconciling import (
    ARRIVAL_TAG,
    FIRST_PAUSE_INTERVALS,
    MAX_ATTEMPTS,
    Plan,
    Wanted,
    is_whole,
    period_runs,
)
from mlops_assets.monitored_model.resources import PARTITION_TAG
from mlops_assets_tests import tiny_model
from mlops_assets_tests.monitored_model.conftest import MADE, History

SPEC = tiny_model.spec()
FILES = [Arrival("2021-07", "a", "its file has arrived"), Arrival("2021-08", "b", "its file has arrived")]
LONG_AFTER = FIRST_PAUSE_INTERVALS * sensor_seconds() * 2.0**MAX_ATTEMPTS


def planned(history: History, *arrived: Arrival, later: float = 0.0) -> Plan:
    return period_runs(SPEC, history.lake, history.store, history.instance, arrived, now=time.time() + later)


def broken_off(history: History, wanted: Wanted) -> None:
    """A run that was asked for, and killed."""
    tags = {MODEL_TAG: "rides", KIND_TAG: PERIOD_KIND, PARTITION_TAG: wanted.period, **wanted.tags}
    run = dg.DagsterRun("rides_monthly", run_id=make_new_run_id(), tags=tags)
    history.instance.add_run(run)
    event = DagsterEvent(DagsterEventType.RUN_START.value, job_name=run.job_name)
    history.instance.report_dagster_event(event, run.run_id, timestamp=time.time())
    busy = planned(history, *FILES)
    assert (busy.runs, busy.message) == (
        [],
        f"{wanted.period} is being made by run {run.run_id[:8]}; later periods wait for it",
    )
    history.instance.report_run_failed(run)


def test_the_first_of_two_new_periods_is_made_first(own_history: History) -> None:
    plan = planned(own_history, *FILES)
    assert [wanted.period for wanted in plan.runs] == ["2021-07"]
    assert planned(own_history, *FILES) == plan, "a duplicate tick asks for the same run"


def test_a_run_that_broke_off_before_it_read_its_file_is_made_again_after_a_pause(own_history: History) -> None:
    (first,) = planned(own_history, *FILES).runs
    broken_off(own_history, first)
    waiting = planned(own_history, *FILES)
    assert waiting.runs == []
    assert "attempt 2 in " in waiting.message
    assert waiting.message.endswith("later periods wait for it")
    (again,) = planned(own_history, *FILES, later=LONG_AFTER).runs
    assert again.period == "2021-07"
    assert again.run_key != first.run_key


def test_a_period_whose_runs_keep_failing_is_given_up_and_later_ones_go_on(own_history: History) -> None:
    for _ in range(MAX_ATTEMPTS):
        (wanted,) = planned(own_history, *FILES, later=LONG_AFTER).runs
        assert wanted.period == "2021-07"
        broken_off(own_history, wanted)
    plan = planned(own_history, *FILES, later=LONG_AFTER)
    assert [wanted.period for wanted in plan.runs] == ["2021-08"]
    assert f"2021-07: {MAX_ATTEMPTS} runs failed" in plan.message
    new_file = Arrival("2021-07", "c", "its file has changed since it was ingested")
    assert [wanted.period for wanted in planned(own_history, new_file, later=LONG_AFTER).runs] == ["2021-07"]


def test_a_period_that_was_left_half_made_is_finished(own_history: History) -> None:
    newest = MADE[-1]
    assert planned(own_history).runs == []
    assert is_whole(SPEC, own_history.lake, newest)
    tiny_model.write_rides(own_history.data, [newest], seed=9)
    definitions, instance = own_history.definitions, own_history.instance
    definitions.resolve_job_def("rides_monthly").execute_in_process(
        partition_key=newest,
        instance=instance,
        asset_selection=[dg.AssetKey(["rides", "raw_rides"])],
        raise_on_error=True,
    )
    assert not is_whole(SPEC, own_history.lake, newest), "the features are those of the file before"
    assert planned(own_history).runs == [], "somebody has clicked on one asset, which is no broken run"
    run = dg.DagsterRun("rides_monthly", run_id=make_new_run_id(), tags={MODEL_TAG: "rides", KIND_TAG: PERIOD_KIND})
    instance.add_run(run.with_tags({**run.tags, PARTITION_TAG: newest}))
    instance.report_run_failed(run)
    (wanted,) = planned(own_history, later=LONG_AFTER).runs
    assert (wanted.period, wanted.tags["mlops/cause"]) == (newest, f"{newest}: its run broke off")
    own_history.run(newest)
    assert is_whole(SPEC, own_history.lake, newest)
    assert planned(own_history, later=LONG_AFTER).runs == []


def test_a_later_period_waits_for_one_that_is_half_made(own_history: History) -> None:
    newest = MADE[-1]
    tiny_model.write_rides(own_history.data, [newest], seed=9)
    own_history.definitions.resolve_job_def("rides_monthly").execute_in_process(
        partition_key=newest,
        instance=own_history.instance,
        asset_selection=[dg.AssetKey(["rides", "raw_rides"])],
        raise_on_error=True,
    )
    tags = {MODEL_TAG: "rides", KIND_TAG: PERIOD_KIND, PARTITION_TAG: newest}
    run = dg.DagsterRun("rides_monthly", run_id=make_new_run_id(), tags=tags)
    own_history.instance.add_run(run)
    event = DagsterEvent(DagsterEventType.RUN_START.value, job_name=run.job_name)
    own_history.instance.report_dagster_event(event, run.run_id, timestamp=time.time())
    half_made = planned(own_history, *FILES)
    assert half_made.runs == [], "its file has been read, so it is no arrival, but its champion isn't decided"
    assert half_made.message == f"{newest} is being made by run {run.run_id[:8]}; later periods wait for it"

    own_history.instance.report_run_failed(run)
    (again,) = planned(own_history, *FILES, later=LONG_AFTER).runs
    assert again.period == newest, "what broke off is made before what comes after it"


def test_a_file_that_is_repaired_to_what_it_was_is_ingested_again(own_history: History) -> None:
    for signature in ("a", "b", "a", "b"):
        (wanted,) = planned(own_history, Arrival("2021-07", signature, "its file has changed")).runs
        assert (wanted.period, wanted.tags[ARRIVAL_TAG]) == ("2021-07", signature)
        tags = {MODEL_TAG: "rides", KIND_TAG: PERIOD_KIND, PARTITION_TAG: "2021-07", **wanted.tags}
        own_history.instance.add_run(
            dg.DagsterRun("rides_monthly", run_id=make_new_run_id(), tags=tags, status=dg.DagsterRunStatus.SUCCESS)
        )
        assert planned(own_history, Arrival("2021-07", signature, "its file has changed")).runs == []
