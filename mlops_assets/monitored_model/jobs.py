"""The jobs of a model: its periods, plan B, retraining, and what a person decides; and the schedule of the periods.

One job holds a whole period and runs in one process: a process start per step would cost several seconds each.
Backfilling periods means backfilling this job; the run queue keeps one run per model at a time, so they run in order.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of an op's function.
import os
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.tables import (
    CHALLENGER,
    CHAMPION,
    FALLBACK_PREDICTIONS,
    PERFORMANCE,
    SERVED_PREDICTIONS,
)
from mlops_assets.redaction import errors_redacted

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

MODEL_TAG = "mlops/model"
KIND_TAG = "mlops/kind"
CAUSE_TAG = "mlops/cause"
DECISION_TAG = "mlops/decision"
GATE_TAG = "mlops/gate"  # what a serving run serves: `plan_b`, `champion`, `withheld`
PROCESS_TAG = "mlops/process"  # the process that executes a run, by its name in `incidents.processes`
PERIOD_KIND = "period"
SERVE_KIND = "serve"
RETRAIN_KIND = "retrain"
CHAMPION_KIND = "champion"

# What the job of plan B makes.
SERVING = (FALLBACK_PREDICTIONS, SERVED_PREDICTIONS, PERFORMANCE)

# What a gate has decided must not wait behind queued periods.
URGENT = {"dagster/priority": "10"}


def automation_is_on() -> bool:
    """Sensors and schedules run where `MLOPS_SENSORS=on`, as in `mlops-assets dev`; elsewhere people start them."""
    return os.environ.get("MLOPS_SENSORS", "").lower() == "on"


def period_job_name(spec: ModelSpec) -> str:
    return f"{spec.name}_{spec.cadence}"


def build_jobs(
    spec: ModelSpec, assets: list[dg.AssetsDefinition], periods: dg.TimeWindowPartitionsDefinition
) -> "dict[str, UnresolvedAssetJobDefinition]":
    """The jobs over a model's assets, by kind: `period`, `serve`, `retrain`, `champion`."""

    def job(kind: str, name: str, selection: dg.AssetSelection, description: str) -> "UnresolvedAssetJobDefinition":
        return dg.define_asset_job(
            name,
            selection=selection,
            partitions_def=periods,
            executor_def=dg.in_process_executor,
            description=description,
            tags={MODEL_TAG: spec.name, KIND_TAG: kind, **({} if kind == PERIOD_KIND else URGENT)},
            metadata={"model": spec.name, "cadence": spec.cadence},
        )

    def of(*names: str) -> dg.AssetSelection:
        return dg.AssetSelection.assets(*(dg.AssetKey([spec.name, name]) for name in names))

    return {
        PERIOD_KIND: job(
            PERIOD_KIND,
            period_job_name(spec),
            dg.AssetSelection.assets(*assets),
            f"All assets of {spec.name} for one period, from raw {spec.records} to served predictions.",
        ),
        SERVE_KIND: job(
            SERVE_KIND,
            f"{spec.name}_serve",
            of(*SERVING),
            "Serves a period as its gate says now: plan B after a severe verdict, the champion after an accept.",
        ),
        RETRAIN_KIND: job(
            RETRAIN_KIND,
            f"{spec.name}_train",
            of(CHALLENGER, CHAMPION),
            "Trains and decides the newest period again, for the causes that are waiting.",
        ),
        CHAMPION_KIND: job(
            CHAMPION_KIND,
            f"{spec.name}_decide",
            of(CHAMPION),
            "Decides a period's champion again: after a rollback or a promotion by hand.",
        ),
    }


class ResolveIncident(dg.Config):
    """Who closes which incident, and why."""

    incident: int = Field(description="Number of the incident, as `mlops-assets incidents list` shows it.")
    by: str = Field(description="Who resolves it.")
    why: str = Field(description="What was found and done.")


class AcceptPeriod(dg.Config):
    """Who lets the champion serve a severe period, and why."""

    period: str = Field(description="The period whose drift is accepted.")
    report_digest: str = Field(description="Digest of that very report: report_digest in the metadata of drift_report.")
    by: str = Field(description="Who accepts it.")
    why: str = Field(description="Why the champion can be trusted all the same.")


class WithdrawAccept(dg.Config):
    """Who takes the accept of a period back, and why."""

    period: str = Field(description="The period whose accept is withdrawn.")
    by: str = Field(description="Who withdraws it.")
    why: str = Field(description="Why the champion can't be trusted after all.")


class OrderChampion(dg.Config):
    """Who puts which version in force, and why."""

    version: str | None = Field(default=None, description="The version; for a rollback the previous one by default.")
    by: str = Field(description="Who decides.")
    why: str = Field(description="Why.")


