"""Whatever happens in whatever order, an incident is open exactly when it should be and each opening is told once."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from mlops_assets.incidents.store import AlreadyResolved, Incident, NothingAccepted, Store

EVIDENCE = st.sampled_from(["a", "b", "c"])
_models = (f"model_{number}" for number in itertools.count())


class IncidentStates(RuleBasedStateMachine):
    """The store against a model of it: a state, the evidence it knows, and the alerts that are due."""

    store: Store  # one for all examples, since making one takes longer than an example

    def __init__(self) -> None:
        super().__init__()
        self.model = next(_models)
        self.state: str | None = None
        self.evidence: str | None = None
        self.events: list[str] = []
        self.accepted: str | None = None
        self.closed_by_accept = self.ever_accepted = False

    @rule(evidence=EVIDENCE)
    def find(self, evidence: str) -> None:
        self.store.found(self.model, "2022-12", "drift", verdict="severe", reasons=[], evidence=evidence)
        if evidence == self.evidence:
            return
        self.events.append({None: "opened", "open": "updated", "resolved": "reopened"}[self.state])
        self.state, self.evidence, self.closed_by_accept = "open", evidence, False

    @precondition(lambda self: self.state is not None)
    @rule()
    def resolve(self) -> None:
        if self.state == "resolved":
            with pytest.raises(AlreadyResolved):
                self.store.resolve(self.incident().id, by="ada", why="known")
            return
        self.store.resolve(self.incident().id, by="ada", why="known")
        self._closed("resolved")

    @rule(digest=EVIDENCE)
    def accept(self, digest: str) -> None:
        self.store.accept(self.model, "2022-12", digest, by="ada", why="fine")
        self.accepted, self.ever_accepted = digest, True
        if self.state == "open":
            self._closed("resolved")
            self.closed_by_accept = True

    @rule()
    def withdraw(self) -> None:
        if not self.ever_accepted:
            with pytest.raises(NothingAccepted):
                self.store.withdraw(self.model, "2022-12", by="bob", why="not fine")
            return
        self.store.withdraw(self.model, "2022-12", by="bob", why="not fine")
        if self.accepted is None:
            return
        self.accepted = None
        if self.closed_by_accept:
            self.events.append("reopened")
            self.state, self.closed_by_accept = "open", False

    @rule(cause_gone=st.booleans())
    def close_by_itself(self, cause_gone: bool) -> None:
        self.store.close_by_itself(self.model, "2022-12", "drift", "later is fine", cause_gone=cause_gone)
        if cause_gone:
            self.evidence = None
        if self.state == "open":
            self._closed("closed")

    @invariant()
    def the_store_agrees(self) -> None:
        accept = self.store.accepted(self.model, "2022-12")
        assert (None if accept is None else accept.report_digest) == self.accepted
        if self.state is None:
            assert self.store.incidents(self.model) == []
            return
        incident = self.incident()
        assert (incident.state, incident.evidence) == (self.state, self.evidence)
        assert (incident.resolved_at is None) == (incident.resolved_by is None) == (self.state == "open")
        assert [event.event for event in self.store.incident(incident.id).history] == self.events
        told = {"opened": "incident_opened", "reopened": "incident_opened"}
        told |= {"resolved": "incident_resolved", "closed": "incident_resolved"}
        expected = [told[event] for event in self.events if event in told]
        logged = [line.action for line in self.store.decisions(self.model, subject="incident")]
        assert logged == self.events
        assert [alert.kind for alert in self.store.alerts(self.model)] == expected

    def incident(self) -> Incident:
        (incident,) = self.store.incidents(self.model)
        return incident

    def _closed(self, event: str) -> None:
        self.state = "resolved"
        self.events.append(event)


def test_an_incident_is_open_when_it_should_be(sqlite: Store) -> None:
    IncidentStates.store = sqlite
    run_state_machine_as_test(IncidentStates, settings=settings(max_examples=20, stateful_step_count=12, deadline=None))
