"""Runs whose process is dead: marked as failed, their MLflow runs closed, their leases given back.

Dagster's default launcher has no health check: a run that was killed together with its launcher stays STARTED, and one
whose launcher was killed before it had a process stays STARTING. It would hold its period, and its place in the queue.
A dead process of this machine is known to be dead at once, one of another machine by its silence.
"""

from __future__ import annotations

import logging
import time

import dagster as dg

from mlops_assets.home import Home, sensor_seconds
from mlops_assets.incidents import processes
from mlops_assets.incidents.lease import forget_released, holders, last_heartbeat, release_dead
from mlops_assets.incidents.store import Store
from mlops_assets.monitored_model.jobs import MODEL_TAG, PROCESS_TAG
from mlops_assets.monitored_model.memory_failures import killed_run_is_an_incident
from mlops_assets.monitored_model.resources import RUN_LEASE

# A run that gives no sign of life, or none any more, for so many intervals of the sensors is dead.
SILENT_INTERVALS = 12
# The leases of ended runs say for a while that they were alive; then they are only in the way.
RELEASED_KEPT = 86_400.0
UNOBSERVED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

_log = logging.getLogger(__name__)


def fail_dead_runs(instance: dg.DagsterInstance, store: Store, *, now: float | None = None) -> list[str]:
    """Close the models' runs whose process is dead or silent; returns their ids.

    Call it before looking for runs that are under way.
    """
    moment = time.time() if now is None else now
    ended = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNOBSERVED)):
        why = _why_dead(record, store, moment)
        if why is not None:
            _close(instance, store, record.dagster_run, why)
            ended.append(record.dagster_run.run_id)
    forget_released(store, RUN_LEASE, older_than=RELEASED_KEPT)
    return ended


def _why_dead(record: dg.RunRecord, store: Store, moment: float) -> str | None:
    """Why a run counts as dead; None for one that lives, may still begin, or is not of our models."""
    run = record.dagster_run
    signs = holders(store, f"{RUN_LEASE}{run.run_id}/")
    # A click on Materialize has no tag of ours, but our assets give signs of life in it.
    if (MODEL_TAG not in run.tags and not signs) or any(sign.gone is None for sign in signs):
        return None
    lives = processes.lives(run.tags.get(PROCESS_TAG))
    if signs:
        return f"no process of it lives: {signs[0]}"
    if lives is False:
        host, number, *_ = run.tags[PROCESS_TAG].split(" ")
        return f"its process {number} on {host} is dead"
    if lives:
        return None
    begun = record.start_time or record.update_timestamp.timestamp()
    # Between two steps in processes of their own no lease is held, but the last one was given back just now.
    beaten = last_heartbeat(store, f"{RUN_LEASE}{run.run_id}/")
    last = max(begun, beaten.timestamp()) if beaten is not None else begun
    if moment - last > SILENT_INTERVALS * sensor_seconds():
        return "its process gives no sign of life; it was killed, or its machine is gone"
    return None


def _close(instance: dg.DagsterInstance, store: Store, run: dg.DagsterRun, why: str) -> None:
    if run.status is dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, why)
    else:
        instance.report_run_failed(run, why)
        killed_run_is_an_incident(store, run, why)
    release_dead(store, f"{RUN_LEASE}{run.run_id}/", what=f"run {run.run_id}")
    closed = _close_mlflow_runs(run.run_id)
    _log.info("Run %s of %s was closed: %s. MLflow runs closed: %d", run.run_id, run.job_name, why, closed)


def _close_mlflow_runs(run_id: str) -> int:
    """Close what a Dagster run has left open in MLflow; how many runs that were."""
    from mlops_assets.training import tracking

    home = Home.from_env()
    tracking.initialise(home.tracking_uri, home.artifacts)
    return len(tracking.close_open_runs(tracking.client(home.tracking_uri), "dagster_run_id", run_id, "FAILED"))
