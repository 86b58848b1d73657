"""A declaration whose periods were changed: what the lake holds beside them stays, and is in nobody's way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlops_assets.monitored_model import decisions
from mlops_assets.monitored_model.backfill import reconcile
from mlops_assets.monitored_model.reconciling import order_runs, period_runs, plan_b_runs, retrain_runs
from mlops_assets.monitoring import periods
from mlops_assets_tests import rides_graph, tiny_model
from mlops_assets_tests.monitored_model.conftest import MADE, TURNED, History

SEVERE = MADE[3]


def accept_severe(history: History) -> None:
    digest = history.partition("drift_report", SEVERE).facts["report_digest"]
    decisions.accept("rides", history.lake, history.store, SEVERE, digest, "ann", "known")


def test_an_accept_of_a_period_before_a_start_that_was_moved_is_in_no_backfills_way(own_history: History) -> None:
    accept_severe(own_history)
    served = own_history.digests("served_predictions")[SEVERE]
    moved = replace(own_history, definitions=rides_graph.definitions(tiny_model.spec(start="2021-06")))
    assert moved.run(TURNED)[TURNED].outcome == "success"
    assert own_history.digests("served_predictions")[SEVERE] == served
    assert [line.period for line in periods(moved.lake, "rides")] == [*MADE, TURNED]
    # Back where it was, the accept is acted upon.
    done = reconcile(own_history.definitions, "rides", own_history.instance)
    assert [(result.period, result.outcome) for result in done] == [(SEVERE, "success")]


@pytest.mark.parametrize(
    "changes", [{"start": "2021-06"}, {"end": "2021-03"}, {"cadence": "weekly", "start": "2021-01-04", "end": None}]
)
def test_no_run_is_asked_for_outside_the_declared_periods(own_history: History, changes: dict[str, str | None]) -> None:
    accept_severe(own_history)
    decisions.retrain("rides", own_history.lake, own_history.store, "ann", "to see")
    decisions.rollback("rides", own_history.lake, own_history.store, None, "ann", "to see")
    spec = tiny_model.spec(**changes)
    arguments = (spec, own_history.lake, own_history.store, own_history.instance)
    plans = [plan_b_runs(*arguments), retrain_runs(*arguments), order_runs(*arguments), period_runs(*arguments, [])]
    wanted = {run.period for plan in plans for run in plan.runs}
    assert all(spec.covers(period) for period in wanted)
    assert SEVERE not in wanted
    if "end" in changes:
        assert wanted == set()
        assert "2021-06 is no period of rides any more (start and end in defs.yaml)" in plans[1].message


@pytest.mark.parametrize(
    ("changes", "inside", "outside"),
    [
        ({}, ["2021-01", "2021-12"], ["2020-12", "2022-01", "2021-01-04", "all"]),
        ({"end": None}, ["2021-01", "2199-01"], ["2020-12"]),
        ({"cadence": "weekly", "start": "2021-01-04", "end": None}, ["2021-01-04"], ["2021-01", "2021-01-05"]),
    ],
)
def test_a_model_covers_the_periods_from_its_start_to_its_end(
    changes: dict[str, str | None], inside: list[str], outside: list[str]
) -> None:
    spec = tiny_model.spec(**changes)
    assert all(spec.covers(period) for period in inside)
    assert not any(spec.covers(period) for period in outside)
