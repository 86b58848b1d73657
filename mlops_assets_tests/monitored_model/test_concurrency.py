"""Two processes work on one home at the same time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mlops_assets_tests.monitored_model.conftest import History
from mlops_assets_tests.rides_graph import TABLES

PROJECT = Path(__file__).resolve().parents[2]
NEW = ("2021-07", "2021-08")


def test_two_processes_may_make_different_periods_at_the_same_time(own_history: History) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "mlops_assets_tests.rides_graph", period],
            env=own_history.environment(),
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for period in NEW
    ]
    try:
        said = [process.communicate(timeout=400)[0].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    for table in TABLES:
        assert set(NEW) <= set(own_history.lake.periods("rides", table))
    versions = {str(v.version): v for v in own_history.client.search_model_versions("name = 'rides'")}
    for period in NEW:
        facts = own_history.partition("champion", period).facts
        assert facts["version"] in versions
        (parent,) = [r for r in own_history.runs(period=period) if "mlflow.parentRunId" not in r.data.tags]
        nested = own_history.runs(**{"mlflow.parentRunId": parent.info.run_id})
        assert {run.data.tags["mlops.period"] for run in nested} == {period}
        assert {run.info.status for run in [parent, *nested]} == {"FINISHED"}
    prints = [v.tags["fingerprint"] for v in versions.values()]
    assert len(prints) == len(set(prints)), "the same inputs were registered twice"
    newest = own_history.partition("champion", NEW[1]).facts["version"]
    assert own_history.aliases()["champion"] == newest
    assert [number for number, v in versions.items() if v.tags["status"] == "champion"] == [newest]
    # A third process, this one, finds the same version and decides the same.
    before = {table: own_history.partition(table, NEW[0]).digest for table in ("champion", "predictions")}
    challenger = own_history.partition("challenger", NEW[0]).facts["version"]
    own_history.run(NEW[0])
    assert {table: own_history.partition(table, NEW[0]).digest for table in before} == before
    assert own_history.partition("challenger", NEW[0]).facts["version"] == challenger
    assert own_history.aliases()["champion"] == newest
