"""A period is judged first and shown afterwards: what can't be shown is missing, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from mlops_assets.monitored_model.assets import materialize_result
from mlops_assets.monitored_model.outcome import Outcome
from mlops_assets.monitored_model.workbench import PeriodRun, Workbench
from mlops_assets_tests import tiny_model

MONTHS = ["2021-01", "2021-02", "2021-03"]
SEVERE = "2021-04"
TRAINING = ("raw", "features", "profile", "challenger", "champion")
NAMES = ["Distance (km)", "100 %", "x[0] < <b>1</b>", 'a "quoted" / name', "../tolls", "größe 😀", "scores", "n" * 300]


def make(bench: Workbench, step: str, period: str) -> Outcome:
    return import_module(f"mlops_assets.monitored_model.steps.{step}").make(bench, period)


class Refusing:
    """A tracking client that reads and writes nothing."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        if name in ("create_run", "log_batch", "set_terminated", "set_tag", "log_artifacts"):
            raise ConnectionError("the tracking server is away")
        return getattr(self._client, name)


@contextmanager
def judged(root: Path) -> Iterator[Workbench]:
    """A champion, and a severe month that is scored."""
    tiny_model.write_rides(root / "data", MONTHS)
    tiny_model.write_rides(root / "data", [SEVERE], since=date(2021, 4, 1))
    with tiny_model.workbench(root / "home", root / "data") as bench:
        for period in MONTHS:
            for step in TRAINING:
                make(bench, step, period)
        for step in ("raw", "features", "profile", "predictions"):
            make(bench, step, SEVERE)
        yield bench


def without_mlflow(bench: Workbench) -> Workbench:
    run = bench.run_required()
    refusing: Any = Refusing(run.client)
    return replace(bench, period_run=PeriodRun(refusing, run.experiment_id, run.run_id))


def test_a_severe_period_opens_its_incident_though_nothing_can_be_shown(tmp_path, monkeypatch):
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no picture today")

    with judged(tmp_path) as bench:
        monkeypatch.setattr("mlops_assets.drift.evidently_page.write_page", broken)
        monkeypatch.setattr("mlops_assets.drift.pictures.drift_by_day_picture", broken)
        outcome = make(without_mlflow(bench), "drift_report", SEVERE)
        assert outcome.partition.facts["verdict"] == "severe"
        assert [check.passed for check in outcome.checks] == [False]
        assert [one.kind for one in bench.store.incidents(model="rides", period=SEVERE)] == ["drift"]
        assert len(outcome.warnings) == 3
        assert "the tracking server is away" in outcome.warnings[-1]
        assert outcome.metadata["report_digest"] == outcome.partition.facts["report_digest"]
        result = materialize_result(dg.AssetKey(["rides", "drift_report"]), outcome)
        assert "no picture today" in str(result.metadata["not_shown"])


def test_performance_and_decision_stand_though_mlflow_is_away(tmp_path):
    with judged(tmp_path) as bench:
        make(bench, "drift_report", SEVERE)
        away = without_mlflow(bench)
        performance = make(away, "performance", SEVERE)
        assert performance.partition.facts["verdict"] in ("ok", "warning", "severe")
        assert performance.warnings
        make(bench, "challenger", SEVERE)
        decided = make(away, "champion", SEVERE)
        assert decided.partition.facts["decision"] in ("promoted", "retained")
        assert decided.warnings


def test_what_registers_a_model_still_fails_the_run(tmp_path):
    tiny_model.write_rides(tmp_path / "data", MONTHS)
    with tiny_model.workbench(tmp_path / "home", tmp_path / "data") as bench:
        for period in MONTHS:
            for step in TRAINING[:3]:
                make(bench, step, period)
        with pytest.raises(ConnectionError):
            make(without_mlflow(bench), "challenger", MONTHS[-1])
        assert bench.find("challenger", MONTHS[-1]) is None


def test_a_column_may_have_any_name_that_a_file_can_have(tmp_path):
    columns = {**tiny_model.SPEC["columns"], **{name: {} for name in NAMES}}
    schema = {**tiny_model.SPEC["source"]["schema"], **dict.fromkeys(NAMES, "DOUBLE")}
    spec = tiny_model.spec(columns=columns, source={**tiny_model.SPEC["source"], "schema": schema})
    quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in NAMES)
    sql = tiny_model.SQL.replace("zone,", f"zone, {quoted},")
    (tmp_path / "rides").mkdir()
    for period in [*MONTHS, SEVERE]:
        table = tiny_model.rides(period, since=date(2021, 4, 1) if period == SEVERE else None)
        for name in NAMES:
            table = table.append_column(name, table["fare"])
        pq.write_table(table, tmp_path / "rides" / f"{period}.parquet")
    with tiny_model.workbench(tmp_path / "home", tmp_path, spec, sql) as bench:
        for period in MONTHS:
            for step in TRAINING:
                make(bench, step, period)
        outcomes = [make(bench, step, SEVERE) for step in ("raw", "features", "profile", "predictions")]
        outcomes += [make(bench, step, SEVERE) for step in ("drift_report", "served_predictions", "performance")]
        assert [warning for outcome in outcomes for warning in outcome.warnings] == []
        assert "drift" in [one.kind for one in bench.store.incidents(model="rides", period=SEVERE)]
        run = bench.run_required()
        (logged,) = run.client.search_runs([run.experiment_id], f"attributes.run_name = 'drift_report {SEVERE}'")
        psi = [name for name in logged.data.metrics if name.startswith("psi/")]
        assert len(psi) == len(columns) + 1, "two columns share a metric, or one has none"
        assert {"psi/fare", "psi/scores"} <= set(psi), "names that MLflow takes stay as they are"
