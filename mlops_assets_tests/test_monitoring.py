"""What people and consumers ask: `monitoring.periods`, and DuckDB views over all results."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import mlops_assets
from mlops_assets.lake.store import Lake
from mlops_assets.monitoring import periods

DESIGNED = ("model", "period", "verdict", "gate", "reason", "decision", "champion_version", "rows", "served_rows")


@pytest.fixture
def lake(home: Path) -> Lake:
    """A lake with a period before any champion, a served, a withheld and a half-made one, as the steps leave them."""
    lake = Lake(home / "lake")
    row, none = pa.table({"record_id": [1, 2]}), pa.table({"record_id": pa.array([], pa.int64())})
    metrics = pa.table({"metric": ["f1"], "value": [0.6]})
    lake.write("rides", "features", "2021-01", row)
    lake.write(
        *("rides", "champion", "2021-01", none), reason="no champion yet", facts={"decision": "none", "version": None}
    )
    gate = {"gate": "none", "gate_reason": "no champion yet"}
    lake.write("rides", "served_predictions", "2021-01", none, reason="no champion yet", facts=gate)
    lake.write("rides", "features", "2021-02", row)
    lake.write("rides", "drift_report", "2021-02", metrics, facts={"verdict": "ok"})
    lake.write("rides", "champion", "2021-02", metrics, facts={"decision": "promoted", "version": "3"})
    lake.write("rides", "challenger", "2021-02", metrics)
    lake.write("rides", "performance", "2021-02", metrics, facts={"metric": "f1", "value": 0.6})
    served = {"gate": "champion", "gate_reason": "", "source": "champion"}
    lake.write("rides", "served_predictions", "2021-02", row, facts=served)
    lake.write("rides", "features", "2021-03", row)
    lake.write("rides", "drift_report", "2021-03", metrics, facts={"verdict": "severe"})
    withheld = {"gate": "plan_b", "gate_reason": "severe drift: fee"}
    lake.write("rides", "served_predictions", "2021-03", none, reason="withheld: severe drift: fee", facts=withheld)
    lake.write("rides", "features", "2021-04", none, reason="no data: no file")
    lake.write("sales", "features", "2014-01-06", row)
    return lake


def test_each_period_has_a_line_that_tells_what_happened(lake: Lake) -> None:
    lines = {line.period: line for line in periods(lake, "rides")}
    assert [(p, line.verdict, line.gate, line.served_source, line.served_rows) for p, line in lines.items()] == [
        ("2021-01", "none", "none", "none", 0),
        ("2021-02", "ok", "champion", "champion", 2),
        ("2021-03", "severe", "plan_b", "withheld", 0),
        ("2021-04", "none", None, None, 0),
    ]
    assert [line.reason for line in lines.values()] == [
        "no champion yet",
        None,
        "severe drift: fee",
        "no data: no file",
    ]
    assert (lines["2021-02"].decision, lines["2021-02"].champion_version) == ("promoted", "3")
    assert (lines["2021-02"].metric, lines["2021-02"].metric_value) == ("f1", 0.6)


def test_all_models_are_listed_unless_one_is_named(lake: Lake) -> None:
    assert {line.model for line in periods(lake)} == {"rides", "sales"}
    assert {line.model for line in periods(lake, "sales")} == {"sales"}


def test_an_empty_lake_has_no_periods_and_can_be_asked(tmp_path: Path) -> None:
    assert periods(Lake(tmp_path / "lake")) == []
    with mlops_assets.connect() as con:
        assert con.sql("SELECT count(*) FROM monitoring.periods").fetchall() == [(0,)]


def test_the_views_have_the_documented_names_and_period_comes_first(lake: Lake) -> None:
    with mlops_assets.connect() as con:
        views = con.sql(
            "SELECT table_schema, table_name, column_name FROM information_schema.columns "
            "WHERE ordinal_position = 1 ORDER BY ALL"
        ).fetchall()
        named = {(schema, name) for schema, name, _ in views}
        wanted = ("features", "champions", "challengers", "drift", "performance", "served_predictions")
        assert named >= {("rides", name) for name in wanted} | {("monitoring", "periods"), ("sales", "features")}
        assert {first for *_, first in views} == {"period"}
        columns = con.sql("SELECT * FROM monitoring.periods").columns
        assert set(DESIGNED) | {"served_source"} <= set(columns)
        found = con.sql("SELECT period, count(*) FROM rides.features GROUP BY ALL ORDER BY ALL").fetchall()
    assert found == [("2021-01", 2), ("2021-02", 2), ("2021-03", 2)]
