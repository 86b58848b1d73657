"""`mlops-assets` from a person's side: what it prints, and the status that it exits with."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from mlops_assets.cli import main
from mlops_assets.lake.periods import Calendar
from mlops_assets.lake.store import Lake
from mlops_assets_tests import rides_graph, tiny_model
from mlops_assets_tests.simulation import clinic

COMMANDS = (
    "backfill",
    "simulate",
    "status",
    "sql",
    "incidents",
    "champion",
    "retrain",
    "reset",
    "dev",
    "demo",
    "check",
)
HEAVY = ("dagster", "pandas", "mlflow", "duckdb", "pyarrow", "sklearn", "numpy", "pydantic", "rich")


def run(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=answer)


@pytest.fixture
def made(home: Path) -> Lake:
    """A lake with one period, as a backfill leaves it before there is a champion."""
    lake = Lake(home / "lake")
    lake.write("rides", "features", "2021-01", pa.table({"zone": ["a, b", None], "fare": [1.5, 2.0]}))
    return lake


@pytest.fixture
def rides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project has the tiny model in place of its own; returns the data folder."""
    data = tmp_path / "data"
    monkeypatch.setenv("MLOPS_DATA_DIR", str(data))
    monkeypatch.setattr("mlops_assets.definitions.defs", rides_graph.definitions)
    return data


def test_help_answers_without_loading_anything_heavy() -> None:
    script = (
        "import sys; from click.testing import CliRunner; from mlops_assets.cli import main\n"
        "for command in ([], ['backfill'], ['status'], ['sql'], ['incidents', 'accept'], ['champion'], ['retrain'], "
        "['reset'], ['dev'], ['demo'], ['check'], ['simulate']):\n"
        "    assert CliRunner().invoke(main, [*command, '--help']).exit_code == 0, command\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_names_every_command_and_where_a_newcomer_begins() -> None:
    said = run("--help").output
    assert all(command in said for command in COMMANDS)
    assert "First steps" in said
    assert run().exit_code == 2
    assert "backfill green_taxi 2021-01..2021-12" in run("backfill", "--help").output


def test_status_as_json_is_a_list_of_objects_with_the_documented_keys(made: Lake) -> None:
    (line,) = json.loads(run("status", "--json").output)
    assert list(line) == [
        *("period", "model", "verdict", "gate", "reason", "decision", "champion_version"),
        *("served_version", "rows", "served_rows", "served_source", "metric", "metric_value"),
        *("champion_metric_value", "stale"),
    ]
    assert (line["period"], line["model"], line["rows"], line["gate"]) == ("2021-01", "rides", 2, None)


def test_status_prints_a_table_or_what_to_do_first(made: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = run("status", "rides").output
    assert "2021-01" in said
    assert "in force after" in said
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "elsewhere"))
    assert run("status").output == "No period has been made yet. Try: mlops-assets demo\n"
    assert run("status", "--json").output == "[]\n"


def test_an_unknown_model_is_answered_with_the_known_ones(made: Lake) -> None:
    result = run("status", "taxi")
    assert result.exit_code == 1
    assert "there is nothing of 'taxi'; the lake holds rides" in result.output


def test_sql_is_csv_when_piped(made: Lake) -> None:
    result = run("sql", "SELECT period, zone, fare FROM rides.features ORDER BY fare")
    assert result.exit_code == 0
    assert list(csv.reader(io.StringIO(result.output))) == [
        ["period", "zone", "fare"],
        ["2021-01", "a, b", "1.5"],
        ["2021-01", "", "2.0"],
    ]


def test_sql_on_a_terminal_is_a_table(made: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlops_assets.terminal import result_table

    table = result_table(["period", "rows"], [("2021-01", 1200), ("2021-02", None)])
    from rich.console import Console

    with (console := Console(width=60)).capture() as shown:
        console.print(table)
    assert "1,200" in shown.get()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT * FROM rides.feature", "features"),
        ("SELEC 1", "syntax error"),
        ("SELECT nothing FROM monitoring.periods", "nothing"),
    ],
)
def test_a_query_that_can_not_be_run_says_why_and_exits_with_1(made: Lake, query: str, said: str) -> None:
    result = run("sql", query)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert said in result.output
    assert "Traceback" not in result.output


