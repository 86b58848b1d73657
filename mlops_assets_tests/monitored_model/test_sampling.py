from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from mlops_assets.monitored_model.sampling import quotas, sample_sql

ROWS = 6_000


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 2}) as opened:
        opened.execute(
            f"CREATE TABLE records AS SELECT range AS id, 'k' || range AS code, "
            f"CASE WHEN range % 10 < 3 THEN 'yes' ELSE 'no' END AS answer, range % 600 = 0 AS rare FROM range({ROWS})"
        )
        yield opened


def drawn(con: duckdb.DuckDBPyConnection, sql: str = "SELECT * FROM records", **changes: Any) -> list[tuple[Any, ...]]:
    arguments: dict[str, Any] = {"keys": ["code"], "seed": 42, "max_rows": 1_000, "target": "answer"} | changes
    condition, parameters = sample_sql(con, sql, **arguments)
    return con.execute(f"SELECT id, answer, rare FROM ({sql}) WHERE {condition} ORDER BY id", parameters).fetchall()


def test_a_sample_has_the_wanted_rows_and_the_shares_of_the_classes(con):
    found = drawn(con)
    assert len(found) == 1_000
    assert sum(answer == "yes" for _, answer, _ in found) == 300


def test_a_sample_is_spread_over_all_rows(con):
    ids = [row[0] for row in drawn(con, target=None)]
    assert len(ids) == 1_000
    assert sum(ids) / len(ids) == pytest.approx(ROWS / 2, rel=0.05)


def test_a_sample_depends_on_keys_and_seed_and_on_no_order_or_thread(con):
    first = drawn(con)
    con.execute("CREATE TABLE shuffled AS FROM records ORDER BY hash(id)")
    con.execute("SET threads = 1")
    assert drawn(con, "SELECT * FROM shuffled") == first
    assert drawn(con, seed=43) != first


def test_a_sample_is_the_lowest_places_by_md5_of_each_class(con):
    def place(id_: int) -> int:
        return int.from_bytes(hashlib.md5(f"42\x1fk{id_}".encode()).digest()[8:], "little")

    yes = sorted((id_ for id_ in range(ROWS) if id_ % 10 < 3), key=place)[:300]
    no = sorted((id_ for id_ in range(ROWS) if id_ % 10 >= 3), key=place)[:700]
    assert [row[0] for row in drawn(con)] == sorted(yes + no)


@pytest.mark.parametrize("max_rows", [1, 7, 599, 5_999])
def test_any_limit_is_kept(con, max_rows):
    assert len(drawn(con, target=None, max_rows=max_rows)) == max_rows


def test_a_rare_class_is_never_lost(con):
    found = drawn(con, target="rare", max_rows=100)
    assert len(found) == 100
    assert sum(rare for *_, rare in found) == 1


def test_a_target_of_many_values_is_not_stratified(con):
    assert len(drawn(con, target="id", max_rows=500)) == 500


@pytest.mark.parametrize(
    ("counts", "wanted", "expected"),
    [
        ({"a": 70, "b": 30}, 10, {"a": 7, "b": 3}),
        ({"a": 1, "b": 1, "c": 1}, 2, None),
        ({"a": 9_999, "b": 1}, 10, {"a": 9, "b": 1}),
        ({"a": 3, "b": 4}, 10, {"a": 3, "b": 4}),
        ({"a": 335, "b": 665}, 100, {"a": 34, "b": 66}),
    ],
)
def test_quotas_add_up_and_keep_shares(counts: dict[str, int], wanted: int, expected: dict[str, int] | None):
    found = quotas(counts, wanted)
    assert sum(found.values()) == min(wanted, sum(counts.values()))
    assert expected is None or found == expected
