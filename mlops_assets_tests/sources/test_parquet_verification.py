"""A damaged Parquet file is quarantined, whichever reader stumbles; a fault of the machine stays one of the machine."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.lake.periods import Calendar
from mlops_assets.monitored_model.outcome import Check, Outcome
from mlops_assets.monitored_model.steps import raw
from mlops_assets.sources.failures import UnreadableSource, is_of_the_file
from mlops_assets.sources.location import Located
from mlops_assets.sources.parquet_verification import parquet_damage
from mlops_assets.sources.reading import read
from mlops_assets_tests import tiny_model

MONTHS = Calendar("monthly")


def rows_or_problem(path: Path, con: duckdb.DuckDBPyConnection) -> pa.Table | str:
    reading = read(tiny_model.spec().source, Located(path, "file"), "2021-01", MONTHS, con)
    if reading.problems:
        return reading.problems[0].code
    try:
        return reading.reader.read_all()
    except UnreadableSource:
        return "unreadable"


@pytest.mark.parametrize(
    "written",
    [{"compression": "gzip"}] + [{"compression": name, "write_page_checksum": True} for name in ("snappy", "none")],
    ids=["gzip", "snappy with checksums", "uncompressed with checksums"],
)
def test_no_changed_bit_is_read_as_another_value(written: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rides.parquet"
    pq.write_table(tiny_model.rides("2021-01", rows=200), path, **written)
    whole, chance = path.read_bytes(), random.Random(7)
    damaged = 0
    with duckdb.connect(config={"threads": 1}) as con:
        sound = rows_or_problem(path, con)
        assert isinstance(sound, pa.Table)
        for _ in range(60):
            changed = bytearray(whole)
            changed[chance.randrange(4, len(whole) - 8)] ^= 1 << chance.randrange(8)
            path.write_bytes(changed)
            found = rows_or_problem(path, con)
            damaged += isinstance(found, str)
            assert isinstance(found, str) or found.equals(sound)
    assert damaged > 30


def test_damage_says_what_was_found_what_was_expected_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "rides.parquet"
    pq.write_table(pa.table({"fare": range(1000), "other": range(1000)}), path, write_page_checksum=True)
    chunk = pq.read_metadata(path).row_group(0).column(0)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset + 500] ^= 1
    path.write_bytes(content)
    assert parquet_damage(path, ["other"]) is None
    problem = parquet_damage(path, ["FARE"])
    assert problem is not None
    assert problem.code == "unreadable"
    assert "rides.parquet: a damaged Parquet file" in problem.found
    assert problem.fix.startswith("Fetch the file again")


def test_verification_streams(tmp_path: Path) -> None:
    path = tmp_path / "long.parquet"
    values = pa.array(range(2_000_000))
    pq.write_table(pa.table(dict.fromkeys("abcd", values)), path, row_group_size=2_000_000, use_dictionary=False)
    del values
    before = pa.default_memory_pool().bytes_allocated()
    pool = pa.system_memory_pool()
    default = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        assert parquet_damage(path) is None
        # 64 MB of values in one row group.
        assert pool.max_memory() < 30_000_000
    finally:
        pa.set_memory_pool(default)
    assert pa.default_memory_pool().bytes_allocated() <= before


@pytest.mark.parametrize(
    ("error", "of_the_file"),
    [
        (OSError("GZipCodec failed: incorrect data check"), True),
        (OSError("Invalid Error: Payload value bigger than allowed. Corrupted file?"), True),
        (pa.ArrowInvalid("Unexpected end of stream"), True),
        (duckdb.InvalidInputException("Invalid string encoding found in Parquet file"), True),
        (duckdb.Error("Error: TProtocolException: Invalid data"), True),
        (pa.ArrowMemoryError("malloc of size 9223372036854775807 failed"), True),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), True),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), False),
        (OSError("IO Error: Could not write file: No space left on device"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (duckdb.IOException('IO Error: Cannot open file "x": Permission denied'), False),
        (duckdb.IOException("IO Error: Could not read from file: Input/output error"), False),
        (duckdb.OutOfMemoryException("Out of Memory Error: failed to offload data block"), False),
        (OSError("Out of Memory Error: could not allocate block"), False),
        (pa.ArrowMemoryError("malloc of size 1048576 failed"), False),
        (duckdb.BinderException("Binder Error: no such column"), False),
    ],
)
def test_the_file_is_blamed_for_what_is_in_it_and_not_for_the_machine(error: Exception, of_the_file: bool) -> None:
    assert is_of_the_file(error) is of_the_file


def make(root: Path, declared: Any = None) -> Outcome:
    with tiny_model.workbench(root / "home", root / "data", declared) as bench:
        return raw.make(bench, "2021-01")


def schema_check(outcome: Outcome) -> Check:
    return next(check for check in outcome.checks if check.name == "source_schema")


def test_damage_that_shows_while_the_rows_are_read_quarantines_the_period(tmp_path: Path) -> None:
    path = tmp_path / "data" / "rides" / "2021-01.parquet"
    path.parent.mkdir(parents=True)
    # Arrow does not look whether text is UTF-8; of a single row nothing is read before the stream.
    row = tiny_model.rides("2021-01", rows=1).set_column(3, "zone", pa.array(["north"]))
    pq.write_table(row, path, compression="none", use_dictionary=False, write_statistics=False)
    path.write_bytes(path.read_bytes().replace(b"north", b"nor\xff\xfe"))
    schema = {**tiny_model.SPEC["source"]["schema"], "zone": "VARCHAR"}
    outcome = make(tmp_path, tiny_model.spec(source={**tiny_model.SPEC["source"], "schema": schema}))
    assert outcome.partition.rows == 0
    assert str(outcome.partition.reason).startswith("quarantined: source_schema: found 2021-01.parquet:")
    assert "a readable parquet file" in schema_check(outcome).description


def test_a_file_that_changes_without_being_newer_warns_until_somebody_has_looked(tmp_path: Path) -> None:
    path = tmp_path / "data" / "rides" / "2021-01.parquet"
    tiny_model.write_rides(tmp_path / "data", ["2021-01"])
    first = make(tmp_path)
    assert schema_check(first).passed
    before = path.stat()
    tiny_model.write_rides(tmp_path / "data", ["2021-01"], seed=5)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        check = schema_check(make(tmp_path))
        assert (check.passed, check.severity) == (False, "WARN")
        assert f"its SHA-256 was {first.partition.facts['sha256']}" in check.description
    path.touch()
    assert schema_check(make(tmp_path)).passed


def test_a_file_that_is_delivered_again_is_no_silent_change(tmp_path: Path) -> None:
    tiny_model.write_rides(tmp_path / "data", ["2021-01"])
    first = make(tmp_path)
    tiny_model.write_rides(tmp_path / "data", ["2021-01"], seed=5)
    second = make(tmp_path)
    assert first.partition.facts["sha256"] != second.partition.facts["sha256"]
    assert schema_check(second).passed
