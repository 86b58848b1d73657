"""Weeks, amounts, keys, lags, one CSV file for all periods, several candidates, windows of several periods."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from mlops_assets.home import Home
from mlops_assets.lake.connection import connect
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.backfill import backfill
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets_tests import rides_graph
from mlops_assets_tests.monitored_model.conftest import use_home

WEEKS = [f"{datetime(2014, 1, 6) + timedelta(weeks=week):%Y-%m-%d}" for week in range(7)]

SPEC: dict[str, Any] = {
    "name": "unit_sales",
    "records": "sales",
    "description": "How many units are sold?",
    "cadence": "weekly",
    "start": WEEKS[0],
    "end": WEEKS[-1],
    "history": 1,
    "source": {
        "path": "sales.csv",
        "time_column": "day",
        "keys": ["store", "day"],
        "schema": {"store": "BIGINT", "day": "DATE", "price": "DOUBLE", "promotion": "BOOLEAN", "units": "DOUBLE"},
        "csv": {"delim": ";"},
    },
    "target": {"column": "units", "task": "regression"},
    "columns": {
        "price": {"gt": 0},
        "promotion": {},
        "weekday": {"categorical": True},
        "units_last_week": {"ge": 0},
    },
    "segments": ["weekday"],
    "window": {"train": [-3, -2], "validation": [-1, -1], "test": [0, 0]},
    "candidates": [
        {"estimator": "sklearn.linear_model.Ridge", "search": {"alpha": {"float": [0.1, 10], "log": True}}},
        {"estimator": "sklearn.tree.DecisionTreeRegressor", "params": {"max_depth": 3}},
    ],
    "trials": 3,
    "metric": "mae",
}
SQL = """
SELECT store, day, price, promotion, dayofweek(day) AS weekday, units,
       lag(units, 7) OVER (PARTITION BY store ORDER BY day) AS units_last_week
FROM raw_sales
QUALIFY period = period()
"""


def write_sales(data: Path) -> None:
    """Forty stores, seven weeks of days. Units follow price, promotion and weekday."""
    rng = np.random.default_rng(1)
    lines = ["store;day;price;promotion;units"]
    for number in range(7 * len(WEEKS)):
        day = datetime(2014, 1, 6) + timedelta(days=number)
        for store in range(40):
            price, promotion = 2 + 3 * rng.random(), bool(rng.random() < 0.3)
            units = 40 - 5 * price + 8 * promotion + 2 * (day.weekday() >= 5) + rng.normal()
            if number < 7:
                price = -price  # against the declared rule: the first week is quarantined
            lines.append(f"{store};{day:%Y-%m-%d};{price:.2f};{str(promotion).lower()};{units:.1f}")
    data.mkdir(parents=True, exist_ok=True)
    (data / "sales.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Five weeks through the graph, the first of them quarantined."""
    root = tmp_path_factory.mktemp("unit_sales")
    write_sales(root / "data")
    definitions = rides_graph.definitions(ModelSpec.model_validate(SPEC), SQL)
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        use_home(patch, Home(root / "home"), root / "data")
        results = list(backfill(definitions, "unit_sales", WEEKS[:5], instance=instance))
    # A week that is quarantined before there is a champion withholds nothing.
    assert [(result.outcome, result.errors) for result in results] == [("success", {})] * 5
    return Lake(Home(root / "home").root / "lake")


def test_each_week_holds_its_own_days_and_lags_reach_into_the_week_before(lake: Lake) -> None:
    with connect(lake) as con:
        found = con.execute(
            "SELECT period, count(*), min(day), max(day), count(units_last_week) FROM unit_sales.features "
            "GROUP BY period ORDER BY period"
        ).fetchall()
    last_days = [f"{datetime.fromisoformat(week) + timedelta(days=6):%Y-%m-%d}" for week in WEEKS[:5]]
    assert [(period, str(first), str(last)) for period, _, first, last, _ in found] == list(
        zip(WEEKS[:5], WEEKS[:5], last_days, strict=True)
    )
    assert [row[1] for row in found] == [280] * 5
    assert [row[4] for row in found] == [0, 280, 280, 280, 280]


def test_windows_of_several_periods_leave_the_quarantined_one_out(lake: Lake) -> None:
    assert "price breaks > 0" in lake.partition("unit_sales", "features", WEEKS[0]).facts["quality_failure"]
    assert lake.partition("unit_sales", "challenger", WEEKS[2]).reason.startswith("no full window yet")
    for week, trained_on in ((WEEKS[3], [WEEKS[1]]), (WEEKS[4], [WEEKS[1], WEEKS[2]])):
        facts = lake.partition("unit_sales", "challenger", week).facts
        assert facts["parts"]["train"]["periods"] == trained_on
        assert facts["parts"]["test"]["periods"] == [week]


def test_candidates_compete_and_amounts_are_predicted_without_a_cut(lake: Lake) -> None:
    with connect(lake) as con:
        challengers = con.execute(
            "SELECT candidate, trials, metric, cut, test_value FROM unit_sales.challengers ORDER BY period"
        ).fetchall()
        served = con.execute(
            "SELECT count(*), count(DISTINCT (store, day)), min(score), max(abs(score - prediction)) "
            "FROM unit_sales.served_predictions WHERE period = ?",
            [WEEKS[4]],
        ).fetchall()
        metrics = con.execute(
            "SELECT DISTINCT metric FROM unit_sales.performance WHERE source = 'champion' AND segment IS NULL"
        ).fetchall()
    assert {row[0] for row in challengers} == {"Ridge"}
    assert {row[1:4] for row in challengers} == {(3, "mae", None)}
    assert all(0 < row[4] < 2 for row in challengers)
    assert served[0][:2] == (280, 280)
    assert served[0][3] == 0
    assert {"mae", "rmse", "r2"} <= {metric for (metric,) in metrics}


def test_the_smaller_error_wins(lake: Lake) -> None:
    with connect(lake) as con:
        rows = con.execute(
            "SELECT decision, champion_value, challenger_value FROM unit_sales.champions ORDER BY period"
        ).fetchall()
    assert rows[0][0] == "first"
    assert rows[1][0] == ("promoted" if rows[1][2] < rows[1][1] else "retained")
