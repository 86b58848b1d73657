"""The gate: what may be served for a period, computed from facts and never stored twice.

Every asset, sensor, command and page asks here, so they cannot disagree. Pure functions: no lake, no Dagster.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

GateState = Literal["none", "champion", "plan_b", "withheld"]


@dataclass(frozen=True)
class Gate:
    """What may be served for one period.

    Attributes
    ----------
    state
        `none` (there is no champion yet), `champion` (its scores), `plan_b`, or `withheld` (nothing).
    reason
        Why, in words for the person who reads it; empty when the champion's scores are simply served.
    decision_id
        One name for what is served and why: 16 hex digits over report digest, state, accept, champion and ladder.
    """

    state: GateState
    reason: str
    decision_id: str


def gate(
    *,
    champion_version: str | None,
    quality_failure: str | None,
    verdict: str,
    verdict_reasons: Sequence[str],
    report_digest: str | None,
    on_severe: str,
    ladder: Sequence[str],
    accepted_digest: str | None = None,
    accepted_by: str | None = None,
) -> Gate:
    """What may be served for a period (DESIGN: "When the data turns").

    Parameters
    ----------
    champion_version
        The version in force before the period, None when no champion has been chosen yet.
    quality_failure
        The failed quality check or outage of the period's data, None when its data is sound.
    verdict, verdict_reasons, report_digest
        Of the period's drift report: `ok`, `warning`, `severe` or `none`; its sentences; its content's hash.
    on_severe
        `fallback` serves plan B for a severe period, `pause` withholds it.
    ladder
        The rungs of plan B, part of the decision's name.
    accepted_digest
        The digest that a person has accepted. It overrides a severe verdict of that very report only; a quality
        failure can't be accepted, the data must be repaired.
    accepted_by
        Who accepted it, when and why, for the reason; no part of the decision's name.
    """
    accepted = accepted_digest is not None and accepted_digest == report_digest
    state: GateState
    if champion_version is None:
        state, reason = "none", "no champion yet"
    elif quality_failure is not None:
        state, reason = "withheld", quality_failure
    elif verdict == "severe" and not accepted:
        state = "plan_b" if on_severe == "fallback" else "withheld"
        reason = "severe drift: " + ("; ".join(verdict_reasons) or "see the drift report")
    else:
        state, reason = "champion", ""
        if verdict == "severe":
            reason = f"severe drift, {accepted_by or 'accepted by a person'}"
    # The ladder is part of what is served only where plan B serves: changing it must not serve all periods again.
    rungs = list(ladder) if state == "plan_b" else []
    facts = [report_digest, state, accepted_digest if accepted else None, champion_version, rungs]
    decision_id = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return Gate(state, reason, decision_id)
