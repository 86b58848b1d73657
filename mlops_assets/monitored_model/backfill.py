"""A range of periods in one process, on the same Dagster instance that the UI shows.

Each period is a run of the model's period job, so partitions, checks and logs are where a person looks for them; only
the process starts in between are saved.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from filelock import FileLock

from mlops_assets.home import Home
from mlops_assets.lake.periods import Calendar
from mlops_assets.monitored_model.jobs import MODEL_TAG
from mlops_assets.monitored_model.runs import RunOutcome, run_outcome

# As in workspace.yaml.
CODE_LOCATION = "mlops_assets"
CODE_LOCATION_MODULE = "mlops_assets.definitions"

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class UnknownModel(LookupError):
    """No model of that name is declared."""


class PeriodOutsideModel(ValueError):
    """A period that the model's declaration does not cover."""


@dataclass(frozen=True)
class PeriodRunResult:
    """How the run of one period ended, in how many seconds; `errors` is what failed, by step."""

    period: str
    run_id: str
    outcome: RunOutcome
    seconds: float
    errors: dict[str, str]


def models(definitions: dg.Definitions) -> dict[str, dg.JobDefinition]:
    """The period job of every declared model, by the model's name."""
    jobs = definitions.resolve_all_job_defs()
    return {job.tags[MODEL_TAG]: job for job in jobs if MODEL_TAG in job.tags and job.partitions_def is not None}


def backfill(
    definitions: dg.Definitions,
    model: str,
    periods: Sequence[str],
    *,
    trials: int | None = None,
    instance: dg.DagsterInstance | None = None,
) -> Iterator[PeriodRunResult]:
    """Run the model's periods in order, yielding each result as it is there. A failed period does not stop the rest.

    Parameters
    ----------
    trials
        Trials of each search, instead of the declaration's.
    instance
        By default that of `DAGSTER_HOME`, prepared when it is new.

    Raises
    ------
    UnknownModel, PeriodOutsideModel
        Before anything runs.
    """
    job = _job(definitions, model)
    _check(job, model, periods)
    if instance is None:
        instance = _instance()
    for period in periods:
        yield _run(job, model, period, trials, instance)


def _instance() -> dg.DagsterInstance:
    """The instance of `DAGSTER_HOME`. Two processes can't make its databases at the same time, so one waits."""
    folder = Home.from_env().prepare_dagster()
    with FileLock(folder / ".opening.lock"):
        return dg.DagsterInstance.get()


def parse_periods(definitions: dg.Definitions, model: str, text: str) -> list[str]:
    """The periods of `FROM..TO` or of a single period, checked against the model's declaration.

    Raises UnknownModel, PeriodOutsideModel, or PeriodError when the text is not a range of periods.
    """
    job = _job(definitions, model)
    periods = Calendar(_cadence(job)).parse_range(text)
    _check(job, model, periods)
    return periods


def _cadence(job: dg.JobDefinition) -> Literal["monthly", "weekly"]:
    return "weekly" if job.metadata["cadence"].value == "weekly" else "monthly"


def _job(definitions: dg.Definitions, model: str) -> dg.JobDefinition:
    known = models(definitions)
    if model not in known:
        raise UnknownModel(f"no model is called {model!r}; declared are {', '.join(sorted(known)) or 'none'}")
    return known[model]


def _check(job: dg.JobDefinition, model: str, periods: Sequence[str]) -> None:
    keys = job.partitions_def.get_partition_keys() if job.partitions_def is not None else []
    outside = [period for period in periods if period not in keys]
    if outside:
        raise PeriodOutsideModel(
            f"{model} has no period {', '.join(outside)}; its periods are {keys[0]} to {keys[-1]} "
            "(start and end in defs.yaml)"
        )


def _run(
    job: dg.JobDefinition, model: str, period: str, trials: int | None, instance: dg.DagsterInstance
) -> PeriodRunResult:
    config: dict[str, Any] = dict(QUIET)
    if trials is not None:
        config["ops"] = {f"{model}__challenger": {"config": {"trials": trials}}}
    started = time.perf_counter()
    origin = _origin(job.name)
    result = job.execute_in_process(
        partition_key=period,
        instance=instance,
        run_config=config,
        raise_on_error=False,
        tags={REPOSITORY_LABEL_TAG: origin.repository_origin.get_label()},
    )
    _link(instance, result.run_id, origin)
    outcome = run_outcome(instance, result.run_id)
    seconds = time.perf_counter() - started
    return PeriodRunResult(period, result.run_id, outcome, seconds, {} if outcome == "success" else _errors(result))


def _origin(job_name: str) -> RemoteJobOrigin:
    """The job as the UI knows it, from workspace.yaml."""
    location = ManagedGrpcPythonEnvCodeLocationOrigin(
        loadable_target_origin=LoadableTargetOrigin(module_name=CODE_LOCATION_MODULE), location_name=CODE_LOCATION
    )
    return RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME).get_job_origin(job_name)


def _link(instance: dg.DagsterInstance, run_id: str, origin: RemoteJobOrigin) -> None:
    """Make the run one of the job's: a run in process has no origin, so the UI's timeline would leave it out."""
    run = instance.get_run_by_id(run_id)
    if run is not None:
        instance.run_storage.replace_job_origin(run, origin)


def _errors(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    errors = {}
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error is not None:
            error = event.step_failure_data.error
            cause = error.cause or error
            errors[event.step_key or ""] = cause.message.strip()
        elif event.event_type == dg.DagsterEventType.RUN_FAILURE and not errors:
            # Before any step: a resource could not be made.
            failure = event.job_failure_data.error
            if failure is not None:
                errors["the run's resources"] = (failure.cause or failure).message.strip()
    if not errors and result.get_failed_step_keys():
        errors = dict.fromkeys(result.get_failed_step_keys(), "see the run's log")
    return errors
