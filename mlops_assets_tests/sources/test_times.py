from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from mlops_assets.sources.declaration import Source
from mlops_assets.sources.digests import rows_digests
from mlops_assets_tests.sources.readings import MONTHLY, parquet_file, reading, rows, source, text_file

LAST = np.datetime64("2021-01-31T23:59:59.999999999", "ns")
BEFORE_1970 = np.datetime64("1969-12-31T23:59:59.999999999", "ns")


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("TIMESTAMP", datetime(2021, 1, 31, 23, 59, 59, 999999)),
        ("TIMESTAMP_MS", datetime(2021, 1, 31, 23, 59, 59, 999000)),
        ("TIMESTAMP_S", datetime(2021, 1, 31, 23, 59, 59)),
        ("DATE", date(2021, 1, 31)),
    ],
)
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_a_time_is_cut_and_never_rounded_into_the_next_month(
    tmp_path: Path, kind: str, wanted: datetime, zone: str | None
) -> None:
    path = parquet_file(tmp_path, {"at": pa.array([LAST], pa.timestamp("ns")).cast(pa.timestamp("ns", zone))})
    found = reading(path, {"at": kind}, time_column="at")
    assert (found.problems, rows(found)) == ((), [{"at": wanted}])
    assert found.outside is not None
    assert found.outside.rows == 0


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMP_S"])
def test_a_time_before_1970_is_cut_downwards_too(tmp_path: Path, kind: str) -> None:
    path = parquet_file(tmp_path, {"at": pa.array([BEFORE_1970], pa.timestamp("ns"))})
    assert rows(reading(path, {"at": kind}))[0]["at"].year == 1969


def test_microseconds_and_texts_are_cut_to_seconds(tmp_path: Path) -> None:
    moment = datetime(2021, 1, 31, 23, 59, 59, 999999)
    seconds = moment.replace(microsecond=0)
    assert rows(reading(parquet_file(tmp_path, {"at": [moment]}), {"at": "TIMESTAMP_S"})) == [{"at": seconds}]
    path = text_file(tmp_path, f"at\n{moment}999\n")
    assert rows(reading(path, {"at": "TIMESTAMP_S"})) == [{"at": seconds}]
    assert rows(reading(path, {"at": "TIMESTAMP"})) == [{"at": moment}]


@pytest.mark.parametrize(
    ("text", "utc", "new_york"),
    [
        ("2021-01-31T23:30:00-05:00", datetime(2021, 2, 1, 4, 30), datetime(2021, 1, 31, 23, 30)),
        ("2021-01-31 23:30:00Z", datetime(2021, 1, 31, 23, 30), datetime(2021, 1, 31, 18, 30)),
        ("2021-01-31 23:30+02", datetime(2021, 1, 31, 21, 30), datetime(2021, 1, 31, 16, 30)),
        (
            "2021-01-31T23:30:00.25 -0500",
            datetime(2021, 2, 1, 4, 30, 0, 250000),
            datetime(2021, 1, 31, 23, 30, 0, 250000),
        ),
        ("2021-07-31 23:30:00 America/New_York", datetime(2021, 8, 1, 3, 30), datetime(2021, 7, 31, 23, 30)),
        ("2021-01-31 23:30:00", datetime(2021, 1, 31, 23, 30), datetime(2021, 1, 31, 23, 30)),
        ("2021-03-14 02:30:00", datetime(2021, 3, 14, 2, 30), datetime(2021, 3, 14, 2, 30)),
        ("2021-01-31", datetime(2021, 1, 31), datetime(2021, 1, 31)),
    ],
)
def test_an_offset_in_a_text_is_converted_to_the_declared_zone(
    tmp_path: Path, text: str, utc: datetime, new_york: datetime
) -> None:
    path = text_file(tmp_path, f"at\n{text}\n")
    for zone, wanted in (("UTC", utc), ("America/New_York", new_york)):
        assert rows(reading(path, {"at": "TIMESTAMP"}, timezone=zone)) == [{"at": wanted}]
        assert rows(reading(path, {"at": "DATE"}, timezone=zone)) == [{"at": wanted.date()}]
        assert rows(reading(path, {"at": "TIMESTAMP_NS"}, timezone=zone))[0]["at"] == wanted


@pytest.mark.parametrize("text", ["2021-01-31 11:30:00 PM", "2021-01-31 11:30:00 Mars/Olympus"])
def test_what_is_no_zone_behind_a_time_is_not_dropped_without_a_word(tmp_path: Path, text: str) -> None:
    (problem,) = reading(text_file(tmp_path, f"at\n{text}\n"), {"at": "TIMESTAMP"}).problems
    assert problem.examples == (text,)


