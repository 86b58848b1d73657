"""Fill a home with the tests' tiny model, and pack what a later version of the code reads of it.

Run it with the code whose homes are to be kept readable: `python make_home.py FOLDER ARCHIVE` (see README.md).
"""

import json
import os
import shutil
import sqlite3
import sys
import tarfile
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

# How many months: the day on which the rides turn, and the month in which they turn again.
HISTORIES = {8: (date(2021, 4, 11), "2021-07"), 9: (date(2021, 6, 11), "2021-08")}
CANDIDATES = [
    {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 200}},
    {"estimator": "xgboost.XGBClassifier", "params": {"n_estimators": 10, "max_depth": 3}},
]


def main(folder: Path, archive: Path, number: int) -> None:
    """A severe month served by plan B and its recovery, a severe month that is accepted, a rollback at the end."""
    months = [f"2021-{month:02}" for month in range(1, number + 1)]
    turned, turned_again = HISTORIES[number]
    accepted = months.index(turned_again)
    os.environ |= {"MLOPS_HOME": str(folder / "home"), "MLOPS_DATA_DIR": str(folder / "data")}
    import dagster as dg

    from mlops_assets import monitoring
    from mlops_assets.home import Home
    from mlops_assets.incidents.store import Store
    from mlops_assets.lake.store import Lake
    from mlops_assets.monitored_model import decisions
    from mlops_assets.monitored_model.backfill import backfill
    from mlops_assets.training import tracking
    from mlops_assets_tests import rides_graph, tiny_model

    home = Home.from_env()
    home.prepare_dagster()
    quiet = turned.month - 1
    tiny_model.write_rides(folder / "data", months[:quiet])
    tiny_model.write_rides(folder / "data", months[quiet:], since=turned)
    rides = tiny_model.rides(turned_again)
    fees = pa.array([40.0 if number % 5 else 5.0 for number in range(rides.num_rows)])
    rides = rides.set_column(rides.schema.get_field_index("fee"), "fee", fees)
    pq.write_table(rides, folder / "data" / "rides" / f"{turned_again}.parquet")
    spec = tiny_model.spec(candidates=CANDIDATES, staging=2)
    definitions = rides_graph.definitions(spec)
    lake, store = Lake(home.lake_url), Store(home.store_url)

    def run(*periods: str) -> None:
        with dg.DagsterInstance.get() as instance:
            for result in backfill(definitions, "rides", list(periods), instance=instance):
                print(result.period, result.outcome, result.errors, flush=True)

    run(*months[: accepted + 1])
    report = lake.partition("rides", "drift_report", turned_again)
    print(report.facts["verdict"])
    decisions.accept(
        "rides", lake, store, turned_again, report.facts["report_digest"], "ann", "a new tariff, agreed upon"
    )
    run(*months[accepted:])
    print(decisions.rollback("rides", lake, store, None, "bob", "the new one is not trusted yet"))
    run(months[-1])
    client = tracking.client(home.tracking_uri)
    expected = {
        "spec": spec.model_dump(mode="json", exclude_unset=True),
        "sql": tiny_model.SQL,
        "status": [line.as_dict() for line in monitoring.periods(lake, "rides")],
        "aliases": {name: str(version) for name, version in client.get_registered_model("rides").aliases.items()},
        "digests": {
            table: {period: lake.partition("rides", table, period).digest for period in lake.periods("rides", table)}
            for table in rides_graph.TABLES
        },
    }
    pack(home.root, folder / "data", expected, archive)


def pack(home: Path, data: Path, expected: dict, archive: Path) -> None:
    """Home and data without what is only looked at: Dagster's logs, reports, studies, pictures, examples."""
    (home / "expected.json").write_text(json.dumps(expected, indent=1, default=str))
    for name in ("dagster", "reports", "evidently", "optuna", "downloads", "logs"):
        shutil.rmtree(home / name, ignore_errors=True)
    for database in home.rglob("*.db"):
        with sqlite3.connect(database) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("VACUUM")
    for path in home.rglob("*"):
        if path.suffix in (".png", ".html"):
            path.unlink()
    with tarfile.open(archive, "w:xz") as packed:
        packed.add(home, "home")
        packed.add(data, "data")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]), int(sys.argv[3]))
