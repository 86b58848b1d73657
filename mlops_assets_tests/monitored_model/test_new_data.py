"""The check `new_data_size`: what a challenger knows that the champion does not, and when that is too little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.monitored_model.outcome import Check
from mlops_assets.monitored_model.steps import challenger as challenger_step
from mlops_assets.monitored_model.steps import champion as champion_step
from mlops_assets.monitored_model.steps import features as features_step
from mlops_assets.monitored_model.steps import profile as profile_step
from mlops_assets.monitored_model.steps import raw as raw_step
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets_tests import tiny_model

MONTHS = ["2021-01", "2021-02", "2021-03", "2021-04"]


@contextmanager
def learning(root: Path, **changes: Any) -> Iterator[Workbench]:
    with tiny_model.workbench(root / "home", root / "data", tiny_model.spec(**changes)) as bench:
        yield bench


def made(bench: Workbench, periods: Sequence[str]) -> dict[str, Check]:
    """The check of each of the periods, made in order."""
    found = {}
    for period in periods:
        for step in (raw_step, features_step, profile_step):
            step.make(bench, period)
        outcome = challenger_step.make(bench, period)
        champion_step.make(bench, period)
        (found[period],) = [check for check in outcome.checks if check.name == "new_data_size"]
    return found


def test_the_new_rows_are_those_after_the_champions_training_rows(tmp_path: Path) -> None:
    for period, rows in zip(MONTHS, (600, 300, 200, 100), strict=True):
        tiny_model.write_rides(tmp_path / "data", [period], rows=rows)
    with learning(tmp_path) as bench:
        checks = made(bench, MONTHS)
    assert checks["2021-01"].description.startswith("Nothing was trained: no full window yet")
    assert checks["2021-03"].description == "There is no champion yet: all 1,100 rows are new."
    april = checks["2021-04"]
    assert (april.passed, april.severity) == (True, "WARN")
    assert april.metadata["new_rows"] == 300 + 200 + 100
    assert april.metadata["new_periods"] == "2021-02, 2021-03, 2021-04"
    assert (april.metadata["champion_training_rows"], april.metadata["champion_training_periods"]) == (600, "2021-01")
    assert (april.metadata["ratio"], april.metadata["threshold"]) == (1.0, 0.1)


def test_it_warns_when_the_challenger_has_seen_little_that_the_champion_has_not(tmp_path: Path) -> None:
    tiny_model.write_rides(tmp_path / "data", ["2021-01"], rows=3000)
    tiny_model.write_rides(tmp_path / "data", MONTHS[1:], rows=90)
    with learning(tmp_path) as bench:
        april = made(bench, MONTHS)["2021-04"]
    assert (april.passed, april.severity) == (False, "WARN")
    assert "270 of 270 rows are later than what the champion, version 1, was trained on" in april.description
    assert "Below 0.1 the two have seen nearly the same" in april.description


def test_months_that_the_champion_was_trained_on_too_are_not_new(tmp_path: Path) -> None:
    tiny_model.write_rides(tmp_path / "data", [*MONTHS, "2021-05"])
    window = {"train": [-3, -2], "validation": [-1, -1], "test": [0, 0]}
    with learning(tmp_path, window=window) as bench:
        may = made(bench, [*MONTHS, "2021-05"])["2021-05"]
    # The champion knows January and February, the challenger is trained on February and March.
    assert may.metadata["new_periods"] == "2021-03, 2021-04, 2021-05"
    assert (may.metadata["new_rows"], may.metadata["champion_training_rows"]) == (1800, 1200)


def test_of_a_period_that_trains_on_its_own_days_only_those_days_are_counted(tmp_path: Path) -> None:
    tiny_model.write_rides(tmp_path / "data", MONTHS[:3])
    tiny_model.write_rides(tmp_path / "data", ["2021-04"], since=date(2021, 4, 11))
    with learning(tmp_path) as bench:
        april = made(bench, MONTHS)["2021-04"]
        rows = bench.partition("challenger", "2021-04").facts
    assert rows["trained_on"] == "since_break"
    assert april.metadata["new_periods"] == "2021-04"
    assert april.metadata["new_rows"] == pytest.approx(600 * 20 / 30, abs=40)


def test_the_limit_is_declared(tmp_path: Path) -> None:
    tiny_model.write_rides(tmp_path / "data", MONTHS)
    with learning(tmp_path, min_new_data=3.5) as bench:
        april = made(bench, MONTHS)["2021-04"]
    assert not april.passed
    assert april.metadata["threshold"] == 3.5
    with pytest.raises(ValueError, match="min_new_data"):
        tiny_model.spec(min_new_data=-1)
