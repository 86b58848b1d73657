"""The city's fare change of 2022-12-19, in the shipped trips."""

from __future__ import annotations

import calendar
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mlops_assets.drift import distances
from mlops_assets.drift.profile import Profile, profile
from mlops_assets.drift.verdict import DriftReport, DriftThresholds, compare
from mlops_assets_tests.drift.test_distances import assert_equals_evidently

DATA = Path(__file__).parents[2] / "data" / "green_taxi"
CATEGORICAL = ["RatecodeID", "VendorID", "trip_type", "PULocationID", "DOLocationID"]
NUMERIC = [
    *("fare_amount", "trip_distance", "passenger_count", "pickup_hour", "pickup_weekday"),
    *("trip_duration_minutes", "congestion_surcharge", "extra", "tolls_amount", "mta_tax"),
    "improvement_surcharge",
]
KINDS: dict[str, Any] = dict.fromkeys(NUMERIC, "numeric") | dict.fromkeys(CATEGORICAL, "categorical")
MONTHS = [f"{year}-{month:02d}" for year in (2021, 2022, 2023) for month in range(1, 13)][:27]


def trips(month: str) -> str:
    surcharges = ["congestion_surcharge", "extra", "tolls_amount", "mta_tax", "improvement_surcharge"]
    pickup, dropoff = "lpep_pickup_datetime", "lpep_dropoff_datetime"
    return f"""(
        SELECT {pickup}, fare_amount, trip_distance, passenger_count, hour({pickup}) AS pickup_hour,
            isodow({pickup}) - 1 AS pickup_weekday,
            epoch({dropoff} - {pickup}) / 60.0 AS trip_duration_minutes,
            {", ".join(f"coalesce({c}, 1)::BIGINT AS {c}" for c in ("RatecodeID", "VendorID", "trip_type"))},
            {", ".join(f"coalesce({c}, 0)::BIGINT AS {c}" for c in ("PULocationID", "DOLocationID"))},
            {", ".join(f"coalesce({c}, 0)::DOUBLE AS {c}" for c in surcharges)}
        FROM read_parquet('{DATA}/green_tripdata_{month}.parquet')
        WHERE payment_type IS NOT NULL AND fare_amount > 0 AND trip_distance > 0 AND {dropoff} > {pickup}
    )"""


@cache
def of_month(month: str) -> Profile:
    return profile(duckdb.connect(), trips(month), KINDS, "lpep_pickup_datetime")


def report(month: str, reference: Profile) -> DriftReport:
    year, number = map(int, month.split("-"))
    last = date(year, number, calendar.monthrange(year, number)[1])
    current = of_month(month)
    return compare(reference, current, KINDS, DriftThresholds(), first_day=last.replace(day=1), last_day=last)


def test_the_fare_change_is_severe_and_dated() -> None:
    found = report("2022-12", of_month("2022-08"))
    assert found.verdict == "severe"
    assert set(found.severe_columns) == {"improvement_surcharge", "mta_tax", "extra"}
    assert found.since == date(2022, 12, 19)
    for name in ("improvement_surcharge", "mta_tax", "extra"):
        line = next(reason for reason in found.reasons if reason.startswith(f"{name}: PSI"))
        assert "since 2022-12-19" in line
    assert "value 1: 0 % → 39 % of rows" in found.reasons[1]


def test_the_psi_of_the_fare_change_is_as_measured() -> None:
    def psi(month: str, column: str) -> float:
        found = distances.psi(of_month("2022-08").column(column), of_month(month).column(column))
        assert found is not None
        return found

    assert psi("2022-12", "improvement_surcharge") == pytest.approx(3.4, abs=0.1)
    assert psi("2022-12", "mta_tax") == pytest.approx(0.34, abs=0.02)
    assert psi("2023-01", "improvement_surcharge") == pytest.approx(11, abs=0.3)
    assert psi("2023-01", "mta_tax") == pytest.approx(0.92, abs=0.05)
    assert psi("2023-01", "fare_amount") == pytest.approx(0.20, abs=0.02)


def test_the_month_before_is_not_severe() -> None:
    assert report("2022-11", of_month("2022-08")).verdict == "ok"


def test_january_fits_the_new_world_and_not_the_old_one() -> None:
    since = of_month("2022-12").between(date(2022, 12, 19), date(2022, 12, 31))
    assert report("2023-01", since).verdict == "ok"
    old = report("2023-01", of_month("2022-08"))
    assert (old.verdict, old.since) == ("severe", date(2023, 1, 1))


@pytest.mark.parametrize("month", MONTHS[4:23:3])
def test_no_quiet_month_is_severe(month: str) -> None:
    found = report(month, of_month(MONTHS[MONTHS.index(month) - 4]))
    assert found.verdict in ("ok", "warning")
    assert found.severe_columns == []


def test_windows_of_months_are_sums_of_profiles() -> None:
    months = ("2022-09", "2022-10")
    summed = of_month(months[0]) + of_month(months[1])
    sql = "(" + " UNION ALL ".join(f"FROM {trips(month)}" for month in months) + ")"
    assert profile(duckdb.connect(), sql, KINDS, "lpep_pickup_datetime") == summed


def test_scores_equal_those_of_the_installed_evidently_on_real_trips() -> None:
    sides = [duckdb.sql(f"FROM {trips(month)}").df() for month in ("2022-08", "2022-12")]
    many = [side.sample(5000, random_state=0) for side in sides]
    methods = assert_equals_evidently(*many, NUMERIC, CATEGORICAL)
    assert methods == {"Wasserstein distance (normed)", "Jensen-Shannon distance"}
    few = [side.sample(700, random_state=0) for side in sides]
    methods = assert_equals_evidently(*few, NUMERIC, CATEGORICAL)
    assert methods >= {"K-S p_value", "chi-square p_value"}
