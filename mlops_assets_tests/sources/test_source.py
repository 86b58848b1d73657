from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from mlops_assets.lake.periods import Calendar
from mlops_assets.sources import inspection
from mlops_assets.sources.declaration import Source
from mlops_assets.sources.digests import rows_digests
from mlops_assets.sources.location import Located, NoData, locate
from mlops_assets.sources.reading import Reading, read

DATA = Path(__file__).parents[2] / "data"
MONTHLY, WEEKLY = Calendar("monthly"), Calendar("weekly")
SCHEMA = {"id": "BIGINT", "at": "TIMESTAMP", "fare": "DOUBLE", "flag": "VARCHAR"}
GOOD = {
    "id": [1, 2, 3],
    "at": [datetime(2021, 1, day) for day in (1, 15, 31)],
    "fare": [1.0, None, 3.0],
    "flag": ["Y", "N", None],
}


def declared(**changes: Any) -> Source:
    return Source(**({"path": "trips_{period}.parquet", "schema": SCHEMA, "time_column": "at"} | changes))


def reading_of(path: Path, source: Source, period: str = "2021-01", calendar: Calendar = MONTHLY) -> Reading:
    return read(source, Located(path, "test"), period, calendar, duckdb.connect())


def parquet(tmp_path: Path, columns: dict[str, Any]) -> Path:
    path = tmp_path / "trips_2021-01.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def csv(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "trips_2021-01.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


WIDE = "date,units_a,units_b\n2021-01-05,1,2\n2021-01-06,3,4\n2021-02-01,5,6\n"
UNPIVOTED = """
SELECT date, name[-1:] AS article, units
FROM (UNPIVOT source ON COLUMNS('units_.*') INTO NAME name VALUE units)
"""


def wide(**changes: Any) -> Source:
    columns = {"date": "DATE", "article": "VARCHAR", "units": "BIGINT"}
    given = {"path": "sales.csv", "schema": columns, "time_column": "date", "query": UNPIVOTED}
    return Source(**(given | changes))


# -- what a good source gives


def test_rows_come_with_their_number_and_the_declared_columns_in_order(tmp_path: Path) -> None:
    reading = reading_of(parquet(tmp_path, {"more": [7, 8, 9], **GOOD}), declared())
    assert reading.problems == ()
    assert reading.extra == ("more",)
    table = reading.reader.read_all()
    assert table.schema.names == ["record_id", "id", "at", "fare", "flag"]
    assert table.column("record_id").type == pa.int64()
    assert table.column("record_id").to_pylist() == [0, 1, 2]
    assert reading.rows == table.num_rows == 3


def test_all_variants_of_a_schema_give_the_same_table(tmp_path: Path) -> None:
    variants = [
        GOOD | {"fare": pa.nulls(3)},
        GOOD | {"id": pa.array([1, 2, 3], pa.int32()), "fare": pa.array([None] * 3, pa.float64())},
        GOOD | {"id": [1.0, 2.0, 3.0], "fare": [float("nan")] * 3},
        {name.upper(): values for name, values in GOOD.items()} | {"FARE": pa.array([None] * 3, pa.float32())},
    ]
    readings = [reading_of(parquet(tmp_path, columns), declared()) for columns in variants]
    tables = [reading_of(parquet(tmp_path, columns), declared()).reader.read_all() for columns in variants]
    assert all(reading.problems == () for reading in readings)
    assert all(table.equals(tables[0]) for table in tables)
    assert tables[0].column("fare").null_count == 3
    assert len({reading.variant for reading in readings}) == len(variants)


def test_nan_among_numbers_is_missing(tmp_path: Path) -> None:
    # A file's statistics are those of the numbers alone, and DuckDB trusts them unless told otherwise.
    reading = reading_of(parquet(tmp_path, GOOD | {"fare": [1.0, float("nan"), 2.0]}), declared())
    assert reading.reader.read_all().column("fare").to_pylist() == [1.0, None, 2.0]


