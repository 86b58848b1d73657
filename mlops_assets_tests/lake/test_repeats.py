from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
import pytest

from mlops_assets.lake.repeats import Repeats


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


@pytest.mark.parametrize("in_memory", [0, 100, 1_000_000])
def test_repeats_are_counted_exactly_in_memory_and_on_disk(con, in_memory):
    rng = np.random.default_rng(7)
    numbers = rng.integers(0, 2**64, 5_000, dtype=np.uint64)
    numbers = np.concatenate([numbers, numbers[:300], numbers[:100]])
    rng.shuffle(numbers)
    with Repeats(con, in_memory) as repeats:
        for part in np.array_split(numbers, 9):
            repeats.add(part)
        found, lowest = repeats.count(3)
    values, counts = np.unique(numbers, return_counts=True)
    assert found == (counts - 1).sum() == 400
    assert lowest == values[counts > 1][:3].tolist()
    assert con.execute("SELECT count(*) FROM duckdb_tables()").fetchall() == [(0,)]


@pytest.mark.parametrize("in_memory", [0, 100])
def test_numbers_that_all_differ_or_are_none_repeat_nothing(con, in_memory):
    with Repeats(con, in_memory) as repeats:
        assert repeats.count(3) == (0, [])
        repeats.add(np.arange(500, dtype=np.uint64))
        assert repeats.count(3) == (0, [])


def test_one_number_again_and_again_is_one_example(con):
    with Repeats(con, 10) as repeats:
        for _ in range(40):
            repeats.add(np.full(100, 7, np.uint64))
        assert repeats.count(3) == (3_999, [7])
