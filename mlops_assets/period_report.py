"""One period in words: what its data was, how it was judged, what is served by whom, what was decided, what to do next.

Everything is read from the lake and the incident store at the moment of asking. No Dagster, and no declaration: a
period of a model that is no longer declared can be looked at too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlops_assets.incidents.store import Accept, Incident, Store
from mlops_assets.lake.store import Lake, Partition
from mlops_assets.lake.verification import last_verification
from mlops_assets.monitored_model.served_by import ServedBy, served_by
from mlops_assets.monitored_model.tables import (
    CHALLENGER,
    CHAMPION,
    DRIFT_REPORT,
    FALLBACK_PREDICTIONS,
    FEATURES,
    PERFORMANCE,
    PREDICTIONS,
)
from mlops_assets.monitoring import stale_inputs

NOTHING_TO_COMPARE = "nothing to compare with yet"


@dataclass(frozen=True)
class Section:
    """A heading of the report with its sentences."""

    title: str
    lines: list[str]


def period_report(lake: Lake, store: Store, model: str, period: str) -> list[Section]:
    """The report on one period, in the order in which a reader asks.

    Raises:
        LookupError: nothing was made of this period; the message names those that there are.
    """
    known = lake.periods(model, FEATURES)
    if period not in known:
        there = f"{known[0]} to {known[-1]}" if known else "none yet"
        raise LookupError(
            f"{model} has nothing of {period}; its periods are {there}. Try: mlops-assets backfill {model} {period}"
        )
    facts = _Facts(lake, model, period)
    accepts = store.accepts(model, period)
    incidents = store.incidents(model=model, period=period)
    sections = [
        Section("data", _data(facts)),
        Section("verdict", _verdict(facts)),
        Section("served", _served(facts, accepts)),
        Section("champion", _champion(facts, store)),
        Section("performance", _performance(facts)),
        Section("incidents", [_incident(incident) for incident in incidents] or ["none"]),
        Section("up to date", _up_to_date(facts)),
        Section("next", _next(facts, incidents)),
    ]
    return [section for section in sections if section.lines]


def challenger_in_words(lake: Lake, model: str, period: str) -> list[str]:
    """What the version trained in a period scored, and why it is or is not in force."""
    facts = _Facts(lake, model, period)
    made, decided = facts.row(CHALLENGER), facts.of(CHAMPION)
    if made is None:
        reason = facts.reason(CHALLENGER) or "nothing was trained"
        return [f"{model} {period}: no version was trained: {reason}"]
    metric = made["metric"]
    tests = json.loads(made["test_metrics"]) if made.get("test_metrics") else {}
    others = [f"{name} {tests[name]:.4f}" for name in ("auc", "average_precision", "log_loss") if name in tests]
    scored = ", ".join([f"{metric} {made['test_value']:.4f}", *(o for o in others if not o.startswith(f"{metric} "))])
    reused = ", reused: data and declaration are those it was made from" if facts.of(CHALLENGER).get("reused") else ""
    lines = [
        f"{model} {period}: version {made['version']} ({made['candidate']}{reused})",
        f"scored {scored} on {made['test_rows']:,} test rows ({made['test_periods']}); "
        f"{metric} {made['validation_value']:.4f} on validation",
    ]
    # By the fingerprint where both have it: after a registry was lost, another version may have the number.
    key = "fingerprint" if decided.get("fingerprint") else "version"
    if decided.get(key) == made[key]:
        lines.append(f"It is in force ({decided.get('decision')}): {decided.get('reason')}")
    else:
        stays = f"version {decided['version']} stays" if decided.get("version") else "no version is in force"
        lines.append(f"It is not in force, {stays} ({decided.get('decision')}): {decided.get('reason')}")
    return lines


class _Facts:
    """What the partitions of one period say about themselves; a damaged one says nothing but that."""

    def __init__(self, lake: Lake, model: str, period: str) -> None:
        self.lake, self.model, self.period = lake, model, period
        self.tables = lake.tables(model)

    def partition(self, table: str) -> Partition | None:
        found = self.lake.find(self.model, table, self.period)
        return None if found is None or found.damaged else found

    def of(self, table: str) -> Mapping[str, Any]:
        found = self.partition(table)
        return {} if found is None else found.facts

    def rows(self, table: str) -> int:
        found = self.partition(table)
        return 0 if found is None else found.rows

    def reason(self, table: str) -> str | None:
        found = self.partition(table)
        return None if found is None else found.reason

    def row(self, table: str) -> dict[str, Any] | None:
        """The one row of a table that has one a period; None where it is empty."""
        from mlops_assets.lake.connection import connect

        if not self.rows(table):
            return None
        with connect(self.lake, read_views=False) as con:
            result = con.sql(f"SELECT * FROM {self.lake.scan(self.model, table, [self.period])} LIMIT 1")
            return dict(zip(result.columns, result.fetchall()[0], strict=True))

    @property
    def raw(self) -> str | None:
        return next((name for name in self.tables if name.startswith("raw_")), None)

    @property
    def failure(self) -> str | None:
        """Why the period's data can't be used."""
        return self.reason(FEATURES) or self.of(FEATURES).get("quality_failure")

    @property
    def stale(self) -> str | None:
        """What has changed since the period was made from it."""
        return stale_inputs(self.lake, self.model, [made for table in self.tables if (made := self.partition(table))])

    @property
    def digest(self) -> str:
        return str(self.of(DRIFT_REPORT).get("report_digest", ""))[:16]


def _data(facts: _Facts) -> list[str]:
    lines = []
    raw, features = facts.raw, facts.of(FEATURES)
    if raw is not None and facts.partition(raw) is not None:
        lines.append(f"{facts.rows(raw):,} rows read from {facts.of(raw).get('origin', 'an unknown place')}")
        rejected = f"rejected_{raw.removeprefix('raw_')}"
        if facts.rows(rejected):
            lines.append(f"{facts.rows(rejected):,} rows rejected and set aside: {facts.model}.{rejected}")
    left_out = features.get("raw_rows", facts.rows(FEATURES)) - facts.rows(FEATURES)
    if facts.rows(FEATURES):
        without = f"; {left_out:,} left out by features.sql" if left_out > 0 else ""
        lines.append(f"{facts.rows(FEATURES):,} records with features{without}")
    if facts.failure:
        lines.append(facts.failure)
    if features.get("opened") and not features.get("outcomes"):
        lines.append("opened before it begins: its outcomes are not known yet")
    return lines


def _verdict(facts: _Facts) -> list[str]:
    report = facts.of(DRIFT_REPORT)
    if not report:
        return ["there is no drift report"]
    verdict, version = report.get("verdict", "none"), report.get("champion_version")
    reasons = [str(reason) for reason in report.get("reasons", [])]
    if verdict == "none":
        return [NOTHING_TO_COMPARE, *(reason for reason in reasons if reason != NOTHING_TO_COMPARE)]
    since = f", since {report['since']}" if report.get("since") else ""
    return [f"{verdict}{since}, compared with what version {version} was trained on", *(f"- {r}" for r in reasons)]


def _served(facts: _Facts, accepts: list[Accept]) -> list[str]:
    by = served_by(facts.lake, facts.model, facts.period)
    lines = [_who_serves(facts, by)]
    if by is not None and by.reason:
        lines.append(f"because: {by.reason}")
    for accept in accepts:
        other = (
            "" if accept.report_digest.startswith(facts.digest or "-") else " (of another report than the present one)"
        )
        lines.append(f"{accept}{other}")
        if accept.withdrawn_at is not None:
            when = f"{accept.withdrawn_at:%Y-%m-%d %H:%M} UTC"
            lines.append(f"withdrawn by {accept.withdrawn_by} on {when}: {accept.withdrawn_why}")
    return lines


def _who_serves(facts: _Facts, by: ServedBy | None) -> str:
    if by is None:
        return "nothing was served or withheld yet"
    if by.source == "none":
        return "nothing: there is no champion yet"
    if by.source == "withheld":
        return "nothing: withheld"
    rows = facts.rows("served_predictions")
    return f"{rows:,} records, by the {by}" if by.source == "champion" else f"{rows:,} records, by {by}"


def _champion(facts: _Facts, store: Store) -> list[str]:
    decided = facts.of(CHAMPION)
    if not decided:
        return ["nothing was decided yet"]
    before, after = decided.get("previous_version"), decided.get("version")
    first = f"before: version {before}" if before else "before: none"
    if not after:
        return [f"{first}; after: none yet", str(decided.get("reason"))]
    lines = [f"{first}; after: version {after} ({decided.get('decision')})", str(decided.get("reason"))]
    number = decided.get("order")
    for order in store.orders(facts.model, facts.period):
        state = "" if order.id == number else " (not followed)"
        when = f"{order.at:%Y-%m-%d %H:%M} UTC"
        lines.append(f"{order.action} to version {order.version} by {order.by} on {when}: {order.why}{state}")
    return lines


def _performance(facts: _Facts) -> list[str]:
    found = facts.of(PERFORMANCE)
    metric, value = found.get("metric"), found.get("value")
    if metric is None or value is None:
        waits = "no champion scored it" if not facts.rows(PREDICTIONS) else "outcomes are not known yet"
        return [facts.reason(PERFORMANCE) or f"not measured: {waits}"]
    floor = found.get("floor")
    against = f", against {floor:.4f} without any model" if floor is not None else ""
    lines = [f"{metric} of the champion's scores: {value:.4f}{against} ({found.get('verdict')})"]
    served = found.get("served_value")
    if served is not None and served != value:
        lines.append(f"{metric} of what is served: {served:.4f}")
    return lines


def _incident(incident: Incident) -> str:
    text = f"{incident.id}: {incident.kind} {incident.verdict}, opened {incident.opened_at:%Y-%m-%d %H:%M} UTC, "
    if incident.state == "open" or incident.resolved_at is None:
        return text + incident.state
    when = f"{incident.resolved_at:%Y-%m-%d %H:%M} UTC"
    return text + f"resolved {when} by {incident.resolved_by}: {incident.resolved_why}"


def _up_to_date(facts: _Facts) -> list[str]:
    stale = facts.stale
    lines = [f"stale: {stale}" if stale else "yes: nothing that it was made from has changed since"]
    for table in facts.tables:
        found = facts.lake.find(facts.model, table, facts.period)
        if found is not None and found.damaged:
            lines.append(f"damaged: {found.damaged}")
    try:
        last = last_verification(facts.lake, facts.model)
    except ValueError as error:
        return [*lines, str(error)]
    if last is None:
        return [*lines, f"its files were never verified as a whole: mlops-assets verify {facts.model}"]
    damaged = [damage.why for damage in last.damaged if damage.period == facts.period]
    return [
        *lines,
        f"verified {datetime.fromisoformat(last.at):%Y-%m-%d %H:%M} UTC: "
        + ("; ".join(damaged) or "nothing of this period was damaged"),
    ]


def _next(facts: _Facts, incidents: list[Incident]) -> list[str]:
    """What somebody can do about this period, most important first."""
    model, period = facts.model, facts.period
    again = f"mlops-assets backfill {model} {period}"
    lines = []
    if facts.failure and facts.failure.startswith("no data"):
        lines.append(f"put the file where the source looks for it, then: {again}")
    elif facts.failure:
        lines.append(f"repair the source, then: {again}")
    by = served_by(facts.lake, model, period)
    severe = facts.of(DRIFT_REPORT).get("verdict") == "severe" and not facts.failure
    if severe and by is not None and by.source in ("plan_b", "withheld"):
        accept = f"mlops-assets incidents accept {model} {period} --digest {facts.digest} --why …"
        lines.append(f"to let the champion serve all the same: {accept}")
    # In partitions of earlier versions of this project only the reason says that no rung can serve.
    impossible = facts.of(FALLBACK_PREDICTIONS).get("impossible") or "no rung" in (by.reason or "" if by else "")
    if severe and by is not None and by.source == "withheld" and not impossible:
        lines.append(f"where no sensors run, plan B serves it by: {again}")
    lines += [
        f"to close incident {incident.id}: mlops-assets incidents resolve {incident.id} --why …"
        for incident in incidents
        if incident.state == "open"
    ]
    if facts.stale:
        lines.append(f"to take in what has changed since: {again}")
    return lines or ["nothing to do"]
