from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mlops_assets.lake.connection import add_view, connect, query_batches
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


def test_a_stream_leaves_its_connection_free_for_other_queries(lake: Lake) -> None:
    con = connect(lake)
    batches = query_batches(con, "SELECT range AS n FROM range(500_000)", rows=100_000)
    first = next(batches)
    assert con.execute("SELECT 42").fetchall() == [(42,)]
    assert first.num_rows + sum(batch.num_rows for batch in batches) == 500_000
