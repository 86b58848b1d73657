"""What has to be run so that the world is as the lake, the gate and people's decisions say: states are compared.

Because only states are compared, restarts, lost cursors, duplicate ticks and killed runs change nothing: what was done
is no longer due, what was not still is. The sensors ask here, and so does the command line, which needs no daemon.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.home import Home, sensor_seconds
from mlops_assets.incidents.gate import Gate
from mlops_assets.incidents.lease import holders
from mlops_assets.incidents.store import IncidentKind, Store
from mlops_assets.lake.store import DamagedPartition, Lake
from mlops_assets.monitored_model import aliases, decision_log
from mlops_assets.monitored_model.arrivals import Arrival
from mlops_assets.monitored_model.gates import (
    awaits_outcomes,
    champion_before,
    newest_to_train,
    period_gate,
    period_gates,
    records_to_serve,
)
from mlops_assets.monitored_model.graph import graph, inputs_of
from mlops_assets.monitored_model.jobs import (
    CAUSE_TAG,
    CHAMPION_KIND,
    DECISION_TAG,
    GATE_TAG,
    KIND_TAG,
    MODEL_TAG,
    PERIOD_KIND,
    RETRAIN_KIND,
    SERVE_KIND,
    SERVING,
)
from mlops_assets.monitored_model.resources import PARTITION_TAG, RUN_LEASE
from mlops_assets.monitored_model.runs import run_outcome
from mlops_assets.monitored_model.served_by import served_by
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.tables import (
    CHAMPION,
    DRIFT_REPORT,
    FALLBACK_PREDICTIONS,
    FEATURES,
    PERFORMANCE,
    SERVED_PREDICTIONS,
    WAITS_FOR,
)
from mlops_assets.monitored_model.versions import as_known

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_ATTEMPTS = 4
# Before the second attempt, in intervals of the sensors; each further one waits twice as long.
FIRST_PAUSE_INTERVALS = 3
ARRIVAL_TAG = "mlops/arrival"
CAUSES_TAG = "mlops/causes"
ORDER_TAG = "mlops/order"
FOLLOWS_TAG = "mlops/follows"
FINISHED_STATUSES = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Wanted:
    """A run that is due: of which job, for which period, under which key."""

    kind: str
    period: str
    run_key: str
    tags: dict[str, str]


@dataclass
class Plan:
    """The runs that are due, and what a person should know about those that are not."""

    runs: list[Wanted] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def message(self) -> str:
        return "; ".join(self.notes)


def paused_by(spec: ModelSpec, store: Store) -> str | None:
    """Why a model's automation waits (`on_severe: pause`); None when it does not."""
    if spec.on_severe != "pause":
        return None
    for incident in store.incidents(model=spec.name, state="open"):
        if incident.kind in ("drift", "quality"):
            return (
                f"{spec.name} is paused by incident {incident.id} ({incident.kind} in {incident.period}); "
                "resolve or accept it to go on"
            )
    return None


def _periods(spec: ModelSpec, lake: Lake, table: str) -> list[str]:
    """The written periods of a table that are the model's: after a changed `start` or `end` Dagster has no others."""
    return [period for period in lake.periods(spec.name, table) if spec.covers(period)]


# -- plan B ---------------------------------------------------------------------------------------------------


