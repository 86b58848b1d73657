"""What a step of a model gives back, in plain types: the partition it wrote, what people read, its checks.

No Dagster here: `assets` turns an outcome into Dagster's results, the benchmarks and tests read it as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mlops_assets.lake.store import Partition
from mlops_assets.neutral_text import neutral_markdown

Severity = Literal["ERROR", "WARN"]


@dataclass(frozen=True)
class Markdown:
    """Text that a page renders: tables, pictures as data URIs."""

    text: str


@dataclass(frozen=True)
class Link:
    """An address that a person can open."""

    url: str


@dataclass(frozen=True)
class FilePath:
    """A file on the machine that made it."""

    path: str


@dataclass(frozen=True)
class Check:
    """The result of one check of one period.

    `severity` is what a failure means: `ERROR` or `WARN`. A passed check has the severity that its failure would have.
    """

    name: str
    passed: bool
    description: str
    severity: Severity = "ERROR"
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A written partition with its metadata and check results.

    `warnings` say what could not be shown (a picture, a page, an entry in MLflow); the result stands without it.
    """

    partition: Partition
    metadata: Mapping[str, Any] = field(default_factory=dict)
    checks: Sequence[Check] = ()
    warnings: Sequence[str] = ()


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> Markdown:
    """A markdown table of `rows`; numbers are shortened to what a person reads."""
    if not rows:
        return Markdown("_no rows_")
    names = list(columns or rows[0])
    lines = ["| " + " | ".join(map(neutral_markdown, names)) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
    return Markdown("\n".join(lines))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, float):
        return f"{value:,.0f}" if value == int(value) and abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return neutral_markdown(str(value))


def quality_failure(checks: Sequence[Check]) -> str | None:
    """The reason for quarantine: the failed checks of severity ERROR, None when there is none."""
    failed = [check for check in checks if not check.passed and check.severity == "ERROR"]
    if not failed:
        return None
    return "quarantined: " + "; ".join(f"{check.name}: {check.description}" for check in failed)
