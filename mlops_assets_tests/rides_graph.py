"""The graph of the tiny model, ready to run: definitions with the shared resources and a consumer's asset below them.

As a program it runs periods in a process of its own, into the MLOPS_HOME of the environment:

    python -m mlops_assets_tests.rides_graph 2021-07 [--killed-in performance] [--failing-in profile]
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of an asset's function.
import argparse
import os
import signal
import sys
from collections.abc import Sequence
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import dagster as dg
import pandas as pd

from mlops_assets.definitions import shared_resources
from mlops_assets.monitored_model import tables
from mlops_assets.monitored_model.assets import LAKE_IO_MANAGER, partitions
from mlops_assets.monitored_model.backfill import PeriodRunResult, backfill
from mlops_assets.monitored_model.component import build_definitions
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets_tests import tiny_model

BREAK = date(2021, 4, 11)
TABLES = (
    "raw_rides",
    tables.FEATURES,
    tables.PROFILE,
    tables.CHALLENGER,
    tables.CHAMPION,
    tables.PREDICTIONS,
    tables.DRIFT_REPORT,
    tables.FALLBACK_PREDICTIONS,
    tables.SERVED_PREDICTIONS,
    tables.PERFORMANCE,
)


def definitions(spec: ModelSpec | None = None, sql: str = tiny_model.SQL, *others: dg.Definitions) -> dg.Definitions:
    """A model's definitions with the resources that all models share."""
    own = build_definitions(spec or tiny_model.spec(), sql)
    return dg.Definitions.merge(own, dg.Definitions(resources=shared_resources()), *others)


def revenue(spec: ModelSpec) -> dg.Definitions:
    """What a user would hang below the platform: an asset of rides by source, and a job that serves and then counts."""

    @dg.asset(
        key=dg.AssetKey([spec.name, "revenue"]),
        partitions_def=partitions(spec),
        io_manager_key=LAKE_IO_MANAGER,
        ins={"served_predictions": dg.AssetIn(dg.AssetKey([spec.name, "served_predictions"]))},
    )
    def consumer(served_predictions: pd.DataFrame) -> pd.DataFrame:
        return served_predictions.groupby("prediction_source", as_index=False).agg(rides=("score", "size"))

    served = dg.AssetKey([spec.name, "served_predictions"])
    job = dg.define_asset_job(
        "revenue", dg.AssetSelection.assets(served, consumer), executor_def=dg.in_process_executor
    )
    return dg.Definitions(assets=[consumer], jobs=[job])


def run(definitions: dg.Definitions, periods: Sequence[str], instance: dg.DagsterInstance) -> list[PeriodRunResult]:
    """Backfill periods of the tiny model."""
    return list(backfill(definitions, "rides", periods, instance=instance))


def write_turning_rides(data: Path) -> None:
    """Eight months whose world changes for good on 2021-04-11."""
    tiny_model.write_rides(data, ["2021-01", "2021-02", "2021-03"])
    tiny_model.write_rides(data, ["2021-04", "2021-05", "2021-06", "2021-07", "2021-08"], since=BREAK)


def _die(*_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process goes on")


def _fail(bench: Workbench, *_: object) -> NoReturn:
    open_result = bench.con.sql("SELECT 1")
    raise OSError(f"nothing is made of {open_result.columns}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("periods", nargs="+")
    parser.add_argument("--killed-in", help="the step in which the process is killed")
    parser.add_argument("--failing-in", help="the step that raises while it reads")
    arguments = parser.parse_args()
    for name, replaced in ((arguments.killed_in, _die), (arguments.failing_in, _fail)):
        if name:
            step = import_module(f"mlops_assets.monitored_model.steps.{name}")
            step.make = replaced  # type: ignore[attr-defined]
    results = list(backfill(definitions(), "rides", arguments.periods))
    for result in results:
        print(result.period, result.outcome, result.errors)
    return 1 if any(result.outcome == "failed" for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
