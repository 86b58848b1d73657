from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mlops_assets_tests.sources.readings import parquet_file, reading, rows, text_file


@pytest.mark.parametrize("names", [["KM", "km", "id"], ["km", "KM", "id"]])
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_of_names_that_differ_in_case_the_exact_one_is_read(tmp_path: Path, names: list[str], kind: str) -> None:
    values = {"KM": 1.0, "km": 2.0, "id": 3.0}
    if kind == "parquet":
        path = parquet_file(tmp_path, [pa.array([values[name]]) for name in names], names)
    else:
        path = text_file(tmp_path, ",".join(names) + "\n" + ",".join(str(values[name]) for name in names) + "\n")
    for wanted in ("KM", "km"):
        found = reading(path, {wanted: "DOUBLE"})
        assert (found.problems, rows(found)) == ((), [{wanted: values[wanted]}])


@pytest.mark.parametrize("names", [["KM", "Km"], ["km", "km"]])
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_names_that_can_not_be_told_apart_are_refused(tmp_path: Path, names: list[str], kind: str) -> None:
    if kind == "parquet":
        path = parquet_file(tmp_path, [pa.array([1.0]), pa.array([2.0])], names)
    else:
        path = text_file(tmp_path, f"{names[0]},{names[1]}\n1,2\n")
    (problem,) = reading(path, {"km": "DOUBLE"}).problems
    assert (problem.code, problem.column, problem.set_aside) == ("ambiguous_column", "km", False)
    assert f"{names[0]!r}, {names[1]!r}" in problem.found


def test_the_fields_of_nested_columns_are_no_columns(tmp_path: Path) -> None:
    nested = pa.array([{"km": 5.0, "legs": [{"km": 1.0}]}])
    columns = [nested, pa.array([1.0]), pa.array([[2.0]]), pa.array([3.0])]
    path = parquet_file(tmp_path, columns, ["trip", "KM", "legs", "km"])
    found = reading(path, {"km": "DOUBLE", "legs": "DOUBLE[]"})
    assert (found.problems, found.extra, rows(found)) == ((), ("trip", "KM"), [{"km": 3.0, "legs": [2.0]}])


def test_a_name_in_another_case_is_the_column_when_there_is_one(tmp_path: Path) -> None:
    assert rows(reading(parquet_file(tmp_path, {"Km": [1.0]}), {"km": "DOUBLE"})) == [{"km": 1.0}]
