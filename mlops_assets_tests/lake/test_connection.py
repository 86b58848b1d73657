from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mlops_assets.lake.connection import (
    DamagedWarning,
    add_view,
    connect,
    query_batches,
    refresh_views,
    reserved_schemas,
)
from mlops_assets.lake.store import Lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    for table in ("champion", "challenger", "drift_report", "features", "raw_trips"):
        for period in ("2021-01", "2021-02"):
            lake.write("green_taxi", table, period, pa.table({"n": [int(period[-1])]}))
    return lake


def test_every_table_is_a_view_that_begins_with_period(lake: Lake) -> None:
    con = connect(lake)
    listed = con.execute(
        "SELECT table_schema || '.' || table_name FROM information_schema.tables ORDER BY 1"
    ).fetchall()
    assert [name for (name,) in listed] == [
        "green_taxi.challengers",
        "green_taxi.champions",
        "green_taxi.drift",
        "green_taxi.features",
        "green_taxi.raw_trips",
    ]
    found = con.execute("SELECT * FROM green_taxi.champions ORDER BY ALL").fetchall()
    assert found == [("2021-01", 1), ("2021-02", 2)]


def test_a_remote_lake_has_the_same_views() -> None:
    lake = Lake("memory://views/lake")
    lake.write("m", "features", "2021-01", pa.table({"n": [1]}))
    assert connect(lake).execute("SELECT * FROM m.features").fetchall() == [("2021-01", 1)]


def test_further_views_come_from_sql_or_arrow(lake: Lake) -> None:
    table = pa.table({"model": ["green_taxi"], "gate": ["champion"]})
    con = connect(
        lake,
        views={
            "monitoring.periods": table,
            "monitoring.open": "SELECT count(*) AS n FROM monitoring.periods",
        },
    )
    del table
    assert con.execute("SELECT gate FROM monitoring.periods").fetchall() == [("champion",)]
    assert con.execute("SELECT n FROM monitoring.open").fetchall() == [(1,)]
    with pytest.raises(ValueError, match=r"expected 'schema\.view'"):
        add_view(con, "periods", "SELECT 1")


def test_the_memory_limit_is_read_from_the_environment(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_DUCKDB_MEMORY", "64MB")
    limit = connect(lake).execute("SELECT current_setting('memory_limit')").fetchall()[0][0]
    assert limit == "61.0 MiB"
    monkeypatch.setenv("MLOPS_DUCKDB_MEMORY", "plenty")
    with pytest.raises(ValueError, match="MLOPS_DUCKDB_MEMORY='plenty'"):
        connect(lake)


def test_views_show_later_partitions_after_a_refresh(lake: Lake) -> None:
    con = connect(lake)
    lake.write("green_taxi", "features", "2021-03", pa.table({"n": [3]}))
    lake.write("green_taxi", "performance", "2021-03", pa.table({"f1": [0.5]}))
    refresh_views(con, lake)
    assert con.execute("SELECT max(period) FROM green_taxi.features").fetchall() == [("2021-03",)]
    assert con.execute("SELECT f1 FROM green_taxi.performance").fetchall() == [(0.5,)]


def test_a_query_is_streamed_in_batches_and_sees_what_belongs_to_its_connection(lake: Lake) -> None:
    con = connect(lake)
    con.execute("CREATE TEMP VIEW numbers AS SELECT range AS n FROM range(500_000)")
    con.execute("SET VARIABLE low = 100_000")
    sizes = [batch.num_rows for batch in query_batches(con, "FROM numbers WHERE n >= getvariable('low')", 100_000)]
    assert sum(sizes) == 400_000
    assert max(sizes) <= 100_000
    assert len(sizes) >= 4


def test_a_model_by_the_name_of_a_schema_of_duckdb_is_left_out_and_the_others_are_there(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    rows = pa.table({"a": [1]})
    for model in ("rides", *reserved_schemas()):
        lake.write(model, "features", "2021-01", rows)
    with pytest.warns(DamagedWarning, match="left out all tables of the model temp: .*declare the model by another"):
        con = connect(lake)
    assert con.sql("FROM rides.features").fetchall() == [("2021-01", 1)]
