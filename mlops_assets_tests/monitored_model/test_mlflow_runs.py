"""Whose MLflow run is whose: one per period, its parts nested below, each closed with the right status."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import pytest
from mlflow.entities import Run

from mlops_assets.drift.verdict import DriftReport, compare
from mlops_assets.home import Home
from mlops_assets.monitored_model.assets import build_assets
from mlops_assets.monitored_model.resources import mlflow_period_run
from mlops_assets.monitored_model.steps import drift_report as drift_report_step
from mlops_assets_tests import rides_graph, tiny_model
from mlops_assets_tests.monitored_model.conftest import MADE, History

PROJECT = Path(__file__).resolve().parents[2]


def period_runs(history: History, period: str) -> list[Run]:
    """The runs of a period that are not nested in another."""
    return [run for run in history.runs(period=period) if "mlflow.parentRunId" not in run.data.tags]


def nested_runs(history: History, parent: Run) -> list[Run]:
    return history.runs(**{"mlflow.parentRunId": parent.info.run_id})


def below(history: History, period: str) -> set[str]:
    """The parents of a period's nested runs."""
    runs = history.runs(period=period)
    return {run.data.tags["mlflow.parentRunId"] for run in runs if "mlflow.parentRunId" in run.data.tags}


def test_each_period_has_one_closed_run_with_its_parts_below(history: History) -> None:
    for period in MADE:
        everything = history.runs(period=period)
        parents = {
            run.data.tags["dagster_run_id"]: run for run in everything if "mlflow.parentRunId" not in run.data.tags
        }
        made = history.results[period]
        assert set(parents) == {made.run_id, *(after.run_id for after in made.served_after)}
        for after in made.served_after:  # plan B's run measures what it serves, and nothing else
            ((nested,), run) = nested_runs(history, parents[after.run_id]), parents[after.run_id]
            assert nested.info.run_name == f"performance {period}"
            assert (run.info.run_name, run.info.status) == (f"rides {period} serve", "FINISHED")
            assert run.data.tags["mlops.dagster_job"] == after.job
        parent = parents[made.run_id]
        children = nested_runs(history, parent)
        assert parent.info.run_name == f"rides {period}"
        assert parent.info.status == "FINISHED"
        assert parent.data.tags["mlops.outcome"] == made.outcome
        named = Counter(run.info.run_name.split(" ")[0] for run in children)
        wanted = {"trial": 1} if period >= "2021-03" else {}
        wanted |= {"drift_report": 1, "performance": 1} if period >= "2021-04" else {}
        assert named == wanted


def test_no_run_stays_open_and_none_belongs_to_no_period(history: History) -> None:
    found = history.runs()
    assert {run.info.status for run in found} == {"FINISHED"}
    assert {run.data.tags.get("mlops.period") for run in found} == set(MADE)


def test_the_chosen_trial_holds_what_the_issue_of_a_version_takes(history: History) -> None:
    (trial,) = [run for run in history.runs(period="2021-04") if run.info.run_name.startswith("trial")]
    assert trial.data.tags["trained_on"] == "since_break"
    assert trial.data.tags["since"] == "2021-04-11"
    assert trial.data.tags["decision"] == "promoted"
    assert re.fullmatch(r"1[123] days of 2021-04-11\.\.2021-04-\d\d", trial.data.params["train_periods"])
    assert {"validation_f1", "test_f1", "cut"} <= trial.data.metrics.keys()
    assert {tag.value for given in trial.inputs.dataset_inputs for tag in given.tags} == {"train", "validation", "test"}
    files = {item.path for item in history.client.list_artifacts(trial.info.run_id, "monitoring")}
    assert {"monitoring/reference_profile.parquet", "monitoring/features.sql"} <= files


def test_a_step_that_raises_fails_its_period_run_only_and_the_next_period_logs_into_its_own(
    own_history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*sides: Any, first_day: date, **others: Any) -> DriftReport:
        if first_day == date(2021, 7, 1):
            raise OSError("no space left on device")
        return compare(*sides, first_day=first_day, **others)

    monkeypatch.setattr(drift_report_step, "compare", disk_full)
    made = own_history.run("2021-07", "2021-08")
    assert (made["2021-07"].outcome, made["2021-08"].outcome) == ("failed", "success")
    assert list(made["2021-07"].errors) == ["rides__drift_report"]
    (failed,) = period_runs(own_history, "2021-07")
    (good,) = period_runs(own_history, "2021-08")
    assert (failed.info.status, failed.data.tags["mlops.outcome"]) == ("FAILED", "failed")
    assert (good.info.status, good.data.tags["mlops.outcome"]) == ("FINISHED", "success")
    assert not [run for run in own_history.runs() if run.info.status == "RUNNING"]
    assert own_history.lake.find("rides", "drift_report", "2021-07") is None, "nothing half-written stays"
    assert own_history.lake.find("rides", "served_predictions", "2021-07") is None
    assert own_history.partition("champion", "2021-07").rows == 1, "the chain of champions does not break"
    assert below(own_history, "2021-08") == {good.info.run_id}
    assert below(own_history, "2021-07") == {failed.info.run_id}


def test_the_next_home_of_a_process_has_a_store_of_its_own(own_history: History, tmp_path: Path) -> None:
    own_history.run("2021-06")
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert not mlflow.is_tracking_uri_set()
    assert Home(tmp_path / "next").tracking_uri == f"sqlite:///{tmp_path / 'next' / 'mlflow' / 'mlflow.db'}"


def test_mlflow_s_address_is_after_a_run_what_it_was(own_history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own_history.home.tracking_uri)
    own_history.run("2021-06")
    assert mlflow.get_tracking_uri() == os.environ["MLFLOW_TRACKING_URI"] == own_history.home.tracking_uri


def test_one_asset_outside_the_job_gives_the_same_records(own_history: History) -> None:
    before = {table: own_history.digests(table) for table in ("drift_report", "champion", "performance")}
    spec = tiny_model.spec()
    resources = {**rides_graph.shared_resources(), "mlflow_rides": mlflow_period_run("rides")}
    for name in before:
        result = dg.materialize(
            build_assets(spec, tiny_model.SQL),
            selection=[dg.AssetKey(["rides", name])],
            partition_key="2021-05",
            resources=resources,
            instance=own_history.instance,
        )
        assert result.success
        (run,) = own_history.runs(dagster_run_id=result.run_id)
        assert (run.info.status, run.data.tags["mlops.period"]) == ("FINISHED", "2021-05")
        nested = own_history.runs(**{"mlflow.parentRunId": run.info.run_id})
        assert [child.info.run_name for child in nested] == ([] if name == "champion" else [f"{name} 2021-05"])
    assert {table: own_history.digests(table) for table in before} == before


def test_a_killed_process_leaves_a_run_that_the_next_period_closes(own_history: History) -> None:
    command = [sys.executable, "-m", "mlops_assets_tests.rides_graph", "2021-07", "--killed-in", "performance"]
    killed = subprocess.run(command, env=own_history.environment(), cwd=PROJECT, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr.decode()[-2000:]
    (left,) = period_runs(own_history, "2021-07")
    assert left.info.status == "RUNNING"
    own_history.home.prepare_dagster()
    with dg.DagsterInstance.get() as instance:
        (result,) = rides_graph.run(own_history.definitions, ["2021-08"], instance)
    assert result.outcome == "success"
    assert own_history.client.get_run(left.info.run_id).info.status == "FAILED"
    (next_run,) = period_runs(own_history, "2021-08")
    assert next_run.info.run_id != left.info.run_id
