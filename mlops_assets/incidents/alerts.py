"""Sends the alerts that the incident store holds, through Apprise, to the endpoints of `MLOPS_ALERT_URLS`.

Each alert goes to each endpoint once, tracked on its own, so an endpoint that is down neither delays the others nor
has them told twice. An attempt is written down before it is made: two processes never send the same alert at the same
time, and when one dies the attempt is made again after a while. (Only a process that dies between an endpoint's answer
and our note of it leaves an alert that comes twice; every text ends with the alert's number, so people can tell.)

Beside Apprise's own services, `file:///absolute/path.jsonl` appends a line of JSON to a file.
All processes on a store should have the same `MLOPS_ALERT_URLS`: alerts go to the endpoints that are configured when
they are due, and those that found none stay `not configured` for good: a late endpoint isn't flooded with the past.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mlops_assets.neutral_text import visible
from mlops_assets.redaction import hide_address, redact, secrets_of

if TYPE_CHECKING:
    import apprise

    from mlops_assets.incidents.store import Store

LINE_BREAK = "\n"
TIMEOUT_SECONDS = 10.0  # for one alert and endpoint
FIRST_RETRY_SECONDS = 30.0
LONGEST_RETRY_SECONDS = 3600.0
# How long an attempt belongs to the process that makes it. Long enough that only a dead one doesn't note its outcome.
CLAIM_SECONDS = 6 * TIMEOUT_SECONDS

_TYPES = {"incident_resolved": "success", "champion_promoted": "success", "champion_rolled_back": "warning"}
_log = logging.getLogger(__name__)


Situation = Callable[[Mapping[str, Any]], Sequence[str]]


@dataclass(frozen=True)
class Delivered:
    """What one pass did: attempts that arrived and that failed, and the deliveries that still wait, due or not."""

    sent: int
    failed: int
    waiting: int


@dataclass(frozen=True)
class _Endpoint:
    """One URL. Its key names it in the store, its address is fit to be shown; neither gives its secrets away."""

    key: str
    address: str
    service: apprise.NotifyBase | None
    secrets: tuple[str, ...]

    @classmethod
    def of(cls, url: str) -> _Endpoint:
        import apprise

        _support_files()
        service = apprise.Apprise.instantiate(url)
        key = hashlib.sha256(url.encode()).hexdigest()[:16]
        return cls(key, hide_address(url), service, tuple(secrets_of(url)))


def urls_from_env() -> list[str]:
    """The endpoints in `MLOPS_ALERT_URLS`, separated by spaces, or by commas before another URL."""
    text = os.environ.get("MLOPS_ALERT_URLS", "").strip(" ,\t\n")
    return [url for url in re.split(r"\s*,\s*(?=[\w+.-]+://)|[\s,]*\s[\s,]*", text) if url]


def deliver(
    store: Store,
    urls: Sequence[str] | None = None,
    now: datetime | None = None,
    limit: int = 100,
    situation: Situation | None = None,
) -> Delivered:
    """Send what is due. A dead endpoint is noted and logged, never raised.

    Args:
        urls: Apprise URLs; by default those of the environment. Without any, waiting alerts become `not configured`.
        now: the moment that due alerts are measured against.
        limit: most alerts to send to each endpoint in this pass.
        situation: gives the sentences about what holds now, which end an alert's text; they are not stored, because
            they change.

    A pass leaves an endpoint after its first failure, and the endpoints are served side by side, so it ends soon after
    the slowest of them. A failed delivery is tried again after 30 s, 1 min, 2 min, … and at least hourly.
    """
    started, began = now or datetime.now(UTC), time.monotonic()

    def clock() -> datetime:
        return started + timedelta(seconds=time.monotonic() - began)

    endpoints = [_Endpoint.of(url) for url in dict.fromkeys(urls_from_env() if urls is None else urls)]
    _address(store, endpoints, started)
    sent = failed = 0
    if endpoints and _any_due(store, started):
        with ThreadPoolExecutor(len(endpoints)) as pool:
            for arrived, broke in pool.map(
                lambda endpoint: _drain(store, endpoint, clock, limit, situation), endpoints
            ):
                sent, failed = sent + arrived, failed + broke
    return Delivered(sent, failed, _settle(store))


def _address(store: Store, endpoints: Sequence[_Endpoint], now: datetime) -> None:
    """Write down which endpoints each waiting alert still has to reach: those that are configured now."""
    alerts, deliveries = store._t.alerts, store._t.alert_deliveries
    waiting = alerts.select().where(alerts.c.state == "waiting").with_only_columns(alerts.c.id)
    with store.read() as connection:
        if connection.execute(waiting.limit(1)).first() is None:
            return
    with store.write() as connection:
        ids = list(connection.execute(waiting).scalars())
        unsent = deliveries.c.alert_id.in_(waiting) & (deliveries.c.state == "waiting")
        # An endpoint that was taken out of the configuration, or had a typing error, is not waited for.
        gone = deliveries.c.endpoint.not_in([endpoint.key for endpoint in endpoints])
        connection.execute(deliveries.delete().where(unsent & gone))
        rows = connection.execute(deliveries.select().where(deliveries.c.alert_id.in_(waiting)))
        known = {(row.alert_id, row.endpoint) for row in rows}
        new = [
            {"alert_id": number, "endpoint": endpoint.key, "address": endpoint.address, "next_at": now}
            for number in ids
            for endpoint in endpoints
            if (number, endpoint.key) not in known
        ]
        if new:
            connection.execute(deliveries.insert().values(state="waiting", attempts=0), new)
        elif not endpoints:
            connection.execute(alerts.update().where(alerts.c.id.in_(waiting)).values(state="not configured"))
            _log.info("alerts not sent, as MLOPS_ALERT_URLS is empty: %d", len(ids))


def _any_due(store: Store, now: datetime) -> bool:
    deliveries = store._t.alert_deliveries
    due = deliveries.select().where(deliveries.c.state == "waiting", deliveries.c.next_at <= now)
    with store.read() as connection:
        return connection.execute(due.limit(1)).first() is not None


def _drain(
    store: Store, endpoint: _Endpoint, clock: Callable[[], datetime], limit: int, situation: Situation | None
) -> tuple[int, int]:
    """Send what is due to one endpoint; how many arrived, and how many (at most one) failed."""
    sent = 0
    for alert in _claims(store, endpoint, clock, limit):
        error = _send(endpoint, {**alert, "body": _with_situation(alert, situation)})
        error = None if error is None else redact(error, endpoint.secrets)
        _note(store, endpoint, alert, error, clock())
        if error is not None:
            wait = _wait_seconds(alert["attempts"])
            _log.warning("Alert %d did not reach %s: %s. Again in %d s.", alert["id"], endpoint.address, error, wait)
            return sent, 1
        _log.info("Alert %d sent to %s: %s", alert["id"], endpoint.address, alert["title"])
        sent += 1
    return sent, 0


def _claims(
    store: Store, endpoint: _Endpoint, clock: Callable[[], datetime], limit: int
) -> Iterator[Mapping[str, Any]]:
    """Alerts that are due for an endpoint, each ours for `CLAIM_SECONDS`; those with fewest attempts first, so that one
    that an endpoint always refuses doesn't stand before the others."""
    alerts, deliveries = store._t.alerts, store._t.alert_deliveries
    mine = (deliveries.c.endpoint == endpoint.key) & (deliveries.c.state == "waiting")
    query = alerts.join(deliveries).select().with_only_columns(*alerts.c, deliveries.c.attempts)
    for _ in range(limit):
        with store.write() as connection:
            due = query.where(mine & (deliveries.c.next_at <= clock()))
            row = connection.execute(due.order_by(deliveries.c.attempts, alerts.c.id).limit(1)).mappings().first()
            if row is None:
                return
            claim = {"attempts": row["attempts"] + 1, "next_at": clock() + timedelta(seconds=CLAIM_SECONDS)}
            connection.execute(deliveries.update().where(mine, deliveries.c.alert_id == row["id"]).values(claim))
        yield {**row, **claim}


