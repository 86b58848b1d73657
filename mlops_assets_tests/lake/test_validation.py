from __future__ import annotations

import math
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from mlops_assets.lake.columns import Column
from mlops_assets.lake.validation import Violation, validate


def violations(columns: dict[str, list], rules: dict[str, Column], **options: Any) -> list[Violation]:
    con = duckdb.connect()
    rows = len(next(iter(columns.values())))
    con.register("rows", pa.table({"record_id": list(range(rows)), **columns}))
    return validate(con, "SELECT * FROM rows", rules, **options)


@pytest.mark.parametrize(
    ("rules", "rule", "broken"),
    [
        (Column(gt=1), "> 1", ["0: 1.0"]),
        (Column(ge=2), ">= 2", ["0: 1.0"]),
        (Column(lt=3), "< 3", ["2: 3.0"]),
        (Column(le=2.5), "<= 2.5", ["2: 3.0"]),
        (Column(isin=[1, 2]), "in [1, 2]", ["2: 3.0"]),
        (Column(nullable=False), "not null", ["3: None"]),
    ],
)
def test_each_rule_names_the_rows_that_break_it(rules: Column, rule: str, broken: list[str]) -> None:
    (found,) = violations({"x": [1.0, 2.0, 3.0, None]}, {"x": rules})
    assert (found.column, found.rule, found.rows, found.share) == ("x", rule, 1, 0.25)
    assert list(found.examples) == broken
    assert found.failed


def test_rows_that_keep_the_rules_give_nothing_and_missing_values_keep_ranges() -> None:
    rules = {"x": Column(gt=0, lt=10), "zone": Column(categorical=True, isin=["a", "b"], nullable=False)}
    assert violations({"x": [1.0, None, 9.0], "zone": ["a", "b", "a"]}, rules) == []


def test_tolerance_decides_whether_a_broken_range_fails_but_never_a_missing_value() -> None:
    values = {"x": [-1.0, *[1.0] * 9]}
    (found,) = violations(values, {"x": Column(gt=0, tolerance=0.1)})
    assert not found.failed
    (found,) = violations(values, {"x": Column(gt=0, tolerance=0.09)})
    assert found.failed
    (found,) = violations({"x": [None, *[1.0] * 9]}, {"x": Column(nullable=False, tolerance=0.5)})
    assert found.failed


def test_infinite_numbers_break_every_numeric_column() -> None:
    (found,) = violations({"x": [math.inf, -math.inf, 1.0]}, {"x": Column()})
    assert (found.rule, found.rows) == ("finite", 2)


def test_absent_columns_and_columns_that_are_no_numbers_are_named_in_the_order_declared() -> None:
    rules = {"gone": Column(), "text": Column(gt=0), "x": Column(gt=5)}
    found = violations({"x": [1], "text": ["1"]}, rules)
    assert [violation.column for violation in found] == ["gone", "text", "x"]
    assert [violation.rule.split(",")[0] for violation in found] == ["present", "type number", "> 5"]
    assert all(violation.failed for violation in found)


def test_numbers_that_duckdb_widens_are_numbers() -> None:
    con = duckdb.connect()
    sql = "SELECT 1 AS record_id, sum(range) AS total, 0.5 AS half FROM range(3)"
    assert validate(con, sql, {"total": Column(ge=3), "half": Column(le=1)}) == []
    found = validate(con, sql, {"total": Column(gt=3), "half": Column(gt=1)})
    assert [violation.examples for violation in found] == [("1: 3.0",), ("1: 0.5",)]


def test_repeated_keys_are_found_and_shown() -> None:
    con = duckdb.connect()
    sql = "SELECT unnest([1, 2, 2, 2]) AS a, unnest(['x', 'x', 'x', 'y']) AS b"
    (found,) = validate(con, sql, {}, keys=["a"])
    assert (found.column, found.rule, found.rows, found.examples) == ("a", "unique", 2, ("2: 3 rows",))
    (found,) = validate(con, sql, {}, keys=["a", "b"])
    assert (found.column, found.rows, found.examples) == ("a, b", 1, ("2, x: 2 rows",))
    with pytest.raises(ValueError, match="no key column c; it has a, b"):
        validate(con, sql, {}, keys=["c"])


def test_counts_and_examples_add_up_over_batches() -> None:
    con = duckdb.connect()
    x = "CASE WHEN range % 100_000 = 7 THEN -1 ELSE 1 END::DOUBLE"
    sql = f"SELECT range AS record_id, {x} AS x FROM range(350_000)"
    (found,) = validate(con, sql, {"x": Column(ge=0)})
    assert found.rows == 4
    assert found.share == pytest.approx(4 / 350_000)
    assert found.examples == ("7: -1.0", "100007: -1.0", "200007: -1.0", "300007: -1.0")


def test_no_rows_break_no_rule_of_values_but_columns_have_to_be_there() -> None:
    con = duckdb.connect()
    sql = "SELECT 1 AS record_id, 1.0::DOUBLE AS x LIMIT 0"
    assert validate(con, sql, {"x": Column(gt=5, nullable=False)}) == []
    (found,) = validate(con, sql, {"y": Column()})
    assert found.failed
