"""A class of the target that would silently count as the opposite: another spelling of the event, or one never seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlops_assets.monitored_model.outcome import Check
from mlops_assets.monitored_model.steps import features, raw
from mlops_assets.monitored_model.target_classes import CLASSES, noted_classes, unexpected_classes
from mlops_assets_tests import tiny_model

USUAL = {"Sí", "no"}


@pytest.mark.parametrize("other", ["SÍ", "sí", " Sí", "Sí ", "Si", "S\u00ed".replace("í", "i\u0301"), "s\u00ed\u00a0"])
def test_another_spelling_of_the_event_makes_the_period_unusable(other: str) -> None:
    found = unexpected_classes("paid", "Sí", {"no": 70, "Sí": 20, other: 10}, USUAL, declared=False)
    assert found is not None
    assert found.severity == "ERROR"
    assert f"{other!r} (10 rows)" in found.text
    assert "target.isin" in found.text


@pytest.mark.parametrize(("positive", "other"), [("1", "1.0"), ("1", "01"), ("1.0", "1")])
def test_a_number_spelled_otherwise_is_the_same_event(positive: str, other: str) -> None:
    found = unexpected_classes("paid", positive, {"0": 70, other: 10}, {"0", positive}, declared=False)
    assert found is not None
    assert found.severity == "ERROR"


@pytest.mark.parametrize("other", ["S", "sin", "Sí?", "1"])
def test_another_class_is_no_spelling_of_the_event(other: str) -> None:
    found = unexpected_classes("paid", "Sí", {"no": 70, "Sí": 20, other: 10}, USUAL, declared=False)
    assert found is not None
    assert found.severity == "WARN"
    assert f"{other!r} (10 rows), which no period before has" in found.text


def test_classes_that_are_declared_or_known_or_first_are_expected() -> None:
    rows = {"no": 70, "Sí": 20, "unknown": 10}
    assert unexpected_classes("paid", "Sí", {"SÍ": 1, **rows}, USUAL, declared=True) is None
    assert unexpected_classes("paid", "Sí", rows, USUAL | {"unknown"}, declared=False) is None
    assert unexpected_classes("paid", "Sí", rows, set(), declared=False) is None
    assert unexpected_classes("paid", "Sí", {"no": 5}, USUAL, declared=False) is None


def test_an_event_that_was_never_seen_is_said() -> None:
    found = unexpected_classes("paid", "J", {"no": 5, "Sí": 2}, USUAL, declared=True)
    assert found is not None
    assert (found.severity, "correct target.positive" in found.text) == ("WARN", True)


def test_of_very_many_classes_none_is_called_new() -> None:
    many = {f"branch {number}": 1000 - number for number in range(500)}
    assert len(noted_classes(many)) == 100
    assert unexpected_classes("branch", "branch 0", many, set(noted_classes(many)), declared=False) is None


def sql(spelled: str) -> str:
    return tiny_model.SQL.replace(
        "(payment = 2)::INTEGER", f"CASE WHEN payment <> 2 THEN 'no' {spelled} ELSE 'Yes' END"
    )


def made(root: Path, query: str, period: str) -> tuple[Check, dict[str, int]]:
    """The check of the features of a period, and the classes that are noted."""
    declared = tiny_model.spec(target={"column": "is_cash", "positive": "Yes"})
    with tiny_model.workbench(root / "home", root / "data", declared, query) as bench:
        raw.make(bench, period)
        outcome = features.make(bench, period)
    return outcome.checks[0], outcome.partition.facts[CLASSES]


def test_a_period_whose_event_is_spelled_anew_is_quarantined_and_one_with_a_new_class_warns(tmp_path: Path) -> None:
    tiny_model.write_rides(tmp_path / "data", ["2021-01", "2021-02", "2021-03", "2021-04"])
    check, classes = made(tmp_path, sql(""), "2021-01")
    assert check.passed
    assert set(classes) == {"Yes", "no"}
    check, classes = made(tmp_path, sql("WHEN fare > 20 THEN 'YES'"), "2021-02")
    assert (check.passed, check.severity) == (False, "ERROR")
    assert f"is_cash has 'YES' ({classes['YES']:,} rows)" in check.description
    # What was quarantined has not been seen.
    check, _ = made(tmp_path, sql("WHEN fare > 20 THEN 'maybe'"), "2021-03")
    assert (check.passed, check.severity) == (False, "WARN")
    assert "'maybe'" in check.description
    check, _ = made(tmp_path, sql("WHEN fare > 20 THEN 'maybe'"), "2021-04")
    assert check.passed


def test_classes_of_periods_made_before_they_were_noted_are_known(tmp_path: Path) -> None:
    tiny_model.write_rides(tmp_path / "data", ["2021-01", "2021-02"])
    made(tmp_path, sql(""), "2021-01")
    with tiny_model.workbench(tmp_path / "home", tmp_path / "data") as bench:
        stored = bench.partition("features", "2021-01")
        facts = {name: value for name, value in stored.facts.items() if name != CLASSES}
        rows = bench.con.sql(f"SELECT * EXCLUDE (period) FROM {bench.scan('features', ['2021-01'])}").to_arrow_table()
        bench.lake.write("rides", "features", "2021-01", rows, facts=facts)
    check, _ = made(tmp_path, sql("WHEN fare > 20 THEN 'maybe'"), "2021-02")
    assert "'maybe'" in check.description
    assert "'no'" not in check.description
