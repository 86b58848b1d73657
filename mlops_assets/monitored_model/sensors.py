"""The sensors of a model, and those of the platform. Thin: what is due is asked of `reconciling` and `arrivals`.

https://docs.dagster.io/guides/automate/sensors
"""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.home import sensor_seconds
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.dead_runs import fail_dead_runs
from mlops_assets.monitored_model.jobs import (
    CHAMPION_KIND,
    MODEL_TAG,
    PERIOD_KIND,
    RETRAIN_KIND,
    SERVE_KIND,
    automation_is_on,
)
from mlops_assets.monitored_model.reconciling import (
    Plan,
    finish_decisions,
    notice_aliases,
    order_runs,
    paused_by,
    period_runs,
    plan_b_runs,
    retrain_runs,
)
from mlops_assets.monitored_model.runs import run_outcome
from mlops_assets.monitored_model.situation import situation_of_alert
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.redaction import errors_redacted

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

RESOURCES = {"lake", "store"}
ARRIVAL_SECONDS = 60
# How often it is looked whether somebody has moved an alias in MLflow: each look asks the tracking server.
ALIASES_SECONDS = 60.0
# How far back the first look at failed runs goes, and how much of the last look is looked at again, in seconds.
FAILURES_LOOKED_BACK = 86_400.0
FAILURES_OVERLAP = 60.0

Planner = Callable[[ModelSpec, Lake, Store, dg.DagsterInstance], Plan]


def default_status() -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if automation_is_on() else dg.DefaultSensorStatus.STOPPED


def build_sensors(
    spec: ModelSpec,
    jobs: "dict[str, UnresolvedAssetJobDefinition]",
    periods: dg.TimeWindowPartitionsDefinition,
) -> list[dg.SensorDefinition]:
    """`<model>_serving`, `<model>_retrain`, `<model>_champion_orders` and `<model>_new_data`."""
    return [
        _reconciler(
            spec,
            f"{spec.name}_serving",
            jobs[SERVE_KIND],
            plan_b_runs,
            "Serves what the gates say: plan B after a severe verdict, the champion after an accept or a repair.",
        ),
        _reconciler(
            spec,
            f"{spec.name}_retrain",
            jobs[RETRAIN_KIND],
            retrain_runs,
            "Trains the newest period again when there is a cause that nobody has acted upon.",
        ),
        _reconciler(
            spec,
            f"{spec.name}_champion_orders",
            jobs[CHAMPION_KIND],
            order_runs,
            "Makes the champion follow a rollback or a promotion that a person has ordered; that of an opened period, "
            "an earlier one that was decided later. Finishes decisions whose process died before the aliases of MLflow "
            "were moved, and notices when somebody moves them by hand.",
            follows_decisions=True,
        ),
        _new_data(spec, jobs[PERIOD_KIND], periods),
    ]


def _reconciler(
    spec: ModelSpec,
    name: str,
    job: "UnresolvedAssetJobDefinition",
    planner: Planner,
    description: str,
    *,
    follows_decisions: bool = False,
) -> dg.SensorDefinition:
    @dg.sensor(
        name=name,
        job=job,
        minimum_interval_seconds=sensor_seconds(),
        default_status=default_status(),
        required_resource_keys=RESOURCES,
        description=description,
    )
    @errors_redacted()
    def reconcile(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        lake, store = context.resources.lake.lake(), context.resources.store.store()
        fail_dead_runs(context.instance, store)
        finished = finish_decisions(spec, lake, store) if follows_decisions else None
        plan = planner(spec, lake, store, context.instance)
        cursor = context.cursor
        if follows_decisions and time.time() - float(cursor or 0.0) > ALIASES_SECONDS:
            finished = "; ".join(filter(None, [finished, notice_aliases(spec, store)]))
            cursor = str(time.time())
        if finished:
            plan.notes.insert(0, finished)
        requests = [
            dg.RunRequest(run_key=wanted.run_key, partition_key=wanted.period, tags=wanted.tags) for wanted in plan.runs
        ]
        if requests:
            context.log.info(plan.message)
            return dg.SensorResult(run_requests=requests, cursor=cursor)
        return dg.SensorResult(skip_reason=plan.message, cursor=cursor)

    return reconcile


def _new_data(
    spec: ModelSpec, job: "UnresolvedAssetJobDefinition", periods: dg.TimeWindowPartitionsDefinition
) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{spec.name}_new_data",
        job=job,
        minimum_interval_seconds=ARRIVAL_SECONDS if spec.source.url else sensor_seconds(),
        default_status=default_status(),
        required_resource_keys=RESOURCES,
        description="Makes a period when its file arrives or changes, or its run broke off; reports missing files.",
    )
    @errors_redacted()
    def new_data(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        from mlops_assets.monitored_model.arrivals import arrivals, missing_periods

        lake, store = context.resources.lake.lake(), context.resources.store.store()
        paused = paused_by(spec, store)
        if paused is not None:
            return dg.SensorResult(skip_reason=paused, cursor=context.cursor)
        seen: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
        keys = list(periods.get_partition_keys())
        fail_dead_runs(context.instance, store)
        arrived = arrivals(spec, lake, keys, seen)
        plan = period_runs(spec, lake, store, context.instance, arrived)
        missing = missing_periods(spec, lake, store, keys, datetime.now(), arrived)
        requests = [
            dg.RunRequest(run_key=wanted.run_key, partition_key=wanted.period, tags=wanted.tags) for wanted in plan.runs
        ]
        outage = f"no data of {', '.join(missing)} has arrived: a data outage" if missing else ""
        note = "; ".join(filter(None, [plan.message, outage])) or "no new or changed file"
        return dg.SensorResult(
            run_requests=requests, skip_reason=None if requests else note, cursor=json.dumps(seen, sort_keys=True)
        )

    return new_data


def platform_sensors() -> list[dg.SensorDefinition]:
    """The sensors that all models share: alerts go out, dead runs are noticed, failures are told."""
    return [_alerts(), _dead_runs(), _failures()]


def _alerts() -> dg.SensorDefinition:
    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=sensor_seconds(),
        default_status=default_status(),
        required_resource_keys=RESOURCES,
        description="Sends the alerts that are waiting, through Apprise, to MLOPS_ALERT_URLS.",
    )
    @errors_redacted()
    def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason(deliver_alerts(context.resources.store.store(), context.resources.lake.lake()))

    return alerts


