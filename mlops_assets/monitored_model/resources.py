"""The resources that a model's assets need: the lake, DuckDB, and the MLflow run of the period.

Heavy packages are imported when a resource is used, never when definitions are loaded.
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_duckdb import DuckDBResource
from pydantic import Field, PrivateAttr

from mlops_assets.home import Home
from mlops_assets.incidents import processes
from mlops_assets.incidents.lease import Lease
from mlops_assets.incidents.store import Store
from mlops_assets.lake.connection import database_config
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.jobs import KIND_TAG, PERIOD_KIND
from mlops_assets.monitored_model.runs import run_outcome
from mlops_assets.monitored_model.workbench import PeriodRun
from mlops_assets.outages import explained
from mlops_assets.redaction import errors_redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
PARTITION_TAG = "dagster/partition"
RUN_LEASE = "run:"
HEARTBEAT_SECONDS = 60.0
PROCESS_TAG = "mlops.process"
MLFLOW_STATUS = {"success": "FINISHED", "withheld": "FINISHED", "failed": "FAILED"}


class LakeResource(dg.ConfigurableResource):
    """The store of partitions: a local folder, or any fsspec URL."""

    url: str | None = Field(
        default=None, description="Where the lake is; by default MLOPS_LAKE_URL or MLOPS_HOME/lake."
    )

    def lake(self) -> Lake:
        return Lake(self.url or Home.from_env().lake_url)


class StoreResource(dg.ConfigurableResource):
    """The incident store: SQLite, or PostgreSQL by URL."""

    url: str | None = Field(default=None, description="By default MLOPS_STORE_URL or SQLite in MLOPS_HOME.")
    _of_this_run: Store | None = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Open the store once for all steps of a run."""
        self._of_this_run = self._open()

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        self._of_this_run = None

    def store(self) -> Store:
        return self._of_this_run or self._open()

    def _open(self) -> Store:
        return Store(self.url or Home.from_env().store_url)


@dg.resource(
    required_resource_keys={"store"},
    description="A sign of life of the run's process, so that a killed run is noticed and frees its queue slot.",
)
def heartbeat(context: dg.InitResourceContext) -> Iterator[None]:
    run = context.dagster_run
    if run is None:
        raise dg.DagsterInvariantViolationError("a heartbeat belongs to a Dagster run")
    store: Store = context.resources.store.store()
    # One per process: a multiprocess run has several, one after the other or side by side.
    with Lease(store, f"{RUN_LEASE}{run.run_id}/{os.getpid()}", what=f"run {run.run_id}", ttl=HEARTBEAT_SECONDS):
        yield


@dg.resource(description="An in-memory DuckDB for each run, with bounded memory; what does not fit is spilled to disk.")
def duckdb(context: dg.InitResourceContext) -> Iterator[DuckDBResource]:
    """dagster-duckdb's resource, on a database that lives as long as the run's resources.

    DuckDB takes longer to open a database than many of a period's queries take: the steps of a run share one. Its name
    keeps runs in one process apart.
    """
    run = context.dagster_run
    resource = DuckDBResource(
        database=f":memory:{run.run_id if run is not None else ''}",
        connection_config=database_config(),
    )
    with resource.get_connection():
        yield resource


def mlflow_resource_key(model: str) -> str:
    """Each model has its own experiment, hence its own resource."""
    return f"mlflow_{model}"


def mlflow_period_run(model: str) -> dg.ResourceDefinition:
    """dagster-mlflow's `mlflow_tracking` for one model, closed with the right status whatever happened.

    `mlflow_tracking` opens one MLflow run per Dagster run and finds it again in every step's process. Its own hook
    closes it on success of the plan's last step only, so a skipped step would leave it open and the next period would
    log into it. Here it is closed when the resource is, with a status read from the run's events; runs that a killed
    process left open are closed by the next one.
    """

    @dg.resource(description=f"The MLflow run of the period, in experiment {model} (dagster-mlflow).")
    def period_run(context: dg.InitResourceContext) -> Iterator[PeriodRun]:
        # The tracking server's address may hold a password, and MLflow's errors repeat it.
        with errors_redacted(), explained(), _address_kept():
            yield from _period_run(context, model)

    return period_run