def test_reset_asks_and_deletes_only_what_was_made(made: Lake, home: Path) -> None:
    (home / "notes.txt").write_text("mine")
    refused = run("reset", answer="n\n")
    assert refused.exit_code == 1
    assert f"Delete lake in {home}?" in refused.output
    assert made.periods("rides", "features") == ["2021-01"]
    assert run("reset", answer="y\n").exit_code == 0
    assert [path.name for path in home.iterdir()] == ["notes.txt"]
    assert "There is nothing to delete" in run("reset").output


def test_reset_does_not_ask_with_yes(made: Lake, home: Path) -> None:
    assert run("reset", "--yes").exit_code == 0
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("taxi", "2021-01"), "no model is called 'taxi'; declared are rides"),
        (("rides", "2020-12"), "rides has no period 2020-12; its periods are 2021-01 to 2021-12"),
        (("rides", "2021-01..2022-01"), "rides has no period 2022-01"),
        (("rides", "2021-1"), "2021-1"),
        (("rides", "2021-03..2021-01"), "2021-03"),
    ],
)
def test_a_wrong_model_or_period_is_refused_before_anything_runs(
    arguments: tuple[str, str], said: str, rides: Path, home: Path
) -> None:
    result = run("backfill", *arguments)
    assert result.exit_code == 1
    assert said in result.output
    assert "Traceback" not in result.output
    assert not (home / "lake").exists()


def test_backfill_exits_with_0_and_shows_each_period(rides: Path) -> None:
    tiny_model.write_rides(rides, ["2021-01"])
    result = run("backfill", "rides", "2021-01..2021-02")
    assert result.exit_code == 0, result.output
    assert "2021-01" in result.output
    assert "success" in result.output
    status = json.loads(run("status", "--json").output)
    assert [(line["period"], line["rows"], line["gate"]) for line in status] == [
        ("2021-01", 600, "none"),
        ("2021-02", 0, "none"),
    ]


def test_simulate_writes_files_below_the_home_and_says_that_they_are_synthetic(home: Path) -> None:
    result = run("simulate", "ed_admission", "--rows", "60", "--months", "2", "--drift", "prior:2025-02")
    assert result.exit_code == 0, result.output
    assert "SYNTHETIC ed_admission" in result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("2025-01")
    assert "60.0% positive  drift prior:2025-02:1" in lines[1]
    files = home / "downloads" / "ed_admission"
    written = {path.name: path.read_bytes() for path in files.iterdir()}
    assert sorted(written) == ["ed_visits_2025-01.parquet", "ed_visits_2025-02.parquet"]
    again = run("simulate", "ed_admission", "--rows", "60", "--months", "2025-02", "--drift", "prior:2025-02")
    assert "(was there)" in again.output
    assert (files / "ed_visits_2025-02.parquet").read_bytes() == written["ed_visits_2025-02.parquet"]
    assert "Delete downloads" in run("reset", answer="n\n").output


