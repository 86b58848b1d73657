"""What may be served for a period, and under which name that decision goes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.incidents.gate import gate

digests = st.one_of(st.none(), st.sampled_from(["a" * 64, "b" * 64]))
situations = st.fixed_dictionaries(
    {
        "champion_version": st.one_of(st.none(), st.sampled_from(["1", "2"])),
        "quality_failure": st.one_of(st.none(), st.just("quarantined: volume: no rows")),
        "verdict": st.sampled_from(["none", "ok", "warning", "severe"]),
        "verdict_reasons": st.lists(st.sampled_from(["fee: PSI 4.9", "fare: PSI 0.9"]), max_size=2),
        "report_digest": digests,
        "on_severe": st.sampled_from(["fallback", "pause"]),
        "ladder": st.lists(st.sampled_from(["segment_rate", "global_rate"]), unique=True),
        "accepted_digest": digests,
    }
)

SEVERE: dict[str, Any] = {
    "champion_version": "1",
    "quality_failure": None,
    "verdict": "severe",
    "verdict_reasons": ["fee: PSI 4.9"],
    "report_digest": "a" * 64,
    "on_severe": "fallback",
    "ladder": ["segment_rate"],
}


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        ({}, "plan_b", "severe drift: fee: PSI 4.9"),
        ({"verdict_reasons": []}, "plan_b", "severe drift: see the drift report"),
        ({"on_severe": "pause"}, "withheld", "severe drift: fee: PSI 4.9"),
        ({"verdict": "warning"}, "champion", ""),
        ({"verdict": "ok"}, "champion", ""),
        ({"verdict": "none"}, "champion", ""),
        ({"champion_version": None}, "none", "no champion yet"),
        ({"champion_version": None, "quality_failure": "no data: gone"}, "none", "no champion yet"),
        ({"quality_failure": "no data: gone"}, "withheld", "no data: gone"),
        ({"accepted_digest": "a" * 64}, "champion", "severe drift, accepted by a person"),
        ({"accepted_digest": "a" * 64, "on_severe": "pause"}, "champion", "severe drift, accepted by a person"),
        ({"accepted_digest": "b" * 64}, "plan_b", "severe drift: fee: PSI 4.9"),
    ],
)
def test_what_is_served_in_each_situation(change: dict[str, Any], state: str, reason: str) -> None:
    decided = gate(**SEVERE | change)
    assert (decided.state, decided.reason) == (state, reason)


@given(situations)
@settings(max_examples=50, deadline=None)
def test_data_that_failed_its_checks_is_never_served_whatever_was_accepted(situation: dict[str, Any]) -> None:
    decided = gate(**situation | {"quality_failure": "quarantined"})
    assert decided.state == ("none" if situation["champion_version"] is None else "withheld")


@given(situations)
@settings(max_examples=50, deadline=None)
def test_the_champion_is_served_in_a_severe_period_only_when_that_very_report_was_accepted(
    situation: dict[str, Any],
) -> None:
    decided = gate(**situation | {"verdict": "severe", "champion_version": "1", "quality_failure": None})
    accepted = situation["accepted_digest"]
    served = accepted is not None and accepted == situation["report_digest"]
    assert (decided.state == "champion") == served


@given(situations)
@settings(max_examples=50, deadline=None)
def test_the_same_situation_has_the_same_name_and_every_state_but_champion_a_reason(situation: dict[str, Any]) -> None:
    first, again = gate(**situation), gate(**{**situation, "verdict_reasons": list(situation["verdict_reasons"])})
    assert first == again
    assert len(first.decision_id) == 16
    assert first.state == "champion" or first.reason


@pytest.mark.parametrize(
    "change",
    [
        {"report_digest": "b" * 64},
        {"champion_version": "2"},
        {"ladder": ["global_rate"]},
        {"ladder": ["segment_rate", "global_rate"]},
        {"verdict": "ok"},
        {"on_severe": "pause"},
        {"accepted_digest": "a" * 64},
    ],
)
def test_whatever_changes_what_is_served_or_why_gives_the_decision_another_name(change: dict[str, Any]) -> None:
    assert gate(**SEVERE).decision_id != gate(**SEVERE | change).decision_id


def test_accepting_another_report_leaves_the_decision_as_it_was() -> None:
    assert gate(**SEVERE) == gate(**SEVERE, accepted_digest="b" * 64)