def plan_b_runs(
    spec: ModelSpec, lake: Lake, store: Store, instance: dg.DagsterInstance, *, now: float | None = None
) -> Plan:
    """A run for each period whose served predictions are not what its gate says, unless one is under way."""
    plan = Plan()
    moment = time.time() if now is None else now
    for period, decided in period_gates(spec, lake, store, _periods(spec, lake, DRIFT_REPORT)).items():
        damage = _damaged_input(spec, lake, period)
        if damage is not None:
            # Nothing that was served is taken back because a file of the period can't be read.
            plan.notes.append(damage)
            continue
        why = difference(spec, lake, period, decided)
        if why is None:
            continue
        busy = run_under_way(instance, spec.name, period)
        if busy is not None:
            plan.notes.append(f"{period} is being made by run {busy[:8]}")
            continue
        attempts = _attempts(instance, spec.name, period, DECISION_TAG, decided.decision_id)
        failures = _failures_at_the_end(_since_made(instance, spec.name, period, attempts))
        if failures >= MAX_ATTEMPTS:
            sentence = f"{failures} runs that should serve {period} failed; the gate: {decided.reason}"
            plan.notes.append(_given_up(store, spec.name, period, "plan_b_failed", sentence, decided.decision_id))
            continue
        wait = _wait(attempts, failures, moment)
        if wait > 0:
            plan.notes.append(f"{period}: attempt {failures + 1} in {wait:.0f} s")
            continue
        tags = {DECISION_TAG: decided.decision_id, GATE_TAG: decided.state}
        tags[CAUSE_TAG] = decided.reason[:200] or decided.state
        incident = next(iter(store.incidents(model=spec.name, period=period, kind="drift")), None)
        if incident is not None:
            tags["mlops/incident"] = str(incident.id)
        key = f"{period}:{decided.decision_id}:{len(attempts) + 1}"
        plan.runs.append(Wanted(SERVE_KIND, period, key, tags))
        plan.notes.append(f"{period}: {why}")
    if not plan.notes:
        plan.notes.append("what is served is what the gates say")
    return plan


def _since_made(
    instance: dg.DagsterInstance, model: str, period: str, attempts: Sequence[_Attempt]
) -> Sequence[_Attempt]:
    """The attempts since the period was made last: whoever makes it again wants to see it served, and starts anew."""
    made = max((attempt.end_time for attempt in _period_attempts(instance, model, period)), default=0.0)
    return [attempt for attempt in attempts if attempt.end_time > made]


def _damaged_input(spec: ModelSpec, lake: Lake, period: str) -> str | None:
    """What is wrong with a partition that serving the period again would read, and not make again; None when nothing.

    Its run would fail.
    """
    for declared in graph(spec):
        if declared.name not in SERVING:
            found = lake.find(spec.name, declared.name, period)
            if found is not None and found.damaged:
                return found.damaged
    return None


def serving_now(
    spec: ModelSpec, lake: Lake, store: Store, instance: dg.DagsterInstance, period: str
) -> tuple[bool, str]:
    """Whether a period is served as its gate says, and by whom; if not, what that waits for and what to do."""
    decided = period_gate(spec, lake, store, period)
    by = served_by(lake, spec.name, period)
    now = "nothing" if by is None else f"the {by}" if by.source == "champion" else str(by)
    why = difference(spec, lake, period, decided)
    if why is None:
        because = f": {by.reason}" if by is not None and by.source == "withheld" and by.reason else ""
        return True, f"served by {now}{because}"
    busy = run_under_way(instance, spec.name, period)
    waits = plan_b_runs(spec, lake, store, instance).message
    if busy is not None:
        signs = holders(store, f"{RUN_LEASE}{busy}/")
        waits = f"run {busy[:8]} of this period has not ended" + (f" ({signs[0]})" if signs else "")
    return False, (
        f"still served by {now}; the gate says {decided.state}. It waits: {waits}. Where sensors run, "
        f"{spec.name}_serving serves it then; elsewhere run this command again"
    )


