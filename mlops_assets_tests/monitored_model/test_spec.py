"""A declaration that can't work is refused with the place and the reason, before anything runs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from mlops_assets.monitored_model.features_sql import FeatureSqlError, check_features_sql
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets_tests import tiny_model

LOGISTIC = "sklearn.linear_model.LogisticRegression"


def changed(place: str, value: Any) -> dict[str, Any]:
    """The tiny model's declaration with one value replaced or added at a dotted place."""
    declared = copy.deepcopy(tiny_model.SPEC)
    *parents, last = place.split(".")
    inside: Any = declared
    for name in parents:
        inside = inside[int(name)] if isinstance(inside, list) else inside.setdefault(name, {})
    inside[last] = value
    return declared


WRONG = [
    # place, value, where it is reported, what is said
    ("colour", "red", ("colour",), "Extra inputs are not permitted"),
    ("name", "Green Taxi", ("name",), "is not a plain name"),
    ("name", "monitoring", ("name",), "the platform's own views"),
    *(
        ("name", name, ("name",), f"'{name}' is the name of one of DuckDB's own schemas or databases")
        for name in ("temp", "system", "memory", "main", "pg_catalog", "information_schema")
    ),
    ("name", "a" * 64, ("name",), "64 characters, expected at most 63"),
    ("records", "a" * 201, ("records",), "expected at most 200"),
    ("source.schema.Fare", "DOUBLE", (), "source.schema: found 'fare' and 'Fare'"),
    ("columns.Started_At", {"categorical": True}, (), "features: found 'started_at' and 'Started_At'"),
    ("columns.IS_CASH", {}, (), "features: found 'IS_CASH' and 'is_cash'"),
    ("cadence", "daily", ("cadence",), "'monthly' or 'weekly'"),
    ("start", "2021-13", (), "2021-13"),
    ("end", "2020-01", (), r"end \(2020-01\) is before start \(2021-01\)"),
    ("owners", ["somebody"], ("owners",), "neither an e-mail address nor `team:name`"),
    ("source.pth", "x", ("source", "pth"), "Extra inputs are not permitted"),
    ("source.schema.fare", "DOUBEL", ("source",), "'fare' has the type 'DOUBEL'"),
    ("source.time_column", "started", ("source",), "did you mean 'started_at'"),
    ("target.column", "fare", (), "among the feature columns: it would leak"),
    ("target.task", "ranking", ("target", "task"), "'classification' or 'regression'"),
    ("columns", {}, ("columns",), "list the feature columns"),
    ("columns.score", {}, ("columns",), r"\['score'\] carry names that the platform uses"),
    ("columns.fare", {"gt": 5, "lt": 1}, ("columns", "fare"), "no value can be above 5 and below 1"),
    ("columns.fare.ge", "low", ("columns", "fare", "ge"), "valid number"),
    ("segments", ["zones"], (), "segments names 'zones', which is not a feature column"),
    ("drift.columns.fees", {"severe": 0.4}, (), "drift.columns names 'fees'"),
    ("drift.severe", -1, ("drift", "severe"), "greater than"),
    ("drift.sever", 0.3, ("drift", "sever"), "Extra inputs are not permitted"),
    ("drift.severe", 0.05, ("drift",), "warning"),
    ("window.train", [-1, -2], ("window",), "first offset must not be after the last"),
    ("window.train", [-2], ("window", "train"), "at least 2 items"),
    ("window.validation", [-2, -1], ("window",), "window overlaps or is out of order"),
    ("window.test", [0, 1], ("window",), "look into the future"),
    ("window", {"train": [-3, -3], "validation": [-2, -2], "test": [-1, -1]}, ("window",), "must end with 0"),
    ("staging", 10, ("staging",), "less than or equal to 9"),
    ("staging", -1, ("staging",), "greater than or equal to 0"),
    ("search", "twice", ("search",), "'together' or 'compare_then_tune'"),
    ("target.isin", [2, 3], ("target",), "positive is 1, which is not among isin"),
    ("drift", {"columns": {"fee": {"judged": False, "severe": 1}}}, ("drift", "columns", "fee"), "no effect"),
    ("window", {"min_rows": 0}, ("window", "min_rows"), "greater than 0"),
    ("min_new_data", -0.1, ("min_new_data",), "greater than or equal to 0"),
    ("since_break.shares", [0.5, 0.2, 0.2], ("since_break", "shares"), "add up to 1"),
    ("performance", {"warning": 0.3, "severe": 0.1}, ("performance",), "the severe limit must be the larger"),
    ("candidates", [], ("candidates",), "name at least one estimator"),
    ("candidates", [{"estimator": LOGISTIC}] * 2, ("candidates",), "give each its own `name`"),
    ("candidates.0.estimator", f"{LOGISTIC}n", ("candidates", 0, "estimator"), f"did you mean {LOGISTIC}"),
    ("candidates.0.estimator", "sklearm.svm.SVC", ("candidates", 0, "estimator"), "no package 'sklearm' is installed"),
    ("candidates.0.search", {"C": {"float": [3, 1]}}, ("candidates", 0, "search", "C"), "wants .lowest, highest."),
    ("trials", 0, ("trials",), "greater than or equal to 1"),
    ("metric", "f2", (), "metric 'f2' does not fit classification"),
    ("metric", "mae", (), "metric 'mae' does not fit classification"),
    ("cut", 1.5, (), "cut is 1.5"),
    ("cut", "best", ("cut",), "'tuned'"),
    ("plan_b", ["magic"], ("plan_b",), r"the ladder of plan B names \['magic'\]; the rungs are"),
    ("plan_b", ["global_rate", "global_rate"], ("plan_b",), "lists a rung twice"),
    ("on_severe", "ignore", ("on_severe",), "'fallback' or 'pause'"),
]


