"""What happened, period by period, for people and consumers: `monitoring.periods` and DuckDB over all results.

Everything is computed from the lake at the moment of asking; nothing is stored twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlops_assets.home import Home
from mlops_assets.incidents.store import Store
from mlops_assets.lake import connection
from mlops_assets.lake.store import Lake, Partition
from mlops_assets.lake.verification import last_verification
from mlops_assets.monitored_model.decision_log import catch_up
from mlops_assets.monitored_model.provenance import MADE_FROM, made_without
from mlops_assets.monitored_model.served_by import ServedBy, served_by
from mlops_assets.redaction import redact

if TYPE_CHECKING:
    import duckdb

DAMAGED = "damaged"
_SCHEMA = pa.schema(
    [
        ("period", pa.string()),
        ("model", pa.string()),
        ("verdict", pa.string()),
        ("gate", pa.string()),
        ("reason", pa.string()),
        ("decision", pa.string()),
        ("champion_version", pa.string()),
        ("served_version", pa.string()),
        ("rows", pa.int64()),
        ("served_rows", pa.int64()),
        ("served_source", pa.string()),
        ("metric", pa.string()),
        ("metric_value", pa.float64()),
        ("champion_metric_value", pa.float64()),
        ("stale", pa.string()),
    ]
)


@dataclass(frozen=True)
class PeriodStatus:
    """A line of `monitoring.periods`.

    Attributes
    ----------
    verdict
        Of the drift report: `ok`, `warning`, `severe` or `none`; `damaged` when its file can't be read.
    gate
        What may be served: `none`, `champion`, `plan_b` or `withheld`; None while nothing has been decided. `damaged`
        when a file of the period can't be read.
    reason
        Why the gate is not simply `champion`.
    decision, champion_version
        Of the period's `champion`: what was decided, and the version in force *after* the period: the next is scored
        by it. What this period is served with was made by `served_version`.
    served_version
        The version that made what is served; None where none did (`segment_rate`), or nothing is served.
    rows
        Records in `features`.
    served_rows, served_source
        What consumers read: how many records, and whose predictions (`champion`, `plan_b`, or `withheld`, `none`).
    metric, metric_value, champion_metric_value
        The model's metric, realised by what is served, and by the champion's scores, which plan B stands in for; None
        while outcomes or a champion are missing, `metric_value` also while nothing is served.
    stale
        What has changed since the period was made from it, or was made since where it was missing; None when all is as
        it was.
    """

    period: str
    model: str
    verdict: str
    gate: str | None
    reason: str | None
    decision: str | None
    champion_version: str | None
    served_version: str | None
    rows: int
    served_rows: int
    served_source: str | None
    metric: str | None
    metric_value: float | None
    champion_metric_value: float | None
    stale: str | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def periods(lake: Lake, model: str | None = None) -> list[PeriodStatus]:
    """The status of every period that has features, of one model or of all, oldest first."""
    models = lake.models() if model is None else [model]
    for name in models:
        try:
            last_verification(lake, name)  # what it has found to be damaged is
        except ValueError as error:
            warnings.warn(str(error), stacklevel=2)
    return [
        _status(lake, name, tables, period)
        for name in models
        for tables in [lake.tables(name)]
        for period in lake.periods(name, "features")
    ]


def _status(lake: Lake, model: str, tables: Sequence[str], period: str) -> PeriodStatus:
    found = {table: lake.find(model, table, period) for table in tables}
    damaged = [made.damaged for made in found.values() if made is not None and made.damaged]
    made = {table: partition for table, partition in found.items() if partition is not None and not partition.damaged}

    def facts(table: str) -> Mapping[str, Any]:
        return made[table].facts if table in made else {}

    features, served = made.get("features"), made.get("served_predictions")
    report, champion, performance = facts("drift_report"), facts("champion"), facts("performance")
    gate = facts("served_predictions").get("gate")
    by = served_by(lake, model, period)
    quality = None if features is None else features.reason or features.facts.get("quality_failure")
    return PeriodStatus(
        period=period,
        model=model,
        verdict=report.get("verdict", DAMAGED if _is_damaged(found.get("drift_report")) else "none"),
        gate=DAMAGED if damaged else gate,
        # Redacted, as homes of earlier versions hold addresses as they were declared.
        reason=redact("; ".join(damaged) or quality or (by is not None and by.reason) or "") or None,
        decision=champion.get("decision"),
        champion_version=champion.get("version"),
        served_version=None if by is None else by.version,
        rows=features.rows if features is not None else 0,
        served_rows=served.rows if served is not None else 0,
        served_source=None if by is None else by.source,
        metric=performance.get("metric"),
        metric_value=_served_value(by, performance),
        champion_metric_value=performance.get("value"),
        stale=stale_inputs(lake, model, made.values()),
    )


def _is_damaged(found: Partition | None) -> bool:
    return found is not None and found.damaged is not None


def stale_inputs(lake: Lake, model: str, made: Iterable[Partition]) -> str | None:
    """The inputs of a period's partitions that are not what they were, or came later; nothing is made again for it by
    itself.
    """
    changed, came = set(), set()
    for partition in made:
        for name in made_without(partition):
            upstream, _, other = name.partition("/")
            if lake.find(model, upstream, other) is not None:
                came.add(name)
        for name, digest in partition.facts.get(MADE_FROM, {}).items():
            upstream, _, other = name.partition("/")
            now = lake.find(model, upstream, other)
            if now is None or now.digest != digest:
                changed.add(name)
    told = [f"{', '.join(sorted(names))} {what}" for names, what in ((changed, "changed since"), (came, "made since"))]
    return "; ".join(text for text, names in zip(told, (changed, came), strict=True) if names) or None


def _served_value(by: ServedBy | None, performance: Mapping[str, Any]) -> float | None:
    if by is None or by.source not in ("champion", "plan_b"):
        return None
    found: float | None = performance.get("served_value", performance.get("value") if by.source == "champion" else None)
    return found


def as_table(statuses: Sequence[PeriodStatus]) -> pa.Table:
    """The lines as an Arrow table with the columns of `monitoring.periods`."""
    return pa.Table.from_pylist([status.as_dict() for status in statuses], _SCHEMA)


def connect(
    lake: Lake | None = None, store: Store | None = None, *, verify: Collection[str] | None = None
) -> duckdb.DuckDBPyConnection:
    """Open DuckDB, in memory, over all results.

    A schema for each model holds the views `raw_<records>`, `features`, `profile`, `challengers`, `champions`,
    `predictions`, `drift`, `fallback_predictions`, `served_predictions` and `performance`; `monitoring.periods` has a
    line for every model and period; `monitoring.incidents` and `monitoring.alerts` say what went wrong and who was
    notified, `monitoring.decisions` what was decided, by whom and why. Every view has a `period` column.

    The connection is locked: it opens the files of these views, as they are now, and no other; it loads no extension
    and keeps its configuration. Tables and views of your own, and DataFrames by `register`, live in memory. A damaged
    partition is left out of its view, with a DamagedWarning.

    Args:
        verify: the views, as "schema.view", whose files are compared with their hashes first; by default those of what
            was served.
    """
    lake = lake or Lake(Home.from_env().lake_url)
    store = store or Store(Home.from_env().store_url)
    for model in lake.models():
        catch_up(lake, store, model)
    statuses = periods(lake)
    served = [f"{name}.served_predictions" for name in lake.models()] if verify is None else verify
    return connection.connect(
        lake,
        locked=True,
        verify={name.lower() for name in served},
        views={
            "monitoring.periods": as_table(statuses),
            "monitoring.incidents": store.as_arrow("incidents"),
            "monitoring.alerts": store.as_arrow("alerts"),
            "monitoring.decisions": store.as_arrow("decisions"),
        },
    )
