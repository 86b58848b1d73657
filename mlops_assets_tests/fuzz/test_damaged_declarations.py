"""A thousand damaged declarations: each loads, or is refused with file and line and what to do."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_assets.cli import periods as commands
from mlops_assets.declaration.checks import check_files
from mlops_assets.declaration.yaml_documents import DeclarationError
from mlops_assets.monitored_model.component import build_definitions
from mlops_assets_tests.fuzz import CASES, SEED

pytestmark = pytest.mark.fuzz
DEFS = Path(commands.__file__).parents[1] / "defs"
ODD = (
    *(
        "",
        "null",
        "~",
        "yes",
        "NO",
        "0",
        "-1",
        "1e400",
        ".nan",
        ".inf",
        "[]",
        "{}",
        "[[[]]]",
        "''",
        "2021-13",
        "2021-01-01",
    ),
    *("0x10", "010", "12:30", "!!python/object:os.system x", "*a", "&a [*a]", "'\x00'", "\u202e", "😀", "a" * 5000),
    *("{period}", "../../etc/passwd", "'; DROP TABLE x; --", "<script>", "%s", "{{ env.HOME }}", "2021", "true"),
)

Damage = Callable[[list[str], random.Random], None]


def drop_line(lines: list[str], chance: random.Random) -> None:
    del lines[chance.randrange(len(lines))]


def repeat_line(lines: list[str], chance: random.Random) -> None:
    at = chance.randrange(len(lines))
    lines.insert(at, lines[at])


def swap_lines(lines: list[str], chance: random.Random) -> None:
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]


def indent_line(lines: list[str], chance: random.Random) -> None:
    at = chance.randrange(len(lines))
    lines[at] = chance.choice([" ", "  ", "\t", "        "]) + lines[at]


def outdent_line(lines: list[str], chance: random.Random) -> None:
    at = chance.randrange(len(lines))
    lines[at] = lines[at].lstrip()


def odd_value(lines: list[str], chance: random.Random) -> None:
    with_values = [at for at, line in enumerate(lines) if ": " in line]
    at = chance.choice(with_values)
    lines[at] = lines[at].partition(": ")[0] + ": " + chance.choice(ODD)


def odd_key(lines: list[str], chance: random.Random) -> None:
    at = chance.randrange(len(lines))
    indent = re.match(r" *", lines[at])[0]  # type: ignore[index]
    lines[at] = f"{indent}{chance.choice(ODD) or '?'}: {lines[at].partition(': ')[2]}"


def change_character(lines: list[str], chance: random.Random) -> None:
    at = chance.randrange(len(lines))
    where = chance.randrange(len(lines[at]) + 1)
    lines[at] = lines[at][:where] + chance.choice(":#-[]{}'\"&*!|>%@`,\t\x07é") + lines[at][where + 1 :]


def cut_off(lines: list[str], chance: random.Random) -> None:
    del lines[chance.randrange(len(lines)) :]


def nest(lines: list[str], chance: random.Random) -> None:
    at = chance.randrange(len(lines))
    lines[at] = lines[at].partition(":")[0] + ": " + "[" * 200 + "]" * 200


DAMAGES: tuple[Damage, ...] = (
    drop_line,
    repeat_line,
    swap_lines,
    indent_line,
    outdent_line,
    odd_value,
    odd_value,
    odd_key,
    change_character,
    cut_off,
    nest,
)


def test_a_damaged_declaration_loads_or_is_refused_with_file_and_line(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    models = sorted(folder for folder in DEFS.iterdir() if (folder / "defs.yaml").is_file())
    outcomes: Counter[str] = Counter()
    for number in range(CASES):
        model = chance.choice(models)
        lines = (model / "defs.yaml").read_text().splitlines()
        damage = DAMAGES[number % len(DAMAGES)]
        for _ in range(chance.choice([1, 1, 1, 2, 4])):
            if lines:
                damage(lines, chance)
        folder = tmp_path / str(number)
        folder.mkdir()
        file = folder / "defs.yaml"
        file.write_text("\n".join(lines) + "\n")
        (folder / "features.sql").write_text((model / "features.sql").read_text())
        try:
            found = check_files([file])
        except DeclarationError as error:
            outcomes["refused"] += 1
            for problem in error.problems:
                assert problem.path.parent == folder, f"case {number}: {problem}"
                assert problem.line is not None or problem.path != file, f"case {number}, no line: {problem}"
                assert len(problem.text) > 10, f"case {number}: {problem}"
            continue
        outcomes["loads"] += 1
        for declared in found:
            # What the check lets pass is what Dagster has to make definitions of.
            build_definitions(declared.spec, (folder / "features.sql").read_text())
    print(f"{outcomes.total()} damaged declarations: {dict(outcomes)}")
    assert outcomes["refused"] > CASES / 3