def test_both_schemas_of_the_shipped_trips_are_read_without_a_problem() -> None:
    newer = DATA / "green_taxi" / "green_tripdata_2023-02.parquet"
    described = duckdb.sql(f"DESCRIBE FROM '{newer}'").fetchall()
    source = Source(
        path="green_taxi/green_tripdata_{period}.parquet",
        schema={name: kind for name, kind, *_ in described},
        time_column="lpep_pickup_datetime",
    )
    schemas, variants = [], set()
    for period in ("2021-01", "2023-02"):
        reading = read(source, locate(source, period, DATA, DATA), period, MONTHLY, duckdb.connect())
        assert (reading.problems, reading.extra) == ((), ())
        assert reading.outside is not None
        assert 0 < reading.outside.rows < 100
        schemas.append(reading.reader.schema)
        variants.add(reading.variant)
    assert schemas[0].equals(schemas[1])
    assert len(variants) == 2


def test_a_file_of_all_periods_gives_the_rows_of_one_with_their_number_in_the_file() -> None:
    source = Source(
        path="unit_sales/hierarchical_sales_data.csv",
        schema={"DATE": "DATE", "QTY_B1_1": "INTEGER", "PROMO_B1_1": "BOOLEAN"},
        time_column="DATE",
        keys=["DATE"],
    )
    reading = read(source, locate(source, "2014-01-06", DATA, DATA), "2014-01-06", WEEKLY, duckdb.connect())
    table = reading.reader.read_all()
    assert reading.problems == ()
    assert [str(day) for day in table.column("DATE").to_pylist()] == [f"2014-01-{d:02d}" for d in range(6, 13)]
    assert table.column("record_id").to_pylist() == list(range(4, 11))
    assert reading.outside is not None
    assert (reading.rows, reading.outside.unknown, reading.outside.file_rows) == (7, 0, 1798)


def test_csv_values_are_cast_and_empty_ones_are_missing(tmp_path: Path) -> None:
    path = csv(tmp_path, "id,at,fare,flag\n1,2021-01-02 10:00:00,nan,\n2,2021-01-03,2.5,Y\n")
    reading = reading_of(path, declared(path="trips_{period}.csv"))
    assert reading.problems == ()
    table = reading.reader.read_all()
    assert table.column("at").to_pylist() == [datetime(2021, 1, 2, 10), datetime(2021, 1, 3)]
    assert table.column("fare").to_pylist() == [None, 2.5]
    assert table.column("flag").to_pylist() == [None, "Y"]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("\ufeffid,fare\r\n1,2.5\r\n", {}),
        ('"id","fare"\n"1","2.5"\n', {}),
        ("1,2.5\n", {"names": ["id", "fare"]}),
        ("# made by hand\nid,fare\n1,2.5\n", {"skip": 1}),
        ("id,,fare,note,note\n1,7,2.5,8,9\n", {}),
    ],
)
def test_headers_of_all_kinds_are_understood(tmp_path: Path, text: str, options: dict) -> None:
    schema = {"id": "BIGINT", "fare": "DOUBLE"}
    source = declared(path="trips_{period}.csv", csv=options, schema=schema, time_column=None)
    reading = reading_of(csv(tmp_path, text), source)
    assert reading.problems == ()
    assert reading.reader.read_all().to_pylist() == [{"record_id": 0, "id": 1, "fare": 2.5}]


def test_csv_options_reach_the_reader(tmp_path: Path) -> None:
    path = csv(tmp_path, "id;fare\n1;NA\n2;3,5\n")
    options = {"sep": ";", "nullstr": ["NA"], "decimal_separator": ","}
    source = declared(
        path="trips_{period}.csv", csv=options, schema={"id": "BIGINT", "fare": "DOUBLE"}, time_column=None
    )
    reading = reading_of(path, source)
    assert reading.problems == ()
    assert reading.reader.read_all().column("fare").to_pylist() == [None, 3.5]


# -- what is odd about a source


