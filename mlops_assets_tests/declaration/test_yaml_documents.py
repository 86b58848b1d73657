"""YAML that means something else than it looks like is refused with its line; what is fine is read as by Dagster."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster_shared.yaml_utils import parse_yamls_with_source_position

from mlops_assets.declaration.yaml_documents import DeclarationError, read_documents

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)

REFUSED = [
    ("", 1, "an empty file"),
    ("# nothing but this\n", 1, "an empty file"),
    ("a: 1\nb: 2\na: 3\n", 3, "'a' a second time (first in line 1)"),
    ("a:\n  b: 1\n  'b': 2\n", 3, "'b' a second time (first in line 2)"),
    ("a: {no: 1}\n", 1, "the key 'no', read as bool"),
    ("a:\n  ~: 1\n", 2, "read as null"),
    ("? [a, b]\n: 1\n", 1, "a key of several values"),
    ("a: 1\n\tb: 2\n", 2, "indent with blanks"),
    ("a: 1\nb: [\n", 3, "the end of the file"),
    ("a: b: c\n", 1, "mapping values are not allowed"),
    ("a: @x\n", 1, "cannot start any token"),
    ("a: *nowhere\n", 1, "undefined alias"),
    ("a: &x [*x]\n", 1, "an alias of what it is in itself"),
    (LAUGHS, 5, "aliases that stand for one another"),
    ("a:\n  b: " + "[" * 3000, 2, "more than 40 levels deep"),
    ("".join(f"{' ' * n}a:\n" for n in range(50)), 41, "more than 40 levels deep"),
    ("a: !!python/object/apply:os.system ['x']\n", 1, "the tag !!python/object/apply:os.system"),
    ("b: 1\na: !env X\n", 2, "the tag !env"),
    ("a: !!int abc\n", 1, "invalid literal"),
    ("a: " + "1" * 5000, 1, "Exceeds the limit"),
    ("a: 1\nb: \x00\n", 2, "control characters"),
]


@pytest.mark.parametrize(("text", "line", "said"), REFUSED, ids=[said for *_, said in REFUSED])
def test_a_file_that_says_nothing_or_something_else_is_refused_with_its_line(
    text: str, line: int, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "defs.yaml"
    path.write_text(text)
    with pytest.raises(DeclarationError) as refused:
        read_documents(path)
    (problem,) = refused.value.problems
    assert problem.line == line, problem
    assert said in problem.text
    assert "expected" in problem.text
    assert str(refused.value).startswith(f"{path}:{line}: found ")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: 1\nb: é\n".encode("latin-1"), ":2: found the byte 0xe9, which is not UTF-8"),
        ("a: 1\n".encode("utf-16"), ":1: found UTF-16"),
        (b"a: " + b"x" * 2_000_000, "2,000,003 bytes"),
    ],
)
def test_other_encodings_and_what_is_no_declaration_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "defs.yaml"
    path.write_bytes(content)
    with pytest.raises(DeclarationError, match=r"save the file as UTF-8|remove what") as refused:
        read_documents(path)
    assert said in str(refused.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "defs.yaml"
    path.write_text("a: 1\na: 2\nb:\n  on: 1\n  c: 1\n  c: 2\n")
    with pytest.raises(DeclarationError) as refused:
        read_documents(path)
    assert [problem.line for problem in refused.value.problems] == [2, 4, 6]


SOUND = """\
type: x
attributes:
  start: 2021-01-04
  text: 'no'
  flag: yes
  base: &base {a: 1, b: [1, 2.5, 1e3, ~]}
  more:
    <<: *base
    a: 2
  numbers: {0: x, 1: y}
---
type: y
"""


def test_what_is_fine_is_read_as_dagster_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "defs.yaml"
    path.write_text("\ufeff" + SOUND)
    read = read_documents(path)
    assert [document.value for document in read] == [tree.value for tree in parse_yamls_with_source_position(SOUND)]
    assert read[0].line_of(("attributes", "more", "a")) == 9
    assert read[0].line_of(("attributes", "base", "b", 2)) == 6
    assert read[1].line_of(("type",)) == 12


def test_what_reads_otherwise_than_it_looks_is_known_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "defs.yaml"
    path.write_text("a: [NO, SE, true, 010, 10, 1_000, 12:30, 0x1F, 1.5, .nan, 'no']\nb: off\n")
    (document,) = read_documents(path)
    assert document.value == {
        "a": [False, "SE", True, 8, 10, 1000, 750, 31, 1.5, document.value["a"][9], "no"],
        "b": False,
    }
    assert document.reread == {
        ("a", 0): "NO",
        ("a", 3): "010",
        ("a", 5): "1_000",
        ("a", 6): "12:30",
        ("a", 7): "0x1F",
        ("b",): "off",
    }
