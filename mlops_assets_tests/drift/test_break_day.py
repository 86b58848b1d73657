"""The break day is the first day from which columns stay severe, and nothing less."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import duckdb
import numpy as np
import pytest

from mlops_assets.drift.break_day import break_day, column_breaks, psi_by_day
from mlops_assets.drift.profile import Profile, profile

FIRST, LAST = date(2022, 12, 1), date(2022, 12, 31)
REFERENCE_FIRST = date(2022, 8, 1)
KINDS: dict[str, Any] = {"fee": "numeric", "tax": "numeric", "weekday": "numeric"}


@pytest.fixture(scope="module")
def con() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def month(
    con: duckdb.DuckDBPyConnection, first: date, *, fee: str = "false", tax: str = "false", per_day: int = 400
) -> Profile:
    """31 days of `per_day` rows; `fee` and `tax` change under these SQL conditions on `day` (1 to 31)."""
    sql = f"""(
        SELECT DATE '{first}' + CAST(d - 1 AS INTEGER) AS at,
            CASE WHEN {fee} THEN 1.0 ELSE 0.3 * (n % 10 > 0)::INT END AS fee,
            CASE WHEN {tax} THEN 1.5 ELSE 0.5 * (n % 4 > 0)::INT END AS tax,
            isodow(DATE '{first}' + CAST(d - 1 AS INTEGER)) AS weekday
        FROM (SELECT d, d AS day, n FROM range(1, 32) days(d), range({per_day}) rows(n))
    )"""
    return profile(con, sql, KINDS, "at")


LIMITS = {"fee": 0.25, "tax": 0.25}


def breaks(reference: Profile, current: Profile, limits: dict[str, float]) -> Any:
    return column_breaks(reference, current, limits, first_day=FIRST, last_day=LAST)


def test_the_day_of_a_lasting_change_is_found(con: duckdb.DuckDBPyConnection) -> None:
    reference = month(con, REFERENCE_FIRST)
    current = month(con, FIRST, fee="day >= 19", tax="day >= 22")
    found = breaks(reference, current, LIMITS)
    assert (found["fee"].since, found["fee"].is_jump) == (date(2022, 12, 19), True)
    # All columns stay severe only once the last one has turned.
    assert break_day(reference, current, LIMITS, first_day=FIRST, last_day=LAST) == date(2022, 12, 22)


def test_a_change_that_goes_away_is_no_break(con: duckdb.DuckDBPyConnection) -> None:
    reference, current = (
        month(con, REFERENCE_FIRST),
        month(con, FIRST, fee="day >= 19", tax="day BETWEEN 10 AND 30"),
    )
    assert breaks(reference, current, LIMITS)["tax"].since is None
    assert break_day(reference, current, LIMITS, first_day=FIRST, last_day=LAST) is None


def test_a_lapse_moves_the_break_behind_it(con: duckdb.DuckDBPyConnection) -> None:
    reference = month(con, REFERENCE_FIRST)
    current = month(con, FIRST, fee="day >= 10 AND day <> 15")
    assert breaks(reference, current, {"fee": 0.25})["fee"].since == date(2022, 12, 16)


def test_a_change_from_the_first_day_is_no_jump(con: duckdb.DuckDBPyConnection) -> None:
    found = breaks(month(con, REFERENCE_FIRST), month(con, FIRST, fee="true"), {"fee": 0.25})["fee"]
    assert (found.since, found.is_jump) == (FIRST, False)


def test_days_with_too_few_rows_to_tell_are_skipped(con: duckdb.DuckDBPyConnection) -> None:
    reference, current = month(con, REFERENCE_FIRST), month(con, FIRST, fee="day >= 19")
    thin = current.between(FIRST, date(2022, 12, 24)) + month(con, FIRST, per_day=3).between(date(2022, 12, 25), LAST)
    assert breaks(reference, thin, {"fee": 0.25})["fee"].since == date(2022, 12, 19)
    found = breaks(reference, month(con, FIRST, per_day=3), {"fee": 0.25})["fee"]
    assert (found.since, found.judged) == (None, False)


def test_only_days_of_the_period_count(con: duckdb.DuckDBPyConnection) -> None:
    reference, current = month(con, REFERENCE_FIRST), month(con, FIRST, fee="day >= 19")
    current += month(con, date(2009, 1, 1), fee="true") + month(con, date(2023, 1, 1))
    assert breaks(reference, current, {"fee": 0.25})["fee"].since == date(2022, 12, 19)


def test_a_weekly_rhythm_is_no_drift(con: duckdb.DuckDBPyConnection) -> None:
    daily = psi_by_day(month(con, REFERENCE_FIRST), month(con, FIRST), ["weekday"])
    assert len(daily.days) == 31
    assert daily.rows.tolist() == [400] * 31
    assert daily.psi.max() < 0.01


def test_a_column_whose_reference_days_differ_anyway_has_no_say(con: duckdb.DuckDBPyConnection) -> None:
    reference = month(con, REFERENCE_FIRST, tax="day % 2 = 0")
    current = month(con, FIRST, fee="day >= 19", tax="day % 2 = 0")
    found = breaks(reference, current, LIMITS)
    assert not found["tax"].judged
    assert break_day(reference, current, LIMITS, first_day=FIRST, last_day=LAST) == date(2022, 12, 19)


def test_a_reference_without_days_is_compared_as_a_whole(con: duckdb.DuckDBPyConnection) -> None:
    sql = "(SELECT 0.3 * (range % 10 > 0)::INT AS fee FROM range(10000))"
    reference = profile(con, sql, {"fee": "numeric"}, None)
    found = breaks(reference, month(con, FIRST, fee="day >= 19"), {"fee": 0.25})["fee"]
    assert found.since == date(2022, 12, 19)


def test_rows_without_days_have_no_break(con: duckdb.DuckDBPyConnection) -> None:
    kinds: dict[str, Any] = {"fee": "numeric"}
    current = profile(con, "(SELECT 1.0 AS fee FROM range(1000))", kinds, None)
    assert break_day(month(con, REFERENCE_FIRST), current, {"fee": 0.25}, first_day=FIRST, last_day=LAST) is None


def test_psi_by_day_is_the_psi_of_the_days_profile_when_the_reference_is_thin(
    con: duckdb.DuckDBPyConnection,
) -> None:
    from mlops_assets.drift.distances import psi

    # Two weeks hold each weekday twice, too few to compare weekdays with their like.
    reference = month(con, REFERENCE_FIRST).between(REFERENCE_FIRST, REFERENCE_FIRST + timedelta(days=13))
    current = month(con, FIRST, fee="day >= 19", tax="day >= 5")
    daily = psi_by_day(reference, current, ["fee", "tax"])
    for i in (0, 10, 30):
        day = current.on([daily.days[i]])
        expected = [psi(reference.column(c), day.column(c)) for c in daily.columns]
        assert np.allclose(daily.psi[i], expected)