def test_a_missing_column_is_named_and_the_rows_can_still_be_looked_at(tmp_path: Path) -> None:
    columns = {name: values for name, values in GOOD.items() if name != "flag"}
    reading = reading_of(parquet(tmp_path, columns), declared())
    (problem,) = reading.problems
    assert (problem.code, problem.column) == ("missing_column", "flag")
    assert "the file has id, at, fare" in problem.found
    table = reading.reader.read_all()
    assert table.schema.field("flag").type == pa.string()
    assert table.column("flag").null_count == table.num_rows == 3


def test_a_renamed_column_is_recognised(tmp_path: Path) -> None:
    columns = {("fares" if name == "fare" else name): values for name, values in GOOD.items()}
    (problem,) = reading_of(parquet(tmp_path, columns), declared()).problems
    assert problem.column == "fare"
    assert "'fares'" in problem.fix
    assert "renamed" in problem.fix


def test_values_that_do_not_fit_are_counted_shown_and_null(tmp_path: Path) -> None:
    reading = reading_of(parquet(tmp_path, GOOD | {"fare": ["1.0", "twelve", None]}), declared())
    (problem,) = reading.problems
    assert (problem.code, problem.column, problem.rows) == ("wrong_value", "fare", 1)
    assert problem.examples == ("twelve",)
    assert reading.reader.read_all().column("fare").to_pylist() == [1.0, None, None]


@pytest.mark.parametrize("ids", [[1.0, 2.5, 3.0], ["1", "2.5", "3"]])
def test_a_fraction_is_not_silently_rounded_to_an_id(tmp_path: Path, ids: list) -> None:
    (problem,) = reading_of(parquet(tmp_path, GOOD | {"id": ids}), declared()).problems
    assert (problem.column, problem.rows, problem.examples) == ("id", 1, ("2.5",))


def test_a_type_that_can_not_be_cast_at_all_is_a_problem_of_every_row(tmp_path: Path) -> None:
    reading = reading_of(parquet(tmp_path, GOOD | {"at": [1.5, 2.5, None]}), declared())
    (problem,) = reading.problems
    assert (problem.column, problem.rows) == ("at", 2)
    assert problem.code in {"wrong_type", "wrong_value"}
    assert reading.reader.read_all().column("at").null_count == 3


