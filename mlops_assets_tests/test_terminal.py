"""What a command prints: no value moves the cursor, hides text, is read as markup, or loses its end unsaid."""

from __future__ import annotations

import ast
import csv
import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import mlops_assets
from mlops_assets import terminal
from mlops_assets.cli import main
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake

CLI = Path(mlops_assets.__file__).parent / "cli"
NASTY = "[/] [bold]x[/bold] \x1b[31mred\x1b[0m \x9b1m \u202eabc \u200bd\ufeff \x07"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """The console of a terminal of this width, without colours."""
    from rich.console import Console

    def console(*, err: bool = False) -> Console:
        return Console(stderr=err, width=width, force_terminal=True, color_system=None, markup=False, highlight=False)

    monkeypatch.setattr(terminal, "open_console", console)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("a\u202eb\u2066c\u200fd", "a\\u202eb\\u2066c\\u200fd"),
        ("a\u200bb\ufeffc\u00add", "a\\u200bb\\ufeffc\\xadd"),
        ("\x7f\x85\x9b\u2028\ud800", "\\x7f\\x85\\x9b\\u2028\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("[bold]é – 日本 ≥ \u00a0[/]", "[bold]é – 日本 ≥ \u00a0[/]"),
        ("line\nline\tcell", "line\nline\tcell"),
        ("over\rwritten", "over\\rwritten"),
        ("https://ann:geheim1@host/x?sig=1", "https://…@host/x?…"),
    ],
)
def test_what_can_not_be_seen_is_written_out_and_the_rest_stays(text: str, shown: str) -> None:
    assert terminal.visible(text) == shown
    assert "\n" not in terminal.visible(text, lines=False)


@given(st.text(st.characters(codec="utf-8")))
def test_no_text_leaves_a_control_character(text: str) -> None:
    assert all(ord(c) >= 32 and not 0x7F <= ord(c) < 0xA0 for c in terminal.visible(text, lines=False))


def test_a_value_with_markup_and_escapes_breaks_no_command(home: Path) -> None:
    lake = Lake(home / "lake")
    table = pa.table({"zone": [NASTY], "fare": [1.5]})
    lake.write("rides", "features", "2021-01", table, reason=f"quarantined: {NASTY}")
    lake.write("taxi", "features", "2021-01", pa.table({"zone": ["fine"]}))
    store = Store(f"sqlite:///{home / 'store.db'}")
    store.found("rides", "2021-01", "quality", verdict=NASTY, reasons=[{"sentence": NASTY}], evidence="1")
    for arguments in (
        ("status",),
        ("incidents", "list"),
        ("incidents", "show", "1"),
        ("incidents", "resolve", "9", "--why", NASTY),
    ):
        said = run(*arguments).output
        assert not {"\x1b", "\x9b", "\u202e", "\u200b", "\ufeff", "\x07"} & set(said), arguments
        if arguments != ("incidents", "resolve", "9", "--why", NASTY):
            assert "[/] [bold]x[/bold] \\x1b[31mred" in said, arguments
    assert "fine" in run("sql", "select zone from taxi.features").output
    refused = run("status", "\x1b[31m[/]")
    assert refused.exit_code == 1
    assert "\\x1b[31m[/]" in refused.output


def test_csv_keeps_each_value_as_it_is(home: Path) -> None:
    Lake(home / "lake").write("rides", "features", "2021-01", pa.table({"zone": [NASTY, "=1+1", "a\nb"]}))
    said = run("sql", "select zone from rides.features")
    assert [row[0] for row in csv.reader(io.StringIO(said.output, newline=""))][1:] == [NASTY, "=1+1", "a\nb"]


def test_json_of_status_is_ascii_and_holds_the_value(home: Path) -> None:
    import json

    Lake(home / "lake").write("rides", "features", "2021-01", pa.table({"z": [1]}).slice(0, 0), reason=f"{NASTY}\x7f")
    said = run("status", "--json").output
    assert said.isascii()
    assert "\x7f" not in said
    assert json.loads(said)[0]["reason"] == f"{NASTY}\x7f"


def test_a_reason_is_whole_on_a_terminal_of_any_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = (
        "quarantined: source_schema: " + " ".join(f"word{number}" for number in range(60)) + ". Fetch the file again."
    )
    columns = ["period", "model", "verdict", "gate", "decision", "served_source", "reason"]
    rows = [["2021-01", "rides", "severe", "withheld", "retained", "withheld", reason]]
    for width in (60, 100, 160):
        on_a_terminal(monkeypatch, width)
        terminal.print_table(columns, rows, note="reason")
        said = capsys.readouterr().out
        words = "".join(character for character in said if character not in "│┃").split()
        assert [word for word in reason.split() if word not in words] == [], width
        assert max(map(len, said.splitlines())) <= width


def test_a_command_that_is_to_be_copied_is_one_line_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "mlops-assets incidents accept green_taxi 2022-12 --digest f9de42d800837c6f --why …"
    on_a_terminal(monkeypatch, 60)
    terminal.say_command(command, indent=4)
    assert capsys.readouterr().out == f"    {command}\n"


def test_a_very_long_cell_is_bounded_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table(["text"], [["x" * 100_000]])
    said = capsys.readouterr().out
    assert len(said) < 5_000
    assert "(100,000 characters)" in said


def test_commands_print_through_the_terminal_module_only() -> None:
    """click.echo, print or a console of one's own would let a value through as it is."""
    for path in CLI.glob("*.py"):
        tree = ast.parse(path.read_text())
        used = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not used & {"click.echo", "click.secho", "print", "Console", "sys.stdout.write"}, path.name


def test_an_unexpected_error_is_one_line_and_a_traceback_only_when_asked_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TypeError("\x1b[31m https://ann:geheim1@host/x")

    monkeypatch.setattr("mlops_assets.lake.store.Lake.models", fail)
    said = run("status")
    assert said.exit_code == 1
    assert said.output.count("\n") == 1
    assert said.output.startswith("Error: unexpected TypeError: \\x1b[31m https://…@host/x.")
    monkeypatch.setenv("MLOPS_DEBUG", "1")
    assert "Traceback (most recent call last)" in run("status").output
    assert "geheim1" not in run("status").output


def test_debug_shows_the_traceback_of_a_real_command(home: Path) -> None:
    home.write_text("a file")
    plain = subprocess.run(
        [sys.executable, "-m", "mlops_assets.cli", "status"], capture_output=True, text=True, check=False
    )
    assert (plain.returncode, plain.stdout) == (1, "")
    assert plain.stderr == f"Error: MLOPS_HOME is {home}, which is a file; set it to a folder\n"
    debug = [sys.executable, "-m", "mlops_assets.cli", "--debug", "status"]
    assert "Traceback" in subprocess.run(debug, capture_output=True, text=True, check=False).stderr