def difference(spec: ModelSpec, lake: Lake, period: str, decided: Gate) -> str | None:
    """In what the served predictions of a period differ from its gate; None when they agree."""
    served = lake.find(spec.name, SERVED_PREDICTIONS, period)
    if served is None:
        return "nothing was served or withheld yet"
    if served.damaged:
        return served.damaged
    if served.facts.get("decision_id") != decided.decision_id:
        return f"served by decision {served.facts.get('decision_id')}, the gate now says {decided.state}"
    if _performance_is_outdated(spec, lake, period):
        return "performance is not that of what is served"
    if decided.state in ("none", "withheld"):
        return None if served.rows == 0 else f"{served.rows:,} rows are served, the gate says {decided.state}"
    if decided.state == "plan_b":
        made = lake.find(spec.name, FALLBACK_PREDICTIONS, period)
        if made is not None and not made.damaged and made.facts.get("impossible") == decided.decision_id:
            return None  # no rung can serve: withheld until something changes
    expected = records_to_serve(lake, spec.name, period)
    if served.rows != expected:
        return f"{served.rows:,} of {expected:,} records are served, the gate says {decided.state}"
    return None


def _performance_is_outdated(spec: ModelSpec, lake: Lake, period: str) -> bool:
    """Whether a run that should have served broke off before it had measured what it serves."""
    made, measured = (lake.find(spec.name, name, period) for name in (FALLBACK_PREDICTIONS, PERFORMANCE))
    if made is None:
        return False
    if measured is None or measured.damaged:
        return True
    return measured.facts["made_from"].get(f"{FALLBACK_PREDICTIONS}/{period}") != made.digest


def run_under_way(instance: dg.DagsterInstance, model: str, period: str) -> str | None:
    """The id of a run of this model's period that has not ended, of whatever job or click; None without one."""
    for run in instance.get_runs(dg.RunsFilter(tags={PARTITION_TAG: period}, statuses=IN_PROGRESS)):
        selected = run.asset_selection or set()
        if run.tags.get(MODEL_TAG) == model or any(key.path[0] == model for key in selected):
            return run.run_id
    return None


@dataclass(frozen=True)
class _Attempt:
    failed: bool
    end_time: float
    signature: str | None = None


def _attempts(instance: dg.DagsterInstance, model: str, period: str, tag: str, value: str) -> Sequence[_Attempt]:
    """The ended runs of a period that carry a tag: for a decision, for causes, for an order; oldest first."""
    wanted = dg.RunsFilter(tags={MODEL_TAG: model, PARTITION_TAG: period, tag: value})
    records = sorted(instance.get_run_records(wanted), key=lambda record: record.storage_id)
    return [
        _Attempt(
            record.dagster_run.status is not dg.DagsterRunStatus.SUCCESS,
            record.end_time or record.create_timestamp.timestamp(),
        )
        for record in records
    ]


def _failures_at_the_end(attempts: Sequence[_Attempt]) -> int:
    count = 0
    for attempt in reversed(attempts):
        if not attempt.failed:
            break
        count += 1
    return count


def _pause_seconds(failures: int) -> float:
    return FIRST_PAUSE_INTERVALS * sensor_seconds() * 2.0 ** (failures - 1)


def _wait(attempts: Sequence[_Attempt], failures: int, moment: float) -> float:
    """Seconds until the next attempt; none when the last one has not failed."""
    return attempts[-1].end_time + _pause_seconds(failures) - moment if failures else 0.0


def _given_up(store: Store, model: str, period: str, kind: IncidentKind, sentence: str, evidence: str) -> str:
    """Open the incident of runs that keep failing; says so."""
    store.found(model, period, kind, verdict="given up", reasons=[{"sentence": sentence}], evidence=evidence)
    return f"{sentence}; see the incident {kind}"


# -- periods --------------------------------------------------------------------------------------------------


