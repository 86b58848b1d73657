"""What consumers get: the predictions that the gate lets through, or none and the reason."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from mlops_assets.incidents.gate import Gate
from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.store import identifier
from mlops_assets.monitored_model import decision_log
from mlops_assets.monitored_model.gates import records_to_serve
from mlops_assets.monitored_model.outcome import Check, Outcome
from mlops_assets.monitored_model.runs import BORDER_CHECK
from mlops_assets.monitored_model.scoring import served_schema
from mlops_assets.monitored_model.served_by import served_by
from mlops_assets.monitored_model.tables import FALLBACK_PREDICTIONS, PREDICTIONS, SERVED_PREDICTIONS
from mlops_assets.monitored_model.workbench import Workbench


def make(bench: Workbench, period: str) -> Outcome:
    """The champion's predictions, or plan B's, as the gate says; otherwise no row, and the reason."""
    decided = bench.gate(period)
    schema = served_schema(bench)
    facts = {"gate": decided.state, "gate_reason": decided.reason, "decision_id": decided.decision_id}
    query = _rows_to_serve(bench, period, schema, decided)
    if query is not None:
        facts["source"] = decided.state
        partition = bench.write(SERVED_PREDICTIONS, period, query_batches(bench.con, query), facts=facts)
    else:
        reason = decided.reason
        if decided.state != "none":
            reason = f"withheld: {_no_rung(bench, period, decided)}{decided.reason}"
        partition = bench.write(SERVED_PREDICTIONS, period, schema.empty_table(), reason=reason, facts=facts)
    decision_log.record(bench.lake, bench.store, bench.name, period, "served", bench.run_id)
    if query is not None:
        bench.store.close_by_itself(bench.name, period, "plan_b_failed", f"the period is served by {decided.state}")
    metadata: dict[str, Any] = {
        "gate": decided.state,
        "served_by": str(served_by(bench.lake, bench.name, period)),
        # An empty partition's own reason says it already.
        "gate_reason": decided.reason if partition.rows and decided.reason else None,
        "decision_id": decided.decision_id,
    }
    if partition.rows:
        metadata["preview"] = bench.preview(partition)
    return Outcome(partition, metadata, [_served_complete(bench, period, decided, partition.rows)])


def _rows_to_serve(bench: Workbench, period: str, schema: pa.Schema, decided: Gate) -> str | None:
    """A SELECT of what is served, None when it is withheld."""
    if decided.state == "champion" and bench.absent(PREDICTIONS, period) is None:
        return _champion_rows(bench, period, schema, decided)
    if decided.state == "plan_b":
        plan = bench.find(FALLBACK_PREDICTIONS, period)
        if plan is not None and plan.rows and plan.facts.get("decision_id") == decided.decision_id:
            return f"SELECT {bench.columns_sql(schema.names)} FROM {bench.scan(FALLBACK_PREDICTIONS, [period])}"
    return None


def _no_rung(bench: Workbench, period: str, decided: Gate) -> str:
    """Why plan B can't serve either, when it was tried for this decision."""
    plan = bench.find(FALLBACK_PREDICTIONS, period)
    if plan is None or plan.damaged or plan.facts.get("impossible") != decided.decision_id:
        return ""
    return f"{plan.reason}; "


def _champion_rows(bench: Workbench, period: str, schema: pa.Schema, decided: Gate) -> str:
    """A SELECT of the champion's predictions in the columns of `schema`."""
    constants = {
        "prediction_source": "'champion'",
        "is_fallback": "false",
        "fallback_reason": "NULL::VARCHAR",
        "fallback_rung": "NULL::VARCHAR",
        "source_period": "NULL::VARCHAR",
        "champion_version_intended": "model_version",
        "decision_id": f"'{decided.decision_id}'",
    }
    listed = [
        f"{constants[name]} AS {identifier(name)}" if name in constants else identifier(name) for name in schema.names
    ]
    return f"SELECT {', '.join(listed)} FROM {bench.records(PREDICTIONS, [period])}"


def _served_complete(bench: Workbench, period: str, decided: Gate, served: int) -> Check:
    expected = records_to_serve(bench.lake, bench.name, period)
    metadata = {
        "gate": decided.state,
        "reason": decided.reason or None,
        "served_rows": served,
        "expected_rows": 0 if decided.state == "none" else expected,
        "decision_id": decided.decision_id,
    }
    if decided.state == "none":
        return Check(BORDER_CHECK, True, "There is no champion yet, so nothing is to be served.", metadata=metadata)
    if decided.state in ("champion", "plan_b") and served == expected:
        by = f" by plan B, because of {decided.reason}"
        if decided.state == "champion":
            by = f" by the champion: {decided.reason}" if decided.reason else ""
        return Check(BORDER_CHECK, True, f"All {served:,} records are served{by}.", metadata=metadata)
    why = f"{_no_rung(bench, period, decided)}{decided.reason}"
    text = f"Withheld: {served:,} of {expected:,} records are served. {why}".strip()
    return Check(BORDER_CHECK, False, text, metadata=metadata)
