"""A model small enough for a test: a few hundred made-up rides a month, a logistic regression, and a clear signal.

The rides can be made to turn: from a day on, `fee` has values that it never had before and the fare is higher.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.home import Home
from mlops_assets.incidents.store import Store
from mlops_assets.lake.periods import Calendar
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.workbench import PeriodRun, Workbench
from mlops_assets.training import tracking

MONTHS = Calendar("monthly")

SQL = """
SELECT record_id, started_at, fare, fee, zone, hour(started_at) AS hour, (payment = 2)::INTEGER AS is_cash
FROM raw_rides
WHERE fare > 0
"""

SPEC: dict[str, Any] = {
    "name": "rides",
    "records": "rides",
    "description": "Is the ride paid in cash?",
    "start": "2021-01",
    "end": "2021-12",
    "source": {
        "path": "rides/{period}.parquet",
        "time_column": "started_at",
        "schema": {
            "started_at": "TIMESTAMP",
            "fare": "DOUBLE",
            "fee": "DOUBLE",
            "zone": "BIGINT",
            "payment": "BIGINT",
        },
    },
    "target": {"column": "is_cash"},
    "columns": {
        "fare": {"gt": 0, "le": 1000},
        "fee": {},
        "zone": {"categorical": True},
        "hour": {"ge": 0, "le": 23},
    },
    "segments": ["zone"],
    "candidates": [{"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 200}}],
    "trials": 1,
    "since_break": {"min_rows": 100},
}


def spec(**changes: Any) -> ModelSpec:
    """The declaration, with top-level changes."""
    return ModelSpec.model_validate({**SPEC, **changes})


def rides(period: str, rows: int = 600, *, seed: int | None = None, since: date | None = None) -> pa.Table:
    """Rides of a month in the order of time; from `since` on the fee is 5 and the fare twice as high."""
    first, end = MONTHS.start(period), MONTHS.end(period)
    rng = np.random.default_rng(seed if seed is not None else int(period.replace("-", "")))
    seconds = np.sort(rng.integers(0, int((end - first).total_seconds()), rows))
    started = [first + timedelta(seconds=int(s)) for s in seconds]
    zone = rng.integers(1, 6, rows)
    fare = np.round(rng.gamma(4.0, 3.0, rows) + 3.0, 2)
    fee = rng.choice([0.0, 0.5, 1.0], rows)
    chance = 1 / (1 + np.exp(-(1.2 * (zone - 3) - 0.12 * (fare - 15))))
    payment = np.where(rng.random(rows) < chance, 2, 1)
    if since is not None:
        later = np.array([moment >= datetime.combine(since, datetime.min.time()) for moment in started])
        fee, fare = np.where(later, 5.0, fee), np.where(later, fare * 2, fare)
    return pa.table(
        {
            "started_at": pa.array(started, pa.timestamp("us")),
            "fare": fare,
            "fee": fee,
            "zone": zone,
            "payment": payment,
        }
    )


def write_rides(data: Path, periods: Sequence[str], **arguments: Any) -> None:
    """Write a file for each of the periods below the data folder."""
    (data / "rides").mkdir(parents=True, exist_ok=True)
    for period in periods:
        pq.write_table(rides(period, **arguments), data / "rides" / f"{period}.parquet")


@contextmanager
def workbench(root: Path, data: Path, declared: ModelSpec | None = None, sql: str = SQL) -> Iterator[Workbench]:
    """A workbench of the model with a lake and an MLflow store below `root`; its MLflow run is closed at the end."""
    home = Home(root)
    declared = declared or spec()
    tracking.initialise(home.tracking_uri, home.artifacts)
    client = tracking.client(home.tracking_uri)
    experiment = tracking.experiment(client, declared.name, home.artifacts)
    with tracking.open_run(client, experiment, "test") as run_id, duckdb.connect() as con:
        yield Workbench(
            spec=declared,
            sql=sql,
            home=home,
            lake=Lake(home.lake_url),
            con=con,
            store=Store(home.store_url),
            period_run=PeriodRun(client, experiment, run_id),
            data_dir=data,
        )


@contextmanager
def ingested(root: Path, declared: ModelSpec, periods: Sequence[str]) -> Iterator[Workbench]:
    """A workbench with the features and profiles of some months."""
    from mlops_assets.monitored_model.steps import features, profile, raw

    write_rides(root / "data", periods)
    with workbench(root / "home", root / "data", declared) as bench:
        for period in periods:
            for step in (raw, features, profile):
                step.make(bench, period)
        yield bench
