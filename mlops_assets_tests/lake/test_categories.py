"""A category has one name, whatever type holds it and whoever asks."""

import random
from datetime import date, datetime
from decimal import Decimal

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlops_assets.drift.profile import ColumnProfile, profile
from mlops_assets.lake.categories import category_text, number_text_sql, text_of_each
from mlops_assets.lake.frames import exact_frame
from mlops_assets.training.encoding import as_category

LARGE = 900000000000000001  # no double is this number
UUID_TEXT = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
TYPES = {
    "TINYINT": "3",
    "BIGINT": str(LARGE),
    "UBIGINT": "18446744073709551615",
    "HUGEINT": "170141183460469231731687303715884105",
    "DECIMAL(38,0)": str(LARGE),
    "DECIMAL(10,2)": "3.50",
    "DECIMAL(30,20)": "0.12345678901234567891",
    "DOUBLE": "3.0",
    "FLOAT": "0.1",
    "BOOLEAN": "true",
    "DATE": "'2021-01-31'",
    "TIMESTAMP": "'2021-01-31 10:00:00.5'",
    "TIMESTAMP_NS": "'2021-01-31 10:00:00.123456789'",
    "TIMESTAMPTZ": "'2021-01-31 10:00:00+00'",
    "TIME": "'10:00:00'",
    "UUID": f"'{UUID_TEXT}'",
    "BLOB": "'\\xAAb'",
    "VARCHAR": "'05.0'",
}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (3.0, "3"),
        (np.float32(3.0), "3"),
        (-0.0, "0"),
        (Decimal("3.00"), "3"),
        (Decimal("3.50"), "3.5"),
        (3.5, "3.5"),
        (Decimal(LARGE), str(LARGE)),
        (LARGE, str(LARGE)),
        (1e16, "10000000000000000"),
        (0.00001, "1e-05"),
        (Decimal("0.00001"), "1e-05"),
        (Decimal("0.12345678901234567891"), "0.12345678901234567891"),
        (True, "true"),
        (date(2021, 1, 31), "2021-01-31"),
        (datetime(2021, 1, 31, 10), "2021-01-31 10:00:00"),
        ("05.0", "05.0"),
        (float("inf"), None),
        (float("nan"), None),
    ],
)
def test_a_category_has_one_text_whatever_its_type(value, text):
    assert category_text(value) == text


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("beside", ["", "UNION ALL SELECT NULL"])
def test_encoder_profile_and_segments_name_the_category_of_every_type_alike(type_, beside):
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute("SET TimeZone = 'UTC'")
        sql = f"(SELECT {TYPES[type_]}::{type_} AS value {beside})"
        counted = list(profile(con, sql, {"value": "categorical"}, None).column("value").values)
        column = exact_frame(con.sql(f"FROM {sql}").to_arrow_table())["value"]
        assert list(as_category(column).categories) == counted
        assert [text for text in text_of_each(column) if text is not None] == counted
        assert len(counted) == 1


def test_the_same_number_is_one_category_in_every_number_type():
    with duckdb.connect() as con:
        for type_ in ("BIGINT", "HUGEINT", "DOUBLE", "FLOAT", "DECIMAL(10,0)", "DECIMAL(10,3)"):
            found = profile(con, f"(SELECT 12::{type_} AS value)", {"value": "categorical"}, None)
            assert list(found.column("value").values) == ["12"], type_
            assert con.sql(f"SELECT {number_text_sql('v')} FROM (SELECT 12::{type_} AS v)").fetchall() == [("12",)]


def test_sql_and_python_give_doubles_and_decimals_the_same_text():
    rng = random.Random(1)
    doubles = [rng.choice([-1, 1]) * rng.random() * 10 ** rng.randint(-12, 30) for _ in range(500)]
    decimals = [Decimal(rng.randint(-(10**9), 10**9)).scaleb(-rng.randint(0, 4)) for _ in range(500)]
    with duckdb.connect() as con:
        for values, type_ in ((doubles, pa.float64()), (decimals, pa.decimal128(18, 4))):
            con.register("given", pa.table({"v": pa.array(values, type_)}))
            texts = [text for (text,) in con.sql(f"SELECT {number_text_sql('v')} FROM given").fetchall()]
            assert texts == [category_text(value) for value in values]


def test_infinite_categories_are_missing_for_the_encoder_and_the_profile():
    values = pd.Series([1.0, np.inf, np.nan])
    assert list(as_category(values).codes) == [0, -1, -1]
    assert ColumnProfile.of("c", "categorical", values).nulls == 2


def test_no_integer_decimal_or_date_changes_on_its_way_to_pandas():
    table = pa.table(
        {
            "id": pa.array([LARGE, None], pa.int64()),
            "key": pa.array([Decimal(LARGE), None], pa.decimal128(38, 0)),
            "day": pa.array([date(2021, 1, 31), None], pa.date32()),
            "small": pa.array([3, None], pa.int64()),
        }
    )
    frame = exact_frame(table)
    assert [frame[name][0] for name in ("id", "key", "day")] == [LARGE, Decimal(LARGE), date(2021, 1, 31)]
    assert frame["small"].dtype == np.float64, "where doubles are exact, a column stays what pandas users know"
