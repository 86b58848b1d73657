"""docs/tutorial.md, followed to the letter: its commands work and print what is shown, and its month is green."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from docs import tutorial
from docs.tutorial import Followed

VARYING = [
    (r"\d+\.\d s\b", "# s"),  # how long a month took
    (r"\d:\d\d:\d\d", "#:##:##"),
]
DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.])")
# A fraction learned on another processor may differ in its last digits.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Tutorial:
    """The project after the tutorial, and what came of following it."""

    project: Path
    followed: Followed


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Tutorial:
    project = tutorial.copied(tmp_path_factory.mktemp("tutorial").resolve() / "project")
    return Tutorial(project, tutorial.follow(tutorial.parts()[0], project, project))


def asked(done: Tutorial, *command: str) -> str:
    """What a command of the project prints."""
    return subprocess.run(
        ["mlops-assets", *command],
        cwd=done.project,
        env=tutorial.environment(done.project),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def apart_from_numbers(text: str) -> tuple[str, list[float]]:
    for pattern, instead in VARYING:
        text = re.sub(pattern, instead, text)
    # The bar's length and the width of a cell follow the time and the numbers.
    text = re.sub(r" +", " ", text)
    return DECIMAL.sub("0.#", text), [float(number) for number in DECIMAL.findall(text)]


def assert_shown(followed: Followed) -> None:
    """The outputs in the document are those that were printed, save times and last digits."""
    assert followed.outputs
    for printed, shown in followed.outputs.values():
        (text, numbers), (expected, expected_numbers) = apart_from_numbers(printed), apart_from_numbers(shown)
        assert text == expected, "docs/tutorial.md shows another output; `python docs/tutorial.py` writes it anew"
        assert numbers == pytest.approx(expected_numbers, abs=TOLERANCE)


def test_the_outputs_shown_are_those_of_the_commands(done: Tutorial) -> None:
    assert_shown(done.followed)


def test_the_last_month_is_green(done: Tutorial) -> None:
    months = {month["period"]: month for month in json.loads(asked(done, "status", "late_parcels", "--json"))}
    assert list(months) == ["2025-01", "2025-02", "2025-03", "2025-04"]
    april = months["2025-04"]
    assert (april["verdict"], april["gate"], april["served_source"]) == ("ok", "champion", "champion")
    assert april["rows"] == april["served_rows"] > 2000
    assert months["2025-03"]["decision"] == "first"
    assert april["champion_version"] is not None
    assert asked(done, "incidents", "list", "--all").strip() == "No incident."


def test_every_run_succeeded_and_every_check_passed(done: Tutorial, monkeypatch: pytest.MonkeyPatch) -> None:
    import dagster as dg

    monkeypatch.setenv("DAGSTER_HOME", str(done.project / ".mlops" / "dagster"))
    with dg.DagsterInstance.get() as instance:
        runs = instance.get_runs()
        # The run of the month with a wrong query was refused before it began.
        assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * 4
        (april,) = [run for run in runs if run.tags["dagster/partition"] == "2025-04"]
        records = instance.all_logs(april.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        checks = [record.dagster_event.asset_check_evaluation_data for record in records if record.dagster_event]
    assert len(checks) >= 9
    assert {check.check_name: check.passed for check in checks} == {check.check_name: True for check in checks}


def test_a_model_takes_as_many_lines_as_are_stated(done: Tutorial) -> None:
    stated = tutorial.counted(done.followed)
    assert re.fullmatch(r"\d\d lines of YAML and \d\d of SQL, \d+ of them written by hand", stated)
    for document in tutorial.COUNTED_IN:
        assert [match[2] for match in tutorial.COUNT.finditer(document.read_text())] == [stated], document.name


@pytest.mark.slow
def test_a_project_of_its_own_holds_the_model_too(done: Tutorial, tmp_path: Path) -> None:
    folder = tutorial.with_data_of(done.project, tmp_path.resolve() / "own")
    assert_shown(tutorial.follow(tutorial.parts()[1], folder, done.project))


def test_a_command_that_fails_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "defs.yaml").write_text("trials: 8\n")
    with pytest.raises(tutorial.DoesNotWork, match="ended with status 3"):
        tutorial.follow("<!-- run -->\n```bash\nexit 3\n```\n", tmp_path, tmp_path)
    with pytest.raises(tutorial.DoesNotWork, match="ended with status 0"):
        tutorial.follow(
            "<!-- run with defs.yaml: trials => trails -->\n```bash\ngrep -q trails defs.yaml\n```\n",
            tmp_path,
            tmp_path,
        )
    assert (tmp_path / "defs.yaml").read_text() == "trials: 8\n"
