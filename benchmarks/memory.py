"""A month of millions of rows, from raw file to drift report: bounded memory, time in proportion to the rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measurement import Measurement
from benchmarks.process import PROJECT, worker

TITLE = "Months of millions of rows"
METHOD = """\
The file of 2021-04 is replaced by one with the given rows: its trips again and again, moved within the month and with
a changed duration, so that no row is a copy. The champion is trained on the ordinary months before. One process makes
the assets from the raw file to the drift report (raw_trips, features, profile, predictions, drift_report with its
pictures and Evidently page) twice: the times are those of the second pass, without the libraries' imports; the peak is
the process's resident memory in both, libraries included."""
EARLIER = ["2021-01", "2021-02", "2021-03"]
PERIOD = "2021-04"
ASSETS = ["raw_trips", "features", "profile", "predictions", "drift_report"]


def run(quick: bool) -> list[Measurement]:
    small, large = (100_000, 1_000_000) if quick else (1_000_000, 10_000_000)
    seconds, peaks = {}, {}
    with tempfile.TemporaryDirectory(prefix="mlops_bench_") as scratch:
        root = Path(scratch)
        data = root / "data"
        with worker("benchmarks.steps:months", root / "home", periods=EARLIER) as before:
            for _ in EARLIER:
                next(before)
        for rows in (small, large):
            with worker("benchmarks.memory:write_month", root / "home", folder=str(data), rows=rows) as writer:
                next(writer)
            with worker(
                "benchmarks.steps:months", root / "home", data_dir=data, periods=[PERIOD] * 2, assets=ASSETS
            ) as month:
                first, answer = next(month), next(month)
            seconds[rows] = {asset: answer["seconds"][asset] for asset in ASSETS}
            peaks[rows] = max(first["peak"], answer["peak"])
    totals = {rows: sum(found.values()) for rows, found in seconds.items()}
    growth = totals[large] / totals[small]
    few, many = f"{small / 1e6:g}M rows", f"{large / 1e6:g}M rows"
    return [
        Measurement(f"{many}: peak memory", peaks[large], "MB", 2048),
        Measurement(f"{few}: peak memory", peaks[small], "MB"),
        Measurement(f"time of {many} ÷ time of {few}", growth, "×", 1.1 * large / small),
        Measurement(f"{few}: all five assets", totals[small], "s"),
        Measurement(f"{many}: all five assets", totals[large], "s"),
        *(Measurement(f"{many}: {asset}", found, "s") for asset, found in seconds[large].items()),
    ]


def write_month(folder: str, rows: int) -> Iterator[str]:
    """Worker: write a file of `rows` trips for PERIOD below the data folder `folder`."""
    import duckdb

    from benchmarks.steps import declaration

    spec, _ = declaration()
    source = PROJECT / "data" / spec.source.path.format(period=PERIOD)
    target = Path(folder) / spec.source.path.format(period=PERIOD)
    target.parent.mkdir(parents=True, exist_ok=True)
    first, last = spec.calendar.start(PERIOD), spec.calendar.end(PERIOD)
    inside = f"lpep_pickup_datetime >= TIMESTAMP '{first}' AND lpep_pickup_datetime < TIMESTAMP '{last}'"
    length = int((last - first).total_seconds())
    moved = (
        f"TIMESTAMP '{first}' + to_seconds((epoch(lpep_pickup_datetime - TIMESTAMP '{first}')::BIGINT "
        f"+ copy * 12_391) % {length})"
    )
    longer = "epoch(lpep_dropoff_datetime - lpep_pickup_datetime)::BIGINT + (hash(copy, trip) % 31)::BIGINT"
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute(f"CREATE TABLE found AS SELECT *, row_number() OVER () AS trip FROM '{source}' WHERE {inside}")
        copies = rows // con.execute("SELECT count(*) FROM found").fetchall()[0][0] + 1
        con.execute(
            f"""COPY (SELECT * EXCLUDE (trip, copy) REPLACE (
                {moved} AS lpep_pickup_datetime, {moved} + to_seconds({longer}) AS lpep_dropoff_datetime)
            FROM found, range({copies}) c(copy) LIMIT {rows}) TO '{target}' (ROW_GROUP_SIZE 122880)"""
        )
    yield "written"
