"""The gate of a period, from the lake and the accepts as they are now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlops_assets.incidents.gate import Gate, gate
from mlops_assets.incidents.store import Accept, Store
from mlops_assets.lake.partition import DAMAGED_DIGEST, DamagedPartition, Partition
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.tables import (
    CHAMPION,
    DRIFT_REPORT,
    FEATURES,
    NO_CHAMPION,
    PREDICTIONS,
    SERVED_PREDICTIONS,
)


def champion_before(lake: Lake, model: str, period: str) -> Partition | None:
    """The newest decision before `period` that put a version in force, None when there is none.

    Raises DamagedPartition: without that decision nobody knows the champion.
    """
    decision = lake.newest_before(model, CHAMPION, period)
    return decision if decision is not None and decision.facts.get("version") else None


def quality_failure_of(lake: Lake, model: str, period: str) -> str | None:
    """Why a period's features can't be used; None when they can, or were not made yet."""
    features = lake.find(model, FEATURES, period, verify=True)
    return None if features is None else features.reason or features.facts.get("quality_failure")


def records_to_serve(lake: Lake, model: str, period: str) -> int:
    """How many records of a period have features: of several scenarios the planned one counts.

    Of a period that was served before its outcomes were known, those that were predicted then.
    """
    made = lake.find(model, PREDICTIONS if served_ahead(lake, model, period) else FEATURES, period)
    if made is None or made.damaged or "records" not in made.facts:
        made = lake.find(model, FEATURES, period)
    if made is not None and made.damaged:
        raise DamagedPartition(made.damaged)
    return 0 if made is None else int(made.facts.get("records", made.rows))


def served_ahead(lake: Lake, model: str, period: str) -> bool:
    """Whether a period was opened before its outcomes were known, and something was served for it.

    What was served then was served: neither late outcomes nor a newer champion may change it.
    """
    features, served = lake.find(model, FEATURES, period), lake.find(model, SERVED_PREDICTIONS, period)
    if features is None or features.damaged or served is None:
        return False
    return bool(features.facts.get("opened") and served.rows)


def awaits_outcomes(lake: Lake, model: str, period: str) -> bool:
    """Whether a period was opened, and its outcomes are not known yet."""
    features = lake.find(model, FEATURES, period)
    if features is None or features.damaged:
        return False
    return bool(features.facts.get("opened") and not features.facts.get("outcomes"))


def newest_to_train(lake: Lake, model: str) -> str | None:
    """The newest period that may have outcomes: one that was opened and still waits for them is passed over.

    After one that was opened, those that can't be used are passed over too: of them nobody knows whether they would.
    """
    periods = lake.periods(model, FEATURES)
    found = [lake.find(model, FEATURES, period) for period in periods]
    made = [features for features in found if features is not None and not features.damaged]
    leads = any(features.facts.get("opened") for features in made)
    for features in reversed(made):
        period = features.period
        unusable = features.reason or features.facts.get("quality_failure")
        if not awaits_outcomes(lake, model, period) and not (leads and unusable):
            return period
    return None


def period_gate(spec: ModelSpec, lake: Lake, store: Store, period: str) -> Gate:
    """What may be served for a period; see `period_gates`."""
    return _period_gate(spec, lake, period, store.accepted(spec.name, period))


def period_gates(spec: ModelSpec, lake: Lake, store: Store, periods: Sequence[str]) -> dict[str, Gate]:
    """What may be served for each of several periods; the accepts are read once.

    A champion is the one that the period's report was made with: when an earlier decision changes afterwards, the
    period is stale, but what was decided for it is not silently changed.
    """
    newest = {accept.period: accept for accept in store.accepts(spec.name)}  # the newest is last
    accepted = {period: accept for period, accept in newest.items() if accept.withdrawn_at is None}
    return {period: _period_gate(spec, lake, period, accepted.get(period)) for period in periods}


def _period_gate(spec: ModelSpec, lake: Lake, period: str, accept: Accept | None) -> Gate:
    report = lake.find(spec.name, DRIFT_REPORT, period, verify=True)
    if report is not None and report.damaged:
        return _unknown(report.damaged)
    facts: Mapping[str, Any] = report.facts if report is not None else {}
    failure = quality_failure_of(lake, spec.name, period)
    version = facts.get("champion_version")
    if version is None and not (report is not None and report.reason == NO_CHAMPION):
        try:
            champion = champion_before(lake, spec.name, period)
        except DamagedPartition as damage:
            return _unknown(str(damage))
        version = champion.facts["version"] if champion is not None else None
        if failure is None and version is not None:
            failure = "there is no drift report" if report is None else report.reason
    return gate(
        champion_version=version,
        quality_failure=failure,
        verdict=facts.get("verdict", "none"),
        verdict_reasons=_in_short(facts),
        report_digest=facts.get("report_digest"),
        on_severe=spec.on_severe,
        ladder=spec.plan_b,
        accepted_digest=None if accept is None else accept.report_digest,
        accepted_by=None if accept is None else str(accept),
    )


def _unknown(damage: str) -> Gate:
    """What may be served when nobody can say, because a file that it follows from is damaged: nothing."""
    return gate(
        champion_version=DAMAGED_DIGEST,
        quality_failure=damage,
        verdict="none",
        verdict_reasons=[],
        report_digest=DAMAGED_DIGEST,
        on_severe="pause",
        ladder=[],
    )


def _in_short(facts: Mapping[str, Any]) -> list[str]:
    """Why a report is severe, in one line; all reasons are in the report."""
    columns, since = facts.get("severe_columns", []), facts.get("since")
    predictions = [facts["prediction_drift"]] if facts.get("prediction_drift") else []
    if columns:
        return [*predictions, ", ".join(columns) + (f" since {since}" if since else "")]
    return predictions or list(facts.get("reasons", []))[:1]
