"""The period job of a model, and its schedule.

One job holds a whole period and runs in one process: a process start per step would cost several seconds each.
Backfilling periods means backfilling this job; the run queue keeps one run per model at a time, so they run in order.
"""

from __future__ import annotations

import dagster as dg

from mlops_assets.monitored_model.spec import ModelSpec

MODEL_TAG = "mlops/model"


def period_job_name(spec: ModelSpec) -> str:
    return f"{spec.name}_{spec.cadence}"


def build_period_job(
    spec: ModelSpec, assets: list[dg.AssetsDefinition], periods: dg.TimeWindowPartitionsDefinition
) -> dg.UnresolvedAssetJobDefinition:
    """The job that makes all assets of one period."""
    return dg.define_asset_job(
        period_job_name(spec),
        selection=dg.AssetSelection.assets(*assets),
        partitions_def=periods,
        executor_def=dg.in_process_executor,
        description=f"All assets of {spec.name} for one period, from raw {spec.records} to served predictions.",
        tags={MODEL_TAG: spec.name},
        metadata={"model": spec.name, "cadence": spec.cadence},
    )


def build_schedule(
    spec: ModelSpec, job: dg.UnresolvedAssetJobDefinition, periods: dg.TimeWindowPartitionsDefinition
) -> dg.ScheduleDefinition:
    """Runs the job for the newest period; stopped until somebody starts it.

    By default at 06:00 of the day after a period's end, when `lead` is 0; at the time that the partitions change
    otherwise.
    """
    name = f"{period_job_name(spec)}_schedule"
    description = f"Makes the newest period of {spec.name} once it is over."
    default_cron = "0 6 1 * *" if spec.cadence == "monthly" else "0 6 * * 1"
    cron = spec.schedule or default_cron

    @dg.schedule(
        name=name,
        cron_schedule=cron,
        job=job,
        description=description,
        default_status=dg.DefaultScheduleStatus.STOPPED,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        with dg.partition_loading_context(effective_dt=context.scheduled_execution_time):
            newest = periods.get_last_partition_key()
        if newest is None:
            return dg.SkipReason(f"no period of {spec.name} is over yet; the first is {spec.start}")
        return dg.RunRequest(run_key=newest, partition_key=newest)

    return schedule
