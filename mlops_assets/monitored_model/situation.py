"""The situation of an incident now: who serves the period, what that costs, what waits, and what a person can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlops_assets.incidents.store import Incident, Store
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.served_by import served_by
from mlops_assets.monitored_model.tables import PERFORMANCE

OPENING_ALERTS = ("incident_opened", "data_outage")


def situation(lake: Lake, store: Store, incident: Incident) -> list[str]:
    """Sentences about an incident's period as it is now, and the exact commands that change it."""
    model, period = incident.model, incident.period
    accept = store.accepted(model, period)
    lines = [_served(lake, model, period), *_cost(lake, model, period)]
    if accept is not None:
        lines.append(
            f"The report was {accept}. To take that back: mlops-assets incidents withdraw {model} {period} --why …"
        )
    if incident.state == "open":
        lines += _commands(lake, incident)
        resolve = f"mlops-assets incidents resolve {incident.id} --why …"
        lines.append(f"To close the incident, which changes nothing that is served: {resolve}")
    return lines


def situation_of_alert(lake: Lake, store: Store, alert: Mapping[str, Any]) -> list[str]:
    """The situation that belongs into an alert which is about to be sent; none for one that opens no incident."""
    what, _, rest = alert["key"].partition("/")
    if alert["kind"] not in OPENING_ALERTS or what != "incident":
        return []
    return situation(lake, store, store.incident(int(rest.partition("/")[0])))


def _served(lake: Lake, model: str, period: str) -> str:
    by = served_by(lake, model, period)
    if by is None:
        return "Served now: nothing was served or withheld yet."
    if by.source in ("withheld", "none"):
        return f"Served now: nothing ({by.reason})." if by.reason else "Served now: nothing."
    who = f"the {by}" if by.source == "champion" else str(by)
    return f"Served now: by {who}" + (f" ({by.reason})." if by.reason else ".")


def _cost(lake: Lake, model: str, period: str) -> list[str]:
    """The metric of what is served, of the champion's scores and without any model, as far as outcomes are known."""
    measured = lake.find(model, PERFORMANCE, period)
    if measured is None or measured.damaged or measured.facts.get("value") is None:
        return []
    facts = measured.facts
    values = {
        "of what is served": facts.get("served_value"),
        "of the champion's scores": facts["value"],
        "without any model": facts.get("floor"),
    }
    parts = [f"{value:.4f} {what}" for what, value in values.items() if value is not None]
    return [f"{facts['metric']}: {', '.join(parts)}."]


def _commands(lake: Lake, incident: Incident) -> list[str]:
    model, period = incident.model, incident.period
    by = served_by(lake, model, period)
    again = f"mlops-assets backfill {model} {period}"
    if incident.kind == "drift":
        waits = "It waits for nobody: plan B serves until the report is accepted or changes."
        if by is None or by.source != "plan_b":
            waits = f"It waits for plan B (the sensor {model}_serving, or the next command), or for you."
        accept = f"mlops-assets incidents accept {model} {period} --digest {(incident.evidence or '')[:16]} --why …"
        return [waits, f"To let the champion serve all the same: {accept}"] if incident.evidence else [waits]
    if incident.kind in ("quality", "outage"):
        makes = f"the sensor {model}_new_data makes the period, or: {again}"
        return [f"It waits for the file: repair or deliver it. Then {makes}"]
    if incident.kind == "performance":
        return [
            f"To train again: mlops-assets retrain {model} --why …",
            f"To go back to the version before: mlops-assets champion rollback {model} --why …",
        ]
    if incident.kind in ("plan_b_failed", "period_failed"):
        return [f"It waits for you: its runs' logs say why they failed; then: {again}"]
    job = f"{model}_train" if incident.kind == "retrain_failed" else f"{model}_decide"
    return [f"It waits for you: its runs' logs say why they failed; then start the job {job} of {period} in Dagster."]
