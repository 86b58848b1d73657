"""docs/cli.md is what the commands say of themselves, and every example that a `--help` prints runs."""

from __future__ import annotations

import csv
import io
import re
import shlex
import shutil
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mlops_assets
from docs import commands
from mlops_assets.cli import main
from mlops_assets.home import PROJECT, Home
from mlops_assets_tests import rides_graph

PAGE = commands.PAGE.read_text()
ARCHIVE = Path(__file__).with_name("homes") / "rides_27fc6e6.tar.xz"
COMMANDS = dict(commands.every_command(main, "mlops-assets"))
EXAMPLES = [example for command in COMMANDS.values() for example in commands.examples(command)]
# The examples are about models whose periods take minutes; these are about the model of the test.
IN_THIS_HOME = {
    "green_taxi 2021-01..2021-12": "rides 2021-01..2021-02",
    "green_taxi 2021-03": "rides 2021-03",
    "green_taxi 2022-12": "rides 2021-07",
    "metric = 'auc'": "metric = 'f1'",
    "green_taxi": "rides",
}


def run(example: str) -> Result:
    """What a command line prints; where its output goes is the shell's business."""
    return CliRunner().invoke(main, shlex.split(example.partition(" > ")[0])[1:])


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Eight months of rides, as in the tests of what commands print, and the files that examples name."""
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(tmp_path, filter="data")
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLOPS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setattr("mlops_assets.definitions.defs", rides_graph.definitions)
    monkeypatch.chdir(tmp_path)
    declared = PROJECT / "mlops_assets" / "defs" / "green_taxi"
    shutil.copytree(declared, tmp_path / "my_project" / "defs" / "late_parcels")
    return Home.from_env()


@pytest.fixture
def triage(filled: Home, tmp_path: Path) -> None:
    """A table with the columns that the real one has: the simulated records without their time and origin."""
    import duckdb

    assert run("mlops-assets simulate ed_admission --rows 5000").exit_code == 0
    drawn = filled.downloads / "ed_admission" / "*.parquet"
    from mlops_assets.cli.data import DEFS
    from mlops_assets.simulation.batches import find_model

    columns = ", ".join(f'"{name}"' for name in find_model("ed_admission", sorted(DEFS.iterdir())).table_columns)
    with duckdb.connect() as con:
        con.execute(f"COPY (SELECT {columns} FROM read_parquet('{drawn}')) TO '{tmp_path / 'triage.csv'}'")


def test_the_page_is_written_from_the_commands() -> None:
    assert commands.page(PAGE) == PAGE, "run: python docs/commands.py"


def test_every_variable_and_optional_package_of_the_environment_is_documented() -> None:
    sources = Path(mlops_assets.__file__).parent.rglob("*.py")
    read = {name for path in sources for name in re.findall(r"\bMLOPS_[A-Z]+(?:_[A-Z]+)*\b", path.read_text())}
    assert read - set(re.findall(r"`(MLOPS_[A-Z_]+)[`=]", PAGE)) == set()


def test_links_of_the_page_lead_to_pages_and_headings() -> None:
    anchors = {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", PAGE, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        page, _, anchor = target.partition("#")
        assert not page or (commands.PAGE.parent / page).is_file(), target
        assert page or anchor in anchors, target


@pytest.mark.parametrize("example", [example for example in EXAMPLES if "triage.csv" not in example])
def test_an_example_of_a_help_text_runs(example: str, filled: Home) -> None:
    for said, here in IN_THIS_HOME.items():
        example = example.replace(said, here) if not example.startswith("mlops-assets check") else example
    done = run(example)
    assert done.exit_code == 0, done.output
    assert done.output.strip()


def test_the_example_with_a_real_table_runs(triage: None) -> None:
    (example,) = [example for example in EXAMPLES if "triage.csv" in example]
    done = run(example)
    assert done.exit_code == 0, done.output
    assert "Rows of triage.csv" in done.output


def test_the_example_query_gives_one_labelled_row_for_each_month(filled: Home) -> None:
    (example,) = [example for example in EXAMPLES if "auc.csv" in example]
    for said, here in IN_THIS_HOME.items():
        example = example.replace(said, here)
    rows = list(csv.DictReader(io.StringIO(run(example).output)))
    assert list(rows[0]) == ["period", "metric", "value"]
    periods = [row["period"] for row in rows]
    assert periods == sorted(set(periods))
    assert len(periods) > 2


def test_there_are_examples_and_the_first_steps_are_commands() -> None:
    assert len(EXAMPLES) > 15
    steps = re.findall(r"^ *mlops-assets (\w+) ", main.help or "", re.M)
    assert set(steps) == {"demo", "status", "dev"}
    assert set(steps) <= set(main.commands)
