"""docs/checks.md explains each check that a model declares, with the thresholds that the code has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.drift.verdict import DriftThresholds
from mlops_assets.lake.columns import Column
from mlops_assets.monitored_model.graph import graph
from mlops_assets.monitored_model.spec import ModelSpec, PerformanceLimits
from mlops_assets.monitored_model.steps import features, raw
from mlops_assets.sources.declaration import Source
from mlops_assets.training import leakage
from mlops_assets_tests import tiny_model

PAGE = (Path(__file__).parents[2] / "docs" / "checks.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}


def declared() -> dict[str, str]:
    """The asset of each check of a model with all that can be declared."""
    plain = tiny_model.spec()
    forecasting = plain.model_copy(update={"baseline": next(iter(plain.columns))})
    assets = {check.name: asset.name for asset in graph(forecasting) for check in asset.checks}
    return {check: asset.replace(plain.records, "<records>") for check, asset in assets.items()}


def test_every_declared_check_has_a_section_that_says_what_to_do_and_a_row_with_its_asset() -> None:
    rows = dict(re.findall(r"^\| \[`(\w+)`\]\(#\1\) \| `([^`]+)` \|", PAGE, re.MULTILINE))
    assert rows == declared()
    assert list(SECTIONS) == list(rows)
    assert [name for name, text in SECTIONS.items() if "*What to do:*" not in text] == []
    assert [name for name, text in SECTIONS.items() if "| threshold | default | severity |" not in text] == []


def default(model: Any, field: str) -> float:
    return float(model.model_fields[field].default)


@pytest.mark.parametrize(
    ("check", "row", "value", "severity"),
    [
        ("source_schema", "above `source.tolerance`", default(Source, "tolerance"), "ERROR"),
        ("volume", "copies of another row, from", raw.COPIES_FATAL, "ERROR"),
        ("volume", "copies of another row, above", raw.COPIES_SUSPECT, "WARN"),
        ("volume", f"median of the last {raw.VOLUME_PERIODS} periods", raw.VOLUME_FACTOR, "WARN"),
        ("in_period", "share of such rows, above", raw.OUTSIDE_FATAL, "ERROR"),
        ("in_period", "share of such rows, above", raw.OUTSIDE_TOLERATED, "WARN"),
        ("feature_schema", "the column's `tolerance`", default(Column, "tolerance"), "ERROR"),
        (
            "completeness",
            f"median of the last {features.VOLUME_PERIODS} periods, below",
            features.COMPLETENESS_DROP,
            "WARN",
        ),
        ("drift_within_limits", "from `drift.warning`", default(DriftThresholds, "warning"), "WARN"),
        ("drift_within_limits", "from `drift.severe`", default(DriftThresholds, "severe"), ""),
        ("drift_within_limits", "from `drift.share`", default(DriftThresholds, "share"), "ERROR"),
        ("drift_within_limits", "from `drift.important_share`", default(DriftThresholds, "important_share"), "ERROR"),
        ("drift_within_limits", "from `drift.novelty`", default(DriftThresholds, "novelty"), "ERROR"),
        ("training_sane", "too good to be true", leakage.NEAR_PERFECT, "WARN"),
        ("new_data_size", "below `min_new_data`", default(ModelSpec, "min_new_data"), "WARN"),
        ("performance_within_limits", "from `performance.severe`", default(PerformanceLimits, "severe"), "ERROR"),
        ("performance_within_limits", "from `performance.warning`", default(PerformanceLimits, "warning"), "WARN"),
    ],
)
def test_the_thresholds_on_the_page_are_those_of_the_code(check: str, row: str, value: float, severity: str) -> None:
    lines = [line for line in SECTIONS[check].splitlines() if line.startswith("|") and row in line]
    assert any(line.endswith(f"| `{value:g}` | {severity} |".replace("|  |", "| |")) for line in lines), lines
