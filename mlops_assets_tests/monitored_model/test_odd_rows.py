"""One odd row costs itself and not its month: what is set aside, what is served, and who sees it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.lake.connection import connect
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.arrivals import arrivals, missing_periods
from mlops_assets.monitored_model.draft import drafted
from mlops_assets.monitored_model.outcome import Check
from mlops_assets.monitored_model.steps import features, profile, raw
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets_tests import tiny_model

MONTH = "2021-01"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workbench]:
    (tmp_path / "data" / "rides").mkdir(parents=True)
    monkeypatch.setenv("MLOPS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    declared = tiny_model.spec(source=tiny_model.SPEC["source"] | {"path": "rides/{period}.csv"})
    with tiny_model.workbench(tmp_path / "home", tmp_path / "data", declared) as bench:
        yield bench


def write(bench: Workbench, *lines: str, month: str = MONTH) -> None:
    rows = [f"{month}-{1 + n % 28:02d} {n % 24:02d}:00:00,{10 + n % 40},1,{1 + n % 5},{1 + n % 2}" for n in range(300)]
    path = bench.data_dir / "rides" / f"{month}.csv"
    path.write_text("\n".join(["started_at,fare,fee,zone,payment", *rows, *lines, ""]))


def made(bench: Workbench, month: str = MONTH) -> dict[str, Check]:
    outcomes = [step.make(bench, month) for step in (raw, features, profile)]
    return {check.name: check for outcome in outcomes for check in outcome.checks}


def select(bench: Workbench, sql: str) -> list[tuple[Any, ...]]:
    with connect(bench.lake) as con:
        return con.execute(sql).fetchall()


@pytest.mark.parametrize(
    ("line", "column", "found"),
    [
        (f"{MONTH}-05,inf,1,1,1", "fare", "inf"),
        (f"{MONTH}-05,twelve,1,1,1", "fare", "twelve"),
        ("20210-01-05,12,1,1,1", "started_at", "20210-01-05"),
        ("0000-01-05,12,1,1,1", "started_at", "0000-01-05"),
        (f"{MONTH}-05,12,1,1,1,1", None, f"{MONTH}-05,12,1,1,1,1"),
    ],
)
def test_an_odd_row_is_set_aside_and_the_month_is_used(
    bench: Workbench, line: str, column: str | None, found: str
) -> None:
    write(bench, line)
    checks = made(bench)
    schema = checks["source_schema"]
    assert (schema.passed, schema.severity) == (False, "WARN")
    assert "1 rows were set aside" in schema.description
    assert "rides.rejected_rides" in schema.description
    assert all(check.passed for name, check in checks.items() if name != "source_schema")
    assert bench.unusable(MONTH) is None
    assert (bench.partition("raw_rides", MONTH).rows, bench.partition("features", MONTH).rows) == (300, 300)
    query = 'SELECT period, "column", found FROM rides.rejected_rides WHERE reason IS NOT NULL'
    assert select(bench, query) == [(MONTH, column, found)]


def test_more_odd_rows_than_tolerated_quarantine_the_month(bench: Workbench) -> None:
    write(bench, f"{MONTH}-05,twelve,1,1,1", f"{MONTH}-06,eleven,1,1,1")
    assert made(bench)["source_schema"].severity == "ERROR"
    assert "quarantined: source_schema" in str(bench.unusable(MONTH))
    assert select(bench, "SELECT found FROM rides.rejected_rides ORDER BY record_id") == [("twelve",), ("eleven",)]


def test_a_repaired_month_has_no_rejected_rows_and_the_digest_of_one_that_never_had_any(bench: Workbench) -> None:
    write(bench)
    made(bench)
    clean = bench.partition("raw_rides", MONTH).digest
    assert select(bench, "SELECT * FROM rides.rejected_rides") == []
    write(bench, f"{MONTH}-05,twelve,1,1,1")
    made(bench)
    assert len(select(bench, "SELECT * FROM rides.rejected_rides")) == 1
    assert bench.partition("raw_rides", MONTH).digest == clean, "the rows that are used are the same"
    write(bench)
    made(bench)
    assert select(bench, "SELECT * FROM rides.rejected_rides") == []
    assert bench.partition("raw_rides", MONTH).digest == clean


def test_a_time_that_features_sql_computes_beyond_the_calendar_stops_nothing(bench: Workbench) -> None:
    write(bench)
    sql = tiny_model.SQL.replace("started_at,", "started_at + INTERVAL 20000 YEAR AS started_at,", 1)
    with tiny_model.workbench(bench.home.root, bench.data_dir, bench.spec, sql) as odd:
        made(odd)
        assert odd.partition("profile", MONTH).rows > 0


# -- files of all periods, and folders


def of_all_periods(bench: Workbench, content: str) -> Workbench:
    (bench.data_dir / "rides.csv").write_text(content)
    return replace(bench, spec=tiny_model.spec(source=tiny_model.SPEC["source"] | {"path": "rides.csv"}))


def test_a_mistyped_year_in_a_file_of_all_periods_stops_neither_runs_nor_the_arrival_sensor(bench: Workbench) -> None:
    months = ["2021-01", "2021-02"]
    lines = [f"{month}-{1 + n % 28:02d},{10 + n},1,1,{1 + n % 2}" for month in months for n in range(150)]
    content = "\n".join(["started_at,fare,fee,zone,payment", *lines, "20210-02-03,10,1,1,2", ""])
    whole = of_all_periods(bench, content)
    assert made(whole, "2021-01")["source_schema"].severity == "WARN"
    seen: dict[str, str] = {}
    assert [arrival.period for arrival in arrivals(whole.spec, whole.lake, months, seen)] == ["2021-02"]
    made(whole, "2021-02")
    assert arrivals(whole.spec, whole.lake, months, seen) == []


def test_the_scaffold_drafts_from_a_file_with_a_mistyped_year(tmp_path: Path) -> None:
    path = tmp_path / "rides.csv"
    path.write_text("at,fare,cash\n2021-01-05,10,1\n20210-01-05,11,0\n2021-02-07,12,1\n0000-02-07,12,1\n")
    draft = drafted("rides.csv", "cash", tmp_path, tmp_path)
    assert (draft.start, draft.end, draft.time_column) == ("2021-01", "2021-02", "at")


def test_the_scaffold_drafts_the_months_of_times_with_a_zone_and_nanoseconds(tmp_path: Path) -> None:
    moments = pa.array([datetime(2021, 1, 5), datetime(2021, 2, 28, 23, 59, 59)], pa.timestamp("ns"))
    table = pa.table({"at": moments.cast(pa.timestamp("ns", "UTC")), "fare": [1.0, 2.0], "cash": [0, 1]})
    pq.write_table(table, tmp_path / "rides.parquet")
    draft = drafted("rides.parquet", "cash", tmp_path, tmp_path)
    assert (draft.start, draft.end) == ("2021-01", "2021-02")


def test_a_folder_in_the_place_of_a_file_is_no_data_and_says_so(bench: Workbench) -> None:
    write(bench, month="2021-01")
    made(bench, "2021-01")
    (bench.data_dir / "rides" / "2021-02.csv").mkdir()
    outcome = raw.make(bench, "2021-02")
    assert outcome.partition.reason is not None
    assert outcome.partition.reason.startswith("no data: ")
    assert "is a folder, and one file is expected" in outcome.partition.reason
    months = ["2021-01", "2021-02", "2021-03"]
    assert arrivals(bench.spec, bench.lake, months, {}) == []
    (bench.data_dir / "rides" / "2021-03.csv").mkdir()
    assert missing_periods(bench.spec, bench.lake, bench.store, months, datetime(2021, 8, 1)) == ["2021-03"]


def test_the_zone_of_a_source_is_that_of_its_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny_model.SPEC["source"]
    declared = tiny_model.spec(
        source=source | {"schema": source["schema"] | {"started_at": "TIMESTAMPTZ"}, "timezone": "Asia/Tokyo"}
    )
    data = tmp_path / "data"
    tiny_model.write_rides(data, [MONTH], rows=50)
    with tiny_model.workbench(tmp_path / "home", data, declared) as bench:
        raw.make(bench, MONTH)
        features.make(bench, MONTH)
        lake = Lake(bench.home.lake_url)
    with connect(lake) as con:
        query = "SELECT count(*) FROM rides.features WHERE hour <> hour(started_at AT TIME ZONE 'Asia/Tokyo')"
        assert con.execute(query).fetchall() == [(0,)]