def _with_situation(alert: Mapping[str, Any], situation: Situation | None) -> str:
    """An alert's text with what holds now at its end. It goes out without that rather than not at all."""
    body = str(alert["body"])
    if situation is None:
        return body
    try:
        return redact("\n".join([body, *situation(alert)]))
    except Exception as error:  # noqa: BLE001  whatever is broken there, people have to be told of the incident
        _log.warning("Alert %d is sent without the present situation: %s", alert["id"], redact(str(error)))
        unread = f"What is served now could not be read ({type(error).__name__})"
        return f"{body}\n{unread}: mlops-assets status {alert['model']}"


def _send(endpoint: _Endpoint, alert: Mapping[str, Any]) -> str | None:
    """Try once; what went wrong, None when the alert arrived."""
    import apprise

    if endpoint.service is None:
        return "Apprise doesn't understand this URL, see its list of services"
    client = apprise.Apprise()
    client.add(endpoint.service)
    try:
        result = client.notify(
            title=visible(alert["title"]),
            body=f"{visible(alert['body'], keep=LINE_BREAK)}\nAlert {alert['id']}",
            notify_type=_TYPES.get(alert["kind"], "failure"),
            timeout=TIMEOUT_SECONDS,
        )
    except Exception as error:  # noqa: BLE001  a service of Apprise may raise anything, and an alert has to wait then
        return f"{type(error).__name__}: {error}"
    if result:
        return None
    return "; ".join(str(entry.message) for entry in result.logs()) or f"Apprise says {result.status.name}"