def period_runs(
    spec: ModelSpec,
    lake: Lake,
    store: Store,
    instance: dg.DagsterInstance,
    arrived: Sequence[Arrival],
    *,
    now: float | None = None,
) -> Plan:
    """A run for the first period whose file has arrived or changed, or whose run broke off, unless one is under way.

    Later periods wait for it: they are scored by its champion.
    """
    plan = Plan()
    moment = time.time() if now is None else now
    new = {arrival.period: arrival for arrival in arrived}
    close_made_periods(spec, lake, store)
    for period in sorted({*new, *_periods(spec, lake, spec.raw_table)}):
        arrival = new.get(period)
        opens = _can_be_opened(spec, lake, period)
        if arrival is None and not opens and is_whole(spec, lake, period):
            continue
        # Asked before the ended runs are read, so that a run that ends in between is among one of the two.
        busy = run_under_way(instance, spec.name, period)
        if busy is not None:
            plan.notes.append(f"{period} is being made by run {busy[:8]}; later periods wait for it")
            return plan
        ended = _period_attempts(instance, spec.name, period)
        if arrival is not None:
            of_this_file = _of_the_last_file(ended, arrival.signature)
            failures = _failures_at_the_end(of_this_file)
            due = not of_this_file or failures > 0
        else:
            failures = _failures_at_the_end(ended)
            due = failures > 0 or opens
        if not due:
            continue
        if failures >= MAX_ATTEMPTS:
            sentence = f"{period}: {failures} runs failed; see their logs, and start it by hand"
            evidence = arrival.signature if arrival is not None else "its run broke off"
            plan.notes.append(_given_up(store, spec.name, period, "period_failed", sentence, evidence))
            continue
        wait = _wait(ended, failures, moment)
        if wait > 0:
            plan.notes.append(f"{period}: attempt {failures + 1} in {wait:.0f} s; later periods wait for it")
            return plan
        why = arrival.why if arrival is not None else "what it looks back at is known" if opens else "its run broke off"
        tags = {CAUSE_TAG: f"{period}: {why}"} | ({ARRIVAL_TAG: arrival.signature} if arrival is not None else {})
        key = f"{period}:{arrival.signature if arrival is not None else 'again'}:{len(ended) + 1}"
        plan.runs.append(Wanted(PERIOD_KIND, period, key, tags))
        plan.notes.append(f"{period}: {why}")
        return plan
    return plan


def close_made_periods(spec: ModelSpec, lake: Lake, store: Store) -> None:
    """Close the incidents of periods that could not be made, where all partitions are there by now."""
    for incident in store.incidents(model=spec.name, state="open", kind="period_failed"):
        if spec.covers(incident.period) and is_whole(spec, lake, incident.period):
            store.close_by_itself(spec.name, incident.period, "period_failed", "the period has been made")


def _of_the_last_file(ended: Sequence[_Attempt], signature: str) -> Sequence[_Attempt]:
    """The attempts at the end that were made for this file: one that is repaired to what it was before is new again."""
    others = [index for index, attempt in enumerate(ended) if attempt.signature != signature]
    return ended[others[-1] + 1 :] if others else ended


def is_whole(spec: ModelSpec, lake: Lake, period: str) -> bool:
    """Whether all partitions of a period are there, made from each other as they are now."""
    made = {declared.name: lake.find(spec.name, declared.name, period) for declared in graph(spec)}
    for name, partition in made.items():
        if partition is None or partition.damaged:
            return False
        known = partition.facts.get("made_from", {})
        for table, other in inputs_of(spec, name, period):
            found = made[table] if other == period else None
            if found is not None and known.get(f"{table}/{period}") != found.digest:
                return False
    return True


def _can_be_opened(spec: ModelSpec, lake: Lake, period: str) -> bool:
    """Whether a period has waited for the outcomes of an earlier one, and they are known now."""
    features = lake.find(spec.name, FEATURES, period) if spec.lead else None
    awaited = features.facts.get(WAITS_FOR) if features is not None and not features.damaged else None
    return awaited is not None and not awaits_outcomes(lake, spec.name, awaited)


def opened_periods(spec: ModelSpec, lake: Lake, moment: datetime) -> list[str]:
    """The periods that were (or could not be) opened before their outcomes were known, and are over by `moment`."""
    if not spec.lead:
        return []
    made = [lake.find(spec.name, FEATURES, period) for period in _periods(spec, lake, FEATURES)]
    return [
        features.period
        for features in made
        if features is not None
        and not features.damaged
        and (awaits_outcomes(lake, spec.name, features.period) or features.facts.get(WAITS_FOR))
        and spec.calendar.end(features.period) <= moment
    ]


