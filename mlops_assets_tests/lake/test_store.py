from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.lake.store import METADATA_KEY, ROW_GROUP_ROWS, DamagedPartition, Lake, MissingPartition

ROWS = pa.table({"record_id": [0, 1, 2], "fare": [1.5, None, 3.0], "zone": ["a", "b", None]})


@pytest.fixture(params=["local", "memory", "odd"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    if request.param == "memory":
        return Lake(f"memory://{uuid.uuid4().hex}/lake")
    # A folder's name may hold what SQL and globs give a meaning to.
    return Lake(tmp_path / ("it's [a] * lake?" if request.param == "odd" else "lake"))


def rows_of(lake: Lake, table: str, periods: list[str] | None = None) -> list[tuple]:
    con = lake.attach(duckdb.connect())
    return con.execute(f"SELECT * FROM {lake.scan('m', table, periods)} ORDER BY ALL").fetchall()


def partitions_below(folder: Path) -> list[str]:
    """Every file below a folder that is not an unused version, by name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    used = {path.resolve() for path in files if path.is_symlink()}
    return sorted(path.name for path in files if path.is_symlink() or path.resolve() not in used)


def test_what_is_written_is_found_and_read(lake: Lake) -> None:
    written = lake.write("m", "features", "2021-01", ROWS, facts={"quality_failure": None, "n": [1, 2]})
    assert lake.find("m", "features", "2021-01") == written
    assert (written.rows, written.facts["n"]) == (3, [1, 2])
    assert rows_of(lake, "features") == [
        (0, 1.5, "a", "2021-01"),
        (1, None, "b", "2021-01"),
        (2, 3.0, None, "2021-01"),
    ]


def test_an_empty_partition_keeps_its_columns_and_its_reason(lake: Lake) -> None:
    lake.write("m", "predictions", "2021-01", ROWS.schema.empty_table(), reason="no champion yet")
    found = lake.partition("m", "predictions", "2021-01")
    assert (found.rows, found.reason) == (0, "no champion yet")
    con = lake.attach(duckdb.connect())
    described = con.execute(f"DESCRIBE SELECT * FROM {lake.scan('m', 'predictions')}").fetchall()
    assert [(name, kind) for name, kind, *_ in described] == [
        ("record_id", "BIGINT"),
        ("fare", "DOUBLE"),
        ("zone", "VARCHAR"),
        ("period", "VARCHAR"),
    ]


def test_periods_tables_and_models_are_listed_in_order(lake: Lake) -> None:
    for period in ["2021-03", "2021-01", "2021-02"]:
        lake.write("m", "features", period, ROWS)
    lake.write("m", "champion", "2021-01", ROWS)
    lake.write("other", "features", "2021-01", ROWS)
    assert lake.periods("m", "features") == ["2021-01", "2021-02", "2021-03"]
    assert lake.tables("m") == ["champion", "features"]
    assert lake.models() == ["m", "other"]
    before = lake.newest_before("m", "features", "2021-03")
    assert before is not None
    assert before.period == "2021-02"
    assert lake.newest_before("m", "features", "2021-01") is None


def test_the_newest_partition_before_skips_periods_that_are_not_there(lake: Lake) -> None:
    lake.write("m", "champion", "2021-01", ROWS)
    found = lake.newest_before("m", "champion", "2021-09")
    assert found is not None
    assert found.period == "2021-01"


def test_an_empty_lake_has_nothing_and_a_missing_partition_says_what_to_do(lake: Lake) -> None:
    assert lake.models() == []
    assert lake.periods("m", "features") == []
    assert lake.find("m", "features", "2021-01") is None
    with pytest.raises(MissingPartition, match=r"has no 2021-01.*mlops-assets backfill m 2021-01"):
        lake.partition("m", "features", "2021-01")
    with pytest.raises(MissingPartition, match="has no partition"):
        lake.scan("m", "features")
    lake.write("m", "features", "2021-02", ROWS)
    with pytest.raises(MissingPartition, match=r"has no 2021-01 .*it has 2021-02 to 2021-02"):
        lake.scan("m", "features", ["2021-01", "2021-02"])


def test_a_column_that_older_partitions_lack_is_null_there(lake: Lake) -> None:
    lake.write("m", "t", "2021-01", pa.table({"a": [1]}))
    lake.write("m", "t", "2021-02", pa.table({"a": [2], "b": ["x"]}))
    con = lake.attach(duckdb.connect())
    found = con.execute(f"SELECT period, a, b FROM {lake.scan('m', 't')} ORDER BY ALL").fetchall()
    assert found == [("2021-01", 1, None), ("2021-02", 2, "x")]


def test_a_scan_keeps_giving_the_rows_that_were_in_force_when_it_was_made(tmp_path: Path) -> None:
    # DuckDB opens a file to plan and again to run: replacing it in between made rows of both (or an error).
    lake = Lake(tmp_path)
    lake.write("m", "t", "2021-01", pa.table({"n": [1, 1]}))
    con = duckdb.connect()
    planned = con.sql(f"SELECT n FROM {lake.scan('m', 't')}")
    lake.write("m", "t", "2021-01", pa.table({"n": ["text"] * 5000}))
    assert planned.fetchall() == [(1,), (1,)]
    assert con.sql(f"SELECT count(*), min(n) FROM {lake.scan('m', 't')}").fetchall() == [(5000, "text")]


def test_a_repeated_period_column_is_left_to_the_path_and_another_one_is_refused(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write("m", "t", "2021-01", pa.table({"period": ["2021-01", "2021-01"], "n": [1, 2]}))
    assert rows_of(lake, "t") == [(1, "2021-01"), (2, "2021-01")]
    with pytest.raises(ValueError, match=r"holds \['2021-07'\], but the partition is '2021-01'"):
        lake.write("m", "t", "2021-01", pa.table({"period": ["2021-01", "2021-07"], "n": [3, 4]}))
    assert rows_of(lake, "t") == [(1, "2021-01"), (2, "2021-01")]


def test_an_unpartitioned_table_keeps_a_period_column_of_its_own(lake: Lake) -> None:
    lake.write("m", "by_month", "all", pa.table({"period": ["2021-01", "2021-02"], "n": [1, 2]}))
    assert rows_of(lake, "by_month") == [("2021-01", 1), ("2021-02", 2)]
    lake.write("m", "total", "all", pa.table({"n": [3]}))
    assert rows_of(lake, "total") == [(3, "all")]


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_digest_is_that_of_the_content_in_any_order_and_batching(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    cells = st.tuples(st.none() | st.integers(0, 3), st.none() | st.sampled_from(["a", "b"]))
    rows = data.draw(st.lists(cells, min_size=1, max_size=8))
    schema = pa.schema([("n", pa.int64()), ("s", pa.string())])

    def digest(content: list[tuple], batch_rows: int) -> str:
        table = pa.Table.from_arrays(
            [pa.array([r[0] for r in content], pa.int64()), pa.array([r[1] for r in content])], schema=schema
        )
        reader = pa.RecordBatchReader.from_batches(schema, table.to_batches(batch_rows))
        return lake.write("m", "t", "2021-01", reader).digest

    first = digest(rows, 5)
    assert digest(data.draw(st.permutations(rows)), data.draw(st.integers(1, 8))) == first
    changed = data.draw(st.lists(cells, min_size=1, max_size=8))
    same = sorted(map(repr, changed)) == sorted(map(repr, rows))
    assert (digest(changed, 5) == first) == same


def test_the_digest_sees_names_types_and_how_often_a_row_occurs(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    tables = [
        pa.table({"a": [1, 2]}),
        pa.table({"b": [1, 2]}),
        pa.table({"a": pa.array([1, 2], pa.int32())}),
        pa.table({"a": [1.0, 2.0]}),
        pa.table({"a": [1, 2, 2]}),
        pa.table({"a": [1, 2, 2, 2]}),
        pa.table({"a": pa.array([], pa.int64())}),
    ]
    digests = {lake.write("m", "t", f"2021-{n + 1:02d}", table).digest for n, table in enumerate(tables)}
    assert len(digests) == len(tables)
    large = pa.table({"a": pa.array(["x"], pa.large_string())})
    small = pa.table({"a": pa.array(["x"], pa.string())})
    assert lake.write("m", "t", "2022-01", large).digest == lake.write("m", "t", "2022-02", small).digest


def test_many_small_batches_become_whole_row_groups(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64())])
    total = 2 * ROW_GROUP_ROWS + 7
    batches = pa.table({"n": pa.array(range(total))}).to_batches(10_007)
    written = Lake(tmp_path).write("m", "t", "2021-01", pa.RecordBatchReader.from_batches(schema, batches))
    footer = pq.read_metadata(written.url)
    sizes = [footer.row_group(n).num_rows for n in range(footer.num_row_groups)]
    assert sizes == [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 7]
    assert pq.read_table(written.url).column("n").to_pylist() == list(range(total))


def test_a_write_that_fails_leaves_the_earlier_partition_and_no_file_of_its_own(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    before = lake.write("m", "t", "2021-01", ROWS)

    def breaking() -> Iterator[pa.RecordBatch]:
        yield ROWS.to_batches()[0]
        raise OSError("the disk is full")

    reader = pa.RecordBatchReader.from_batches(ROWS.schema, breaking())
    with pytest.raises(OSError, match="the disk is full"):
        lake.write("m", "t", "2021-01", reader)
    assert lake.find("m", "t", "2021-01") == before
    assert partitions_below(tmp_path) == ["data.parquet"]


@pytest.mark.parametrize(
    ("model", "table", "period"), [("a/b", "t", "2021-01"), ("m", "..", "2021-01"), ("m", "t", "../x")]
)
def test_a_name_can_not_lead_out_of_the_lake(tmp_path: Path, model: str, table: str, period: str) -> None:
    with pytest.raises(ValueError, match="can't name"):
        Lake(tmp_path / "lake").write(model, table, period, ROWS)
    assert partitions_below(tmp_path) == []


def test_facts_that_json_can_not_hold_and_tables_without_columns_are_refused(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    with pytest.raises(ValueError, match="must be JSON"):
        lake.write("m", "t", "2021-01", ROWS, facts={"f1": float("nan")})
    with pytest.raises(ValueError, match="no columns"):
        lake.write("m", "t", "2021-01", pa.table({}))
    with pytest.raises(ValueError, match="columns occur twice: a"):
        lake.write("m", "t", "2021-01", pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]))
    assert partitions_below(tmp_path) == []


def test_a_foreign_or_broken_file_in_the_lake_is_named(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    url = Path(lake.write("m", "t", "2021-01", ROWS).url)
    url.resolve().chmod(0o644)
    pq.write_table(ROWS, url)
    with pytest.raises(DamagedPartition, match=f"no '{METADATA_KEY}' entry"):
        lake.partition("m", "t", "2021-01")
    url.write_text("not a table")
    with pytest.raises(DamagedPartition, match=r"data\.parquet is not a readable Parquet file"):
        lake.partition("m", "t", "2021-01")


def test_leftovers_of_killed_writers_are_swept_and_files_of_living_ones_are_not(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    current = Path(lake.write("m", "t", "2021-01", ROWS).url)
    hours_ago = (time.time() - 7200, time.time() - 7200)
    for name in (".old.parquet", ".old.tmp", ".young.parquet", ".young.tmp"):
        current.with_name(name).write_text("half")
        if "old" in name:
            os.utime(current.with_name(name), hours_ago)
    os.utime(current, hours_ago)  # the version in force may be of any age
    lake.write("m", "t", "2021-02", ROWS)
    assert partitions_below(tmp_path) == [".young.parquet", ".young.tmp", "data.parquet", "data.parquet"]


def test_a_replaced_version_stays_for_its_readers_and_is_then_removed(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    current = Path(lake.write("m", "t", "2021-01", ROWS).url)
    first = current.resolve()
    os.utime(first, (time.time() - 7200, time.time() - 7200))  # old, but replaced only now
    lake.write("m", "t", "2021-01", ROWS)
    assert first.exists()
    os.utime(first, (time.time() - 7200, time.time() - 7200))
    lake.write("m", "t", "2021-01", ROWS)
    assert not first.exists()


WRITER = """
import sys, pyarrow as pa
from mlops_assets.lake.store import Lake
lake, own, rounds = Lake(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for n in range(rounds):
    for period in ("2021-01", own):
        rows = 1000 + n
        lake.write("m", "t", period, pa.table({"n": [n] * rows, "writer": [own] * rows}), facts={"n": n})
"""

STALLING_WRITER = """
import sys, time, pyarrow as pa
from mlops_assets.lake.store import Lake
schema = pa.schema([("n", pa.int64())])
def batches():
    for n in range(3):
        yield pa.record_batch([pa.array(range(200_000))], schema=schema)
    print("halfway", flush=True)
    time.sleep(60)
Lake(sys.argv[1]).write("m", "t", "2021-01", pa.RecordBatchReader.from_batches(schema, batches()))
"""


def test_two_writers_and_a_reader_at_once_never_see_half_a_partition(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    rounds = 15
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), own, str(rounds)])
        for own in ("2021-02", "2021-03")
    ]
    con = duckdb.connect()
    looked = 0
    try:
        while any(writer.poll() is None for writer in writers):
            for period in lake.periods("m", "t"):
                found = lake.partition("m", "t", period)
                assert found.rows == 1000 + found.facts["n"]
                seen = con.sql(f"SELECT n, writer FROM {lake.scan('m', 't', [period])}").to_arrow_table()
                (n,) = seen.column("n").unique().to_pylist()
                assert seen.num_rows == 1000 + n
                assert len(seen.column("writer").unique()) == 1
                looked += 1
    finally:
        for writer in writers:
            writer.kill() if writer.poll() is None else None
            writer.wait()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert looked > rounds
    assert lake.periods("m", "t") == ["2021-01", "2021-02", "2021-03"]
    assert {path.name for path in tmp_path.rglob("*") if path.suffix == ".tmp"} == set()


def test_a_writer_killed_halfway_leaves_the_earlier_partition_as_it_was(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    before = lake.write("m", "t", "2021-01", pa.table({"n": [1, 2]}))
    with subprocess.Popen(
        [sys.executable, "-c", STALLING_WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "halfway\n"
        writer.send_signal(signal.SIGKILL)
    assert lake.find("m", "t", "2021-01") == before
    assert rows_of(lake, "t") == [(1, "2021-01"), (2, "2021-01")]
    assert lake.periods("m", "t") == ["2021-01"]
