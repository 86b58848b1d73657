"""A locked connection opens the files of its views and no other, loads nothing, and keeps its configuration."""

from __future__ import annotations

import random
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.lake.connection import DamagedWarning, connect, lock, refresh_views
from mlops_assets.lake.store import Lake

ROWS = pa.table({"n": [1, 2]})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "the lake [1]?")
    for period in ("2021-01", "2021-02"):
        lake.write("m", "t", period, ROWS)
    return lake


@pytest.fixture
def con(lake: Lake) -> duckdb.DuckDBPyConnection:
    return connect(lake, locked=True)


def test_the_views_answer_and_a_connection_of_ones_own_things_works(con: duckdb.DuckDBPyConnection) -> None:
    assert con.execute("SELECT period, sum(n) FROM m.t GROUP BY ALL ORDER BY ALL").fetchall() == [
        ("2021-01", 3),
        ("2021-02", 3),
    ]
    con.execute("CREATE TEMP TABLE mine AS SELECT 7 AS x")
    con.execute("CREATE VIEW other AS FROM m.t")
    con.execute("SET TimeZone = 'Europe/Rome'")
    con.execute("SET GLOBAL TimeZone = 'Europe/Rome'")
    con.register("frame", pd.DataFrame({"x": [7]}))
    assert con.execute("SELECT count(*) FROM mine JOIN frame USING (x), other").fetchall() == [(4,)]
    assert con.cursor().execute("SELECT count(*) FROM m.t").fetchall() == [(4,)]


def test_no_other_file_is_read(con: duckdb.DuckDBPyConnection, lake: Lake, tmp_path: Path) -> None:
    lake.write("m", "later", "2021-01", ROWS)
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for query in (
        f"FROM read_csv('{secret}')",
        f"FROM '{secret}'",
        f"FROM read_text('{secret}')",
        f"FROM read_blob('{secret}')",
        f"FROM read_json('{secret}')",
        f"FROM sniff_csv('{secret}')",
        f"FROM parquet_metadata('{secret}')",
        f"FROM glob('{tmp_path}/*')",
        f"FROM query('FROM read_csv(''{secret}'')')",
        f"FROM {lake.scan('m', 'later')}",
        f"ATTACH '{tmp_path}/other.db'",
        f"COPY mine FROM '{secret}'",
        f"IMPORT DATABASE '{tmp_path}'",
    ):
        with pytest.raises(duckdb.Error):
            con.execute(query)
    frame = pd.DataFrame({"x": [7]})
    with pytest.raises(duckdb.CatalogException, match="frame"):
        con.execute("FROM frame")
    assert len(frame) == 1


def test_nothing_is_written_or_loaded_and_the_configuration_stays(
    con: duckdb.DuckDBPyConnection, lake: Lake, tmp_path: Path
) -> None:
    before = sorted(path.name for path in tmp_path.rglob("*"))
    version = Path(lake.files("m", "t", ["2021-01"])[0])
    for statement in (
        f"COPY (SELECT 1) TO '{tmp_path}/new.csv'",
        f"COPY (SELECT 1) TO '{version}'",
        f"EXPORT DATABASE '{tmp_path}/all'",
        f"ATTACH '{tmp_path}/new.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        f"LOAD '{tmp_path}/x.duckdb_extension'",
        "UPDATE EXTENSIONS",
        "CREATE SECRET s (TYPE s3)",
        "SET enable_external_access = true",
        "SET allowed_paths = []",
        "SET allowed_directories = ['/']",
        "SET lock_configuration = false",
        "RESET lock_configuration",
        f"SET temp_directory = '{tmp_path}'",
        f"PRAGMA profiling_output = '{tmp_path}/profile.json'",
        f"CALL enable_logging('QueryLog', storage = 'file', storage_path = '{tmp_path}/log')",
    ):
        with pytest.raises(duckdb.Error):
            con.execute(statement)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    # DuckDB itself would write to a file that it may read; the file system says no, to all but root.
    assert version.stat().st_mode & 0o222 == 0
    assert lake.partition("m", "t", "2021-01", verify=True).rows == 2