def _period_attempts(instance: dg.DagsterInstance, model: str, period: str) -> list[_Attempt]:
    """The ended runs of a period's job, oldest first. One that a person has cancelled has not failed."""
    wanted = dg.RunsFilter(
        tags={MODEL_TAG: model, PARTITION_TAG: period, KIND_TAG: PERIOD_KIND}, statuses=FINISHED_STATUSES
    )
    records = sorted(instance.get_run_records(wanted), key=lambda record: record.storage_id)
    return [
        _Attempt(
            record.dagster_run.status is dg.DagsterRunStatus.FAILURE
            and run_outcome(instance, record.dagster_run.run_id) == "failed",
            record.end_time or record.update_timestamp.timestamp(),
            record.dagster_run.tags.get(ARRIVAL_TAG),
        )
        for record in records
    ]


# -- retraining and orders ------------------------------------------------------------------------------------


def retrain_runs(
    spec: ModelSpec, lake: Lake, store: Store, instance: dg.DagsterInstance, *, now: float | None = None
) -> Plan:
    """A run of the newest period for the causes that nobody has acted upon yet."""
    pending = store.pending(spec.name)
    if not pending:
        _over(store, spec.name, "retrain_failed", "the causes have been acted upon")
        return Plan(notes=["there is no cause for retraining"])
    newest = newest_to_train(lake, spec.name)
    if newest is None:
        return Plan(notes=["there is no period to train yet"])
    pending = [cause for cause in pending if cause.period <= newest]
    if not pending:
        return Plan(notes=["the cause is of a period whose outcomes are not known yet"])
    causes = ",".join(str(cause.id) for cause in pending)
    told = "; ".join(f"{cause.kind}: {cause.why}" for cause in pending)
    due = Wanted(RETRAIN_KIND, newest, f"{newest}:causes:{causes}", {CAUSE_TAG: told[:200], CAUSES_TAG: causes})
    left = f"runs that should train {newest} for {told} left the causes unanswered; see their logs"
    return _tried(
        spec, store, instance, due, CAUSES_TAG, "retrain_failed", left, f"{newest} is trained for {told}", now
    )


def finish_decisions(spec: ModelSpec, lake: Lake, store: Store) -> str | None:
    """Finish what a dead process has left between the lake, the registry and the log; what was done, None if nothing.

    A version that is gone from the registry, or a registry that does not answer, is said, not raised: everything else
    goes on.
    """
    decision_log.catch_up(lake, store, spec.name)
    if not aliases.is_unfinished(lake, store, spec.name, spec.staging):
        return None
    from mlflow.exceptions import MlflowException

    from mlops_assets.training import registry

    try:
        return aliases.finish(lake, store, spec.name, spec.staging, _mlflow)
    except (registry.RegistryError, MlflowException) as error:
        return f"the newest decision of {spec.name} can't be finished: {error}"


def notice_aliases(spec: ModelSpec, store: Store) -> str | None:
    """Write down that MLflow's aliases were moved by hand since they were pointed; None when they were not."""
    if not store.decisions(spec.name, subject="alias"):
        return None
    from mlflow.exceptions import MlflowException

    try:
        found = aliases.notice(store, _mlflow(), spec.name)
    except MlflowException as error:
        return f"MLflow's aliases could not be read: {error}"
    if found is None or found.action != aliases.BY_HAND:
        return None
    return f"MLflow's aliases were moved by hand: {found.after}, decided is {found.before}"


def _mlflow() -> MlflowClient:
    from mlops_assets.training import tracking

    home = Home.from_env()
    tracking.initialise(home.tracking_uri, home.artifacts)
    return tracking.client(home.tracking_uri)


