"""Who made the predictions that a period is served with, read from what the lake says about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlops_assets.lake.store import Lake, Partition
from mlops_assets.monitored_model.tables import (
    CHAMPION,
    DRIFT_REPORT,
    FALLBACK_PREDICTIONS,
    PREDICTIONS,
    SERVED_PREDICTIONS,
)

PREVIOUS_CHAMPION_RUNG = "previous_champion"


@dataclass(frozen=True)
class ServedBy:
    """What a period is served with.

    Attributes
    ----------
    source
        `champion`, `plan_b`, `withheld` (something should be served, and is not) or `none` (no champion yet).
    version
        The version whose scores are served; None where no version made them, as for `segment_rate`.
    rung, source_period
        Of plan B: which rung serves, and from the outcomes of which period.
    decision_id
        Of the gate by which it is served.
    reason
        Why it is not simply the champion's; None when it is. Of what is withheld although plan B should serve: first
        why plan B can't.
    """

    source: str
    version: str | None
    rung: str | None
    source_period: str | None
    decision_id: str | None
    reason: str | None

    def __str__(self) -> str:
        version = f"version {self.version}" if self.version else None
        if self.source == "champion":
            return f"champion, {version}"
        if self.source == "plan_b":
            rung = f"{self.rung} of {self.source_period}" if self.source_period else self.rung
            return ", ".join(filter(None, ["plan B", rung, version]))
        return "nothing"


def served_by(lake: Lake, model: str, period: str) -> ServedBy | None:
    """Who serves a period; None when nothing was served or withheld yet, or the partition that says it is damaged."""
    served = _sound(lake, model, SERVED_PREDICTIONS, period)
    if served is None:
        return None
    facts = served.facts
    decision, reason = facts.get("decision_id"), facts.get("gate_reason") or None
    if not served.rows:
        source = "none" if facts.get("gate") == "none" else "withheld"
        return ServedBy(source, None, None, None, decision, _why_withheld(lake, model, period, decision, reason))
    plan = _sound(lake, model, FALLBACK_PREDICTIONS, period)
    made: dict[str, Any] = dict(plan.facts) if plan is not None and facts["source"] == "plan_b" else {}
    rung, source_period = made.get("rung"), made.get("source_period")
    return ServedBy(facts["source"], _version(lake, model, period, facts, made), rung, source_period, decision, reason)


def _sound(lake: Lake, model: str, table: str, period: str) -> Partition | None:
    found = lake.find(model, table, period)
    return None if found is None or found.damaged else found


def _why_withheld(lake: Lake, model: str, period: str, decision: str | None, reason: str | None) -> str | None:
    plan = _sound(lake, model, FALLBACK_PREDICTIONS, period)
    if plan is None or decision is None or plan.facts.get("impossible") != decision:
        return reason
    return "; ".join(filter(None, [plan.reason, reason]))


def _version(lake: Lake, model: str, period: str, facts: Any, made: dict[str, Any]) -> str | None:
    if facts["source"] == "champion":
        scored = _sound(lake, model, PREDICTIONS, period)
        return None if scored is None else scored.facts.get("version")
    if "model_version" in made:
        found: str | None = made["model_version"]
        return found
    # Partitions of earlier versions of this project don't say it.
    return _previous_champion(lake, model, period) if made.get("rung") == PREVIOUS_CHAMPION_RUNG else None


def _previous_champion(lake: Lake, model: str, period: str) -> str | None:
    report = _sound(lake, model, DRIFT_REPORT, period)
    intended = None if report is None else report.facts.get("champion_version")
    for earlier in reversed([known for known in lake.periods(model, CHAMPION) if known < period]):
        decision = _sound(lake, model, CHAMPION, earlier)
        version = None if decision is None else decision.facts.get("version")
        if version and version != intended:
            return str(version)
    return None
