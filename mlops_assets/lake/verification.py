"""Whether the lake holds what was written: every byte of every partition, on request, and what the last time found.

Steps verify what they read (`Lake.scan`). This reads all of it, and keeps the result beside the model's tables, so that
who looks at the lake later sees damage that only its bytes show without reading them again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from mlops_assets.lake.store import Lake

NOTE = "verification"


@dataclass(frozen=True)
class Damage:
    """A partition that is not what was written, and why."""

    table: str
    period: str
    why: str


@dataclass(frozen=True)
class Verification:
    """What reading all partitions of a model has found.

    Attributes:
        at: when, UTC, ISO 8601.
        partitions, bytes: how much was read.
        damaged: those that can't be read, or whose bytes have changed since they were written.
    """

    model: str
    at: str
    partitions: int
    bytes: int
    damaged: tuple[Damage, ...]


def verify(lake: Lake, model: str) -> Verification:
    """Read all partitions of a model and keep the result.

    Raises OSError when the lake can't be read or written to.
    """
    lake.forget_verified()
    partitions = size = 0
    damaged = []
    for table in lake.tables(model):
        for period in lake.periods(model, table):
            found = lake.find(model, table, period, verify=True)
            if found is None:  # another process has removed it since
                continue
            partitions += 1
            size += found.bytes
            if found.damaged:
                damaged.append(Damage(table, period, found.damaged))
    at = datetime.now(UTC).isoformat(timespec="seconds")
    result = Verification(model, at, partitions, size, tuple(damaged))
    lake.write_note(model, NOTE, json.dumps(asdict(result) | {"changed_bytes": lake.known_damage(model)}))
    return result


def last_verification(lake: Lake, model: str) -> Verification | None:
    """What the last `verify` of a model has found, None without one; no partition is read.

    Partitions whose bytes it has found to be changed, and whose files are still the same, count as damaged from now on
    in this process.

    Raises ValueError when the record can't be read.
    """
    text = lake.read_note(model, NOTE)
    if text is None:
        return None
    try:
        known: dict[str, Any] = json.loads(text)
        lake.remember_damage(known.pop("changed_bytes"))
        damaged = tuple(Damage(**damage) for damage in known.pop("damaged"))
        return Verification(**known, damaged=damaged)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"the record of the last verification of {model} can't be read ({error!r}); "
            f"verify it again: mlops-assets verify {model}"
        ) from error
