"""docs/sql.md: its queries and programs run, and its views have the columns that it names."""

from __future__ import annotations

import re
import shlex
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

import mlops_assets
from mlops_assets.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "sql.md").read_text().replace("green_taxi", "rides")
ARCHIVE = Path(__file__).with_name("homes") / "rides_27fc6e6.tar.xz"
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("mlops-assets sql ")]
VIEWS = re.findall(r"^\| `((?:<model>|monitoring)\.[a-z_]+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE)


@pytest.fixture(autouse=True)
def filled_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(tmp_path, filter="data")
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_answer(command: str) -> None:
    said = CliRunner().invoke(main, shlex.split(command.partition(" > ")[0])[1:])
    assert said.exit_code == 0, said.output
    assert len(said.stdout.splitlines()) > 1


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_run(program: str) -> None:
    made: dict[str, object] = {}
    exec(program, made)
    frames = [value for name, value in made.items() if name in ("frame", "joined")]
    assert [len(frame) > 1 for frame in frames] == [True]  # type: ignore[arg-type]


def test_the_pivot_with_its_values_is_one_select() -> None:
    query = re.search(r"`(select \* from \(pivot [^`]+)`", PAGE)
    assert query is not None
    said = CliRunner().invoke(main, ["sql", query[1]])
    assert said.stdout.splitlines()[0] == "period,ok,warning,severe"


def test_the_views_have_the_columns_that_are_named() -> None:
    con = mlops_assets.connect()
    checked = 0
    for view, columns in VIEWS:
        named = re.findall(r"`([a-z_]+)`", columns)
        if view != "<model>.raw_<records>" and named and "as `" not in columns and "see [" not in columns:
            name = view.replace("<model>", "rides")
            found = {row[0] for row in con.execute(f"DESCRIBE FROM {name}").fetchall()}
            assert set(named) <= found, name
            checked += 1
    assert checked == 9


def test_every_view_is_documented() -> None:
    rows = mlops_assets.connect().execute("SELECT table_schema, table_name FROM information_schema.tables").fetchall()
    found = {f"{schema}.{name}".replace("rides.", "<model>.") for schema, name in rows}
    assert found - {"<model>.raw_rides"} <= {view for view, _ in VIEWS}