@pytest.mark.parametrize(
    ("over", "drawn", "told"),
    [
        (2, 2, ["Next: mlops-assets backfill clinic {0}..{1}"]),
        (2, 3, ["Next: mlops-assets backfill clinic {0}..{1}", "{2} is not over yet: it can be made from {then}."]),
        (
            1,
            3,
            [
                "Next: mlops-assets backfill clinic {0}..{0}",
                "{1}..{2} are not over yet: they can be made one by one, from {then}.",
            ],
        ),
        (0, 1, ["{0} is not over yet: it can be made from {then}."]),
        (0, 2, ["{0}..{1} are not over yet: they can be made one by one, from {then}."]),
    ],
)
def test_simulate_draws_months_that_are_not_over_but_tells_to_make_only_those_that_are(
    over: int, drawn: int, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calendar = Calendar("monthly")
    now = datetime.now(UTC)
    months = calendar.window(calendar.of(now), (-over, drawn - over - 1))
    folder = clinic.write_folder(tmp_path, defs=clinic.DEFS | {"start": months[0], "end": None})
    monkeypatch.setattr("mlops_assets.cli.data.DEFS", folder.parent)
    result = run("simulate", "clinic", "--rows", "20", "--months", str(drawn))
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line[:7] for line in lines[:drawn]] == months
    then = f"{calendar.end(calendar.of(now)):%Y-%m-%d} (UTC) on"
    assert lines[drawn + 2 :] == [line.format(*months, then=then) for line in told]


def test_simulate_says_when_its_files_will_not_be_read(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    monkeypatch.setenv("MLOPS_DATA_DIR", str(data))
    arguments = ("simulate", "ed_admission", "--rows", "20", "--months", "1")
    assert "Next: mlops-assets backfill" in run(*arguments, "--to", str(data)).output
    said = run(*arguments, "--seed", "1").output
    assert "Not read" in said
    assert "2025-01, which come first" in said.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("green_taxi",), "'green_taxi' has no simulation.yaml in its folder; models that can be simulated: ed_adm"),
        (("nothing",), "'nothing' is not declared"),
        (("ed_admission", "--months", "2024-12"), "ed_admission has no period 2024-12"),
        (("ed_admission", "--drift", "flu"), "ed_admission has no drift 'flu'. It has covariate:"),
        (("ed_admission", "--table", "nowhere.csv"), "there is no file nowhere.csv"),
    ],
)
def test_simulate_refuses_what_it_can_not_draw(arguments: tuple[str, ...], said: str, home: Path) -> None:
    result = run("simulate", *arguments)
    assert result.exit_code == 1
    assert said in result.output
    assert "Traceback" not in result.output
    assert not home.exists()


def test_backfill_exits_with_1_when_a_period_failed_and_says_where_and_why(rides: Path, home: Path) -> None:
    tiny_model.write_rides(rides, ["2021-01", "2021-02"])
    (home / "lake" / "rides").mkdir(parents=True)
    (home / "lake" / "rides" / "profile").write_text("a file where a folder has to be")
    result = run("backfill", "rides", "2021-01..2021-02")
    assert result.exit_code == 1
    assert result.output.count("in rides__profile") == 2, "the second period is tried too"
    assert str(home / "lake" / "rides" / "profile") in result.output.replace("\n", "")


def test_a_process_whose_run_failed_writes_nothing_but_the_reason(rides: Path, home: Path) -> None:
    # Libraries report what is alive when the interpreter ends, and a failed run keeps its frames alive.
    tiny_model.write_rides(rides, ["2021-01"])
    (home / "lake" / "rides").mkdir(parents=True)
    (home / "lake" / "rides" / "profile").write_text("a file where a folder has to be")
    script = (
        "import mlops_assets.definitions as project\n"
        "from mlops_assets_tests import rides_graph\n"
        "project.defs = rides_graph.definitions\n"
        "from mlops_assets.cli import main\n"
        "main(['backfill', 'rides', '2021-01'])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (1, "")
    assert "2021-01 failed in rides__profile: NotADirectoryError" in done.stdout
    assert "Move it away" in done.stdout


def test_backfill_says_why_a_run_failed_before_its_first_step(rides: Path, home: Path) -> None:
    tiny_model.write_rides(rides, ["2021-01"])
    home.mkdir()
    (home / "mlflow").write_text("a file where a folder has to be")
    result = run("backfill", "rides", "2021-01")
    assert result.exit_code == 1
    assert "in the run's resources:" in result.output
    assert str(home / "mlflow") in result.output.replace("\n", "")
