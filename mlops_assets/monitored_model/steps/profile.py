"""The counts of every feature column's values by day."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_assets.drift.profile import SCHEMA as PROFILE_SCHEMA
from mlops_assets.drift.profile import profile
from mlops_assets.monitored_model.outcome import Outcome, table
from mlops_assets.monitored_model.tables import FEATURES, PROFILE
from mlops_assets.monitored_model.workbench import Workbench

if TYPE_CHECKING:
    pass


def make(bench: Workbench, period: str) -> Outcome:
    """Count the values of every feature column by day."""
    spec = bench.spec
    reason = bench.unusable(period)
    if reason is not None:
        partition = bench.write(PROFILE, period, PROFILE_SCHEMA.empty_table(), reason=reason)
        return Outcome(partition)
    counted = profile(bench.con, bench.records(FEATURES, [period]), spec.kinds, spec.source.time_column)
    partition = bench.write(PROFILE, period, counted.to_arrow(), facts={"rows": counted.rows})
    rows = []
    for name in counted.columns:
        column = counted.column(name)
        rows.append(
            {
                "column": name,
                "kind": column.kind,
                "distinct": column.distinct,
                "nulls": column.nulls,
                "quantised to digits": column.digits,
            }
        )
    metadata = {f"{spec.records}_profiled": counted.rows, "days": len(counted.days), "columns": table(rows)}
    return Outcome(partition, metadata)
