"""What the steps of a model work with: its declaration, its SQL, the lake, a database and the stores around them.

No Dagster here. One workbench serves one model; it is cheap to make and holds no state of a period.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from mlops_assets.home import Addresses, Home, data_dir
from mlops_assets.lake.store import Lake, Partition, identifier
from mlops_assets.monitored_model.spec import ModelSpec

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    from mlflow import MlflowClient

# Which table a step writes; the raw table's name comes from the model.
FEATURES = "features"
PROFILE = "profile"
CHALLENGER = "challenger"
CHAMPION = "champion"
PREDICTIONS = "predictions"
DRIFT_REPORT = "drift_report"
FALLBACK_PREDICTIONS = "fallback_predictions"
SERVED_PREDICTIONS = "served_predictions"
PERFORMANCE = "performance"

NO_CHAMPION = "no champion yet"

# MLflow's UI shows the pages for language models unless it is told otherwise.
MLFLOW_VIEW = "?workflowType=machine_learning"


@dataclass(frozen=True)
class PeriodRun:
    """The MLflow run of a period, below which the steps put theirs."""

    client: MlflowClient
    experiment_id: str
    run_id: str


@dataclass(frozen=True)
class Workbench:
    """A model with all that its steps need.

    Attributes
    ----------
    spec, sql
        The declaration, and the text of its features.sql.
    lake, con
        The partitions, and an in-memory DuckDB that reads them.
    home
        Where artifacts, studies and reports are kept.
    period_run
        The MLflow run to log below, None for steps that log nothing.
    """

    spec: ModelSpec
    sql: str
    home: Home
    lake: Lake
    con: duckdb.DuckDBPyConnection
    period_run: PeriodRun | None = None
    data_dir: Path = field(default_factory=data_dir)
    addresses: Addresses = field(default_factory=Addresses.from_env)

    @property
    def name(self) -> str:
        return self.spec.name

    def find(self, table: str, period: str) -> Partition | None:
        """A partition of this model, None when it was not made yet."""
        return self.lake.find(self.name, table, period)

    def partition(self, table: str, period: str) -> Partition:
        """A partition of this model; raises MissingPartition, saying how to make it."""
        return self.lake.partition(self.name, table, period)

    def scan(self, table: str, periods: Sequence[str]) -> str:
        """A table expression over the given periods, for use after FROM."""
        return self.lake.scan(self.name, table, periods)

    def write(
        self,
        table: str,
        period: str,
        data: pa.RecordBatchReader | pa.Table,
        *,
        reason: str | None = None,
        facts: dict[str, Any] | None = None,
    ) -> Partition:
        """Write a partition of this model, whole or not at all."""
        return self.lake.write(self.name, table, period, data, reason=reason, facts=facts)

    def days(self, period: str) -> tuple[date, date]:
        """First and last day of a period."""
        calendar = self.spec.calendar
        return calendar.start(period).date(), calendar.end(period).date() - timedelta(days=1)

    def unusable(self, period: str) -> str | None:
        """Why the features of a period can't be used, None when they can.

        Raises MissingPartition when they were not made yet.
        """
        features = self.partition(FEATURES, period)
        return features.reason or features.facts.get("quality_failure")

    def champion_before(self, period: str) -> Partition | None:
        """The newest decision before `period` that put a version in force, None when there is none."""
        decision = self.lake.newest_before(self.name, CHAMPION, period)
        return decision if decision is not None and decision.facts.get("version") else None

    def run_required(self) -> PeriodRun:
        """The period's MLflow run; a step that logs can't do without."""
        if self.period_run is None:
            raise RuntimeError(f"{self.name}: this step logs to MLflow, but was given no run of the period")
        return self.period_run

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Hold the model's lease: registry, alias and decision are written by one process at a time."""
        self.home.locks.mkdir(parents=True, exist_ok=True)
        with FileLock(self.home.locks / f"{self.name}.lease"):
            yield

    def columns_sql(self, columns: Sequence[str]) -> str:
        """The columns as a quoted list for a SELECT."""
        return ", ".join(identifier(column) for column in columns)

    def report_url(self, path: Path) -> str:
        """The address under which `mlops-assets dev` serves a file of the reports folder."""
        return f"{self.addresses.reports}/{path.relative_to(self.home.reports).as_posix()}"

    def run_url(self, run_id: str) -> str:
        """The address of an MLflow run in MLflow's UI."""
        experiment = self.run_required().experiment_id
        return f"{self.addresses.mlflow}/#/experiments/{experiment}/runs/{run_id}{MLFLOW_VIEW}"

    def version_url(self, version: str) -> str:
        """The address of one of the model's registered versions in MLflow's UI."""
        return f"{self.addresses.mlflow}/#/models/{self.name}/versions/{version}{MLFLOW_VIEW}"


def to_json(value: Any) -> str:
    """Canonical JSON for table cells that hold several values."""
    return json.dumps(value, sort_keys=True, default=str)