def test_a_format_with_an_offset_converts(tmp_path: Path) -> None:
    path = text_file(tmp_path, "at\n31/01/2021 23:30 -0500\n")
    found = reading(path, {"at": "TIMESTAMP"}, csv={"timestampformat": "%d/%m/%Y %H:%M %z"})
    assert rows(found) == [{"at": datetime(2021, 2, 1, 4, 30)}]


READ_WITH_ZONES = """
import duckdb, sys
from pathlib import Path
from mlops_assets_tests.sources.readings import reading, rows, source, MONTHLY
from mlops_assets.sources.digests import rows_digests
path = Path(sys.argv[1])
for kind in ("TIMESTAMPTZ", "TIMESTAMP", "DATE"):
    declared = {"time_column": "at", "path": "all.parquet"}
    found = reading(path, {"at": kind}, **declared)
    print(found.rows, [str(row["at"]) for row in rows(found)], found.rows_digest)
    print(rows_digests(source(path, {"at": kind}, **declared), path, "2021-01", "2021-02", MONTHLY))
"""


def test_the_zone_of_the_machine_decides_nothing(tmp_path: Path) -> None:
    moments = [datetime(2021, 1, 31, 23, 30, tzinfo=UTC), datetime(2021, 1, 31, 3, tzinfo=UTC)]
    path = parquet_file(tmp_path, {"at": pa.array(moments, pa.timestamp("us", "UTC"))})
    said = [
        subprocess.run(
            [sys.executable, "-c", READ_WITH_ZONES, str(path)],
            env=os.environ | {"TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for zone in ("Asia/Tokyo", "America/Los_Angeles")
    ]
    assert said[0] == said[1]
    assert said[0].startswith("2 ['2021-01-31 23:30:00+00:00', '2021-01-31 03:00:00+00:00']")


@pytest.mark.parametrize("kind", ["TIMESTAMPTZ", "TIMESTAMP", "DATE", "TIMESTAMPTZ_NS"])
def test_the_declared_zone_says_which_month_a_moment_is_in(tmp_path: Path, kind: str) -> None:
    moments = pa.array([datetime(2021, 1, 31, 23, 30, tzinfo=UTC)], pa.timestamp("ns", "UTC"))
    path = parquet_file(tmp_path, {"at": moments})
    for zone, period in (("UTC", "2021-01"), ("Europe/Berlin", "2021-02")):
        declared = {"time_column": "at", "path": "all.parquet", "timezone": zone}
        assert reading(path, {"at": kind}, period, **declared).rows == 1
        digests = rows_digests(source(path, {"at": kind}, **declared), path, "2021-01", "2021-02", MONTHLY)
        assert digests is not None
        assert list(digests) == [period]


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"'Europe/Berlim' is not known.*did you mean 'Europe/Berlin'"):
        Source(path="{period}.csv", schema={"a": "BIGINT"}, timezone="Europe/Berlim")


@pytest.mark.parametrize("text", ["20250-01-15", "0000-01-15", "2021-01-15 (BC)", "infinity"])
@pytest.mark.parametrize("kind", ["TIMESTAMP", "DATE", "TIMESTAMPTZ"])
def test_a_year_that_no_calendar_has_is_a_wrong_value_that_is_named(tmp_path: Path, text: str, kind: str) -> None:
    lines = "".join(f"2021-{1 + n % 2:02d}-15\n" for n in range(200))
    path = text_file(tmp_path, f"at\n{lines}{text}\n")
    for declared in ({}, {"path": "all.csv"}):
        found = reading(path, {"at": kind}, time_column="at", **declared)
        (problem,) = found.problems
        assert (problem.code, problem.rows, problem.set_aside) == ("wrong_value", 1, True)
        assert problem.examples == (text,)
        assert found.rejected["found"].to_pylist() == [text]
        assert found.rows == (100 if declared else 200) == len(rows(found))
    digests = rows_digests(
        source(path, {"at": kind}, time_column="at", path="all.csv"), path, "2021-01", "2021-02", MONTHLY
    )
    assert digests is not None
    assert sorted(digests) == ["2021-01", "2021-02"]


def test_a_parquet_time_beyond_the_calendar_is_a_wrong_value(tmp_path: Path) -> None:
    path = parquet_file(tmp_path, {"at": pa.array([2**60, 0], pa.timestamp("us"))})
    (problem,) = reading(path, {"at": "TIMESTAMP"}, time_column="at").problems
    assert (problem.code, problem.rows) == ("wrong_value", 1)


@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31 23:59:59"])
def test_the_first_and_last_time_of_the_calendar_are_values(tmp_path: Path, text: str) -> None:
    found = reading(text_file(tmp_path, f"at\n{text}\n"), {"at": "TIMESTAMP"}, time_column="at")
    assert (found.problems, rows(found)) == ((), [{"at": datetime.fromisoformat(text)}])
