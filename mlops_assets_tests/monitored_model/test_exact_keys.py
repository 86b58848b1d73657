"""A record's key comes out as it went in, whatever its type, and a category is the same one in every file."""

import uuid
from datetime import date, timedelta
from decimal import Decimal
from importlib import import_module

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.lake.store import quoted
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets_tests import tiny_model

STEPS = (
    *("raw", "features", "profile", "challenger", "champion", "predictions", "drift_report"),
    *("fallback_predictions", "served_predictions", "performance"),
)
MONTHS = ["2021-01", "2021-02", "2021-03", "2021-04"]
LARGE = 900_000_000_000_000_001

KEYS = {
    "decimal_id": "DECIMAL(38,0)",
    "huge_id": "HUGEINT",
    "unsigned_id": "UBIGINT",
    "price_id": "DECIMAL(18,4)",
    "guid": "UUID",
    "bytes_id": "BLOB",
    "text_id": "VARCHAR",
    "day": "DATE",
    "moment": "TIMESTAMP_NS",
}
SPEC = {
    "source": {
        "path": "rides/{period}.parquet",
        "time_column": "started_at",
        "keys": list(KEYS),
        "schema": {**tiny_model.SPEC["source"]["schema"], **KEYS, "branch": "DECIMAL(38,0)"},
    },
    "columns": {**tiny_model.SPEC["columns"], "branch": {"categorical": True, "isin": [LARGE, LARGE + 1, LARGE + 2]}},
    "segments": ["branch"],
}
SQL = f"""
SELECT {", ".join(KEYS)}, started_at, fare, fee, zone, hour(started_at) AS hour, branch,
    (payment = 2)::INTEGER AS is_cash
FROM raw_rides
"""


def rides(period: str) -> pa.Table:
    """Rides whose keys differ in the last digit only, and three branches that are one number as doubles."""
    table = tiny_model.rides(period)
    numbers = range(table.num_rows)
    month = int(period[-2:])
    own = {
        "decimal_id": pa.array([Decimal(LARGE + n) for n in numbers], pa.decimal128(38, 0)),
        "huge_id": pa.array([Decimal(10**30 + n) for n in numbers], pa.decimal128(38, 0)),
        "unsigned_id": pa.array([2**64 - 1 - n for n in numbers], pa.uint64()),
        "price_id": pa.array([Decimal(10**12 + n).scaleb(-4) for n in numbers], pa.decimal128(18, 4)),
        "guid": pa.array([str(uuid.UUID(int=2**127 + n)) for n in numbers]),
        "bytes_id": pa.array([b"\x00\xff" + n.to_bytes(4, "big") for n in numbers], pa.binary()),
        "text_id": pa.array([f"0{n}.0" for n in numbers]),
        "day": pa.array([date(1900, 1, 1) + timedelta(days=n) for n in numbers], pa.date32()),
        "moment": pa.array([month * 10**18 + n for n in numbers], pa.timestamp("ns")),
        "branch": pa.array([Decimal(LARGE + n % 3) for n in numbers], pa.decimal128(38, 0)),
    }
    for name, values in own.items():
        table = table.append_column(name, values)
    return table


def make(bench: Workbench, months: list[str]) -> None:
    for period in months:
        for step in STEPS:
            import_module(f"mlops_assets.monitored_model.steps.{step}").make(bench, period)


def test_keys_and_categories_are_exact_from_the_file_to_what_is_served(tmp_path):
    (tmp_path / "rides").mkdir()
    for period in MONTHS:
        pq.write_table(rides(period), tmp_path / "rides" / f"{period}.parquet")
    with tiny_model.workbench(tmp_path / "home", tmp_path, tiny_model.spec(**SPEC), SQL) as bench:
        make(bench, MONTHS)
        period = MONTHS[-1]
        given = f"read_parquet({quoted(str(tmp_path / 'rides' / f'{period}.parquet'))})"
        for table in ("features", "predictions", "served_predictions"):
            same = " AND ".join(
                f"s.{name} = g.{name}" if name != "guid" else "s.guid::VARCHAR = g.guid::VARCHAR" for name in KEYS
            )
            joined = bench.con.sql(
                f"SELECT count(*) FROM {bench.scan(table, [period])} s JOIN {given} g ON {same}"
            ).fetchall()
            assert joined == [(600,)], f"{table} lost the keys of some records"
        report = bench.partition("drift_report", period)
        assert report.facts["verdict"] == "ok"
        counted = bench.con.sql(
            f"SELECT DISTINCT text FROM {bench.scan('profile', [period])} WHERE \"column\" = 'branch' ORDER BY ALL"
        ).fetchall()
        branches = [str(LARGE + n) for n in range(3)]
        assert [text for (text,) in counted] == branches
        segments = bench.con.sql(
            f"SELECT DISTINCT segment FROM {bench.scan('performance', [period])} WHERE segment IS NOT NULL ORDER BY ALL"
        ).fetchall()
        assert [segment for (segment,) in segments] == branches
        page = (bench.home.reports / "rides" / f"{period}.html").read_text()
        assert all(branch in page for branch in branches), "the page shows a branch as another"
