"""What a person reads about one period and about a decision: verdict, who serves and why, who decided, what is next."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from mlops_assets.cli import main
from mlops_assets.home import Home
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.backfill import open_instance, what_waits
from mlops_assets.monitored_model.jobs import MODEL_TAG
from mlops_assets_tests import rides_graph, tiny_model

ARCHIVE = Path(__file__).with_name("homes") / "rides_27fc6e6.tar.xz"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Eight months of rides whose world turns, with an accept, a rollback and an open incident."""
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(tmp_path, filter="data")
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLOPS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr("mlops_assets.definitions.defs", rides_graph.definitions)
    return Home.from_env()


def test_a_period_that_plan_b_serves_is_told_in_words(filled: Home) -> None:
    said = run("status", "rides", "2021-08")
    assert said.exit_code == 0, said.output
    for words in (
        "600 rows read from file rides/2021-08.parquet",
        "severe, since 2021-08-01, compared with what version 9 was trained on",
        "- fare: PSI 2.41 ≥ 0.25 (severe)",
        "600 records, by plan B, segment_rate of 2021-06",
        "because: severe drift: fee, fare since 2021-08-01",
        "before: version 9; after: version 9 (rolled_back)",
        "rollback to version 9 by bob on",
        "f1 of the champion's scores: 0.7333",
        "f1 of what is served: 0.7818",
        "3: drift severe, opened",
        "yes: nothing that it was made from has changed since",
        "mlops-assets incidents accept rides 2021-08 --digest 95623ea455134597 --why …",
        "mlops-assets incidents resolve 3 --why …",
    ):
        assert words in said.output, words


def test_an_accept_names_who_when_and_why(filled: Home) -> None:
    for arguments in (
        ("status", "rides", "2021-07"),
        ("incidents", "show", "rides", "2021-07"),
        ("incidents", "show", "2"),
    ):
        said = run(*arguments).output
        assert "accepted by ann on 20" in said, arguments
        assert "a new tariff, agreed upon" in said


def test_none_is_nothing_to_compare_with_yet(filled: Home) -> None:
    said = run("status", "rides", "2021-01").output
    assert "nothing to compare with yet" in said
    assert "nothing: there is no champion yet" in said
    table = run("status", "rides").output
    assert "nothing to compare with yet" in table
    assert "│ none │" not in table.replace("  ", " ").replace("  ", " ")


def test_a_period_and_its_incident_give_the_reasons_of_the_same_report_once(filled: Home) -> None:
    said = run("incidents", "show", "rides", "2021-08").output
    assert said.count("- fare: PSI 2.41") == 1
    assert "Incident 3: drift in rides 2021-08, open" in said
    assert run("incidents", "show", "3").output.count("- fare: PSI 2.41") == 1


def test_a_log_of_decisions_and_the_champion_of_an_earlier_home_are_told_in_words(filled: Home) -> None:
    log = run("log", "rides").output
    assert re.search(r"\*  rides 2021-0\d  champion promoted: 1 → \d+\n    by mlops_assets: f1 of the challenger", log)
    assert "accept accepted" in log
    assert "by ann: a new tariff, agreed upon" in log
    assert "served nothing yet" in log
    assert not re.search(r"none(?! yet)", log)
    assert "* added afterwards" in log
    shown = run("champion", "show", "rides").output
    assert "rolled back" in shown
    assert "MLflow's aliases say the same: champion=9" in shown


def test_status_has_a_table_for_each_model_that_fits_a_terminal_of_80_columns(
    filled: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from mlops_assets import terminal

    def console(*, err: bool = False) -> Console:
        return Console(width=80, force_terminal=True, color_system=None, markup=False, highlight=False)

    monkeypatch.setattr(terminal, "open_console", console)
    said = run("status").output
    assert said.startswith("rides\n┏")
    assert max(map(len, said.splitlines())) <= 80
    lines = [line for line in said.splitlines() if line.startswith("│ 2021-07")]
    assert lines
    assert all("severe" in line and "champion" in line for line in lines)


def test_a_withheld_severe_period_offers_the_accept_and_no_vain_advice(filled: Home) -> None:
    said = run("status", "rides", "2021-04").output
    assert "nothing: withheld" in said
    assert "no rung of plan B can serve" in said
    assert "incidents accept rides 2021-04 --digest" in said
    assert "plan B serves it by" not in said


def test_an_unknown_period_or_incident_names_what_there_is(filled: Home) -> None:
    said = run("status", "rides", "2022-01")
    assert said.exit_code == 1
    assert "its periods are 2021-01 to 2021-08" in said.output
    assert run("incidents", "show", "rides", "2022-01").exit_code == 1
    assert "expected the number of an incident, or a model and a period" in run("incidents", "show", "x").output


def test_the_list_of_open_incidents_says_how_many_are_resolved(filled: Home) -> None:
    said = run("incidents", "list").output
    assert "2 resolved: mlops-assets incidents list --all" in said
    assert run("incidents", "list", "--all").output.rstrip().endswith("2 resolved")


def test_status_of_one_period_as_json_is_its_line(filled: Home) -> None:
    import json

    (line,) = json.loads(run("status", "rides", "2021-05", "--json").output)
    assert line["period"] == "2021-05"


def test_retrain_says_what_the_version_scored_and_why_it_is_or_is_not_in_force(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr("mlops_assets.definitions.defs", rides_graph.definitions)
    tiny_model.write_rides(tmp_path / "data", ["2021-01", "2021-02", "2021-03"])
    assert run("backfill", "rides", "2021-01..2021-03").exit_code == 0
    said = run("retrain", "rides", "--why", "the tariff of October", "--by", "ann")
    assert said.exit_code == 0, said.output
    assert "rides 2021-03: version 2 (LogisticRegression)" in said.output
    assert "on 600 test rows (2021-03)" in said.output
    assert "on validation" in said.output
    decided = Lake(home / "lake").partition("rides", "champion", "2021-03").facts
    in_force = (
        f"It is in force ({decided['decision']})" if decided["version"] == "2" else "It is not in force, version 1"
    )
    assert f"{in_force}" in said.output
    assert decided["reason"] in said.output


def test_a_decision_that_something_holds_up_says_what_it_waits_for(filled: Home) -> None:
    store = Store(filled.store_url)
    store.order("rides", "2021-08", "promote", "11", "ann", "it is better")
    instance = open_instance()
    instance.add_run(
        dg.DagsterRun(
            job_name="rides_monthly",
            run_id="abcdef12-0000-0000-0000-000000000000",
            status=dg.DagsterRunStatus.STARTED,
            tags={MODEL_TAG: "rides", "dagster/partition": "2021-08"},
        )
    )
    waits = what_waits(rides_graph.definitions(), "rides", instance)
    assert waits[0] == (
        "version 11 is ordered for 2021-08, but not in force yet: run abcdef12 of 2021-08 has not ended"
    )
    assert Lake(filled.lake_url).partition("rides", "champion", "2021-08").facts["version"] == "9"
