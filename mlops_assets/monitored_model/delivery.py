"""What consumers get: the served predictions of a period, or none and the reason, as the gate says."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from mlops_assets.incidents.gate import Gate
from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.store import identifier
from mlops_assets.monitored_model.outcome import Check, Outcome, table
from mlops_assets.monitored_model.runs import BORDER_CHECK
from mlops_assets.monitored_model.watching import period_gate, predictions_schema
from mlops_assets.monitored_model.workbench import (
    FALLBACK_PREDICTIONS,
    FEATURES,
    PREDICTIONS,
    SERVED_PREDICTIONS,
    Workbench,
)

PREVIEW_ROWS = 5


def served_schema(bench: Workbench) -> pa.Schema:
    """The columns of served and fallback predictions: the record's key and time, then what was served and why."""
    spec = bench.spec
    time = [spec.source.time_column] if spec.source.time_column else []
    known = predictions_schema(bench)
    fields = [known.field(name) for name in dict.fromkeys([*spec.record_keys, *time])]
    own = {
        "score": pa.float64(),
        "prediction": pa.float64(),
        "prediction_source": pa.string(),
        "is_fallback": pa.bool_(),
        "fallback_reason": pa.string(),
        "fallback_rung": pa.string(),
        "source_period": pa.string(),
        "model_version": pa.string(),
        "champion_version_intended": pa.string(),
        "decision_id": pa.string(),
    }
    return pa.schema([*fields, *(pa.field(name, kind) for name, kind in own.items())])


def fallback_predictions(bench: Workbench, period: str) -> Outcome:
    """Plan B's predictions of a period: empty, with the reason."""
    decided = period_gate(bench, period)
    if decided.state == "plan_b":
        reason = "plan B is not built in this version, so the period stays withheld"
    else:
        reason = f"not needed: the gate is {decided.state}" + (f" ({decided.reason})" if decided.reason else "")
    partition = bench.write(FALLBACK_PREDICTIONS, period, served_schema(bench).empty_table(), reason=reason)
    return Outcome(partition, {"gate": decided.state, "decision_id": decided.decision_id})


def served_predictions(bench: Workbench, period: str) -> Outcome:
    """The champion's scores when the gate lets them through; otherwise no row, and the reason."""
    decided = period_gate(bench, period)
    schema = served_schema(bench)
    facts = {"gate": decided.state, "gate_reason": decided.reason, "decision_id": decided.decision_id}
    scored = bench.partition(PREDICTIONS, period)
    if decided.state == "champion" and scored.reason is None:
        query = _champion_rows(bench, period, schema, decided)
        partition = bench.write(
            SERVED_PREDICTIONS, period, query_batches(bench.con, query), facts=facts | {"source": "champion"}
        )
    else:
        reason = decided.reason if decided.state == "none" else f"withheld: {decided.reason or scored.reason}"
        partition = bench.write(SERVED_PREDICTIONS, period, schema.empty_table(), reason=reason, facts=facts)
    metadata: dict[str, Any] = {
        "gate": decided.state,
        # An empty partition's own reason says it already.
        "gate_reason": decided.reason if partition.rows and decided.reason else None,
        "decision_id": decided.decision_id,
    }
    if partition.rows:
        metadata["preview"] = _preview(bench, period, schema)
    return Outcome(partition, metadata, [_served_complete(bench, period, decided, partition.rows)])


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
    return f"SELECT {', '.join(listed)} FROM {bench.scan(PREDICTIONS, [period])}"


def _preview(bench: Workbench, period: str, schema: pa.Schema) -> Any:
    rows = bench.con.execute(
        f"SELECT {bench.columns_sql(schema.names)} FROM {bench.scan(SERVED_PREDICTIONS, [period])} LIMIT {PREVIEW_ROWS}"
    ).fetchall()
    # One line per column, as they are too many to stand side by side.
    values = zip(*rows, strict=True)
    return table(
        [
            {"column": name, **{f"row {number}": value for number, value in enumerate(row, 1)}}
            for name, row in zip(schema.names, values, strict=True)
        ]
    )


def _served_complete(bench: Workbench, period: str, decided: Gate, served: int) -> Check:
    features = bench.partition(FEATURES, period)
    metadata = {
        "gate": decided.state,
        "reason": decided.reason or None,
        "served_rows": served,
        "expected_rows": 0 if decided.state == "none" else features.rows,
        "decision_id": decided.decision_id,
    }
    if decided.state == "none":
        return Check(BORDER_CHECK, True, "There is no champion yet, so nothing is to be served.", metadata=metadata)
    if decided.state == "champion" and served == features.rows:
        return Check(BORDER_CHECK, True, f"All {served:,} records are served.", metadata=metadata)
    text = f"Withheld: {served:,} of {features.rows:,} records are served. {decided.reason}".strip()
    return Check(BORDER_CHECK, False, text, metadata=metadata)
