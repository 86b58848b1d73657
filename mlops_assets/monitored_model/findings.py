"""What a step has found is told to the incident store: opened when it is wrong, closed when it is right again.

Written in the run that finds it; finding the same again changes nothing.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

from mlops_assets.drift.verdict import DriftReport, in_words
from mlops_assets.monitored_model.tables import DRIFT_REPORT, PERFORMANCE
from mlops_assets.monitored_model.versions import Identity, as_known

if TYPE_CHECKING:
    from mlops_assets.monitored_model.workbench import Workbench

PLATFORM = "mlops_assets"
NO_DATA = "no data"


def data_judged(bench: Workbench, period: str, failure: str | None) -> None:
    """The period's data failed its quality checks, is nowhere to be had, or is sound."""
    outage = failure is not None and failure.startswith(NO_DATA)
    if failure is not None:
        bench.store.found(
            bench.name,
            period,
            "outage" if outage else "quality",
            verdict="no data" if outage else "quarantined",
            reasons=[{"sentence": failure}],
            evidence=hashlib.sha256(failure.encode()).hexdigest(),
            run_id=bench.run_id,
        )
    if not outage:
        bench.store.close_by_itself(bench.name, period, "outage", "the period's data has arrived")
    if failure is None:
        bench.store.close_by_itself(bench.name, period, "quality", "the period's data passes its checks")


def drift_judged(bench: Workbench, period: str, report: DriftReport, version: Identity) -> None:
    """The period's verdict: severe opens its incident; anything else closes it, and those of earlier periods that had
    an older champion: the world has moved on, and this champion knows it.
    """
    name = bench.name
    if report.verdict == "severe":
        bench.store.found(
            name,
            period,
            "drift",
            verdict=report.verdict,
            reasons=_reasons(report),
            since=report.since,
            evidence=report.digest(),
            run_id=bench.run_id,
        )
        if bench.spec.retrain == "on_alert":
            bench.store.add_cause(
                name, period, "severe_drift", report.reasons[0], PLATFORM, f"drift/{period}/{report.digest()[:16]}"
            )
        return
    bench.store.close_by_itself(name, period, "drift", f"the report of {period} is {in_words(report.verdict)} now")
    for incident in bench.store.incidents(model=name, state="open", kind="drift"):
        if incident.period < period and not _may_be_of(bench, incident.period, version):
            why = f"{period} is {in_words(report.verdict)} under the newer champion, version {version.number}"
            bench.store.close_by_itself(name, incident.period, "drift", why, cause_gone=False)


def _reasons(report: DriftReport) -> list[dict[str, Any]]:
    """The rules that made the report severe, the severe columns by their importance, then what is a warning."""
    severe = [column for column in report.columns if column.verdict == "severe"]
    severe.sort(key=lambda column: (-(column.importance or 0.0), -(math.inf if column.psi is None else column.psi)))
    warned = {
        c.sentence() for c in [*report.columns, *([report.scores] if report.scores else [])] if c.verdict == "warning"
    }
    told = warned | {column.sentence() for column in severe}
    return [
        *({"sentence": reason, "verdict": "severe"} for reason in report.reasons if reason not in told),
        *(
            {
                "column": column.name,
                "value": column.psi,
                "threshold": column.threshold,
                "importance": column.importance,
                "sentence": column.sentence(),
                "since": str(column.since) if column.since else None,
                "verdict": "severe",
            }
            for column in severe
        ),
        *({"sentence": reason, "verdict": "warning"} for reason in report.reasons if reason in warned),
    ]


def _may_be_of(bench: Workbench, period: str, version: Identity) -> bool:
    """Whether a period's report was made with this champion, or can't be read."""
    report = bench.find(DRIFT_REPORT, period)
    if report is None or report.damaged:
        return report is not None
    champion = as_known(bench.lake, report, key="champion_version")
    return champion is not None and champion.is_same(version)


def performance_judged(bench: Workbench, period: str, verdict: str, sentence: str, version: Identity) -> None:
    """The realised metric against the champion's test period, with hysteresis.

    A loss beyond the severe limit opens an incident and is one cause for retraining; it is over only when a period
    falls below the *warning* limit again or another champion is in force, so that a metric that hovers around a limit
    does not retrain every period.
    """
    name = bench.name
    if verdict == "severe":
        begun = _streak_begun(bench, period, version)
        bench.store.found(
            name,
            period,
            "performance",
            verdict=verdict,
            reasons=[{"sentence": sentence}],
            evidence=hashlib.sha256(sentence.encode()).hexdigest(),
            run_id=bench.run_id,
        )
        if bench.spec.retrain == "on_alert":
            bench.store.add_cause(
                name, period, "performance", sentence, PLATFORM, f"performance/{version.number}/{begun}"
            )
    elif verdict == "ok":
        bench.store.close_by_itself(name, period, "performance", sentence)
        for incident in bench.store.incidents(model=name, state="open", kind="performance"):
            if incident.period < period:
                bench.store.close_by_itself(name, incident.period, "performance", sentence, cause_gone=False)


def _streak_begun(bench: Workbench, period: str, version: Identity) -> str:
    """The first period of the unbroken run of periods, up to this one, that this version was not within limits in."""
    begun = period
    for earlier in reversed([known for known in bench.lake.periods(bench.name, PERFORMANCE) if known < period]):
        measured = bench.lake.find(bench.name, PERFORMANCE, earlier)
        if measured is None or measured.damaged:
            break
        scored_by = as_known(bench.lake, measured)
        if scored_by is None or not scored_by.is_same(version):
            break
        if measured.facts.get("verdict") not in ("warning", "severe"):
            break
        begun = earlier
    return begun
