"""What a partition was made from, kept in its facts, and whether that is still what there is.

`made_from` holds the digests of its inputs, `made_without` the inputs that were not there. A period made before its
window stays what it was when the window comes; it is stale then, as if an input had changed.

Partitions of homes before `made_without` say in their reason which input they lacked, or had all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlops_assets.lake.store import Partition

MADE_FROM, MADE_WITHOUT = "made_from", "made_without"

_LACKED = re.compile(r"the (?P<table>\w+) of (?P<periods>[\w.-]+(?:, [\w.-]+)*) have not been made")


def provenance(inputs: Mapping[str, str | None]) -> dict[str, Any]:
    """The facts of a partition that is made now: its inputs as "table/period" with their digests, None for absent."""
    absent = sorted(name for name, digest in inputs.items() if digest is None)
    known = {name: digest for name, digest in inputs.items() if digest is not None}
    return {MADE_FROM: known, **({MADE_WITHOUT: absent} if absent else {})}


def not_made_reason(table: str, *periods: str) -> str:
    """Why a partition is empty: inputs of it have not been made. `made_without` reads it back."""
    return f"the {table} of {', '.join(periods)} have not been made"


def made_without(partition: Partition) -> set[str]:
    """The inputs, as "table/period", that were not there when the partition was made."""
    if MADE_WITHOUT in partition.facts:
        return set(partition.facts[MADE_WITHOUT])
    lacked = _LACKED.finditer(partition.reason or "")
    return {f"{found['table']}/{period}" for found in lacked for period in found["periods"].split(", ")}


def made_otherwise(partition: Partition, name: str, digest: str) -> bool:
    """Whether a partition was made from its input `name` as it was before it had this digest, or without it."""
    known = partition.facts.get(MADE_FROM, {}).get(name)
    return name in made_without(partition) if known is None else known != digest