def _note(store: Store, endpoint: _Endpoint, alert: Mapping[str, Any], error: str | None, now: datetime) -> None:
    deliveries = store._t.alert_deliveries
    mine = (deliveries.c.endpoint == endpoint.key) & (deliveries.c.alert_id == alert["id"])
    values: dict[str, Any] = {"state": "sent", "sent_at": now, "error": None}
    if error is not None:
        mine &= (deliveries.c.state == "waiting") & (deliveries.c.attempts == alert["attempts"])
        values = {"error": error, "next_at": now + timedelta(seconds=_wait_seconds(alert["attempts"]))}
    with store.write() as connection:
        connection.execute(deliveries.update().where(mine).values(values))


def _wait_seconds(attempts: int) -> float:
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(attempts - 1, 20), LONGEST_RETRY_SECONDS)


def _settle(store: Store) -> int:
    """Mark the alerts that have reached every endpoint; how many deliveries still wait."""
    alerts, deliveries = store._t.alerts, store._t.alert_deliveries
    waiting = deliveries.select().where(deliveries.c.state == "waiting").with_only_columns(deliveries.c.alert_id)
    addressed = deliveries.select().with_only_columns(deliveries.c.alert_id)
    done = (alerts.c.state == "waiting") & alerts.c.id.in_(addressed) & alerts.c.id.not_in(waiting)
    with store.read() as connection:
        left = len(connection.execute(waiting).all())
        if connection.execute(alerts.select().where(done).limit(1)).first() is None:
            return left
    with store.write() as connection:
        connection.execute(alerts.update().where(done).values(state="sent"))
    return left


@functools.cache
def _support_files() -> None:
    """Teach Apprise `file://`."""
    import apprise

    @apprise.decorators.notify(on="file", name="File")
    def append(body: str, title: str, notify_type: str, *_: Any, meta: Mapping[str, Any], **__: Any) -> None:
        line = {"at": datetime.now(UTC).isoformat(), "type": notify_type, "title": title, "body": body}
        path = Path("/" + unquote(meta["url"].removeprefix("file://").partition("?")[0]).lstrip("/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:  # one write call, so lines of several processes don't mix
            file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
