"""What was trained, decided and served, as lines of the log of decisions, read from the partitions that say it.

A step appends its line right after it has written its partition. Where a process died in between, and for partitions
that an earlier version of this project has made, `catch_up` appends what is missing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from mlops_assets.incidents import decision_log as log
from mlops_assets.incidents.decision_log import PLATFORM, Decision, Line, Subject
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake, Partition
from mlops_assets.monitored_model.served_by import served_by
from mlops_assets.monitored_model.tables import CHALLENGER, CHAMPION, SERVED_PREDICTIONS

TABLES: dict[Subject, str] = {"challenger": CHALLENGER, "champion": CHAMPION, "served": SERVED_PREDICTIONS}


def record(lake: Lake, store: Store, model: str, period: str, subject: Subject, run_id: str | None) -> Decision | None:
    """Append what a period's partition says now, unless the log says so already."""
    line = line_of(lake, store, model, period, subject, run_id)
    return None if line is None else store.record(line)


def catch_up(lake: Lake, store: Store, model: str) -> int:
    """Append what the lake says and the log does not, marked as reconstructed; the number of lines appended."""
    known = log.newest_by_period(store, model, list(TABLES))
    added = 0
    for subject, table in TABLES.items():
        for period in lake.periods(model, table):
            line = line_of(lake, store, model, period, subject, None)
            last = known.get((period, subject))
            if line is None or (last is not None and log.says_the_same(last, line)):
                continue
            added += _reconstruct(lake, store, model, period, subject)
    return added


def _reconstruct(lake: Lake, store: Store, model: str, period: str, subject: Subject) -> int:
    # Read again while nobody else appends: the run that has just written the partition may be about to.
    at = _written(lake.find(model, TABLES[subject], period))
    with store.write() as connection:
        line = line_of(lake, store, model, period, subject, None)
        appended = None if line is None else store.record_in(connection, line, at=at, reconstructed=True)
        return int(appended is not None)


def _written(partition: Partition | None) -> datetime | None:
    """When a local file was written; None where that is not known."""
    if partition is None or "://" in partition.url:
        return None
    return datetime.fromtimestamp(Path(partition.url).stat().st_mtime, tz=UTC)


def line_of(lake: Lake, store: Store, model: str, period: str, subject: Subject, run_id: str | None) -> Line | None:
    """What a period's partition says about a subject; None when it says nothing, or can't be read."""
    if subject == "served":
        return _served(lake, model, period, run_id)
    partition = lake.find(model, TABLES[subject], period)
    if partition is None or partition.damaged:
        return None
    if subject == "champion":
        return _champion(store, partition, run_id)
    return _challenger(partition, run_id)


def _champion(store: Store, partition: Partition, run_id: str | None) -> Line:
    facts = partition.facts
    actor, order = PLATFORM, facts.get("order")
    if order is not None:
        actor = next((one.by for one in store.orders(partition.model, partition.period) if one.id == order), PLATFORM)
    return Line(
        partition.model,
        partition.period,
        "champion",
        facts["decision"],
        actor,
        facts.get("reason") or "",
        facts.get("previous_version"),
        facts.get("version"),
        facts.get("fingerprint"),
        run_id,
    )


def _challenger(partition: Partition, run_id: str | None) -> Line | None:
    facts = partition.facts
    version = facts.get("version")
    if version is None:
        return None  # nothing was trained: the champion's line says why
    why = "; ".join(facts.get("causes") or []) or f"trained on {facts.get('trained_on', 'its window')}"
    if facts.get("reused"):
        why += "; found again by its fingerprint"
    fingerprint = facts.get("fingerprint")
    return Line(
        partition.model, partition.period, "challenger", "registered", PLATFORM, why, None, version, fingerprint, run_id
    )


def _served(lake: Lake, model: str, period: str, run_id: str | None) -> Line | None:
    found = served_by(lake, model, period)
    if found is None:
        return None
    why = found.reason or "the verdict lets the champion serve"
    return Line(model, period, "served", found.source, PLATFORM, why, None, str(found), found.decision_id, run_id)
