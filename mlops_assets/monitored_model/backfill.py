"""A range of periods in one process, on the same Dagster instance that the UI shows.

Each period is a run of the model's period job, so partitions, checks and logs are where a person looks for them; only
the process starts in between are saved.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import dagster as dg
from filelock import FileLock

from mlops_assets.home import Home
from mlops_assets.incidents.processes import this_process
from mlops_assets.incidents.store import Store
from mlops_assets.lake.periods import Calendar
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.component import SPEC_RESOURCE, SpecResource
from mlops_assets.monitored_model.dagster_internals import link_to_job, location_tags
from mlops_assets.monitored_model.dead_runs import fail_dead_runs
from mlops_assets.monitored_model.jobs import KIND_TAG, MODEL_TAG, PERIOD_KIND, PROCESS_TAG
from mlops_assets.monitored_model.reconciling import (
    close_made_periods,
    finish_decisions,
    order_runs,
    plan_b_runs,
    retrain_runs,
    run_under_way,
    serving_now,
)
from mlops_assets.monitored_model.runs import RunOutcome, run_outcome
from mlops_assets.monitored_model.sensors import Planner, announce_failure, deliver_alerts
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.tables import CHAMPION

_log = logging.getLogger(__name__)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class UnknownModel(LookupError):
    """No model of that name is declared."""


class PeriodOutsideModel(ValueError):
    """A period that the model's declaration does not cover."""


@dataclass(frozen=True)
class PeriodRunResult:
    """How the run of one period ended, in how many seconds; `errors` is what failed, by step; `served_after` are the
    runs that it made due: plan B, a retraining."""

    job: str
    period: str
    run_id: str
    outcome: RunOutcome
    seconds: float
    errors: dict[str, str]
    served_after: tuple[PeriodRunResult, ...] = ()


def models(definitions: dg.Definitions) -> dict[str, dict[str, dg.JobDefinition]]:
    """The jobs of every declared model by kind (`jobs.PERIOD_KIND`, …), by the model's name."""
    found: dict[str, dict[str, dg.JobDefinition]] = {}
    for job in definitions.resolve_all_job_defs():
        if MODEL_TAG in job.tags and KIND_TAG in job.tags:
            found.setdefault(job.tags[MODEL_TAG], {})[job.tags[KIND_TAG]] = job
    return found


def spec_of(definitions: dg.Definitions, model: str) -> ModelSpec:
    """The declaration of a model. Raises UnknownModel."""
    found = (definitions.resources or {}).get(f"{SPEC_RESOURCE}{model}")
    if not isinstance(found, SpecResource):
        raise UnknownModel(f"no model is called {model!r}; declared are {', '.join(sorted(models(definitions)))}")
    return found.spec


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
    running = instance or open_instance()
    finish_what_broke_off(definitions, model, running)
    for period in periods:
        result = _run(job, model, period, running, trials=trials)
        if result.outcome == "failed":
            _announce(running, shared(definitions)[1], result.run_id)
        after = reconcile(definitions, model, running)
        yield replace(result, served_after=tuple(after))


def open_instance() -> dg.DagsterInstance:
    """The instance of `DAGSTER_HOME`. Two processes can't make its databases at the same time, so one waits."""
    folder = Home.from_env().prepare_dagster()
    with FileLock(folder / ".opening.lock"):
        return dg.DagsterInstance.get()


def reconcile(definitions: dg.Definitions, model: str, instance: dg.DagsterInstance) -> list[PeriodRunResult]:
    """Do what the sensors would do: run what is due, tell about failures, send the alerts that are waiting.

    The end state is the daemon's, because both ask `reconciling` what is due.
    """
    spec = spec_of(definitions, model)
    lake, store = shared(definitions)
    finish_what_broke_off(definitions, model, instance)
    close_made_periods(spec, lake, store)
    done: list[PeriodRunResult] = []
    for planner in (order_runs, plan_b_runs, retrain_runs):
        for wanted in planner(spec, lake, store, instance).runs:
            job = _job(definitions, model, wanted.kind)
            done.append(_run(job, model, wanted.period, instance, tags=wanted.tags))
    for result in done:
        if result.outcome == "failed":
            _announce(instance, store, result.run_id)
    deliver_alerts(store, lake)
    return done