def deliver_alerts(store: Store, lake: Lake) -> str:
    """Send what is waiting, with the situation as it is now; says how it went."""
    from mlops_assets.incidents.alerts import deliver, urls_from_env

    done = deliver(store, urls_from_env(), situation=lambda alert: situation_of_alert(lake, store, alert))
    return f"{done.sent} alerts sent, {done.failed} failed and will be tried again, {done.waiting} wait"


def _dead_runs() -> dg.SensorDefinition:
    @dg.sensor(
        name="dead_runs",
        minimum_interval_seconds=sensor_seconds(),
        default_status=default_status(),
        required_resource_keys={"store"},
        description="Marks runs as failed whose process was killed, so that their place in the queue is free.",
    )
    @errors_redacted()
    def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        ended = fail_dead_runs(context.instance, context.resources.store.store())
        return dg.SkipReason(
            f"marked as failed: {', '.join(ended)}" if ended else "every started run gives signs of life"
        )

    return dead_runs


def _failures() -> dg.SensorDefinition:
    # Not a run-failure sensor: that one begins with its first tick, and would say nothing of what failed before it.
    @dg.sensor(
        name="failures",
        minimum_interval_seconds=sensor_seconds(),
        default_status=default_status(),
        required_resource_keys={"store"},
        description="Tells people about a run that failed; a withheld period is no failure.",
    )
    @errors_redacted()
    def failures(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        since = float(context.cursor) if context.cursor else time.time() - FAILURES_LOOKED_BACK
        told, newest = announce_failures(context.instance, context.resources.store.store(), since)
        note = f"told of {', '.join(run[:8] for run in told)}" if told else "no run has failed since the last look"
        return dg.SensorResult(skip_reason=note, cursor=str(newest))

    return failures


def announce_failures(instance: dg.DagsterInstance, store: Store, since: float) -> tuple[list[str], float]:
    """Tell people about the models' runs that failed after the moment `since`, in seconds since 1970.

    Returns the ids of these runs, and the moment from which to look next: a little is looked at twice, because runs are
    written down by several processes; nobody is told twice.
    """
    told, newest = [], since
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=datetime.fromtimestamp(since, tz=UTC))
    for record in instance.get_run_records(filters):
        newest = max(newest, record.update_timestamp.timestamp() - FAILURES_OVERLAP)
        if announce_failure(instance, store, record.dagster_run):
            told.append(record.dagster_run.run_id)
    return told, newest


def announce_failure(instance: dg.DagsterInstance, store: Store, run: dg.DagsterRun) -> bool:
    """Tell people that a model's run failed, once; False when there is nothing new to tell, as of a withheld period."""
    model = run.tags.get(MODEL_TAG)
    key = f"run/{run.run_id}"
    if model is None or store.announced(key) or run_outcome(instance, run.run_id) != "failed":
        return False
    period = run.tags.get("dagster/partition", "")
    store.announce(
        "infrastructure_failure",
        model,
        period,
        f"{model} {period}: the run of {run.job_name} failed",
        f"Run {run.run_id} failed; its log in Dagster says why.",
        key,
    )
    return True
