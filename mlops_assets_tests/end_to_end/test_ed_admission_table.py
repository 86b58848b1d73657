"""The real table as its owner has it, cut into months and taken to features: nothing is lost or made up on the way."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlops_assets.cli import main
from mlops_assets.home import PROJECT, Home
from mlops_assets.monitored_model.outcome import Outcome
from mlops_assets.monitored_model.steps import features as features_step
from mlops_assets.monitored_model.steps import raw as raw_step
from mlops_assets_tests.conftest import MLOPS_VARIABLES
from mlops_assets_tests.end_to_end.shipped import ShippedModel

SCHEMA = json.loads((PROJECT / "data" / "ed_admission" / "schema.json").read_text())["columns"]
CATEGORIES = ("arrivalday", "arrivalhour_bin", "arrivalmode", "gender", "previousdispo")
PLAIN = {",routine": "", "(": "_", ")": "", ">": "_over_", "/": "_", "-": "_"}
EXTRA = {"": "7", "dep_name": "B", "ethnicity": "Hispanic, or Latino", "cc_other": "1", "insurance_status": ""}
NUMBER = "n_edvisits"  # may be any whole number, so it tells which row of the table a visit is
MISSING = ("", "NA", "NaN", "  ", " NA ")
MONTHS = ["2025-01", "2025-02"]
ROWS, DRAWN = 300, 200


@dataclass(frozen=True)
class Cut:
    """The table's rows by their number, as they are meant; and what the months' files, raw rows and features are."""

    meant: dict[int, dict[str, Any]]
    said: str
    raw: dict[str, list[dict[str, Any]]]
    features: dict[str, list[dict[str, Any]]]
    outcomes: dict[tuple[str, str], Outcome]


def meant_value(declared: dict[str, Any], chance: random.Random) -> Any:
    """A value of a column: a category as the schema names it, a number within its range, or None."""
    if chance.random() < declared.get("null_share", 0.0):
        return None
    if declared["type"] != "numeric":
        return chance.choice(declared["categories"])
    between = chance.uniform(declared["min"], declared["max"])
    return round(between) if declared["integer"] else round(between, 2)


def written(value: Any, chance: random.Random) -> str:
    """A value as such tables write it: with capitals, blanks between words and around, whole numbers with a point."""
    if value is None:
        return chance.choice(MISSING)
    if isinstance(value, str):
        words = value.replace("_", " ")
        text = chance.choice([value, words.capitalize(), words.title(), words.upper()])
    else:
        text = chance.choice([str(value), str(float(value))])
    return chance.choice([text, text, f" {text}", f"{text} ", f"  {text}  "])


def write_table(path: Path) -> dict[int, dict[str, Any]]:
    chance = random.Random(7)
    rows = {
        number: {name: meant_value(declared, chance) for name, declared in SCHEMA.items()} | {NUMBER: number}
        for number in range(ROWS)
    }
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*EXTRA, *SCHEMA])
        for row in rows.values():
            table.writerow([*EXTRA.values(), *(written(value, chance) for value in row.values())])
    return rows


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Cut:
    root = tmp_path_factory.mktemp("table")
    home = Home(root / "home")
    meant = write_table(root / "triage.csv")
    assert '"bloodculture,routine_count"' in (root / "triage.csv").read_text().splitlines()[0]
    with pytest.MonkeyPatch.context() as patch:
        for variable in MLOPS_VARIABLES:
            patch.delenv(variable, raising=False)
        patch.setenv("MLOPS_HOME", str(home.root))
        arguments = ["--table", str(root / "triage.csv"), "--rows", str(DRAWN), "--months", str(len(MONTHS))]
        drawn = CliRunner().invoke(main, ["simulate", "ed_admission", *arguments])
        assert drawn.exit_code == 0, drawn.output
        model = ShippedModel("ed_admission")
        raw, features, outcomes = {}, {}, {}
        with model.workbench(home.root, model.declared(), home.downloads) as bench:
            for month in MONTHS:
                outcomes["raw", month] = raw_step.make(bench, month)
                outcomes["features", month] = features_step.make(bench, month)
                raw[month] = bench.con.sql(f"SELECT * FROM {bench.scan('raw_visits', [month])}").to_arrow_table()
                features[month] = bench.con.sql(f"SELECT * FROM {bench.scan('features', [month])}").to_arrow_table()
    return Cut(
        meant,
        drawn.output,
        {month: table.to_pylist() for month, table in raw.items()},
        {month: table.to_pylist() for month, table in features.items()},
        outcomes,
    )


def feature(column: str) -> str:
    """The feature's name: the column's in letters, digits and underscores."""
    for odd, plain in PLAIN.items():
        column = column.replace(odd, plain)
    return column


def pairs(cut: Cut) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each row of features with the row of the table that it was made of."""
    return [(row, cut.meant[row[NUMBER]]) for month in MONTHS for row in cut.features[month]]


