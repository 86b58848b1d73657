"""What the steps of a model work with: its declaration, its SQL, the lake, a database and the stores around them.

No Dagster here. One workbench serves one model; it is cheap to make and holds no state of a period.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.home import Addresses, Home, data_dir
from mlops_assets.incidents.gate import Gate
from mlops_assets.incidents.lease import Lease
from mlops_assets.incidents.store import Store
from mlops_assets.lake.connection import lock, open_database
from mlops_assets.lake.store import DamagedPartition, Lake, Partition, identifier
from mlops_assets.monitored_model.gates import champion_before, period_gate
from mlops_assets.monitored_model.graph import inputs_of, made_from
from mlops_assets.monitored_model.outcome import Markdown, table
from mlops_assets.monitored_model.provenance import MADE_FROM, MADE_WITHOUT, made_otherwise, not_made_reason, provenance
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.tables import FEATURES
from mlops_assets.monitored_model.versions import Versions
from mlops_assets.sources.connection import pin_timezone

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    from mlflow import MlflowClient

PREVIEW_ROWS = 5
TIME_TYPE = re.compile("DATE|TIMESTAMP")

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
    store
        Incidents, and what people have decided.
    period_run
        The MLflow run to log below, None for steps that log nothing.
    run_id
        The Dagster run that does the work, None outside of Dagster.
    plan_b_waits
        Whether plan B is left to the sensor: in the period's own run, which is done when the period is withheld.
    """

    spec: ModelSpec
    sql: str
    home: Home
    lake: Lake
    con: duckdb.DuckDBPyConnection
    store: Store
    period_run: PeriodRun | None = None
    run_id: str | None = None
    plan_b_waits: bool = False
    data_dir: Path = field(default_factory=data_dir)
    addresses: Addresses = field(default_factory=Addresses.from_env)

    def __post_init__(self) -> None:
        pin_timezone(self.con, self.spec.source.timezone)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def versions(self) -> Versions:
        """The model's registered versions, checked before they are loaded."""
        from mlops_assets.training import tracking

        client = self.period_run.client if self.period_run else tracking.client(self.home.tracking_uri)
        return Versions(self.name, client, self.lake, self.store, self.home.artifacts, self.spec.pickled_estimators)

    def find(self, table: str, period: str) -> Partition | None:
        """A partition of this model with verified bytes, None when it was not made yet; it may be `damaged`."""
        return self.lake.find(self.name, table, period, verify=True)

    def partition(self, table: str, period: str) -> Partition:
        """A partition of this model with verified bytes.

        Raises MissingPartition or DamagedPartition, both saying how to make it.
        """
        return self.lake.partition(self.name, table, period, verify=True)

    @contextmanager
    def confined(self, files: Iterable[str]) -> Iterator[Workbench]:
        """This workbench with a database of its own, which opens the given files and no other: for the model's SQL."""
        with open_database() as con:
            yield replace(self, con=lock(self.lake.attach(con), files))

    def readable(self, table: str, periods: Iterable[str]) -> Iterator[Partition]:
        """Those of the given periods that are there and not damaged, by their footers."""
        for period in periods:
            found = self.lake.find(self.name, table, period)
            if found is not None and not found.damaged:
                yield found

    def scan(self, table: str, periods: Sequence[str]) -> str:
        """A table expression over the given periods, for use after FROM."""
        return self.lake.scan(self.name, table, periods)

    def records(self, table: str, periods: Sequence[str]) -> str:
        """Like `scan`, one row a record: of several scenarios the planned one."""
        scan = self.scan(table, periods)
        if self.spec.scenarios is None:
            return scan
        return f"(SELECT * FROM {scan} WHERE {identifier(self.spec.scenarios.planned)})"

    def write(
        self,
        table: str,
        period: str,
        data: pa.RecordBatchReader | pa.Table,
        *,
        reason: str | None = None,
        facts: dict[str, Any] | None = None,
    ) -> Partition:
        """Write a partition of this model, whole or not at all, with the digests of what it was made from."""
        inputs = {f"{name}/{other}": digest for (name, other), digest in self.inputs(table, period).items()}
        # A partition that is written again from its own rows carries the facts of what it was made from then.
        others = {name: value for name, value in (facts or {}).items() if name not in (MADE_FROM, MADE_WITHOUT)}
        known = others | provenance(inputs)
        return self.lake.write(self.name, table, period, data, reason=reason, facts=known)

    def inputs(self, table: str, period: str) -> dict[tuple[str, str], str | None]:
        """Digests of the partitions that a partition is made from, None for those that are not there."""
        found = {pair: self.lake.find(self.name, *pair) for pair in inputs_of(self.spec, table, period)}
        return {pair: None if partition is None else partition.digest for pair, partition in found.items()}

    def stale_after(self, made: Partition) -> list[tuple[str, str]]:
        """The partitions of later periods, as (table, period), that were made from this one as it was before, or
        without it.

        They are not made again by themselves: what was served then was served.
        """
        later = {pair: self.lake.find(self.name, *pair) for pair in made_from(self.spec, made.table, made.period)}
        name = f"{made.table}/{made.period}"
        return [
            pair
            for pair, found in later.items()
            if found is not None and not found.damaged and made_otherwise(found, name, made.digest)
        ]

    def days(self, period: str) -> tuple[date, date]:
        """First and last day of a period."""
        calendar = self.spec.calendar
        return calendar.start(period).date(), calendar.end(period).date() - timedelta(days=1)

    def unusable(self, period: str) -> str | None:
        """Why the features of a period can't be used, None when they can."""
        return self.absent(FEATURES, period) or self.partition(FEATURES, period).facts.get("quality_failure")

    def absent(self, table: str, period: str) -> str | None:
        """Why a partition can't be used: its own reason, or that nobody has made it; None when it can.

        Not an error: whoever materializes one asset of a period, or an asset backfill that goes on to later periods,
        gets empty partitions that say so. A damaged partition is one: what was made from it must not be replaced by
        nothing because a file can't be read.

        Raises DamagedPartition.
        """
        found = self.find(table, period)
        if found is None:
            return not_made_reason(table, period)
        if found.damaged:
            raise DamagedPartition(found.damaged)
        return found.reason

    def damaged(self, table: str, period: str) -> str | None:
        """What is wrong with a partition's file; None when it can be read, or is not there."""
        found = self.find(table, period)
        return None if found is None else found.damaged

    def champion_before(self, period: str) -> Partition | None:
        """The newest decision before `period` that put a version in force, None when there is none."""
        return champion_before(self.lake, self.name, period)

    def gate(self, period: str) -> Gate:
        """What may be served for a period."""
        return period_gate(self.spec, self.lake, self.store, period)

    def run_required(self) -> PeriodRun:
        """The period's MLflow run; a step that logs can't do without."""
        if self.period_run is None:
            raise RuntimeError(f"{self.name}: this step logs to MLflow, but was given no run of the period")
        return self.period_run

    def lease(self) -> Lease:
        """The model's lease: registry, alias and decision are written by one run at a time."""
        return Lease(self.store, self.name, what=f"run {self.run_id}" if self.run_id else "a process without a run")

    def columns_sql(self, columns: Iterable[str]) -> str:
        """The columns as a quoted list for a SELECT."""
        return ", ".join(identifier(column) for column in columns)

    def preview(self, partition: Partition) -> Markdown:
        """The first rows of a partition of this model: a line per column, as twenty side by side fit no page."""
        if not partition.rows:
            return table([])
        rows = f"(SELECT * EXCLUDE (period) FROM {self.scan(partition.table, [partition.period])} LIMIT {PREVIEW_ROWS})"
        # Times as text: DuckDB's reach years that Python's do not.
        shown = ", ".join(
            f"{identifier(name)}::VARCHAR AS {identifier(name)}" if TIME_TYPE.match(kind) else identifier(name)
            for name, kind, *_ in self.con.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()
        )
        found = self.con.execute(f"SELECT {shown} FROM {rows}")
        columns = [column[0] for column in found.description]
        values = zip(*found.fetchall(), strict=True)
        return table(
            [
                {"column": name, **{f"row {number}": value for number, value in enumerate(row, 1)}}
                for name, row in zip(columns, values, strict=True)
            ]
        )

    def report_url(self, path: Path) -> str:
        """The address under which `mlops-assets dev` serves a file of the reports folder."""
        return f"{self.addresses.reports}/{path.relative_to(self.home.reports).as_posix()}"

    def run_url(self, run_id: str) -> str:
        """The address of an MLflow run in MLflow's UI."""
        experiment = self.run_required().experiment_id
        return f"{self.addresses.mlflow}/#/experiments/{experiment}/runs/{run_id}{MLFLOW_VIEW}"

    def artifact_url(self, run_id: str, path: str) -> str:
        """The address of a run's artifact in MLflow's UI."""
        return (
            f"{self.addresses.mlflow}/#/experiments/{self.run_required().experiment_id}/runs/{run_id}/artifacts/{path}"
        )

    def version_url(self, version: str) -> str:
        """The address of one of the model's registered versions in MLflow's UI."""
        return f"{self.addresses.mlflow}/#/models/{self.name}/versions/{version}{MLFLOW_VIEW}"


def to_json(value: Any) -> str:
    """Canonical JSON for table cells that hold several values."""
    return json.dumps(value, sort_keys=True, default=str)
