"""Plan B's predictions of a period: made when the gate asks for them, empty with the reason otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlops_assets.incidents.gate import Gate
from mlops_assets.lake.store import Partition, identifier, quoted
from mlops_assets.monitored_model.gates import period_gate
from mlops_assets.monitored_model.outcome import Outcome
from mlops_assets.monitored_model.scoring import SCORE, served_schema
from mlops_assets.monitored_model.tables import CHAMPION, DRIFT_REPORT, FALLBACK_PREDICTIONS, FEATURES, PREDICTIONS
from mlops_assets.monitored_model.versions import named_by
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets.training.registry import RegistryError

if TYPE_CHECKING:
    from mlops_assets.plan_b.ladder import PlanBInputs, PreviousChampion, Served


def make(bench: Workbench, period: str) -> Outcome:
    """Serve the period from the first rung of the ladder that can, when the gate says `plan_b`.

    In the period's own run they are left to the sensor. Predictions that were made for this very decision are kept.
    """
    from mlops_assets.plan_b.ladder import NoPlanB, serve

    decided = bench.gate(period)
    if decided.state != "plan_b":
        why = f" ({decided.reason})" if decided.reason else ""
        return _empty(bench, period, decided, f"not needed: the gate is {decided.state}{why}")
    known = bench.find(FALLBACK_PREDICTIONS, period)
    if known is not None and known.rows and known.facts.get("decision_id") == decided.decision_id:
        return Outcome(known, _metadata(bench, known, decided))
    if bench.plan_b_waits:
        return _empty(bench, period, decided, f"plan B is due, the sensor {bench.name}_serving serves it")
    # Before the stream is opened: DuckDB takes no other statement while a result is being read.
    schema = served_schema(bench)
    try:
        served = serve(bench.spec.plan_b, _inputs(bench, period))
    except NoPlanB as error:
        return _empty(bench, period, decided, str(error), {"impossible": decided.decision_id})
    partition = _write(bench, period, served, schema, decided)
    return Outcome(partition, _metadata(bench, partition, decided))


def _empty(bench: Workbench, period: str, decided: Gate, reason: str, facts: dict[str, Any] | None = None) -> Outcome:
    schema = served_schema(bench)
    partition = bench.write(FALLBACK_PREDICTIONS, period, schema.empty_table(), reason=reason, facts=facts)
    return Outcome(partition, {"gate": decided.state, "decision_id": decided.decision_id})


def _inputs(bench: Workbench, period: str) -> PlanBInputs:
    from mlops_assets.plan_b.ladder import PlanBInputs

    spec = bench.spec
    source_period = last_healthy_period(bench, period)
    time = [spec.source.time_column] if spec.source.time_column else []
    hidden = f"period, {identifier(spec.target.column)}"
    return PlanBInputs(
        con=bench.con,
        records=f"(SELECT * EXCLUDE ({hidden}) FROM {bench.records(FEATURES, [period])})",
        keys=list(dict.fromkeys([*spec.record_keys, *time])),
        task=spec.target.task,
        cut=bench.partition(PREDICTIONS, period).facts.get("cut"),
        segments=spec.segments,
        source=None if source_period is None else _source(bench, source_period),
        source_period=source_period,
        previous=_previous_champion(bench, period) if "previous_champion" in spec.plan_b else None,
    )


def last_healthy_period(bench: Workbench, period: str) -> str | None:
    """The newest earlier period whose own predictions could be served and that was not severe; None without one."""
    for earlier in reversed([known for known in bench.lake.periods(bench.name, PREDICTIONS) if known < period]):
        scored = bench.find(PREDICTIONS, earlier)
        report = bench.find(DRIFT_REPORT, earlier)
        healthy = report is not None and not report.damaged and report.facts["verdict"] in ("ok", "warning")
        if (
            scored is not None
            and scored.rows
            and healthy
            and period_gate(bench.spec, bench.lake, bench.store, earlier).state == "champion"
        ):
            return earlier
    return None


def _source(bench: Workbench, source_period: str) -> str:
    """The healthy period's segments, scores, and outcomes where they are known (1 or 0, or amounts)."""
    spec = bench.spec
    target = identifier(spec.target.column)
    if spec.target.task == "classification":
        positive = spec.target.positive
        literal = quoted(positive) if isinstance(positive, str) else str(positive)
        outcome = f"CASE WHEN {target} IS NOT NULL THEN ({target} = {literal})::INTEGER END"
    else:
        outcome = target
    keys = bench.columns_sql(spec.record_keys)
    segments = "".join(f", p.{identifier(name)}" for name in spec.segments)
    return (
        f"(SELECT p.{SCORE}, f.outcome{segments} FROM {bench.records(PREDICTIONS, [source_period])} p "
        f"LEFT JOIN (SELECT {keys}, {outcome} AS outcome FROM {bench.records(FEATURES, [source_period])}) f "
        f"USING ({keys}))"
    )


def _previous_champion(bench: Workbench, period: str) -> PreviousChampion | str | None:
    """The version in force before the one that scored the period, or why it can't be loaded; None without one."""
    from mlops_assets.plan_b.ladder import PreviousChampion
    from mlops_assets.training.pipeline import scores

    try:
        intended = named_by(bench.lake, bench.partition(DRIFT_REPORT, period), key="champion_version")
        for earlier in reversed([known for known in bench.lake.periods(bench.name, CHAMPION) if known < period]):
            named = named_by(bench.lake, bench.partition(CHAMPION, earlier))
            if named is not None and (intended is None or named.fingerprint != intended.fingerprint):
                model = bench.versions.load(named)
                break
        else:
            return None
    except RegistryError as error:
        return str(error)
    return PreviousChampion(
        version=model.version,
        scores=lambda frame: scores(model.pipeline, frame, bench.spec.target),
        cut=model.cut,
        columns=list(model.kinds),
    )


def _write(bench: Workbench, period: str, served: Served, schema: pa.Schema, decided: Gate) -> Partition:
    intended = bench.partition(DRIFT_REPORT, period).facts.get("champion_version")
    constants: dict[str, Any] = {
        "prediction_source": "plan_b",
        "is_fallback": True,
        "fallback_reason": decided.reason,
        "fallback_rung": served.rung,
        "source_period": served.source_period,
        "model_version": served.model_version,
        "champion_version_intended": intended,
        "decision_id": decided.decision_id,
    }

    def rows() -> Iterator[pa.RecordBatch]:
        for batch in served.batches:
            columns = [
                pa.repeat(pa.scalar(constants[field.name], field.type), batch.num_rows)
                if field.name in constants
                else batch.column(field.name).cast(field.type)
                for field in schema
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    facts = {
        "decision_id": decided.decision_id,
        "rung": served.rung,
        "source_period": served.source_period,
        "model_version": served.model_version,
        "skipped": dict(served.skipped),
        "cut": served.cut,
        **dict(served.facts),
    }
    return bench.write(FALLBACK_PREDICTIONS, period, pa.RecordBatchReader.from_batches(schema, rows()), facts=facts)


def _metadata(bench: Workbench, partition: Partition, decided: Gate) -> dict[str, Any]:
    facts = partition.facts
    skipped = "; ".join(f"{rung}: {why}" for rung, why in facts.get("skipped", {}).items())
    return {
        "gate": decided.state,
        "gate_reason": decided.reason,
        "decision_id": decided.decision_id,
        "rung": facts.get("rung"),
        "source_period": facts.get("source_period"),
        "rungs_that_could_not_serve": skipped or None,
        "preview": bench.preview(partition),
    }
