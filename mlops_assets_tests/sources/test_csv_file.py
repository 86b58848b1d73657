from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest

from mlops_assets_tests.sources.readings import reading, rows, text_file

SCHEMA = {"id": "BIGINT", "note": "VARCHAR"}


def written(lines: list[list], line_end: str = "\r\n") -> str:
    """What Python's csv.writer writes."""
    text = io.StringIO()
    # Python 3.11 quotes only the line ends that it writes itself.
    csv.writer(text, lineterminator=line_end, quoting=csv.QUOTE_NONNUMERIC).writerows(lines)
    return text.getvalue()


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_line_ends_within_quoted_values_are_part_of_them(tmp_path: Path, line_end: str) -> None:
    notes = ["left at\nthe door", 'in "quotes", twice', "x\r\ny", "plain"]
    content = written([["id", "note"], *[[n, note] for n, note in enumerate(notes)]], line_end)
    found = reading(text_file(tmp_path, content), SCHEMA)
    assert found.problems == ()
    assert [row["note"] for row in rows(found)] == notes


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_a_name_in_the_header_may_hold_a_line_end_a_delimiter_and_quotes(tmp_path: Path, line_end: str) -> None:
    name = 'amount\n("net", EUR)'
    content = written([["id", name], [1, 2]], line_end)
    found = reading(text_file(tmp_path, content), {"id": "BIGINT", name: "BIGINT"})
    assert (found.problems, rows(found)) == ((), [{"id": 1, name: 2}])


@pytest.mark.parametrize("line_end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("within", ["\r\n", "\n", "\r"])
def test_the_first_value_may_hold_a_line_end_of_any_kind(tmp_path: Path, line_end: str, within: str) -> None:
    note = f"left at{within}the door"
    lines = [[1, note], [2, "x"]]
    path = text_file(tmp_path, written([["id", "note"], *lines], line_end))
    assert [row["note"] for row in rows(reading(path, SCHEMA))] == [note, "x"]
    path = text_file(tmp_path, written(lines, line_end))
    found = reading(path, SCHEMA, csv={"names": ["id", "note"]})
    assert [row["note"] for row in rows(found)] == [note, "x"]


def test_quotes_may_first_occur_after_many_rows(tmp_path: Path) -> None:
    content = written([["id", "note"], *[[n, "plain"] for n in range(25_000)], [25_000, 'a "b",\nc']])
    found = reading(text_file(tmp_path, content), SCHEMA)
    assert (found.problems, found.rows) == ((), 25_001)
    assert rows(found)[-1]["note"] == 'a "b",\nc'


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv.gz", gzip.compress(b"id,note\n1,x\n", mtime=0), {}),
        ("a.csv", b"\n\nid,note\n1,x\n", {}),
        ("a.csv", b"# by hand\n\n# twice\nid,note\n1,x\n", {"comment": "#"}),
        ("a.csv", b"id||note\n1||x\n", {"delim": "||"}),
        ("a.csv", "id,note\n1,x\n".encode("utf-16"), {"encoding": "utf-16"}),
        ("a.csv", b"id,note\r1,x\r", {}),
    ],
)
def test_the_header_is_found_as_the_rows_are(tmp_path: Path, name: str, content: bytes, options: dict) -> None:
    found = reading(text_file(tmp_path, content, name), SCHEMA, csv=options)
    assert (found.problems, rows(found)) == ((), [{"id": 1, "note": "x"}])


@pytest.mark.parametrize("content", ["", "a", "\ufeff"])
def test_a_file_of_hardly_a_byte_is_a_problem_and_no_error(tmp_path: Path, content: str) -> None:
    assert reading(text_file(tmp_path, content), SCHEMA).problems


def test_a_file_of_blank_lines_has_no_header(tmp_path: Path) -> None:
    (problem,) = reading(text_file(tmp_path, "\n\n\n"), SCHEMA).problems
    assert problem.code == "unreadable"
    assert "no line with column names" in problem.found


GOOD = "".join(f"{n},x\n" for n in range(3000))


def test_lines_that_are_no_rows_are_set_aside_with_their_number_and_text(tmp_path: Path) -> None:
    bad = '3001,a,b\n"3002","x"y\n3003\n'
    found = reading(text_file(tmp_path, "id,note\n" + GOOD + bad + "3004,y\n"), SCHEMA)
    (problem,) = found.problems
    assert (problem.code, problem.rows, problem.set_aside) == ("unreadable_line", 3, True)
    assert (found.rows, found.rejected_rows) == (3001, 3)
    assert found.rejected["line"].to_pylist() == [3002, 3003, 3004]
    assert found.rejected["found"].to_pylist() == ["3001,a,b", '"3002","x"y', "3003"]
    assert "Columns: 2 Found: 3" in found.rejected["reason"][0].as_py()
    assert found.rejected["record_id"].null_count == 3
    assert rows(found)[-1] == {"id": 3004, "note": "y"}


def test_a_quote_that_is_never_closed_costs_the_lines_after_it_and_is_not_one_odd_line(tmp_path: Path) -> None:
    lines = GOOD.splitlines()
    lines[1500] = '1500,"open'
    found = reading(text_file(tmp_path, "id,note\n" + "\n".join(lines) + "\n"), SCHEMA)
    (problem,) = found.problems
    assert (problem.code, problem.set_aside, found.rows) == ("unreadable", False, 0)


def test_without_tolerance_one_line_makes_the_file_unreadable(tmp_path: Path) -> None:
    found = reading(text_file(tmp_path, "id,note\n" + GOOD + "1,2,3\n"), SCHEMA, tolerance=0)
    assert [problem.code for problem in found.problems] == ["unreadable"]
    assert "Line: 3002" in found.problems[0].found


@pytest.mark.parametrize("last", ["3", "3001", "300x,7", '3001,"7', "3001,7,b", "3001,7x"])
def test_a_file_that_ends_within_an_odd_line_is_truncated_and_no_file_with_an_odd_row(
    tmp_path: Path, last: str
) -> None:
    schema = {"id": "BIGINT", "note": "BIGINT"}
    whole = "id,note\n" + GOOD.replace("x", "7")
    found = reading(text_file(tmp_path, whole + last), schema)
    (problem,) = found.problems
    assert (problem.code, found.rows) == ("unreadable", 0)
    assert "a truncated CSV file" in problem.found
    followed = reading(text_file(tmp_path, f"{whole}{last}\n".replace('"', "x")), schema)
    assert (followed.rows, followed.rejected_rows) == (3000, 1)


def test_a_file_without_a_last_line_end_is_whole_when_its_last_row_is(tmp_path: Path) -> None:
    found = reading(text_file(tmp_path, "id,note\n" + GOOD + "3001,y"), SCHEMA)
    assert (found.problems, found.rows) == ((), 3001)


def test_mixed_line_ends_are_named(tmp_path: Path) -> None:
    (problem,) = reading(text_file(tmp_path, "id,note\r\n1,x\n2,y\r\n"), SCHEMA).problems
    assert "strict_mode: false" in problem.fix
