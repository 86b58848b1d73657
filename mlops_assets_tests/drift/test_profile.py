"""Profiles are exact, add up, and come back from storage as they were."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.drift.profile import ColumnProfile, Profile, profile, significant

KINDS: dict[str, Any] = {"amount": "numeric", "flag": "numeric", "city": "categorical"}
FIRST = datetime(2022, 12, 1)

rows = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(0, 4).map(lambda d: FIRST + timedelta(days=d, hours=d))),
        st.one_of(
            st.none(),
            st.integers(-3, 3).map(float),
            st.floats(-1e9, 1e9, allow_subnormal=False),
            st.sampled_from([float("nan"), float("inf"), -0.0]),
        ),
        st.one_of(st.none(), st.booleans()),
        st.one_of(st.none(), st.sampled_from(["Zürich", "New York", "", "o'b"])),
    ),
    max_size=30,
)
TYPES = pa.schema([("at", pa.timestamp("us")), ("amount", pa.float64()), ("flag", pa.bool_()), ("city", pa.string())])


@pytest.fixture(scope="module")
def con() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    return connection


def of_rows(con: duckdb.DuckDBPyConnection, given_rows: list[Any], **options: Any) -> Profile:
    columns = list(zip(*given_rows, strict=True)) or [[]] * 4
    table = pa.table([pa.array(c, type=f.type) for c, f in zip(columns, TYPES, strict=True)], schema=TYPES)
    con.register("given", table)
    return profile(con, "given", KINDS, "at", **options)


@settings(max_examples=20, deadline=None)
@given(rows, rows)
def test_profiles_of_parts_add_up_to_the_profile_of_the_whole(
    con: duckdb.DuckDBPyConnection, a: list[Any], b: list[Any]
) -> None:
    assert of_rows(con, a) + of_rows(con, b) == of_rows(con, a + b)
    assert (of_rows(con, a) + of_rows(con, b)).rows == len(a) + len(b)


@settings(max_examples=20, deadline=None)
@given(rows)
def test_a_profile_comes_back_from_storage_as_it_was(con: duckdb.DuckDBPyConnection, a: list[Any]) -> None:
    made = of_rows(con, a)
    assert Profile.from_arrow(made.to_arrow(), KINDS) == made
    # Row order and columns that the store adds don't matter.
    stored = made.to_arrow().append_column("period", pa.repeat("2022-12", made.to_arrow().num_rows))
    assert Profile.from_arrow(stored.take(pa.array(np.arange(stored.num_rows)[::-1])), KINDS) == made


@settings(max_examples=20, deadline=None)
@given(rows)
def test_a_column_profile_equals_counting_the_rows(con: duckdb.DuckDBPyConnection, a: list[Any]) -> None:
    made = of_rows(con, a)
    for position, name in ((1, "amount"), (3, "city")):
        expected = ColumnProfile.of(name, KINDS[name], [row[position] for row in a])
        found = made.column(name)
        assert found.values.tolist() == expected.values.tolist()
        assert found.counts.tolist() == expected.counts.tolist()
        assert found.nulls == expected.nulls


def test_days_can_be_cut_out(con: duckdb.DuckDBPyConnection) -> None:
    given_rows = [(FIRST + timedelta(days=i % 5), float(i), True, "x") for i in range(50)]
    made = of_rows(con, [*given_rows, (None, 1.0, False, "y")])
    assert made.days == [date(2022, 12, d) for d in range(1, 6)]
    assert made.between(date(2022, 12, 2), date(2022, 12, 3)) == made.on([date(2022, 12, 2), date(2022, 12, 3)])
    cut = made.between(date(2022, 12, 2), date(2022, 12, 3))
    assert cut.rows == 20
    assert cut.column("amount").distinct == 20
    assert "y" not in cut.column("city").values


def test_no_time_column_means_no_days(con: duckdb.DuckDBPyConnection) -> None:
    made = profile(con, "(SELECT range % 3 AS n FROM range(10))", {"n": "numeric"}, None)
    assert made.days == []
    assert made.column("n").counts.tolist() == [4, 3, 3]


def test_nan_infinity_and_null_are_nulls_and_minus_zero_is_zero(con: duckdb.DuckDBPyConnection) -> None:
    numbers = [float("nan"), float("inf"), float("-inf"), None, -0.0, 0.0]
    found = of_rows(con, [(FIRST, n, None, None) for n in numbers]).column("amount")
    assert (found.values.tolist(), found.counts.tolist(), found.nulls) == ([0.0], [2], 4)


@pytest.mark.parametrize("type_", ["TINYINT", "BIGINT", "DOUBLE", "FLOAT", "DECIMAL(9,2)", "HUGEINT", "VARCHAR"])
def test_whole_numbers_as_categories_read_the_same_whatever_their_type(
    con: duckdb.DuckDBPyConnection, type_: str
) -> None:
    sql = f"(SELECT unnest([7, 7, 12, NULL])::{type_} AS zone)"
    found = profile(con, sql, {"zone": "categorical"}, None).column("zone")
    assert (found.values.tolist(), found.counts.tolist(), found.nulls) == (["12", "7"], [1, 2], 1)


def test_an_untyped_all_null_column_counts_nulls(con: duckdb.DuckDBPyConnection) -> None:
    kinds: dict[str, Any] = {"n": "numeric", "c": "categorical"}
    made = profile(con, "(SELECT NULL AS n, NULL AS c FROM range(3))", kinds, None)
    assert [made.column(name).nulls for name in kinds] == [3, 3]


def test_no_rows_make_an_empty_profile(con: duckdb.DuckDBPyConnection) -> None:
    made = of_rows(con, [])
    assert made == Profile.empty(KINDS)
    assert (made.rows, made.days, made.columns) == (0, [], list(KINDS))


# About 9,000 values at four significant digits, 900 at three.
FINE = "(SELECT 0.1 + 0.9 * (hash(range) / 18446744073709551616) AS fine, range % 7 AS coarse FROM range(40000))"


def test_many_valued_columns_are_rounded_and_say_so(con: duckdb.DuckDBPyConnection) -> None:
    kinds: dict[str, Any] = {"fine": "numeric", "coarse": "numeric"}
    exact = profile(con, FINE, kinds, None).column("fine")
    made = profile(con, FINE, kinds, None, quantise_above=20_000)
    fine = made.column("fine")
    assert (exact.digits, fine.digits, made.column("coarse").digits) == (None, 4, None)
    expected, counts = np.unique(np.round(exact.values, 4), return_counts=True)
    assert fine.values.tolist() == expected.tolist()
    assert np.abs(fine.counts - counts).sum() <= 2
    assert profile(con, FINE, kinds, None, quantise_above=5000).column("fine").digits == 3


def test_a_sum_is_on_the_coarser_grid(con: duckdb.DuckDBPyConnection) -> None:
    kinds: dict[str, Any] = {"fine": "numeric"}
    exact = profile(con, FINE, kinds, None)
    rounded = profile(con, FINE, kinds, None, quantise_above=20_000)
    both = (exact + rounded).column("fine")
    assert both.digits == 4
    assert both.values.tolist() == rounded.column("fine").values.tolist()
    assert both.counts.tolist() == (2 * rounded.column("fine").counts).tolist()
    assert exact + rounded == rounded + exact


magnitudes = st.floats(1e-15, 1e15)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(magnitudes, magnitudes.map(lambda v: -v)), min_size=1, max_size=20), st.integers(2, 5))
def test_rounding_gives_the_double_nearest_to_the_decimal(values: list[float], digits: int) -> None:
    found = significant(np.array(values), digits)
    for value, rounded in zip(values, found.tolist(), strict=True):
        assert rounded == float(f"{rounded:.{digits - 1}e}")
        # A little more than half a unit: a value on a tie may go either way.
        assert rounded == pytest.approx(value, rel=0.51 * 10.0 ** (1 - digits), abs=0)
    assert significant(found, digits).tolist() == found.tolist()


def test_a_column_that_one_side_lacks_counts_as_null_there(con: duckdb.DuckDBPyConnection) -> None:
    one = profile(con, "(SELECT 1 AS a FROM range(3))", {"a": "numeric"}, None)
    two = profile(con, "(SELECT 1 AS a, 'x' AS b FROM range(2))", {"a": "numeric", "b": "categorical"}, None)
    both = one + two
    assert (both.rows, both.column("b").nulls, both.column("b").rows) == (5, 3, 5)
    assert Profile.empty({}) + two == two


def test_a_missing_column_is_named(con: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(ValueError, match=r"\['nope'\] are not in the data.*it has a"):
        profile(con, "(SELECT 1 AS a)", {"nope": "numeric"}, None)
    with pytest.raises(ValueError, match="declared numeric but has type VARCHAR"):
        profile(con, "(SELECT 'x' AS a)", {"a": "numeric"}, None)


def test_profiles_of_different_kinds_do_not_add_up(con: duckdb.DuckDBPyConnection) -> None:
    number = profile(con, "(SELECT 1 AS a)", {"a": "numeric"}, None)
    text = profile(con, "(SELECT 'x' AS a)", {"a": "categorical"}, None)
    with pytest.raises(ValueError, match="numeric on one side and categorical on the other"):
        number + text


def test_a_table_that_is_no_profile_is_refused() -> None:
    with pytest.raises(ValueError, match="not a stored profile"):
        Profile.from_arrow(pa.table({"a": [1]}))


def test_odd_column_names_are_quoted(con: duckdb.DuckDBPyConnection) -> None:
    made = profile(con, '(SELECT 1 AS "a ""b"" c")', {'a "b" c': "numeric"}, None)
    assert made.rows == 1
