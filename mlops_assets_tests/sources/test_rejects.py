from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlops_assets.sources import inspection
from mlops_assets.sources.problems import tolerated_rows
from mlops_assets_tests.sources.readings import parquet_file, reading, rows, text_file

SCHEMA = {"id": "BIGINT", "at": "DATE", "fare": "DOUBLE"}
GOOD = "".join(f"{n},2021-01-{1 + n % 31:02d},1.5\n" for n in range(300))


def test_rows_with_odd_values_are_set_aside_with_the_text_that_was_found(tmp_path: Path) -> None:
    path = text_file(tmp_path, "id,at,fare\n" + GOOD + "x,15/01/2021,1\n301,2021-01-02,1.5\n")
    found = reading(path, SCHEMA, time_column="at")
    assert [(problem.column, problem.rows, problem.set_aside) for problem in found.problems] == [
        ("id", 1, True),
        ("at", 1, True),
    ]
    assert (found.rows, found.rejected_rows) == (301, 1)
    assert found.rejected.to_pylist() == [
        {"record_id": 300, "line": None, "column": "id", "found": "x", "reason": "does not fit BIGINT"},
        {"record_id": 300, "line": None, "column": "at", "found": "15/01/2021", "reason": "does not fit DATE"},
    ]
    table = found.reader.read_all()
    assert table["record_id"].to_pylist()[-2:] == [299, 301], "the others keep their number"
    assert found.outside is not None
    assert found.outside.unknown == 0


def test_more_than_the_tolerance_is_a_problem_of_the_period_and_nothing_is_set_aside(tmp_path: Path) -> None:
    path = text_file(tmp_path, "id,at,fare\n" + GOOD + "x,2021-01-02,1\ny,2021-01-02,1\n")
    found = reading(path, SCHEMA, time_column="at")
    assert [(problem.rows, problem.set_aside) for problem in found.problems] == [(2, False)]
    assert (found.rows, found.rejected_rows) == (302, 0)
    assert found.rejected["found"].to_pylist() == ["x", "y"]
    tolerant = reading(path, SCHEMA, time_column="at", tolerance=0.01)
    assert (tolerant.rows, tolerant.rejected_rows) == (300, 2)


@pytest.mark.parametrize(
    ("tolerance", "number", "tolerated"),
    [(0.001, 99, 0), (0.001, 100, 1), (0.001, 3500, 3), (0, 10_000, 0), (0.5, 10, 5), (1, 3, 3)],
)
def test_a_share_of_the_rows_is_tolerated_and_one_of_a_hundred(tolerance: float, number: int, tolerated: int) -> None:
    assert tolerated_rows(tolerance, number) == tolerated


@pytest.mark.parametrize("odd", [np.inf, -np.inf])
def test_an_infinite_number_costs_its_row_and_not_the_month(tmp_path: Path, odd: float) -> None:
    found = reading(parquet_file(tmp_path, {"fare": [*[1.5] * 200, odd, None]}), {"fare": "DOUBLE"})
    assert (found.rows, found.rejected_rows, found.problems[0].column) == (201, 1, "fare")
    text = text_file(tmp_path, "fare\n" + "1.5\n" * 200 + f"{odd}\n")
    assert reading(text, {"fare": "DOUBLE"}).rejected["found"].to_pylist() == [str(odd)]


def test_the_largest_numbers_are_numbers(tmp_path: Path) -> None:
    found = reading(text_file(tmp_path, "fare\n1.7e308\n-1.7e308\n"), {"fare": "DOUBLE"})
    assert (found.problems, rows(found)) == ((), [{"fare": 1.7e308}, {"fare": -1.7e308}])


def test_a_column_of_another_type_is_no_matter_of_single_rows(tmp_path: Path) -> None:
    path = parquet_file(tmp_path, {"fare": [1.5] * 200, "id": [[1]] + [None] * 199})
    found = reading(path, {"fare": "DOUBLE", "id": "BIGINT"}, tolerance=1)
    (problem,) = found.problems
    assert (problem.code, problem.set_aside, found.rows, found.rejected_rows) == ("wrong_type", False, 200, 0)


def test_of_a_file_of_all_periods_each_period_sets_its_own_rows_aside(tmp_path: Path) -> None:
    other = "".join(f"{n},2021-02-{1 + n % 28:02d},1.5\n" for n in range(300))
    odd = "x,2021-01-05,1.5\ny,2021-02-05,1.5\n1,someday,1.5\n"
    path = text_file(tmp_path, "id,at,fare\n" + GOOD + other + odd)
    for period, value in (("2021-01", "x"), ("2021-02", "y")):
        found = reading(path, SCHEMA, period, time_column="at", path="all.csv")
        assert (found.rows, found.rejected_rows) == (300, 2)
        assert found.rejected["found"].to_pylist() == ["someday", value], "nobody knows where the first belongs"
        assert all(problem.set_aside for problem in found.problems)


def test_a_source_without_odd_rows_rejects_nothing(tmp_path: Path) -> None:
    found = reading(text_file(tmp_path, "id,at,fare\n" + GOOD), SCHEMA, time_column="at")
    assert (found.problems, found.rejected_rows, found.rejected.num_rows) == ((), 0, 0)


@pytest.mark.parametrize("constant", [0, 1, 2, 3, 4, 5, 6, 7])
def test_a_key_that_many_rows_share_never_passes_as_unique(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, constant: int
) -> None:
    monkeypatch.setattr(inspection, "HASHED_ROWS", 100)
    path = parquet_file(tmp_path, {"id": [constant] * 1000, "fare": np.arange(1000.0)})
    found = reading(path, {"id": "BIGINT", "fare": "DOUBLE"}, keys=["id"])
    (problem,) = found.problems
    assert (problem.code, problem.rows) == ("duplicate_key", 999)


def test_a_few_copies_of_keys_among_many_rows_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "HASHED_ROWS", 100)
    path = parquet_file(tmp_path, {"id": [*range(1000), 7, 7], "fare": np.arange(1002.0)})
    (problem,) = reading(path, {"id": "BIGINT", "fare": "DOUBLE"}, keys=["id"]).problems
    assert (problem.code, problem.rows) == ("duplicate_key", 2)


def test_one_row_that_is_copied_many_times_is_seen_in_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "HASHED_ROWS", 100)
    for constant in range(8):
        path = parquet_file(tmp_path, {"id": [*range(1000, 1400), *[constant] * 600]})
        assert reading(path, {"id": "BIGINT"}).duplicates == 599