def build_decision_jobs(spec: ModelSpec) -> list[dg.JobDefinition]:
    """The jobs that a person starts from the Launchpad, with a reason."""
    from mlops_assets.monitored_model import decisions

    resources = {"lake", "store"}

    @dg.op(name=f"{spec.name}_resolve_incident_op", required_resource_keys=resources)
    @errors_redacted()
    def resolve(context: dg.OpExecutionContext, config: ResolveIncident) -> None:
        closed = context.resources.store.store().resolve(config.incident, config.by, config.why)
        context.log.info(f"incident {closed.id} of {closed.model} {closed.period} is resolved")

    @dg.op(name=f"{spec.name}_accept_period_op", required_resource_keys=resources)
    @errors_redacted()
    def accept(context: dg.OpExecutionContext, config: AcceptPeriod) -> None:
        store, lake = context.resources.store.store(), context.resources.lake.lake()
        decisions.accept(spec.name, lake, store, config.period, config.report_digest, config.by, config.why)
        context.log.info(f"{config.period} is accepted; the next run of {spec.name}_serve serves the champion's scores")

    @dg.op(name=f"{spec.name}_withdraw_accept_op", required_resource_keys=resources)
    def withdraw(context: dg.OpExecutionContext, config: WithdrawAccept) -> None:
        store, lake = context.resources.store.store(), context.resources.lake.lake()
        decisions.withdraw(spec.name, lake, store, config.period, config.by, config.why)
        context.log.info(f"the accept of {config.period} is withdrawn; the next run of {spec.name}_serve serves plan B")

    @dg.op(name=f"{spec.name}_rollback_champion_op", required_resource_keys=resources)
    @errors_redacted()
    def rollback(context: dg.OpExecutionContext, config: OrderChampion) -> None:
        store, lake = context.resources.store.store(), context.resources.lake.lake()
        order = decisions.rollback(spec.name, lake, store, config.version, config.by, config.why)
        context.log.info(
            f"version {order.version} is ordered for {order.period}; the champion of that period follows it"
        )

    @dg.op(name=f"{spec.name}_promote_champion_op", required_resource_keys=resources)
    @errors_redacted()
    def promote(context: dg.OpExecutionContext, config: OrderChampion) -> None:
        store, lake = context.resources.store.store(), context.resources.lake.lake()
        order = decisions.promote(spec.name, lake, store, config.version, config.by, config.why)
        context.log.info(
            f"version {order.version} is ordered for {order.period}; the champion of that period follows it"
        )

    def job(name: str, op: dg.OpDefinition, description: str) -> dg.JobDefinition:
        @dg.job(
            name=f"{spec.name}_{name}",
            description=description,
            tags={MODEL_TAG: spec.name, KIND_TAG: name, **URGENT},
            executor_def=dg.in_process_executor,
        )
        def decide() -> None:
            op()

        return decide

    return [
        job("resolve_incident", resolve, "Close an incident, with a reason. It does not change any gate."),
        job("accept_period", accept, "Let the champion serve a severe period, naming the digest of its report."),
        job("withdraw_accept", withdraw, "Take an accept back: the verdict counts again, and plan B serves."),
        job("rollback_champion", rollback, "Put the version that was champion before back in force."),
        job("promote_champion", promote, "Put a registered version in force by hand."),
    ]


def build_schedule(
    spec: ModelSpec, job: "UnresolvedAssetJobDefinition", periods: dg.TimeWindowPartitionsDefinition
) -> dg.ScheduleDefinition:
    """Runs the period job for the newest period; stopped until somebody starts it, or where `MLOPS_SENSORS=on`.

    By default at 06:00 of the day after a period's end. With `lead` it is the midnight at which a period begins: the
    plan is known then, and so is all that came before. Periods whose outcomes have come since are completed first.
    """
    hour = 0 if spec.lead else 6
    default_cron = f"0 {hour} 1 * *" if spec.cadence == "monthly" else f"0 {hour} * * 1"

    @dg.schedule(
        name=f"{period_job_name(spec)}_schedule",
        cron_schedule=spec.schedule or default_cron,
        job=job,
        required_resource_keys={"lake", "store"},
        description=f"Makes the newest period of {spec.name} "
        + ("when it begins, and completes those that are over." if spec.lead else "once it is over."),
        default_status=dg.DefaultScheduleStatus.RUNNING if automation_is_on() else dg.DefaultScheduleStatus.STOPPED,
    )
    @errors_redacted()
    def schedule(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        from mlops_assets.monitored_model.reconciling import opened_periods, paused_by

        with dg.partition_loading_context(effective_dt=context.scheduled_execution_time):
            newest = periods.get_last_partition_key()
        if newest is None:
            return dg.SkipReason(f"no period of {spec.name} is over yet; the first is {spec.start}")
        paused = paused_by(spec, context.resources.store.store())
        if paused is not None:
            return dg.SkipReason(paused)
        lake = context.resources.lake.lake()
        moment = context.scheduled_execution_time
        requests = [
            dg.RunRequest(run_key=f"{period}:outcomes:{moment:%Y-%m-%d}", partition_key=period)
            for period in opened_periods(spec, lake, moment.replace(tzinfo=None))
        ]
        if lake.find(spec.name, spec.raw_table, newest) is None:
            requests.append(dg.RunRequest(run_key=newest, partition_key=newest))
        if not requests:
            return dg.SkipReason(f"{newest}, the newest period of {spec.name}, is made already")
        return requests

    return schedule