def _period_run(context: dg.InitResourceContext, model: str) -> Iterator[PeriodRun]:
    warnings.filterwarnings("ignore", category=dg.BetaWarning, message=".*[mM]l[fF]low.*|.*mlflow.*")
    import mlflow
    from dagster_mlflow import mlflow_tracking

    from mlops_assets.training import tracking

    home = Home.from_env()
    tracking.initialise(home.tracking_uri, home.artifacts)
    mlflow.set_tracking_uri(home.tracking_uri)
    client = tracking.client(home.tracking_uri)
    experiment_id = tracking.experiment(client, model, home.artifacts)
    _end_active_runs()
    run = context.dagster_run
    instance = context.instance
    if run is None or instance is None:
        raise dg.DagsterInvariantViolationError("the MLflow run of a period belongs to a Dagster run")
    period, kind = run.tags.get(PARTITION_TAG, ""), run.tags.get(KIND_TAG, PERIOD_KIND)
    config = {
        "experiment_name": model,
        "mlflow_tracking_uri": home.tracking_uri,
        "env": {},
        "extra_tags": {
            # The period's own run has the plain name; plan B or a retraining says what it is.
            "mlflow.runName": " ".join(filter(None, [model, period, "" if kind == PERIOD_KIND else kind])),
            "mlops.model": model,
            "mlops.period": period,
            "mlops.dagster_job": run.job_name,
            PROCESS_TAG: processes.this_process(),
        },
    }
    opened = mlflow_tracking.resource_fn(context.replace_config(config))  # type: ignore[call-arg]
    inner = next(opened)
    run_id = inner.active_run().info.run_id
    _close_abandoned(client, instance, experiment_id, run.run_id)
    try:
        yield PeriodRun(client, experiment_id, run_id)
    finally:
        outcome = run_outcome(instance, run.run_id)
        client.set_tag(run_id, "mlops.outcome", outcome)
        _end_active_runs(MLFLOW_STATUS[outcome])
        opened.close()


@contextmanager
def _address_kept() -> Iterator[None]:
    """Put MLflow's address back at the end, as it was in this process and in its environment.

    MLflow and dagster-mlflow set both; a home that the process opens later would log into this one's store.
    """
    import mlflow

    variable = os.environ.get(TRACKING_VARIABLE)
    was_set = mlflow.get_tracking_uri() if variable is None and mlflow.is_tracking_uri_set() else None
    try:
        yield
    finally:
        mlflow.set_tracking_uri(was_set)  # type: ignore[arg-type]  # None is "nowhere set", which it takes
        if variable is None:
            os.environ.pop(TRACKING_VARIABLE, None)
        else:
            os.environ[TRACKING_VARIABLE] = variable


def _end_active_runs(status: str = "FINISHED") -> None:
    """Leave no run active in this thread: what is logged next must not land in an earlier period's run."""
    import mlflow

    while mlflow.active_run() is not None:
        mlflow.end_run(status)


def _close_abandoned(client: MlflowClient, instance: dg.DagsterInstance, experiment_id: str, current: str) -> None:
    """Close the runs that a killed process left open, with the status of their Dagster run."""
    open_runs = client.search_runs(
        [experiment_id], filter_string="attributes.status = 'RUNNING' and tags.dagster_run_id != ''"
    )
    for found in open_runs:
        dagster_run_id: Any = found.data.tags.get("dagster_run_id")
        if dagster_run_id == current:
            continue
        run = instance.get_run_by_id(dagster_run_id)
        if run is not None and run.is_finished:
            client.set_terminated(found.info.run_id, MLFLOW_STATUS[run_outcome(instance, dagster_run_id)])
        elif _was_killed(found.data.tags.get(PROCESS_TAG, ""), known=run is not None):
            # Dagster keeps calling such a run started, as nobody was left to say otherwise.
            client.set_terminated(found.info.run_id, MLFLOW_STATUS["failed"])


def _was_killed(process: str, *, known: bool) -> bool:
    """Whether the process that opened a run has ended.

    Of another machine's process nothing is known: its run counts as abandoned when no Dagster run is `known` for it.
    """
    lives = processes.lives(process)
    if lives is not None:
        return not lives
    host, _, pid = process.rpartition(" ")  # of earlier versions of this project
    if not pid.isdecimal():
        return not known
    if host != platform.node():
        return not known
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it lives, as another user's
        return False
    return False
