from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.lake.periods import Calendar, PeriodError

MONTHLY, WEEKLY = Calendar("monthly"), Calendar("weekly")
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1))


@settings(max_examples=50, deadline=None)
@given(moment=MOMENTS, calendar=st.sampled_from([MONTHLY, WEEKLY]), n=st.integers(-60, 60))
def test_every_moment_lies_in_its_period_and_periods_join_without_gap(
    moment: datetime, calendar: Calendar, n: int
) -> None:
    period = calendar.of(moment)
    assert calendar.start(period) <= moment < calendar.end(period)
    assert calendar.end(period) == calendar.start(calendar.shift(period, 1))
    assert calendar.of(calendar.end(period) - timedelta(microseconds=1)) == period
    assert calendar.shift(calendar.shift(period, n), -n) == period
    assert (calendar.shift(period, n) > period) == (n > 0)


def test_a_window_is_relative_to_its_period_and_includes_both_ends() -> None:
    assert MONTHLY.window("2021-01", (-2, 0)) == ["2020-11", "2020-12", "2021-01"]
    assert WEEKLY.window("2014-01-06", (-1, -1)) == ["2013-12-30"]


@pytest.mark.parametrize(
    ("calendar", "period", "complaint"),
    [
        (MONTHLY, "2021-13", "'2021-13' is not a month; expected e.g. '2021-03'"),
        (MONTHLY, "2021-1", "is not a month"),
        (MONTHLY, "2021-01-01", "is not a month"),
        (WEEKLY, "2014-01", "is not a week"),
        (WEEKLY, "2014-02-30", "is not a week"),
        (WEEKLY, "2014-01-08", "is a Wednesday.*expected '2014-01-06'"),
    ],
)
def test_what_is_no_period_is_refused_with_what_was_expected(calendar: Calendar, period: str, complaint: str) -> None:
    with pytest.raises(PeriodError, match=complaint):
        calendar.validate(period)


def test_a_range_has_both_ends_and_one_period_is_a_range_too() -> None:
    assert MONTHLY.parse_range("2021-11..2022-01") == ["2021-11", "2021-12", "2022-01"]
    assert MONTHLY.parse_range("2021-11") == ["2021-11"]
    assert WEEKLY.parse_range("2014-01-06..2014-01-13") == ["2014-01-06", "2014-01-13"]


@pytest.mark.parametrize("text", ["2021-02..2021-01", "2021-01..", "..2021-01", "", "2021-01...2021-02"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(PeriodError):
        MONTHLY.parse_range(text)


def test_an_unknown_cadence_is_refused() -> None:
    with pytest.raises(PeriodError, match="'daily' is not a cadence"):
        Calendar("daily")  # type: ignore[arg-type]
