"""What people and runs write down stays as they wrote it, and is announced once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from mlops_assets.incidents.store import (
    AlreadyResolved,
    CauseConsumed,
    Incident,
    NothingAccepted,
    Store,
    UnknownCause,
    UnknownIncident,
)

REASON = {"column": "fee", "value": 3.4, "threshold": 0.25, "sentence": "fee: PSI 3.4, severe from 0.25"}


def severe(store: Store, evidence: str = "report-1", period: str = "2022-12", **more: Any) -> Incident:
    finding = {"verdict": "severe", "reasons": [REASON], "since": date(2022, 12, 19), "run_id": "run-1", **more}
    return store.found("taxi", period, "drift", evidence=evidence, **finding)


def kinds(store: Store) -> list[str]:
    return [alert.kind for alert in store.alerts()]


def test_an_incident_comes_back_as_it_was_found(store: Store) -> None:
    number = severe(store).id
    incident = store.incident(number)
    assert (incident.model, incident.period, incident.kind, incident.verdict) == ("taxi", "2022-12", "drift", "severe")
    assert incident.reasons == [REASON]
    assert (incident.since, incident.evidence, incident.run_id) == (date(2022, 12, 19), "report-1", "run-1")
    assert incident.state == "open"
    assert abs(datetime.now(UTC) - incident.opened_at) < timedelta(minutes=1)
    assert [event.event for event in incident.history] == ["opened"]


def test_the_same_evidence_found_again_changes_nothing(store: Store) -> None:
    first = severe(store)
    assert severe(store, run_id="run-2") == first
    assert kinds(store) == ["incident_opened"]


def test_what_a_person_resolved_stays_resolved_for_the_same_evidence_only(store: Store) -> None:
    number = severe(store).id
    store.resolve(number, by="ada", why="known fare change")
    assert severe(store).state == "resolved"
    again = severe(store, evidence="report-2")
    assert (again.id, again.state, again.resolved_by, again.resolved_at) == (number, "open", None, None)
    assert [event.event for event in store.incident(number).history] == ["opened", "resolved", "reopened"]
    assert kinds(store) == ["incident_opened", "incident_resolved", "incident_opened"]


def test_new_evidence_updates_an_open_incident_without_another_alert(store: Store) -> None:
    severe(store)
    incident = severe(store, evidence="report-2", reasons=[REASON, REASON])
    assert len(incident.reasons) == 2
    assert [event.event for event in store.incident(incident.id).history] == ["opened", "updated"]
    assert kinds(store) == ["incident_opened"]


def test_resolving_twice_says_who_did_it_first(store: Store) -> None:
    number = severe(store).id
    before = store.resolve(number, by="ada", why="known fare change")
    with pytest.raises(AlreadyResolved, match=r"resolved by ada at 20.*: known fare change"):
        store.resolve(number, by="bob", why="me too")
    assert store.incident(number) == before


def test_resolving_what_is_not_there(store: Store) -> None:
    with pytest.raises(UnknownIncident, match="there is no incident 7"):
        store.resolve(7, by="ada", why="why not")
    assert store.alerts() == []


def test_closing_by_itself_is_idempotent(store: Store) -> None:
    assert store.close_by_itself("taxi", "2022-12", "drift", "nothing was open") is None
    severe(store)
    closed = store.close_by_itself("taxi", "2022-12", "drift", "2023-01 is fine under version 9")
    assert closed is not None
    assert (closed.state, closed.resolved_why) == ("resolved", "2023-01 is fine under version 9")
    assert store.close_by_itself("taxi", "2022-12", "drift", "again") is None
    assert kinds(store) == ["incident_opened", "incident_resolved"]


@pytest.mark.parametrize(("cause_gone", "state"), [(True, "open"), (False, "resolved")])
def test_the_same_evidence_reopens_only_what_had_gone_away(store: Store, cause_gone: bool, state: str) -> None:
    severe(store)
    store.close_by_itself("taxi", "2022-12", "drift", "over", cause_gone=cause_gone)
    assert severe(store).state == state


def test_incidents_are_listed_by_what_is_asked_for(store: Store) -> None:
    december, january = severe(store), severe(store, period="2023-01")
    store.found("bikes", "2022-12", "outage", verdict="no data", reasons=[], evidence="missing")
    store.resolve(january.id, by="ada", why="known")
    assert [i.id for i in store.incidents(model="taxi", state="open")] == [december.id]
    assert [i.model for i in store.incidents(period="2022-12", kind="outage")] == ["bikes"]
    assert len(store.incidents()) == 3


def test_an_outage_is_announced_as_one(store: Store) -> None:
    store.found("taxi", "2022-12", "outage", verdict="no data", reasons=[{"sentence": "no file"}], evidence="missing")
    (alert,) = store.alerts("taxi")
    assert (alert.kind, alert.title) == ("data_outage", "taxi 2022-12: no data")
    assert "no file" in alert.body


def test_an_alert_says_what_was_found_since_when_and_where_to_look(store: Store) -> None:
    incident = severe(store, reasons=[REASON] * 14)
    (alert,) = store.alerts()
    assert alert.title == "taxi 2022-12: drift severe"
    assert "fee: PSI 3.4, severe from 0.25" in alert.body
    assert "and 4 more" in alert.body
    assert "Since 2022-12-19." in alert.body
    assert f"mlops-assets incidents show {incident.id}" in alert.body


def test_an_alert_cuts_nothing_that_is_severe(store: Store) -> None:
    found = [{"sentence": f"column {number} moved", "verdict": "severe"} for number in range(14)]
    found += [{"sentence": f"column {number} is noticed", "verdict": "warning"} for number in range(14, 40)]
    severe(store, reasons=found)
    (alert,) = store.alerts()
    lines = alert.body.splitlines()
    assert lines[:14] == [f"column {number} moved" for number in range(14)]
    assert lines[14] == "column 14 is noticed"
    assert "and 16 more" in lines


def test_accepting_names_the_report_and_resolves_its_incident(store: Store) -> None:
    number = severe(store).id
    assert store.accepted("taxi", "2022-12") is None
    store.accept("taxi", "2022-12", "report-1", by="ada", why="fares are known")
    accept = store.accepted("taxi", "2022-12")
    assert accept is not None
    assert (accept.report_digest, accept.by, accept.why) == ("report-1", "ada", "fares are known")
    incident = store.incident(number)
    assert (incident.state, incident.resolved_by, incident.resolved_why) == (
        "resolved",
        "ada",
        "accepted: fares are known",
    )
    assert store.accepted("taxi", "2023-01") is None


def test_the_newest_accept_counts_and_repeating_it_adds_nothing(store: Store) -> None:
    for digest in ("report-1", "report-2", "report-2", "report-1"):
        store.accept("taxi", "2022-12", digest, by="ada", why="fine")
    assert [accept.report_digest for accept in store.accepts("taxi")] == ["report-1", "report-2", "report-1"]
    accept = store.accepted("taxi", "2022-12")
    assert accept is not None
    assert accept.report_digest == "report-1"


def test_a_withdrawn_accept_counts_no_longer_and_opens_again_what_it_closed(store: Store) -> None:
    number = severe(store).id
    store.accept("taxi", "2022-12", "report-1", by="ada", why="fares are known")
    withdrawn = store.withdraw("taxi", "2022-12", by="bob", why="they were not")
    assert (withdrawn.withdrawn_by, withdrawn.withdrawn_why) == ("bob", "they were not")
    assert store.accepted("taxi", "2022-12") is None
    assert store.accepts("taxi") == [withdrawn], "nothing disappears"
    incident = store.incident(number)
    assert (incident.state, incident.resolved_by) == ("open", None)
    assert [(event.event, event.by) for event in incident.history][1:] == [("resolved", "ada"), ("reopened", "bob")]
    assert kinds(store) == ["incident_opened", "incident_resolved", "incident_opened"]
    assert store.withdraw("taxi", "2022-12", by="eve", why="again") == withdrawn, "withdrawn once"
    with pytest.raises(NothingAccepted, match="taxi 2023-01 was never accepted"):
        store.withdraw("taxi", "2023-01", by="bob", why="again")
    store.accept("taxi", "2022-12", "report-1", by="ada", why="now they are")
    accept = store.accepted("taxi", "2022-12")
    assert accept is not None
    assert accept.why == "now they are"
    assert store.incident(number).state == "resolved"


def test_withdrawing_leaves_an_incident_that_the_accept_did_not_close(store: Store) -> None:
    number = severe(store).id
    store.resolve(number, by="ada", why="looked at it")
    store.accept("taxi", "2022-12", "report-1", by="ada", why="fares are known")
    store.withdraw("taxi", "2022-12", by="bob", why="they were not")
    assert store.incident(number).state == "resolved"


def test_champion_orders_are_kept_newest_last(store: Store) -> None:
    first = store.order("taxi", "2022-12", "rollback", "3", by="ada", why="4 is biased")
    second = store.order("taxi", "2022-12", "promote", "5", by="bob", why="5 is not")
    store.order("taxi", "2023-01", "promote", "6", by="bob", why="newer")
    assert store.orders("taxi", "2022-12") == [first, second]
    assert len(store.orders("taxi")) == 3


def test_a_cause_is_stored_once_and_consumed_by_one_run(store: Store) -> None:
    first = store.add_cause("taxi", "2022-12", "severe_drift", "fee moved", by="drift_report", key="report-1")
    assert store.add_cause("taxi", "2022-12", "severe_drift", "again", by="drift_report", key="report-1") == first
    second = store.add_cause("taxi", "2022-12", "person", "try", by="ada", key="ada-1")
    assert store.pending("taxi") == [first, second]
    (consumed,) = store.consume([first.id], "run-1")
    assert consumed.consumed_by == "run-1"
    assert store.consume([first.id], "run-1") == [consumed]
    assert store.pending("taxi") == [second]
    assert store.causes("taxi", "2022-12") == [consumed, second]


def test_a_cause_of_another_run_or_unknown_consumes_nothing(store: Store) -> None:
    taken = store.add_cause("taxi", "2022-12", "person", "try", by="ada", key="a")
    free = store.add_cause("taxi", "2022-12", "person", "try", by="ada", key="b")
    store.consume([taken.id], "run-1")
    with pytest.raises(CauseConsumed, match="was consumed by run run-1, so run run-2 can't have it"):
        store.consume([free.id, taken.id], "run-2")
    with pytest.raises(UnknownCause, match="there is no retrain cause 99"):
        store.consume([free.id, 99], "run-2")
    assert store.pending("taxi") == [free]


def test_announcing_the_same_key_again_tells_nobody(store: Store) -> None:
    first = store.announce("champion_promoted", "taxi", "2022-12", "version 9", "AUC .71", key="taxi/9")
    assert store.announce("champion_promoted", "taxi", "2022-12", "version 9", "AUC .71", key="taxi/9") == first
    assert store.alerts() == [first]


def test_views_are_typed_also_when_empty(store: Store) -> None:
    empty = {name: store.as_arrow(name).schema for name in ("incidents", "alerts")}
    incident = severe(store)
    incidents, alerts = store.as_arrow("incidents"), store.as_arrow("alerts", model="taxi")
    assert {"incidents": incidents.schema, "alerts": alerts.schema} == empty
    (row,) = incidents.to_pylist()
    assert (row["period"], row["model"], row["reasons"]) == ("2022-12", "taxi", [REASON["sentence"]])
    assert row["opened_at"] == incident.opened_at
    (row,) = alerts.to_pylist()
    assert (row["period"], row["kind"], row["state"], row["endpoint"]) == (
        "2022-12",
        "incident_opened",
        "waiting",
        None,
    )
    assert store.as_arrow("alerts", model="bikes").num_rows == 0


WITHOUT_A_REASON: list[Callable[[Store], object]] = [
    lambda store: store.resolve(1, by="ada", why=" "),
    lambda store: store.accept("taxi", "2022-12", "report-1", by="", why="fine"),
    lambda store: store.order("taxi", "2022-12", "rollback", "3", by="ada", why=""),
    lambda store: store.order("taxi", "2022-12", "delete", "3", by="ada", why="gone"),  # type: ignore[arg-type]
    lambda store: store.found("taxi", "2022-12", "mood", verdict="bad", reasons=[], evidence="e"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("call", WITHOUT_A_REASON)
def test_a_decision_without_name_reason_or_meaning_is_refused(sqlite: Store, call: Callable[[Store], object]) -> None:
    number = severe(sqlite).id
    before = sqlite.incident(number)
    with pytest.raises(ValueError, match="expected"):
        call(sqlite)
    assert sqlite.incident(number) == before
    assert len(sqlite.alerts()) == 1