def test_an_amount_too_large_for_its_type_is_a_problem_not_infinity(tmp_path: Path) -> None:
    path = csv(tmp_path, "id,at,fare,flag\n1,2021-01-02,1e999,Y\n99999999999999999999,2021-01-02,1,Y\n")
    problems = reading_of(path, declared(path="trips_{period}.csv")).problems
    assert {(problem.column, problem.rows) for problem in problems} == {("id", 1), ("fare", 1)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty file"),
        (b"id,at\n1,2\n", "it begins with b'id,at"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"PAR1 this is all there is", "truncated Parquet file of 25 bytes"),
        (b"PAR1 nothing sensible here PAR1", "trips_2021-01.parquet"),
    ],
)
def test_a_file_that_is_no_parquet_gives_one_problem_and_no_rows(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "trips_2021-01.parquet"
    path.write_bytes(content)
    reading = reading_of(path, declared())
    (problem,) = reading.problems
    assert problem.code == "unreadable"
    assert said in problem.found
    table = reading.reader.read_all()
    assert (reading.rows, table.num_rows) == (0, 0)
    assert table.schema.names == ["record_id", *SCHEMA]


def test_a_page_damaged_inside_a_whole_looking_file_is_found_before_rows_are_given(tmp_path: Path) -> None:
    path = tmp_path / "trips_2021-01.parquet"
    # Noise, so that the pages are large enough to be hit.
    noise = [str(hash((n, "x"))) for n in range(20_000)]
    pq.write_table(pa.table({"id": range(20_000), "flag": noise}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = b"\xff" * 4000
    path.write_bytes(content)
    source = declared(schema={"id": "BIGINT", "flag": "VARCHAR"}, time_column=None)
    reading = reading_of(path, source)
    assert [problem.code for problem in reading.problems] == ["unreadable"]
    assert reading.reader.read_all().num_rows == 0


def test_zero_rows_are_no_problem_of_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "trips_2021-01.parquet"
    pq.write_table(pa.table(GOOD).slice(0, 0), path)
    reading = reading_of(path, declared())
    assert (reading.rows, reading.problems, reading.reader.read_all().num_rows) == (0, (), 0)
    header_only = reading_of(csv(tmp_path, "id,at,fare,flag\n"), declared(path="trips_{period}.csv"))
    assert (header_only.rows, header_only.problems) == (0, ())


def test_rows_of_another_month_and_without_time_are_counted_and_kept(tmp_path: Path) -> None:
    times = [datetime(2020, 12, 31, 23, 59), None, datetime(2021, 2, 1)]
    reading = reading_of(parquet(tmp_path, GOOD | {"at": times}), declared())
    assert reading.outside is not None
    assert (reading.outside.rows, reading.outside.unknown) == (2, 1)
    assert (reading.outside.first, reading.outside.last) == (times[0], times[2])
    assert reading.reader.read_all().num_rows == 3


def test_copies_of_rows_and_of_keys_are_counted(tmp_path: Path) -> None:
    doubled = {name: values * 2 for name, values in GOOD.items()}
    reading = reading_of(parquet(tmp_path, doubled), declared(keys=["id"]))
    assert reading.duplicates == 3
    (problem,) = reading.problems
    assert (problem.code, problem.column, problem.rows) == ("duplicate_key", "id", 3)
    assert reading_of(parquet(tmp_path, GOOD), declared(keys=["id"])).duplicates == 0


def test_copies_in_a_large_source_are_estimated_from_a_sample_of_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "HASHED_ROWS", 5_000)
    ids = list(range(20_000)) + list(range(10_000))
    source = declared(schema={"id": "BIGINT"}, time_column=None)
    reading = reading_of(parquet(tmp_path, {"id": ids}), source)
    assert reading.duplicates == pytest.approx(10_000, rel=0.1)


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_another_delimiter_is_recognised(tmp_path: Path, mark: str) -> None:
    path = csv(tmp_path, "id,at,fare,flag\n1,2021-01-02,1.5,Y\n".replace(",", mark))
    problems = reading_of(path, declared(path="trips_{period}.csv")).problems
    assert {problem.code for problem in problems} == {"missing_column"}
    assert f"delim: {mark!r}" in problems[0].fix


def test_another_encoding_is_recognised(tmp_path: Path) -> None:
    path = csv(tmp_path, "id,at,fare,flag\n1,2021-01-02,1.5,Caf\xe9\n".encode("latin-1"))
    (problem,) = reading_of(path, declared(path="trips_{period}.csv")).problems
    assert problem.code == "unreadable"
    assert "not UTF-8" in problem.fix
    latin = reading_of(path, declared(path="trips_{period}.csv", csv={"encoding": "latin-1"}))
    assert latin.reader.read_all().column("flag").to_pylist() == ["Café"]


def test_a_row_with_too_many_fields_is_reported_with_its_line(tmp_path: Path) -> None:
    path = csv(tmp_path, "id,at,fare,flag\n1,2021-01-02,1.5,Y\n2,2021-01-02,1,5,Y,Y\n")
    (problem,) = reading_of(path, declared(path="trips_{period}.csv")).problems
    assert problem.code == "unreadable"
    assert "Line: 3" in problem.found
    assert "Columns: 4 Found: 5" in problem.found


def of_all_periods(**changes: Any) -> Source:
    return declared(**({"path": "trips.csv", "schema": {"id": "BIGINT", "at": "DATE", "fare": "DOUBLE"}} | changes))


JANUARY = "".join(f"{n},2021-01-{1 + n % 31:02d},1.5\n" for n in range(70))


def test_rows_of_a_file_of_all_periods_that_are_in_no_period_are_told_by_each(tmp_path: Path) -> None:
    lost = "".join(f"{n},15/01/2021,1.5\n" for n in range(70, 100)) + "100,,1.5\n"
    path = csv(tmp_path, "id,at,fare\n" + JANUARY + lost + "101,2021-02-01,1.5\n")
    for period, rows in (("2021-01", 70), ("2021-02", 1)):
        reading = reading_of(path, of_all_periods(), period)
        assert reading.rows == rows == reading.reader.read_all().num_rows
        (problem,) = reading.problems
        assert (problem.code, problem.column, problem.rows) == ("wrong_value", "at", 30)
        assert problem.examples == ("15/01/2021",)
        assert problem.expected == "values that fit DATE"
        assert "Correct the source" in problem.fix
        assert reading.outside is not None
        assert (reading.outside.rows, reading.outside.unknown, reading.outside.file_rows) == (0, 31, 102)


def test_rows_without_a_time_in_a_parquet_file_of_all_periods_are_counted(tmp_path: Path) -> None:
    times = [datetime(2021, 1, 3), None, datetime(2021, 2, 1)]
    reading = reading_of(parquet(tmp_path, GOOD | {"at": times}), declared(path="trips.parquet"))
    assert (reading.rows, reading.problems) == (1, ())
    assert reading.outside is not None
    assert (reading.outside.rows, reading.outside.unknown, reading.outside.file_rows) == (0, 1, 3)


def test_one_bad_date_does_not_make_a_file_unreadable_whose_days_are_counted(tmp_path: Path) -> None:
    path = csv(tmp_path, "id,at,fare\n" + JANUARY + "70,15/01/2021,1.5\n")
    reading = reading_of(path, of_all_periods(path="trips_{period}.csv", max_missing_days=2))
    assert [(problem.code, problem.rows) for problem in reading.problems] == [("wrong_value", 1)]
    assert (reading.rows, reading.missing_days) == (71, ())


@pytest.mark.parametrize("line", ["71,15/01/2021,1.5", "71,2021-02-01,twelve", "71,,1.5"])
def test_one_bad_cell_leaves_the_digests_of_the_periods(tmp_path: Path, line: str) -> None:
    path = csv(tmp_path, "id,at,fare\n" + JANUARY + f"70,2021-02-01,1.5\n{line}\n")
    digests = rows_digests(of_all_periods(), path, "2021-01", "2021-03", MONTHLY)
    assert digests == {p: reading_of(path, of_all_periods(), p).rows_digest for p in ("2021-01", "2021-02")}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"id,at,fare\n",
        b"id,at,fare\n1,2021-01-01,1.5,7\n",
        b"id,at,fare,flag\n1,2021-01-01,1.5,Caf\xe9\n",
        b"id,day,fare\n1,2021-01-01,1.5\n",
    ],
)
def test_a_file_in_which_no_period_can_be_told_has_no_digests(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trips.csv"
    path.write_bytes(content)
    assert rows_digests(of_all_periods(), path, "2021-01", "2021-03", MONTHLY) is None


def test_a_csv_larger_than_the_memory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trips.csv"
    notes = "concat(md5(i::VARCHAR), md5((-i)::VARCHAR))"
    rows = (
        f"SELECT i AS id, DATE '2021-01-01' + (i % 59)::INT AS at, 1.5 AS fare, {notes} AS note FROM range(600000) t(i)"
    )
    duckdb.sql(f"COPY ({rows}) TO '{path}' (HEADER)")
    monkeypatch.setenv("MLOPS_DUCKDB_MEMORY", "100MB")
    assert len(rows_digests(of_all_periods(), path, "2021-01", "2021-03", MONTHLY) or {}) == 2


# -- finding the file


class _Server(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        content = b"PAR1 some content"
        if self.path.startswith("/good"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        elif self.path.startswith("/cut"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) + 100))
            self.end_headers()
            self.wfile.write(content)
        elif self.path.startswith("/busy") and len(_Server.asked) < 2:
            _Server.asked.append(self.path)
            self.send_error(503)
        elif self.path.startswith("/busy"):
            self.path = "/good"
            self.do_GET()
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_a_file_is_fetched_once_and_a_local_one_comes_first(tmp_path: Path, server: str) -> None:
    data, downloads = tmp_path / "data", tmp_path / "downloads"
    source = declared(url=f"{server}/good/{{period}}.parquet")
    fetched = locate(source, "2021-01", data, downloads)
    assert fetched.path.read_bytes() == b"PAR1 some content"
    assert fetched.origin == f"{server}/good/2021-01.parquet"
    again = declared(url=f"{server}/gone/{{period}}.parquet")
    assert locate(again, "2021-01", data, downloads).path == fetched.path
    data.mkdir()
    local = data / "trips_2021-01.parquet"
    local.write_bytes(b"local")
    assert locate(source, "2021-01", data, downloads).path == local


@pytest.mark.parametrize(("route", "said"), [("missing", "answered 404"), ("cut", "could not be fetched.*bytes")])
def test_a_failed_download_says_what_was_answered_and_leaves_nothing(
    tmp_path: Path, server: str, route: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_RETRY_SECONDS", "0")
    source = declared(url=f"{server}/{route}/{{period}}.parquet")
    with pytest.raises(NoData, match=rf"no file .*trips_2021-01\.parquet.*{said}"):
        locate(source, "2021-01", tmp_path, tmp_path / "downloads")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("by", ["url", "path"])
def test_a_server_that_is_overloaded_for_a_moment_is_asked_again(
    tmp_path: Path, server: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlops_assets.outages.FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(_Server, "asked", [])
    address = f"{server}/busy/{{period}}.parquet"
    source = declared(url=address) if by == "url" else declared(path=address)
    found = locate(source, "2021-01", tmp_path / "data", tmp_path / "downloads")
    assert found.path.read_bytes() == b"PAR1 some content"
    assert len(_Server.asked) == 2


def test_a_server_that_is_out_of_reach_is_not_waited_for_and_no_missing_file(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(NoData, match=r"could not be read .*check that its server can be reached"):
        locate(declared(path="http://127.0.0.1:9/{period}.parquet"), "2021-01", tmp_path, tmp_path / "downloads")
    assert time.monotonic() - started < 10


def test_without_network_or_url_the_message_says_where_to_put_the_file(tmp_path: Path) -> None:
    unreachable = declared(url="http://127.0.0.1:9/{period}.parquet")
    with pytest.raises(NoData, match=r"could not be fetched.*put the file there"):
        locate(unreachable, "2021-01", tmp_path, tmp_path / "downloads")
    with pytest.raises(NoData, match="has no url"):
        locate(declared(), "2021-01", tmp_path, tmp_path / "downloads")


def test_a_path_may_be_a_url_of_any_file_system(tmp_path: Path) -> None:
    import fsspec

    source = declared(path="memory://bucket/trips_{period}.parquet")
    with pytest.raises(NoData, match=r"memory://bucket/trips_2021-02\.parquet"):
        locate(source, "2021-02", tmp_path, tmp_path)
    for content in (b"first", b"second"):
        fsspec.filesystem("memory").pipe_file("/bucket/trips_2021-01.parquet", content)
        assert locate(source, "2021-01", tmp_path, tmp_path).path.read_bytes() == content


# -- what a declaration may say


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schema": {"fare": "DUOBLE"}, "time_column": None}, "'fare' has the type 'DUOBLE'"),
        ({"schema": {"fare": "DOUBLE, x"}, "time_column": None}, "'fare' has the type"),
        ({"schema": {}}, "names no column"),
        ({"schema": {"record_id": "BIGINT"}, "time_column": None}, "made by the platform"),
        ({"time_column": "att"}, "time_column 'att' is not in schema; did you mean 'at'"),
        ({"time_column": "fare"}, "'fare' is declared DOUBLE"),
        ({"keys": ["idd"]}, "keys 'idd' is not in schema"),
        ({"path": "all.parquet", "time_column": None}, "time_column has to say"),
        ({"path": "../{period}.parquet"}, "below the data folder"),
        ({"path": "/etc/{period}.parquet"}, "below the data folder"),
        ({"path": "{month}_{period}.parquet"}, "placeholder {month}"),
        ({"path": "{period}.dat"}, "set format"),
        ({"csv": {"delim": ";"}}, "format is parquet"),
        ({"path": "{period}.csv", "csv": {"delimm": ";"}}, "did you mean 'delim'"),
        ({"paht": "x"}, "paht"),
        ({"query": "SELEC 1"}, "query can't be parsed"),
        ({"query": "SELECT * FROM trips"}, "source.query reads 'trips'; expected source"),
        ({"query": "SELECT 1 AS id"}, "reads `source`"),
        ({"query": "SELECT 'source' AS id"}, "reads `source`"),
        ({"query": "FROM source; DROP TABLE source"}, "has 2 statements"),
        ({"query": "COPY (FROM source) TO '/tmp/taken.csv'"}, "a statement of type COPY"),
        ({"query": "FROM source UNION ALL FROM '/etc/passwd'"}, "source.query reads '/etc/passwd'"),
        ({"query": "FROM source, read_text('/etc/passwd')"}, r"source.query reads read_text\(\)"),
        ({"max_missing_days": 1, "time_column": None}, "counts days by the time_column"),
    ],
)
def test_a_wrong_declaration_is_refused_with_what_is_wrong(changes: dict, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        declared(**changes)


# -- records made by a query


def test_a_query_makes_records_of_a_wide_file(tmp_path: Path) -> None:
    reading = reading_of(csv(tmp_path, WIDE), wide(keys=["date", "article"]))
    assert (reading.problems, reading.extra, reading.rows) == ((), (), 4)
    rows = reading.reader.read_all().to_pylist()
    assert [(row["record_id"], row["date"].day, row["article"], row["units"]) for row in rows] == [
        (0, 5, "a", 1),
        (1, 5, "b", 2),
        (2, 6, "a", 3),
        (3, 6, "b", 4),
    ]


def test_a_query_is_told_the_period(tmp_path: Path) -> None:
    query = "SELECT *, make_date(year(period_start())::INT, month(period_start())::INT, day::INT) AS at FROM source"
    source = declared(path="t_{period}.csv", schema={"at": "DATE", "id": "BIGINT"}, query=query)
    reading = reading_of(csv(tmp_path, "id,day\n7,3\n8,31\n"), source)
    assert [row["at"].isoformat() for row in reading.reader.read_all().to_pylist()] == ["2021-01-03", "2021-01-31"]
    assert reading.outside is not None
    assert reading.outside.rows == 0


def test_a_file_with_another_delimiter_says_so_also_when_a_query_shapes_it(tmp_path: Path) -> None:
    (problem,) = reading_of(csv(tmp_path, "day;pieces\n2021-01-05;1\n"), wide()).problems
    assert problem.fix == "The file is separated by ';': set csv: {delim: ';'}."


def test_a_file_that_the_query_does_not_fit_is_a_problem_that_names_both(tmp_path: Path) -> None:
    reading = reading_of(csv(tmp_path, "day,pieces\n2021-01-05,1\n"), wide())
    (problem,) = reading.problems
    assert (problem.code, reading.rows) == ("unreadable", 0)
    assert "query can't be run over its columns day, pieces" in problem.found
    assert "source's query in defs.yaml" in problem.fix


def test_the_digests_of_a_periods_rows_tell_which_periods_have_changed(tmp_path: Path) -> None:
    path = csv(tmp_path, WIDE)
    before = rows_digests(wide(), path, "2021-01", "2021-03", MONTHLY)
    assert before == {p: reading_of(path, wide(), p).rows_digest for p in ("2021-01", "2021-02")}
    lines = WIDE.splitlines()
    csv(tmp_path, "\n".join([lines[0], lines[2], lines[1], "2021-02-01,5,7"]))
    after = rows_digests(wide(), path, "2021-01", "2021-03", MONTHLY)
    assert before
    assert after
    assert after["2021-01"] == before["2021-01"], "the order of rows is no difference"
    assert after["2021-02"] != before["2021-02"]


def test_days_without_rows_are_listed_where_the_source_says_how_many_there_may_be(tmp_path: Path) -> None:
    path = csv(tmp_path, WIDE)
    assert reading_of(path, wide()).missing_days == ()
    missing = reading_of(path, wide(max_missing_days=2), "2021-01-04", WEEKLY).missing_days
    assert [day.day for day in missing] == [4, 7, 8, 9, 10]
