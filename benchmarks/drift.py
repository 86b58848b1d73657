"""Drift of a large period against Evidently's own report, and the memory that it takes."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measurement import Measurement
from benchmarks.process import peak_memory, worker

if TYPE_CHECKING:
    import duckdb

    from mlops_assets.drift.profile import Profile
    from mlops_assets.lake.columns import Kind

TITLE = "Drift of large periods"
METHOD = """\
Fifteen columns of green_taxi. The rows are real ones drawn again and again, with distance, fare and duration moved a
little so that their distinct values grow with the rows, day after day as in the city's files; the reference's come
from 2022-08 to 2022-10, the period's from 2023-01. Ours is the profile of the period's Parquet file and its comparison
with a stored reference profile, all distances and the verdict included. Evidently's is a run of `DataDriftPreset` on
two frames that are in memory already; reading them is not counted. The platform profiles by day, to tell since when a
column has changed; without days is what Evidently knows too. Memory is the peak of the process over its size before
the call."""
COLUMN_LEFT_OUT = "pickup_weekday"
TIME_COLUMN = {False: None, True: "lpep_pickup_datetime"}


def run(quick: bool) -> list[Measurement]:
    millions = 0.2 if quick else 1.0
    with tempfile.TemporaryDirectory(prefix="mlops_bench_") as scratch:
        root = Path(scratch)
        rows, many = int(millions * 1e6), int(5 * millions * 1e6)
        with worker("benchmarks.drift:write_rows", root / "writer", folder=scratch, sizes=[rows, many]) as writer:
            next(writer)
        ours: dict[bool, list[float]] = {False: [], True: []}
        theirs = []
        with (
            worker("benchmarks.drift:ours", root / "ours", folder=scratch, size=rows) as mine,
            worker("benchmarks.drift:evidently", root / "evidently", folder=scratch, size=rows) as other,
        ):
            next(mine), next(other)
            for _ in range(1 if quick else 3):
                theirs.append(float(next(other)))
                for _ in range(5):
                    answer = next(mine)
                    for by_day in ours:
                        ours[by_day].append(float(answer[str(by_day).lower()]))
        memory = {}
        for by_day in (False, True):
            with worker(
                "benchmarks.drift:memory", root / f"memory_{by_day}", folder=scratch, size=many, by_day=by_day
            ) as one:
                memory[by_day] = float(next(one))
    plain, daily, preset = (statistics.median(found) for found in (ours[False], ours[True], theirs))
    name, larger = f"{millions:g}M rows", f"{5 * millions:g}M rows"
    return [
        Measurement(f"{name}: Evidently ÷ ours, without days", preset / plain, "×", 100, "at least"),
        Measurement(f"{name}: Evidently ÷ ours, by day with the break", preset / daily, "×", 100, "at least"),
        Measurement(f"{name}: ours, without days", plain, "s"),
        Measurement(f"{name}: ours, by day with the break", daily, "s"),
        Measurement(f"{name}: Evidently's DataDriftPreset", preset, "s"),
        Measurement(f"{larger}: more memory than before, without days", memory[False], "MB", 100),
        Measurement(f"{larger}: more memory than before, by day with the break", memory[True], "MB", 100),
    ]


def _kinds() -> dict[str, Kind]:
    from benchmarks.steps import declaration

    return {name: kind for name, kind in declaration()[0].kinds.items() if name != COLUMN_LEFT_OUT}


def write_rows(folder: str, sizes: list[int]) -> Iterator[str]:
    """Worker: write `reference_<n>.parquet` and `current_<n>.parquet` with n feature rows each."""
    import duckdb

    from benchmarks.steps import declaration
    from mlops_assets.home import data_dir

    spec, sql = declaration()
    sides = {"reference": ["2022-08", "2022-09", "2022-10"], "current": ["2023-01"]}
    con = duckdb.connect(config={"threads": 1})
    for side, periods in sides.items():
        paths = [str(data_dir() / spec.source.path.format(period=period)) for period in periods]
        raw = f"(SELECT *, file_row_number AS record_id FROM read_parquet({paths}, file_row_number = true))"
        features = sql.replace("FROM raw_trips", f"FROM {raw}")
        con.execute(f"CREATE OR REPLACE TABLE found AS SELECT *, row_number() OVER () - 1 AS nr FROM ({features})")
        for size in sizes:
            target = Path(folder) / f"{side}_{size}.parquet"
            con.execute(
                f"""COPY (SELECT * REPLACE (
                    round(fare_amount + 0.1 * ((hash(i, 1) % 11)::INTEGER - 5), 2) AS fare_amount,
                    round(trip_distance + 0.01 * ((hash(i, 2) % 21)::INTEGER - 10), 2) AS trip_distance,
                    trip_duration_minutes + (hash(i, 3) % 61)::INTEGER / 60 AS trip_duration_minutes)
                FROM (SELECT i, hash(i, 4) % (SELECT count(*) FROM found) AS nr FROM range({size}) r(i))
                JOIN found USING (nr) ORDER BY lpep_pickup_datetime::DATE, i) TO '{target}' (ROW_GROUP_SIZE 122880)"""
            )
    for size in sizes:
        _write_references(folder, size)
    yield "written"


def _write_references(folder: str, size: int) -> None:
    import duckdb
    import pyarrow.parquet as pq

    from mlops_assets.drift.profile import profile

    with duckdb.connect(config={"threads": 1}) as con:
        for by_day, time_column in TIME_COLUMN.items():
            found = profile(con, f"read_parquet('{folder}/reference_{size}.parquet')", _kinds(), time_column)
            pq.write_table(found.to_arrow(), _reference_path(folder, size, by_day))


def _reference_path(folder: str, size: int, by_day: bool) -> str:
    return f"{folder}/reference_profile_{size}_{by_day}.parquet"


def _reference(folder: str, size: int, by_day: bool) -> Profile:
    import pyarrow.parquet as pq

    from mlops_assets.drift.profile import Profile

    return Profile.from_arrow(pq.read_table(_reference_path(folder, size, by_day)), _kinds())


def _report(con: duckdb.DuckDBPyConnection, reference: Profile, folder: str, size: int, by_day: bool) -> str:
    from mlops_assets.drift.profile import profile
    from mlops_assets.drift.verdict import DriftThresholds, compare

    kinds = _kinds()
    scan = f"read_parquet('{folder}/current_{size}.parquet')"
    current = profile(con, scan, kinds, TIME_COLUMN[by_day])
    first, last = date(2023, 1, 1), date(2023, 1, 31)
    return compare(reference, current, kinds, DriftThresholds(), first_day=first, last_day=last).verdict


def ours(folder: str, size: int) -> Iterator[Any]:
    """Worker: seconds of one report without and with days, again and again; first says that it is ready."""
    from mlops_assets.home import Home
    from mlops_assets.lake.connection import connect
    from mlops_assets.lake.store import Lake

    references = {by_day: _reference(folder, size, by_day) for by_day in (False, True)}
    with connect(Lake(Home.from_env().lake_url), read_views=False) as con:
        yield "ready"
        while True:
            seconds = {}
            for by_day, reference in references.items():
                started = time.perf_counter()
                _report(con, reference, folder, size, by_day)
                seconds[str(by_day).lower()] = time.perf_counter() - started
            yield seconds


def evidently(folder: str, size: int) -> Iterator[Any]:
    """Worker: seconds of one run of Evidently's preset, again and again; first says that it is ready."""
    import warnings

    import pandas as pd

    warnings.simplefilter("ignore")
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    kinds = _kinds()
    definition = DataDefinition(
        numerical_columns=[name for name, kind in kinds.items() if kind == "numeric"],
        categorical_columns=[name for name, kind in kinds.items() if kind == "categorical"],
    )
    reference, current = (
        Dataset.from_pandas(
            pd.read_parquet(f"{folder}/{side}_{size}.parquet", columns=list(kinds)), data_definition=definition
        )
        for side in ("reference", "current")
    )
    yield "ready"
    while True:
        started = time.perf_counter()
        Report([DataDriftPreset()]).run(current, reference)
        yield time.perf_counter() - started


def memory(folder: str, size: int, by_day: bool) -> Iterator[float]:
    """Worker: MB that the peak of one report lies above what the process had before the call."""
    import mlops_assets.drift.verdict  # noqa: F401 - imports are no part of the call
    from mlops_assets.home import Home
    from mlops_assets.lake.connection import connect
    from mlops_assets.lake.store import Lake

    reference = _reference(folder, size, by_day)
    with connect(Lake(Home.from_env().lake_url), read_views=False) as con, peak_memory() as found:
        _report(con, reference, folder, size, by_day)
    yield found["peak"] - found["before"]
