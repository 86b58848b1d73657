"""Rows of the shipped taxi months, cleaned by the rules of the model's SQL."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd

from mlops_assets.lake.columns import Kind
from mlops_assets.training.search import Split

DATA = Path(__file__).resolve().parents[2] / "data" / "green_taxi"
NOMINAL = ("PULocationID", "DOLocationID")
COLUMNS = [
    "fare_amount",
    "trip_distance",
    "passenger_count",
    "pickup_hour",
    "pickup_weekday",
    "trip_duration_minutes",
    "RatecodeID",
    "VendorID",
    "trip_type",
    "PULocationID",
    "DOLocationID",
    "congestion_surcharge",
    "extra",
    "tolls_amount",
    "mta_tax",
    "improvement_surcharge",
]
KINDS: dict[str, Kind] = {c: "categorical" if c in NOMINAL else "numeric" for c in COLUMNS}
CLEANED = """
SELECT fare_amount, trip_distance, passenger_count, hour(lpep_pickup_datetime) AS pickup_hour,
       isodow(lpep_pickup_datetime) - 1 AS pickup_weekday,
       epoch(lpep_dropoff_datetime - lpep_pickup_datetime) / 60 AS trip_duration_minutes,
       coalesce(RatecodeID, 1)::BIGINT AS RatecodeID, coalesce(VendorID, 1)::BIGINT AS VendorID,
       coalesce(trip_type, 1)::BIGINT AS trip_type, coalesce(PULocationID, 0)::BIGINT AS PULocationID,
       coalesce(DOLocationID, 0)::BIGINT AS DOLocationID, coalesce(mta_tax, 0) AS mta_tax,
       coalesce(congestion_surcharge, 0) AS congestion_surcharge, coalesce(extra, 0) AS extra,
       coalesce(tolls_amount, 0) AS tolls_amount,
       coalesce(improvement_surcharge, 0) AS improvement_surcharge, (payment_type = 2)::INTEGER AS is_cash
FROM read_parquet(?, file_row_number = true)
WHERE payment_type IS NOT NULL AND fare_amount > 0 AND trip_distance > 0
  AND lpep_dropoff_datetime > lpep_pickup_datetime AND file_row_number % ? = 0
ORDER BY file_row_number
"""


def month(period: str, every: int = 1) -> pd.DataFrame:
    """Every n-th cleaned trip of a shipped month."""
    path = str(DATA / f"green_tripdata_{period}.parquet")
    return duckdb.connect().execute(CLEANED, [path, every]).df()


def split(period: str, every: int = 1) -> Split:
    rows = month(period, every)
    return Split(rows[COLUMNS], rows["is_cash"].to_numpy())