def test_no_address_is_fetched(lake: Lake) -> None:
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x.parquet"
        for query in (f"FROM '{url}'", f"FROM read_parquet('{url}')", f"FROM read_csv('{url}')"):
            with pytest.raises(duckdb.Error):
                connect(lake, locked=True).execute(query)
        server.shutdown()
    assert asked == []


def test_what_does_not_fit_into_memory_still_spills(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_DUCKDB_MEMORY", "100MB")
    con = connect(lake, locked=True)
    con.execute("CREATE TEMP TABLE large AS SELECT i, hash(i) AS h FROM range(12_000_000) t(i)")
    assert con.execute("SELECT count(DISTINCT h) FROM large").fetchall() == [(12_000_000,)]
    assert con.execute("SELECT sum(size) > 50_000_000 FROM duckdb_temporary_files()").fetchall() == [(True,)]


def test_a_remote_lake_is_locked_to_its_objects() -> None:
    lake = Lake("memory://locked/lake")
    lake.write("m", "t", "2021-01", ROWS)
    con = connect(lake, locked=True)
    lake.write("m", "later", "2021-01", ROWS)
    assert con.execute("SELECT sum(n) FROM m.t").fetchall() == [(3,)]
    with pytest.raises(duckdb.PermissionException):
        con.execute(f"FROM {lake.scan('m', 'later')}")


def test_many_files_are_allowed_quickly_enough(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{number}.parquet") for number in range(3000)]
    pq.write_table(ROWS, files[-1])
    con = lock(duckdb.connect(), files)
    assert con.execute(f"FROM '{files[-1]}'").fetchall() == [(1,), (2,)]


def test_a_view_answers_for_the_other_periods_when_one_is_damaged(lake: Lake) -> None:
    broken = Path(lake.files("m", "t", ["2021-01"])[0])
    broken.chmod(0o644)
    broken.write_bytes(b"")
    with pytest.warns(DamagedWarning, match=r"left out of m\.t: m/t of 2021-01 is damaged: .*backfill m 2021-01"):
        con = connect(lake, locked=True)
    assert con.execute("SELECT period, sum(n) FROM m.t GROUP BY ALL").fetchall() == [("2021-02", 3)]


def test_a_view_whose_bytes_are_to_be_verified_leaves_out_what_only_its_bytes_show(lake: Lake) -> None:
    lake.forget_verified()
    changed = Path(lake.files("m", "t", ["2021-01"], verify=False)[0])
    content = bytearray(changed.read_bytes())
    content[10] ^= 1
    changed.chmod(0o644)
    changed.write_bytes(content)
    with pytest.warns(DamagedWarning, match="SHA-256"):
        con = connect(lake, locked=True, verify={"m.t"})
    assert con.execute("SELECT DISTINCT period FROM m.t").fetchall() == [("2021-02",)]


def test_whatever_happened_to_a_footer_the_view_answers_for_the_other_periods(lake: Lake) -> None:
    # Some of these footers are read by Arrow, and not by DuckDB.
    rng = random.Random(7)
    sound = Path(lake.files("m", "t", ["2021-01"])[0]).read_bytes()
    footer = int.from_bytes(sound[-8:-4], "little") + 8
    refused = 0
    for _ in range(60):
        content = bytearray(sound)
        content[-rng.randrange(1, footer)] ^= 1 << rng.randrange(8)
        lake.write("m", "t", "2021-01", ROWS)
        version = Path(lake.files("m", "t", ["2021-01"])[0])
        version.chmod(0o644)
        version.write_bytes(content)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", DamagedWarning)
            con = duckdb.connect()
            refresh_views(con, lake)
        assert con.execute("SELECT count(*) FROM m.t WHERE period = '2021-02'").fetchall() == [(2,)]
        refused += any("SHA-256" in str(warning.message) for warning in said)
    assert refused