def test_every_drawn_row_arrives_once_in_features(cut: Cut) -> None:
    assert "Rows of triage.csv drawn at random" in cut.said
    for month in MONTHS:
        numbers = [row[NUMBER] for row in cut.features[month]]
        assert len(numbers) == len(set(numbers)) == len(cut.raw[month]) == DRAWN
        assert {row["origin"] for row in cut.raw[month]} == {"real row, simulated time"}
    assert cut.features[MONTHS[0]] != cut.features[MONTHS[1]]


def test_every_check_of_the_data_passes(cut: Cut) -> None:
    judged = {(step, check.name) for (step, _), outcome in cut.outcomes.items() for check in outcome.checks}
    assert ("features", "feature_schema") in judged
    for (step, month), outcome in cut.outcomes.items():
        failed = {check.name: check.description for check in outcome.checks if not check.passed}
        assert failed == {}, (step, month)
        assert outcome.partition.facts["quality_failure"] is None


def test_the_disposition_is_encoded_in_whatever_case_it_is_written(cut: Cut) -> None:
    assert {row["disposition"] for rows in cut.raw.values() for row in rows} >= {"ADMIT", " Discharge"}
    classes = {"admit": 1, "discharge": 0}
    assert [row["admitted"] for row, _ in pairs(cut)] == [classes[meant["disposition"]] for _, meant in pairs(cut)]


@pytest.mark.parametrize("name", CATEGORIES)
def test_a_category_is_one_in_whatever_way_it_is_written(cut: Cut, name: str) -> None:
    assert len({row[name] for rows in cut.raw.values() for row in rows}) > 2 * len(SCHEMA[name]["categories"])
    assert [row[name] for row, _ in pairs(cut)] == [meant[name] for _, meant in pairs(cut)]
    assert {row[name] for row, _ in pairs(cut)} - {None} == set(SCHEMA[name]["categories"])


def test_numbers_are_those_of_the_table_and_missing_ones_are_null_and_nothing_else_is(cut: Cut) -> None:
    numeric = [name for name, declared in SCHEMA.items() if declared["type"] == "numeric"]
    for name in numeric:
        assert [row[feature(name)] for row, _ in pairs(cut)] == [meant[name] for _, meant in pairs(cut)], name
    for name in ("wbc_max", "triage_vital_o2", "troponint_last", "arrivalmode"):
        assert any(row[name] is None for row, _ in pairs(cut)), name


def test_other_columns_of_the_table_are_neither_records_nor_features(cut: Cut) -> None:
    for month in MONTHS:
        known = {"record_id", "arrived_at", "period"}
        assert set(cut.raw[month][0]) == known | {"origin"} | set(SCHEMA)
        features = {feature(name) for name in SCHEMA} - {"arrivalmonth", "disposition"}
        assert set(cut.features[month][0]) == known | features | {"admitted"}
