"""Making a period again gives what it gave before, and never moves what is newer."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from mlops_assets.cli import main
from mlops_assets_tests import tiny_model
from mlops_assets_tests.monitored_model.conftest import MADE, History
from mlops_assets_tests.rides_graph import TABLES

# What a challenger says about itself includes whether it was found again.
REPEATABLE = [table for table in TABLES if table != "challenger"]


def test_an_old_period_made_again_is_the_same_and_leaves_the_aliases_alone(own_history: History) -> None:
    before = {table: own_history.digests(table) for table in REPEATABLE}
    aliases = own_history.aliases()
    versions = {period: own_history.partition("challenger", period).facts["version"] for period in MADE[2:]}
    made = own_history.run("2021-04", "2021-03")
    assert [made["2021-04"].outcome, made["2021-03"].outcome] == ["withheld", "success"]
    assert {table: own_history.digests(table) for table in REPEATABLE} == before
    assert {p: own_history.partition("challenger", p).facts["version"] for p in versions} == versions
    assert len(own_history.client.search_model_versions("name = 'rides'")) == len(versions), "nothing was trained"
    assert own_history.aliases() == aliases


def test_the_newest_decision_has_the_alias_and_the_one_before_the_other(history: History) -> None:
    decided = [str(history.partition("champion", period).facts["version"]) for period in MADE[2:]]
    earlier = [version for version in decided if version != decided[-1]]
    assert history.aliases() == {"champion": decided[-1], "previous_champion": earlier[-1]}
    status = {v.version: v.tags["status"] for v in history.client.search_model_versions("name = 'rides'")}
    assert {str(number) for number, tag in status.items() if tag == "champion"} == {decided[-1]}
    assert {str(number) for number, tag in status.items() if tag == "archived"} == set(earlier)


def test_changed_data_of_an_old_period_trains_anew_and_the_original_data_finds_the_old_version(
    own_history: History,
) -> None:
    aliases = own_history.aliases()
    original = own_history.partition("champion", "2021-03")
    predictions = own_history.partition("predictions", "2021-04").digest
    file = own_history.data / "rides" / "2021-02.parquet"
    content = file.read_bytes()
    pq.write_table(tiny_model.rides("2021-02", seed=7), file)
    own_history.run("2021-02", "2021-03")
    repaired = own_history.partition("champion", "2021-03")
    assert repaired.facts["version"] not in {original.facts["version"], *aliases.values()}
    assert own_history.aliases() == aliases, "an old period never moves the alias"
    assert own_history.partition("predictions", "2021-04").digest == predictions, "later periods wait to be made again"
    file.write_bytes(content)
    own_history.run("2021-02", "2021-03")
    assert own_history.partition("champion", "2021-03").digest == original.digest


def test_a_withheld_period_is_an_outcome_to_the_command_line_not_a_failure(
    own_history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlops_assets.definitions.defs", lambda: own_history.definitions)
    result = CliRunner().invoke(main, ["backfill", "rides", "2021-04"])
    assert result.exit_code == 0, result.output
    assert "withheld" in result.output
    assert "then rides_serve 2021-04  withheld" in result.output
    assert "severe" in result.output
    assert "withheld" in CliRunner().invoke(main, ["status", "rides"]).output
