"""Has a period's file arrived, or changed since it was ingested? Looked at by size and time or ETag first, then hash.

No Dagster here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from mlops_assets.home import Home, data_dir
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.sources.digests import file_sha256, rows_digests

TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class Arrival:
    """A period whose file is new or has changed; `signature` names its content as far as it was looked at."""

    period: str
    signature: str
    why: str


def arrivals(spec: ModelSpec, lake: Lake, periods: Sequence[str], seen: dict[str, str]) -> list[Arrival]:
    """The periods to make: published after the first ingested one and not ingested, or ingested with other content.

    `seen` remembers by period the cheap signature that was last found equal to what is ingested; it is updated.
    """
    if not spec.source.per_period:
        return _one_file(spec, lake, periods, seen)
    ingested = lake.periods(spec.name, spec.raw_table)
    if not ingested:
        return []
    found = []
    for period in [known for known in periods if known >= ingested[0]]:
        place = _place(spec, period)
        signature = _signature(place)
        if signature is None or seen.get(period) == signature:
            continue
        known = lake.find(spec.name, spec.raw_table, period)
        if known is not None and known.damaged:
            # Made again once from a file that is there; a run that fails is tried again by its own rules.
            found.append(Arrival(period, f"{signature}-damaged", "its raw partition is damaged"))
        elif known is None or not known.facts.get("sha256"):
            found.append(Arrival(period, signature, "its file has arrived"))
        elif isinstance(place, Path) and file_sha256(place) != known.facts["sha256"]:
            found.append(Arrival(period, signature, "its file has changed since it was ingested"))
        else:
            seen[period] = signature
    return found


def _one_file(spec: ModelSpec, lake: Lake, periods: Sequence[str], seen: dict[str, str]) -> list[Arrival]:
    """For a file that holds all periods: those whose rows are new or have changed, looked at when the file has."""
    place = _place(spec, "")
    signature = _signature(place)
    ingested = lake.periods(spec.name, spec.raw_table)
    wanted = [period for period in periods if ingested and period >= ingested[0]]
    if signature is None or not wanted or seen.get("*") == signature:
        return []
    if isinstance(place, Path):
        found = _in_local_file(spec, lake, wanted, ingested[-1], place)
    else:
        found = _in_remote_file(spec, lake, wanted, signature)
    if not found:
        # Looked at again until every period that differs has been made, whatever becomes of its run.
        seen["*"] = signature
    return found


def _in_local_file(spec: ModelSpec, lake: Lake, wanted: Sequence[str], newest: str, place: Path) -> list[Arrival]:
    content = file_sha256(place)
    digests = rows_digests(spec.source, place, wanted[0], wanted[-1], spec.calendar)
    if digests is None:
        return _in_unreadable_file(spec, lake, wanted, newest, content)
    found = []
    for period in wanted:
        if period not in digests:
            continue
        known = lake.find(spec.name, spec.raw_table, period)
        if known is None or known.reason is not None:
            found.append(Arrival(period, digests[period], "its rows have arrived"))
        elif known.facts.get("rows_digest") != digests[period]:
            found.append(Arrival(period, digests[period], "its rows have changed since they were ingested"))
        elif (
            known.facts.get("quality_failure")
            and known.facts.get("rows_of_no_period")
            and known.facts.get("sha256") != content
        ):
            # Its own rows are as they were, but those of no period, for which it was quarantined, may be repaired.
            found.append(Arrival(period, content, "its file has changed since it was quarantined"))
    return found


def _in_unreadable_file(spec: ModelSpec, lake: Lake, wanted: Sequence[str], newest: str, content: str) -> list[Arrival]:
    """One period, whose run says what is wrong with the file: the next one, or else the newest that is ingested."""
    last = lake.find(spec.name, spec.raw_table, newest)
    if last is None or last.damaged:
        return [Arrival(newest, content, "its raw partition is damaged")]
    said = last.facts.get("sha256") == content
    if said and last.reason is not None:
        return []
    later = [period for period in wanted if period > newest]
    if said and not later:
        return []
    return [Arrival((later or [newest])[0], content, "its file has changed and can't be read")]


def _in_remote_file(spec: ModelSpec, lake: Lake, wanted: Sequence[str], signature: str) -> list[Arrival]:
    """What a remote file holds is known after it was fetched, by the period's own run: all that it may complete."""
    from mlops_assets.monitored_model.reconciling import opened_periods

    opened = set(opened_periods(spec, lake, datetime.now()))
    found = []
    for period in wanted:
        known = lake.find(spec.name, spec.raw_table, period)
        if known is None:
            found.append(Arrival(period, signature, "its rows may have arrived"))
        elif known.reason is not None or known.facts.get("quality_failure") or period in opened:
            what = "outcomes were missing" if period in opened else "data failed its checks"
            found.append(Arrival(period, signature, f"the source may have changed since its {what}"))
    return found


def missing_periods(
    spec: ModelSpec, lake: Lake, store: Store, periods: Sequence[str], now: datetime, arrived: Sequence[Arrival] = ()
) -> list[str]:
    """Periods after the first ingested one, over for longer than the grace time, that no data is there for.

    Each is a data outage: its incident is opened once. `arrived` are the periods that only wait to be made.
    """
    ingested = lake.periods(spec.name, spec.raw_table)
    if not ingested:
        return []
    missing = []
    there = {*ingested, *(arrival.period for arrival in arrived)}
    for period in [known for known in periods if known > ingested[0] and known not in there]:
        if spec.calendar.end(period) + timedelta(days=spec.grace) > now:
            continue
        if spec.source.per_period and _signature(_place(spec, period)) is not None:
            continue
        what = f"no file of {period} has" if spec.source.per_period else f"{spec.source.path}: no rows of {period} have"
        sentence = f"{what} arrived {spec.grace} days after its end"
        store.found(
            spec.name,
            period,
            "outage",
            verdict="no data",
            reasons=[{"sentence": sentence}],
            evidence=hashlib.sha256(sentence.encode()).hexdigest(),
        )
        missing.append(period)
    return missing


def _place(spec: ModelSpec, period: str) -> Path | str:
    """The file, where it is on this machine, or else the address that it would be fetched from."""
    path = spec.source.path.replace("{period}", period)
    if "://" in path:
        return path
    for folder in (data_dir(), Home.from_env().downloads):
        if (folder / path).is_file():
            return folder / path
    return spec.source.url.replace("{period}", period) if spec.source.url else data_dir() / path


def _signature(place: Path | str) -> str | None:
    """Size and times of a file, ETag or length of an address; None when there is nothing."""
    if isinstance(place, Path):
        if not place.is_file():
            return None
        stat = place.stat()
        # The time of its last change, too: a copy that keeps times, as `rsync -a` makes, is no older file.
        return f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}"
    if place.startswith(("http://", "https://")):
        import requests

        try:
            answer = requests.head(place, timeout=TIMEOUT_SECONDS, allow_redirects=True)
        except requests.RequestException:
            return None
        if not answer.ok:
            return None
        return answer.headers.get("ETag") or answer.headers.get("Content-Length") or "there"
    from upath import UPath

    remote = UPath(place)
    return str(remote.stat().st_size) if remote.is_file() else None
