"""What has to be remembered beyond the lake: incidents, what people decided, why to retrain, and the alerts to send.

Each method that changes something is one transaction, and the alert that it causes is written in it: either both are
there or neither. Sending is `alerts.deliver`; what may be served is `gate`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from mlops_assets.incidents.database import Database, StoreUnavailable
from mlops_assets.incidents.decision_log import PLATFORM, Decision, Line, Subject, append, newest, says_the_same

if TYPE_CHECKING:
    import pyarrow as pa
    import sqlalchemy as sa

__all__ = [
    "Accept",
    "Alert",
    "AlreadyResolved",
    "Cause",
    "CauseConsumed",
    "Decision",
    "Event",
    "Incident",
    "Line",
    "NothingAccepted",
    "Order",
    "Store",
    "StoreUnavailable",
    "UnknownCause",
    "UnknownIncident",
]

IncidentKind = Literal[
    "drift", "quality", "outage", "performance", "plan_b_failed", "period_failed", "retrain_failed", "order_failed"
]
State = Literal["open", "resolved"]
Action = Literal["rollback", "promote"]
CauseKind = Literal["severe_drift", "performance", "webhook", "person"]
AlertKind = Literal[
    "incident_opened",
    "incident_resolved",
    "data_outage",
    "champion_promoted",
    "champion_rolled_back",
    "infrastructure_failure",
]

SENTENCES_IN_ALERT = 10  # beside those that make the verdict severe, of which none is cut


class UnknownIncident(LookupError):
    """There is no incident with this number."""


class AlreadyResolved(ValueError):
    """The incident has been resolved before; the message says by whom, when and why."""


class NothingAccepted(LookupError):
    """This period was never accepted, so no accept can be withdrawn."""


class UnknownCause(LookupError):
    """There is no retrain cause with this number."""


class CauseConsumed(ValueError):
    """The retrain cause belongs to another run."""


@dataclass(frozen=True)
class Event:
    """One line of an incident's history.

    `event` is `opened`, `updated` (new evidence while open), `reopened`, `resolved` (by someone), `closed` (by itself).
    """

    at: datetime
    event: str
    by: str | None
    why: str | None
    evidence: str | None


@dataclass(frozen=True)
class Incident:
    """Something that went wrong with one period, for one kind of cause.

    Attributes
    ----------
    verdict
        What was found, in one word, such as `severe` or `failed`.
    reasons
        One mapping per finding: `sentence` for people, and `column`, `value`, `threshold` where they apply.
    since
        The first day that is affected, None when it isn't known.
    evidence
        Digest of what was found; None when the cause has gone since.
    run_id
        The run that found it.
    history
        Oldest first; empty in lists.
    """

    id: int
    model: str
    period: str
    kind: IncidentKind
    verdict: str
    reasons: Sequence[Mapping[str, Any]]
    since: date | None
    evidence: str | None
    run_id: str | None
    state: State
    opened_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None
    resolved_why: str | None
    history: Sequence[Event] = ()


@dataclass(frozen=True)
class Accept:
    """A person lets the champion serve a period in spite of this very drift report.

    A withdrawn accept says who withdrew it, when and why; it counts no longer.
    """

    id: int
    model: str
    period: str
    report_digest: str
    by: str
    why: str
    at: datetime
    withdrawn_at: datetime | None = None
    withdrawn_by: str | None = None
    withdrawn_why: str | None = None

    def __str__(self) -> str:
        return f"accepted by {self.by} on {self.at:%Y-%m-%d %H:%M} UTC: {self.why}"


@dataclass(frozen=True)
class Order:
    """A decision about the champion that a person made, for the `champion` of that period to follow.

    `version` is the registry's number at that time, `fingerprint` the model it named; None in orders of earlier times.
    """

    id: int
    model: str
    period: str
    action: Action
    version: str
    by: str
    why: str
    at: datetime
    fingerprint: str | None = None


@dataclass(frozen=True)
class Cause:
    """Why a model should be trained in a period; `consumed_by` is the run that did, None while nobody has."""

    id: int
    model: str
    period: str
    kind: CauseKind
    why: str
    by: str
    key: str
    at: datetime
    consumed_by: str | None
    consumed_at: datetime | None


@dataclass(frozen=True)
class Alert:
    """A message to people. `state` is `waiting`, `sent` (to every endpoint) or `not configured` (there was none)."""

    id: int
    key: str
    kind: AlertKind
    model: str
    period: str
    title: str
    body: str
    state: str
    at: datetime


class Store(Database):
    """The incident store, in an SQLite file or in PostgreSQL; see `database.Database` for its URL and errors."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        from mlops_assets.incidents import tables

        self._t = tables

    # -- incidents ---------------------------------------------------------------------------------

    def found(
        self,
        model: str,
        period: str,
        kind: IncidentKind,
        *,
        verdict: str,
        reasons: Sequence[Mapping[str, Any]],
        since: date | None = None,
        evidence: str,
        run_id: str | None = None,
    ) -> Incident:
        """Something is wrong: open the incident of this model, period and kind, or bring it up to date.

        The same evidence as before changes nothing, so an incident that a person has resolved stays resolved. New
        evidence opens it again. Opening sends an alert.

        Args:
            evidence: digest of what was found: two findings are the same when it is.
            reasons: JSON; each has a `sentence`, and the `verdict` that it stands for where it has one. Most important
                first.
        """
        _one_of(kind, IncidentKind, "kind of incident")
        _said(model=model, period=period, verdict=verdict, evidence=evidence)
        finding = {
            "verdict": verdict,
            "reasons": [dict(reason) for reason in reasons],
            "since": since,
            "evidence": evidence,
            "run_id": run_id,
        }
        incidents = self._t.incidents
        with self.write() as connection:
            now = self.now(connection)
            known = self._find(connection, model, period, kind)
            if known is None:
                values = {"model": model, "period": period, "kind": kind, "state": "open", "opened_at": now, **finding}
                number = _insert(connection, incidents.insert().values(values))
                event = "opened"
            elif known.evidence == evidence:
                return known
            else:
                number = known.id
                event = "updated" if known.state == "open" else "reopened"
                if event == "reopened":
                    finding |= _reopened(now)
                connection.execute(incidents.update().where(incidents.c.id == number).values(finding))
            incident = self._incident(connection, number)
            line = self._remember(connection, incident, now, event, before=known)
            if event != "updated":
                self._tell_opened(connection, incident, line, now)
            return self._incident(connection, number)

    def resolve(self, incident_id: int, by: str, why: str) -> Incident:
        """A person closes an incident. It stays closed until new evidence is found; the gate doesn't change.

        Raises:
            UnknownIncident, AlreadyResolved: nothing was changed.
        """
        _said(by=by, why=why)
        with self.write() as connection:
            incident = self._incident(connection, incident_id)
            if incident.state == "resolved":
                raise AlreadyResolved(
                    f"incident {incident.id} ({incident.model} {incident.period}, {incident.kind}) was resolved by "
                    f"{incident.resolved_by} at {incident.resolved_at:%Y-%m-%d %H:%M} UTC: {incident.resolved_why}"
                )
            return self._close(connection, incident, "resolved", by, why)

    def close_by_itself(
        self, model: str, period: str, kind: IncidentKind, why: str, *, cause_gone: bool = True
    ) -> Incident | None:
        """Close the open incident of this period and kind; None, and nobody is told, when none is open.

        Args:
            cause_gone: the period itself is sound now, so if the same evidence is ever found again the incident opens
                again. False: the world has moved on (a later period is fine) while the evidence is still there.
        """
        _one_of(kind, IncidentKind, "kind of incident")
        _said(why=why)
        with self.write() as connection:
            incident = self._find(connection, model, period, kind)
            if incident is None:
                return None
            if cause_gone:
                table = self._t.incidents
                connection.execute(table.update().where(table.c.id == incident.id).values(evidence=None))
            if incident.state == "resolved":
                return None
            return self._close(connection, incident, "closed", PLATFORM, why)

    def incident(self, incident_id: int) -> Incident:
        """One incident with its history; raises `UnknownIncident`."""
        with self.read() as connection:
            return self._incident(connection, incident_id)

    def incidents(
        self,
        model: str | None = None,
        state: State | None = None,
        period: str | None = None,
        kind: IncidentKind | None = None,
    ) -> list[Incident]:
        """Incidents in the order in which they were first opened, without their history."""
        rows = self._rows(self._t.incidents, model=model, state=state, period=period, kind=kind)
        return [Incident(**row) for row in rows]

    def _find(self, connection: sa.Connection, model: str, period: str, kind: str) -> Incident | None:
        table = self._t.incidents
        query = table.select().where(table.c.model == model, table.c.period == period, table.c.kind == kind)
        row = connection.execute(query).mappings().one_or_none()
        return None if row is None else self._incident(connection, row["id"])

    def _incident(self, connection: sa.Connection, incident_id: int) -> Incident:
        incidents, history = self._t.incidents, self._t.incident_history
        row = connection.execute(incidents.select().where(incidents.c.id == incident_id)).mappings().one_or_none()
        if row is None:
            raise UnknownIncident(
                f"there is no incident {incident_id}: `mlops-assets incidents list` shows those there are"
            )
        lines = connection.execute(history.select().where(history.c.incident_id == incident_id).order_by(history.c.id))
        events = [Event(line.at, line.event, line.by, line.why, line.evidence) for line in lines]
        return Incident(**row, history=events)

    def _close(self, connection: sa.Connection, incident: Incident, event: str, by: str, why: str) -> Incident:
        table = self._t.incidents
        now = self.now(connection)
        values = {"state": "resolved", "resolved_at": now, "resolved_by": by, "resolved_why": why}
        connection.execute(table.update().where(table.c.id == incident.id).values(values))
        line = self._remember(connection, incident, now, event, by, why, before=incident, after="resolved")
        self._enqueue(
            connection,
            now,
            kind="incident_resolved",
            model=incident.model,
            period=incident.period,
            title=f"{incident.model} {incident.period}: {incident.kind} incident resolved",
            body=f"Resolved by {by}: {why}\nIncident {incident.id}, opened {incident.opened_at:%Y-%m-%d %H:%M} UTC.",
            key=f"incident/{incident.id}/{line}",
        )
        return self._incident(connection, incident.id)

    def _remember(
        self,
        connection: sa.Connection,
        incident: Incident,
        now: datetime,
        event: str,
        by: str | None = None,
        why: str | None = None,
        *,
        before: Incident | None,
        after: State = "open",
    ) -> int:
        """Write an event into the incident's history and the log of decisions; the number of the event."""
        sentence = next((str(one["sentence"]) for one in incident.reasons if one.get("sentence")), incident.verdict)
        line = Line(
            incident.model,
            incident.period,
            "incident",
            event,
            by or PLATFORM,
            why or f"{incident.kind} {incident.verdict}: {sentence}",
            None if before is None else f"{incident.kind} {before.state}",
            f"{incident.kind} {after}",
            incident.evidence,
            incident.run_id if by is None else None,
        )
        append(self, connection, line, now)
        values = {"incident_id": incident.id, "at": now, "event": event, "by": by, "why": why}
        insert = self._t.incident_history.insert().values(evidence=incident.evidence, **values)
        return _insert(connection, insert)

    def _tell_opened(self, connection: sa.Connection, incident: Incident, line: int, now: datetime) -> None:
        outage = incident.kind == "outage"
        what = "no data" if outage else f"{incident.kind.replace('_', ' ')} {incident.verdict}"
        said = [reason for reason in incident.reasons if reason.get("sentence")]
        severe = [str(reason["sentence"]) for reason in said if reason.get("verdict") == "severe"]
        others = [str(reason["sentence"]) for reason in said if reason.get("verdict") != "severe"]
        body = severe + others[:SENTENCES_IN_ALERT]
        if len(others) > SENTENCES_IN_ALERT:
            body.append(f"and {len(others) - SENTENCES_IN_ALERT} more")
        if incident.since:
            body.append(f"Since {incident.since}.")
        body.append(f"Incident {incident.id}: `mlops-assets incidents show {incident.id}`")
        self._enqueue(
            connection,
            now,
            kind="data_outage" if outage else "incident_opened",
            model=incident.model,
            period=incident.period,
            title=f"{incident.model} {incident.period}: {what}",
            body="\n".join(body),
            key=f"incident/{incident.id}/{line}",
        )

    # -- what people decide ------------------------------------------------------------------------

    def accept(self, model: str, period: str, report_digest: str, by: str, why: str) -> Accept:
        """Let the champion serve a period in spite of its drift report, and resolve the period's drift incident.

        Accepting the newest accepted digest again changes nothing. Whether the digest is that of the period's present
        report, and the period not quarantined, is for the caller to know.
        """
        _said(model=model, period=period, report_digest=report_digest, by=by, why=why)
        with self.write() as connection:
            known = self._accepted(connection, model, period)
            if known is None or known.report_digest != report_digest:
                now = self.now(connection)
                values = {"report_digest": report_digest, "by": by, "why": why, "at": now}
                connection.execute(self._t.accepts.insert().values(model=model, period=period, **values))
                before = "not accepted" if known is None else "another report accepted"
                line = Line(model, period, "accept", "accepted", by, why, before, "accepted", report_digest)
                append(self, connection, line, now)
            incident = self._find(connection, model, period, "drift")
            if incident is not None and incident.state == "open":
                self._close(connection, incident, "resolved", by, _accepted_why(why))
            accepted = self._accepted(connection, model, period)
            assert accepted is not None
            return accepted

    def withdraw(self, model: str, period: str, by: str, why: str) -> Accept:
        """Take the accept of a period back, so that the verdict counts again; the incident that it closed opens again.

        One that was withdrawn before stays as it is, and is given back.

        Raises:
            NothingAccepted: the period was never accepted.
        """
        _said(model=model, period=period, by=by, why=why)
        table, incidents = self._t.accepts, self._t.incidents
        with self.write() as connection:
            known = self._newest_accept(connection, model, period)
            if known is None:
                raise NothingAccepted(f"{model} {period} was never accepted, so there is nothing to withdraw")
            if known.withdrawn_at is not None:
                return known
            now = self.now(connection)
            values: dict[str, Any] = {"withdrawn_at": now, "withdrawn_by": by, "withdrawn_why": why}
            connection.execute(table.update().where(table.c.id == known.id).values(values))
            digest = known.report_digest
            line = Line(model, period, "accept", "withdrawn", by, why, "accepted", "not accepted", digest)
            append(self, connection, line, now)
            closed = self._find(connection, model, period, "drift")
            if closed is not None and (closed.resolved_by, closed.resolved_why) == (known.by, _accepted_why(known.why)):
                mine = incidents.c.id == closed.id
                connection.execute(incidents.update().where(mine).values(_reopened(now)))
                incident = self._incident(connection, closed.id)
                event = self._remember(
                    connection, incident, now, "reopened", by, f"accept withdrawn: {why}", before=closed
                )
                self._tell_opened(connection, incident, event, now)
            return replace(known, **values)

    def accepted(self, model: str, period: str) -> Accept | None:
        """The accept of a period that is in force, None when there is none."""
        with self.read() as connection:
            return self._accepted(connection, model, period)

    def accepts(self, model: str | None = None, period: str | None = None) -> list[Accept]:
        """All accepts, withdrawn or not, newest last."""
        return [Accept(**row) for row in self._rows(self._t.accepts, model=model, period=period)]

    def _accepted(self, connection: sa.Connection, model: str, period: str) -> Accept | None:
        accept = self._newest_accept(connection, model, period)
        return None if accept is None or accept.withdrawn_at is not None else accept

    def _newest_accept(self, connection: sa.Connection, model: str, period: str) -> Accept | None:
        table = self._t.accepts
        query = table.select().where(table.c.model == model, table.c.period == period)
        row = connection.execute(query.order_by(table.c.id.desc()).limit(1)).mappings().one_or_none()
        return None if row is None else Accept(**row)

    def order(
        self,
        model: str,
        period: str,
        action: Action,
        version: str,
        by: str,
        why: str,
        before: str | None = None,
        *,
        fingerprint: str | None = None,
    ) -> Order:
        """Store a person's decision about the champion; that period's `champion` follows its newest order.

        `before` is the version that is in force now, for the log; `fingerprint` is what `version` was made from.
        """
        _one_of(action, Action, "champion order")
        _said(model=model, period=period, version=version, by=by, why=why)
        table = self._t.champion_orders
        with self.write() as connection:
            values: dict[str, Any] = {
                "action": action,
                "version": version,
                "by": by,
                "why": why,
                "at": self.now(connection),
                "fingerprint": fingerprint,
            }
            values |= {"model": model, "period": period}
            number = _insert(connection, table.insert().values(values))
            line = Line(model, period, "order", action, by, why, before, version)
            append(self, connection, line, values["at"])
            return Order(id=number, **values)

    def orders(self, model: str, period: str | None = None) -> list[Order]:
        """Newest last."""
        return [Order(**row) for row in self._rows(self._t.champion_orders, model=model, period=period)]

    # -- causes for retraining ---------------------------------------------------------------------

    def add_cause(self, model: str, period: str, kind: CauseKind, why: str, by: str, key: str) -> Cause:
        """Ask for a model to be trained in a period. A key that the model has had before changes nothing."""
        _one_of(kind, CauseKind, "cause for retraining")
        _said(model=model, period=period, why=why, by=by, key=key)
        table = self._t.retrain_causes
        query = table.select().where(table.c.model == model, table.c.key == key)
        with self.write() as connection:
            if connection.execute(query).first() is None:
                now = self.now(connection)
                values = {"kind": kind, "why": why, "by": by, "key": key, "at": now}
                connection.execute(table.insert().values(model=model, period=period, **values))
                line = Line(model, period, "retrain", "asked", by, f"{kind}: {why}", None, "asked", key)
                append(self, connection, line, now)
            return Cause(**connection.execute(query).mappings().one())

    def causes(self, model: str, period: str | None = None) -> list[Cause]:
        """All causes, consumed or not, newest last."""
        return [Cause(**row) for row in self._rows(self._t.retrain_causes, model=model, period=period)]

    def pending(self, model: str) -> list[Cause]:
        """The causes that no run has consumed, newest last."""
        return [cause for cause in self.causes(model) if cause.consumed_by is None]

    def consume(self, ids: Iterable[int], run_id: str) -> list[Cause]:
        """Mark causes as acted upon by a run; the same run may say so again.

        Raises:
            UnknownCause, CauseConsumed: no such cause, or another run has it; then none of them was marked.
        """
        _said(run_id=run_id)
        numbers = sorted(set(ids))
        table = self._t.retrain_causes
        query = table.select().where(table.c.id.in_(numbers)).order_by(table.c.id)
        with self.write() as connection:
            causes = [Cause(**row) for row in connection.execute(query).mappings()]
            if len(causes) < len(numbers):
                missing = sorted(set(numbers) - {cause.id for cause in causes})
                raise UnknownCause(f"there is no retrain cause {', '.join(map(str, missing))}")
            for cause in causes:
                if cause.consumed_by not in (None, run_id):
                    raise CauseConsumed(
                        f"retrain cause {cause.id} ({cause.why}) was consumed by run {cause.consumed_by}, "
                        f"so run {run_id} can't have it"
                    )
            mark = table.update().where(table.c.id.in_(numbers), table.c.consumed_by.is_(None))
            now = self.now(connection)
            connection.execute(mark.values(consumed_by=run_id, consumed_at=now))
            for cause in causes:
                if cause.consumed_by is None:
                    append(self, connection, _acted_upon(cause, run_id), now)
            return [Cause(**row) for row in connection.execute(query).mappings()]

    # -- the log of decisions ----------------------------------------------------------------------

    def record(self, line: Line, *, at: datetime | None = None, reconstructed: bool = False) -> Decision | None:
        """Append a decision to the log; None, and nothing is written, when the newest line of its model, period and
        subject says the same.

        Args:
            at: when it was decided; now by default.
            reconstructed: the line is added afterwards.
        """
        with self.write() as connection:
            return self.record_in(connection, line, at=at, reconstructed=reconstructed)

    def record_in(
        self, connection: sa.Connection, line: Line, *, at: datetime | None = None, reconstructed: bool = False
    ) -> Decision | None:
        """`record` in a transaction of the caller's, which has read what the line says."""
        _one_of(line.subject, Subject, "subject of decisions")
        _said(model=line.model, period=line.period, action=line.action, actor=line.actor)
        known = newest(self, connection, line.model, line.period, line.subject)
        if known is not None and says_the_same(known, line):
            return None
        if known is not None:
            line = replace(line, before=known.after)
        return append(self, connection, line, at or self.now(connection), reconstructed=reconstructed)

    def decisions(
        self, model: str | None = None, *, since: datetime | None = None, subject: Subject | None = None
    ) -> list[Decision]:
        """The log, oldest first, of one model or of all, from a moment on, about one subject or all."""
        table = self._t.decisions
        query = table.select().order_by(table.c.at, table.c.id)
        wanted = {"model": model, "subject": subject}
        query = query.where(*(table.c[name] == value for name, value in wanted.items() if value is not None))
        if since is not None:
            query = query.where(table.c.at >= since)
        with self.read() as connection:
            return [Decision(**row) for row in connection.execute(query).mappings()]

    # -- alerts ------------------------------------------------------------------------------------

    def announce(self, kind: AlertKind, model: str, period: str, title: str, body: str, key: str) -> Alert:
        """Tell people something, once: a key that was announced before changes nothing."""
        _one_of(kind, AlertKind, "alert")
        _said(model=model, title=title, key=key)
        with self.write() as connection:
            texts = {"kind": kind, "model": model, "period": period, "title": title, "body": body}
            return self._enqueue(connection, self.now(connection), key=f"announced/{key}", **texts)

    def announced(self, key: str) -> bool:
        """Whether this key was announced before; its alert may still be waiting."""
        return bool(self._rows(self._t.alerts, key=f"announced/{key}"))

    def alerts(self, model: str | None = None) -> list[Alert]:
        """Newest last."""
        return [Alert(**row) for row in self._rows(self._t.alerts, model=model)]

    def _enqueue(self, connection: sa.Connection, now: datetime, *, key: str, **texts: str) -> Alert:
        table = self._t.alerts
        query = table.select().where(table.c.key == key)
        if connection.execute(query).first() is None:
            connection.execute(table.insert().values(key=key, state="waiting", at=now, **texts))
        return Alert(**connection.execute(query).mappings().one())

    # -- for queries -------------------------------------------------------------------------------

    def as_arrow(self, view: Literal["incidents", "alerts", "decisions"], model: str | None = None) -> pa.Table:
        """The rows of `monitoring.incidents`, `monitoring.alerts` or `monitoring.decisions`.

        Returns
        -------
        incidents
            period, model, id, kind, state, verdict, reasons (list of sentences), since, opened_at, resolved_at,
            resolved_by, resolved_why, evidence, run_id, details (the reasons as JSON).
        alerts
            One row per alert and endpoint (null where there is none yet): period, model, id, kind, title, body, state,
            endpoint (without secrets), attempts, error, at, sent_at.
        decisions
            The log, oldest first: period, model, id, at, subject, action, actor, why, before, after, evidence, run_id,
            reconstructed; see `decision_log.Line`.
        """
        import pyarrow as pa

        text, moment = pa.string(), pa.timestamp("us", tz="UTC")
        if view == "incidents":
            fields = {"period": text, "model": text, "id": pa.int64(), "kind": text, "state": text, "verdict": text}
            fields |= {"reasons": pa.list_(text), "since": pa.date32(), "opened_at": moment, "resolved_at": moment}
            fields |= dict.fromkeys(("resolved_by", "resolved_why", "evidence", "run_id", "details"), text)
            rows = [_with_sentences(row) for row in self._rows(self._t.incidents, model=model)]
        elif view == "alerts":
            fields = {"period": text, "model": text, "id": pa.int64(), "kind": text, "title": text, "body": text}
            fields |= {"state": text, "endpoint": text, "attempts": pa.int64(), "error": text}
            fields |= {"at": moment, "sent_at": moment}
            rows = self._deliveries(model)
        elif view == "decisions":
            fields = {"period": text, "model": text, "id": pa.int64(), "at": moment}
            fields |= dict.fromkeys(
                ("subject", "action", "actor", "why", "before", "after", "evidence", "run_id"), text
            )
            fields |= {"reconstructed": pa.bool_()}
            rows = [asdict(decision) for decision in self.decisions(model)]
        else:
            raise ValueError(f"there is no view {view!r}: expected incidents, alerts or decisions")
        schema = pa.schema(list(fields.items()))
        return pa.Table.from_pylist([{name: row[name] for name in fields} for row in rows], schema=schema)

    def _deliveries(self, model: str | None) -> list[dict[str, Any]]:
        alerts, deliveries = self._t.alerts, self._t.alert_deliveries
        sent = [deliveries.c.address.label("endpoint"), deliveries.c.attempts, deliveries.c.error, deliveries.c.sent_at]
        columns = [*alerts.c, deliveries.c.state.label("delivery"), *sent]
        query = alerts.outerjoin(deliveries).select().with_only_columns(*columns)
        if model is not None:
            query = query.where(alerts.c.model == model)
        with self.read() as connection:
            rows = connection.execute(query.order_by(alerts.c.id, deliveries.c.address)).mappings()
            return [{**row, "state": row["delivery"] or row["state"]} for row in rows]

    def _rows(self, table: sa.Table, **equal: Any) -> list[dict[str, Any]]:
        query = table.select().order_by(table.c.id)
        for name, value in equal.items():
            if value is not None:
                query = query.where(table.c[name] == value)
        with self.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def _insert(connection: sa.Connection, insert: sa.Insert) -> int:
    key = connection.execute(insert).inserted_primary_key
    assert key is not None
    return int(key[0])


def _acted_upon(cause: Cause, run_id: str) -> Line:
    why, after = f"{cause.kind}: {cause.why}", f"trained in {run_id}"
    return Line(cause.model, cause.period, "retrain", "trained", PLATFORM, why, "asked", after, cause.key)


def _reopened(now: datetime) -> dict[str, Any]:
    """The columns of an incident that is open again."""
    return {"state": "open", "opened_at": now, "resolved_at": None, "resolved_by": None, "resolved_why": None}


def _accepted_why(why: str) -> str:
    """Why an incident is resolved whose period a person has accepted."""
    return f"accepted: {why}"


def _with_sentences(row: dict[str, Any]) -> dict[str, Any]:
    sentences = [reason["sentence"] for reason in row["reasons"] if reason.get("sentence")]
    return {**row, "reasons": sentences, "details": json.dumps(row["reasons"])}


def _one_of(value: str, allowed: Any, what: str) -> None:
    if value not in get_args(allowed):
        raise ValueError(f"there is no {what} {value!r}: expected one of {', '.join(get_args(allowed))}")


def _said(**texts: str) -> None:
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name} is {text!r}: expected some text")