def finish_what_broke_off(definitions: dg.Definitions, model: str, instance: dg.DagsterInstance) -> None:
    """Close the runs of dead processes, and finish the decision that one of them has left half written."""
    lake, store = shared(definitions)
    fail_dead_runs(instance, store)
    finished = finish_decisions(spec_of(definitions, model), lake, store)
    if finished is not None:
        _log.warning("%s: %s", model, finished)


def how_it_is_served(
    definitions: dg.Definitions, model: str, period: str, instance: dg.DagsterInstance
) -> tuple[bool, str]:
    """Whether a period is served as its gate says, and by whom; if not, what that waits for."""
    return serving_now(spec_of(definitions, model), *shared(definitions), instance, period)


def what_waits(definitions: dg.Definitions, model: str, instance: dg.DagsterInstance) -> list[str]:
    """The decisions of people that are stored, but not followed yet, each with what it waits for."""
    spec = spec_of(definitions, model)
    lake, store = shared(definitions)
    lines = []
    orders, waiting = store.orders(model), store.pending(model)
    if orders:
        decided = lake.find(model, CHAMPION, orders[-1].period)
        if decided is None or decided.damaged or decided.facts.get("order") != orders[-1].id:
            what = f"version {orders[-1].version} is ordered for {orders[-1].period}, but not in force yet"
            lines.append(f"{what}: {_held_by(spec, lake, store, instance, order_runs, orders[-1].period)}")
    for cause in waiting:
        if cause.kind == "person":
            why = _held_by(spec, lake, store, instance, retrain_runs, cause.period)
            lines.append(f"the retraining of {cause.period} that {cause.by} asked for has not run yet: {why}")
    if lines:
        lines.append("Where sensors run, it is done then; elsewhere run this command again, or backfill the period.")
    return lines


def _held_by(
    spec: ModelSpec, lake: Lake, store: Store, instance: dg.DagsterInstance, planner: Planner, period: str
) -> str:
    busy = run_under_way(instance, spec.name, period)
    if busy is not None:
        return f"run {busy[:8]} of {period} has not ended"
    return planner(spec, lake, store, instance).message


def _announce(instance: dg.DagsterInstance, store: Store, run_id: str) -> None:
    run = instance.get_run_by_id(run_id)
    if run is not None:
        announce_failure(instance, store, run)


def shared(definitions: dg.Definitions) -> tuple[Lake, Store]:
    """The lake and the incident store that the definitions' resources name."""
    resources: Mapping[str, Any] = definitions.resources or {}
    return resources["lake"].lake(), resources["store"].store()


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


def _job(definitions: dg.Definitions, model: str, kind: str = PERIOD_KIND) -> dg.JobDefinition:
    known = models(definitions)
    if model not in known:
        raise UnknownModel(f"no model is called {model!r}; declared are {', '.join(sorted(known)) or 'none'}")
    return known[model][kind]


def _check(job: dg.JobDefinition, model: str, periods: Sequence[str]) -> None:
    keys = job.partitions_def.get_partition_keys() if job.partitions_def is not None else []
    outside = [period for period in periods if period not in keys]
    if outside:
        raise PeriodOutsideModel(
            f"{model} has no period {', '.join(outside)}; its periods are {keys[0]} to {keys[-1]} "
            "(start and end in defs.yaml)"
        )


def _run(
    job: dg.JobDefinition,
    model: str,
    period: str,
    instance: dg.DagsterInstance,
    *,
    trials: int | None = None,
    tags: Mapping[str, str] | None = None,
) -> PeriodRunResult:
    config: dict[str, Any] = dict(QUIET)
    if trials is not None:
        config["ops"] = {f"{model}__challenger": {"config": {"trials": trials}}}
    started = time.perf_counter()
    result = job.execute_in_process(
        partition_key=period,
        instance=instance,
        run_config=config,
        raise_on_error=False,
        tags={**location_tags(job.name), PROCESS_TAG: this_process(), **(tags or {})},
    )
    link_to_job(instance, result.run_id, job.name)
    if _interrupted(result):
        # Dagster has closed the run and swallowed the signal; the periods after it were not asked for any more.
        raise KeyboardInterrupt
    outcome = run_outcome(instance, result.run_id)
    seconds = time.perf_counter() - started
    return PeriodRunResult(
        job.name, period, result.run_id, outcome, seconds, {} if outcome == "success" else _errors(result)
    )


def _interrupted(result: dg.ExecuteInProcessResult) -> bool:
    errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    return any(error is not None and error.cls_name == "DagsterExecutionInterruptedError" for error in errors)


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