def _behind(spec: ModelSpec, lake: Lake) -> tuple[str, str] | None:
    """An opened period that kept a champion which is no longer the one before it, and that one; None without any."""
    if not spec.lead:
        return None
    for period in _periods(spec, lake, CHAMPION):
        if not awaits_outcomes(lake, spec.name, period):
            continue
        try:
            decided = lake.partition(spec.name, CHAMPION, period)
            before = champion_before(lake, spec.name, period)
        except DamagedPartition:  # what it should follow, or whether it does, is known when that is repaired
            continue
        if decided.facts.get("order") is not None or before is None:
            continue
        kept, in_force = as_known(lake, decided), as_known(lake, before)
        if in_force is not None and (kept is None or not kept.is_same(in_force)):
            return period, in_force.number
    return None


def order_runs(
    spec: ModelSpec, lake: Lake, store: Store, instance: dg.DagsterInstance, *, now: float | None = None
) -> Plan:
    """A run that makes the newest period's champion follow a person's newest order.

    First, where a period was opened before an earlier one was decided, a run that lets its decision follow that.
    """
    behind = _behind(spec, lake)
    if behind is not None:
        period, version = behind
        told = f"version {version} is champion before {period}, which was opened under another one"
        due = Wanted(CHAMPION_KIND, period, f"{period}:follows:{version}", {CAUSE_TAG: told, FOLLOWS_TAG: version})
        left = f"runs that should let {period} follow version {version} failed; see their logs"
        return _tried(spec, store, instance, due, FOLLOWS_TAG, "order_failed", left, told, now)
    orders = store.orders(spec.name)
    if not orders:
        _over(store, spec.name, "order_failed", "there is nothing left to follow")
        return Plan(notes=["nobody has ordered a champion"])
    order = orders[-1]
    decided = lake.find(spec.name, CHAMPION, order.period)
    if decided is not None and not decided.damaged and decided.facts.get("order") == order.id:
        _over(store, spec.name, "order_failed", f"the champion follows order {order.id}")
        return Plan(notes=[f"the champion follows order {order.id}"])
    tags = {CAUSE_TAG: f"{order.action} by {order.by}: {order.why}"[:200], ORDER_TAG: str(order.id)}
    due = Wanted(CHAMPION_KIND, order.period, f"order:{order.id}", tags)
    left = f"runs that should make {order.period} follow order {order.id} failed; see their logs"
    told = f"{order.action} to version {order.version} by {order.by}"
    return _tried(spec, store, instance, due, ORDER_TAG, "order_failed", left, told, now)


def _tried(
    spec: ModelSpec,
    store: Store,
    instance: dg.DagsterInstance,
    due: Wanted,
    tag: str,
    kind: IncidentKind,
    left: str,
    told: str,
    now: float | None,
) -> Plan:
    """The run that is due, unless one is under way, the last has just failed, or too many have: then an incident.

    What is asked for is still due, so every run that has ended for it has failed, whatever its status.
    """
    if not spec.covers(due.period):
        return Plan(notes=[f"{due.period} is no period of {spec.name} any more (start and end in defs.yaml): {told}"])
    busy = run_under_way(instance, spec.name, due.period)
    if busy is not None:
        return Plan(notes=[f"{due.period} is being made by run {busy[:8]}"])
    ended = _attempts(instance, spec.name, due.period, tag, due.tags[tag])
    if len(ended) >= MAX_ATTEMPTS:
        return Plan(notes=[_given_up(store, spec.name, due.period, kind, f"{len(ended)} {left}", due.run_key)])
    wait = _wait(ended, len(ended), time.time() if now is None else now)
    if wait > 0:
        return Plan(notes=[f"{due.period}: attempt {len(ended) + 1} in {wait:.0f} s"])
    return Plan([replace(due, run_key=f"{due.run_key}:{len(ended) + 1}")], [told])


def _over(store: Store, model: str, kind: IncidentKind, why: str) -> None:
    for incident in store.incidents(model=model, state="open", kind=kind):
        store.close_by_itself(model, incident.period, kind, why)