@pytest.mark.parametrize(("place", "value", "reported_at", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_declaration_is_refused_at_its_place(place: str, value: Any, reported_at: tuple, said: str) -> None:
    with pytest.raises(ValidationError, match=said) as refused:
        ModelSpec.model_validate(changed(place, value))
    assert any(error["loc"][: len(reported_at)] == reported_at for error in refused.value.errors())


@pytest.mark.parametrize("missing", ["name", "records", "description", "start", "source", "target", "columns"])
def test_what_a_model_can_not_do_without_is_asked_for(missing: str) -> None:
    declared = {name: value for name, value in tiny_model.SPEC.items() if name != missing}
    with pytest.raises(ValidationError, match="Field required") as refused:
        ModelSpec.model_validate(declared)
    assert [error["loc"] for error in refused.value.errors()] == [(missing,)]


def test_a_monday_without_quotes_is_a_weekly_period() -> None:
    written = yaml.safe_load("start: 2014-01-06")
    assert tiny_model.spec(cadence="weekly", end=None, **written).start == "2014-01-06"
    with pytest.raises(ValidationError, match="2014-01-07"):
        tiny_model.spec(cadence="weekly", start="2014-01-07", end=None)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (tiny_model.SQL.replace("fee,", ""), "the query does not return 'fee'"),
        (tiny_model.SQL.replace("fee,", "fee AS fees,"), "does not return 'fee'; did you mean 'fees'"),
        (tiny_model.SQL.replace("fee,", "fee, 1 AS tip,"), r"returns \['tip'\], which defs.yaml does not declare"),
        (tiny_model.SQL.replace("fare, fee", "fare::VARCHAR AS fare, fee"), "feature 'fare' has type VARCHAR"),
        (tiny_model.SQL.replace("FROM raw_rides", "FRMO raw_rides"), r"features\.sql: the query can't be run"),
        (tiny_model.SQL.replace("FROM raw_rides", "FROM raw_trips"), "raw_trips"),
        (tiny_model.SQL.replace("zone,", "area AS zone,"), "area"),
        (tiny_model.SQL.replace("record_id, ", ""), "does not return 'record_id'"),
        ("", "can't be run"),
        (f"{tiny_model.SQL}; SELECT 1", r"2 statements \(SELECT, SELECT\); expected one SELECT"),
        ("COPY (SELECT 1) TO 'x.csv'", "type COPY; expected one SELECT"),
        (f"WITH w AS (COPY (SELECT 1) TO 'x.csv') {tiny_model.SQL}", "type COPY within its SELECT"),
        (tiny_model.SQL.replace("FROM raw_rides", "FROM read_csv('/etc/hostname')"), "reads raw_rides and no file of"),
        (tiny_model.SQL.replace("FROM raw_rides", "FROM raw_rides, glob('/*')"), "reads raw_rides and no file of its"),
    ],
)
def test_a_query_that_does_not_fit_the_declaration_is_refused_with_its_file(sql: str, said: str) -> None:
    with pytest.raises(FeatureSqlError, match=said) as refused:
        check_features_sql(tiny_model.spec(), sql, Path("defs/rides/features.sql"))
    assert str(refused.value).startswith("defs/rides/features.sql: ")


def test_the_tiny_models_own_query_fits() -> None:
    check_features_sql(tiny_model.spec(), tiny_model.SQL, Path("features.sql"))
    check_features_sql(tiny_model.spec(), f"{tiny_model.SQL} ; -- the end", Path("features.sql"))
