"""Staging: the best models of a search are versions that can be loaded, and their aliases follow the newest search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.monitored_model.outcome import Outcome
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.steps import challenger, champion
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets.training import registry
from mlops_assets_tests import tiny_model

MONTHS = ["2021-01", "2021-02", "2021-03", "2021-04"]
TREE = {
    "estimator": "sklearn.tree.DecisionTreeClassifier",
    "params": {"min_samples_leaf": 10},
    "search": {"max_depth": {"int": [1, 8]}},
}
LOGISTIC = tiny_model.SPEC["candidates"][0]


def spec(**changes: Any) -> ModelSpec:
    return tiny_model.spec(**{"candidates": [LOGISTIC, TREE], "trials": 5, "metric": "auc", "staging": 2, **changes})


def decide(bench: Workbench, period: str) -> Outcome:
    """Train and decide; returns what the training left behind."""
    made = challenger.make(bench, period)
    champion.make(bench, period)
    return made


def aliases(bench: Workbench) -> dict[str, str]:
    found = bench.run_required().client.get_registered_model("rides").aliases
    return {name: str(version) for name, version in found.items()}


def versions(bench: Workbench) -> dict[str, dict[str, str]]:
    """Tags by version."""
    found = bench.run_required().client.search_model_versions("name = 'rides'")
    return {str(version.version): version.tags for version in found}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    with tiny_model.ingested(tmp_path, spec(), MONTHS) as bench:
        yield bench


def test_the_best_of_a_search_become_versions_with_aliases_that_can_be_loaded(bench: Workbench) -> None:
    made = decide(bench, "2021-03")
    staging = made.partition.facts["staging"]
    assert [row["alias"] for row in staging] == ["staging-1", "staging-2"]
    assert {row["candidate"] for row in staging} == {"LogisticRegression", "DecisionTreeClassifier"}
    assert staging[0]["version"] == made.partition.facts["version"]
    assert staging[0]["validation auc"] >= staging[1]["validation auc"]
    assert "staging-2" in made.metadata["staging"].text
    first, second = (row["version"] for row in staging)
    assert aliases(bench) == {"champion": first, "staging-1": first, "staging-2": second}
    tags = versions(bench)
    assert (tags[first]["status"], tags[second]["status"]) == ("champion", "staging")
    assert tags[second][registry.RUNNER_UP_OF] == first
    model = bench.versions.load(bench.versions.named(second))
    assert model.metrics["test"]["auc"] == staging[1]["test auc"]
    assert model.reference_profile is not None
    assert model.score_reference is not None
    run = bench.run_required().client.get_run(model.run_id)
    assert run.info.run_name.endswith(model.candidate), "the runner-up is logged in its own trial's run"
    assert (run.data.tags["staging"], run.data.tags["chosen"]) == ("staging-2", "false")


def test_the_period_made_again_reuses_every_version(bench: Workbench) -> None:
    before = decide(bench, "2021-03").partition
    again = decide(bench, "2021-03")
    assert again.metadata["reused"] is True
    assert again.partition.facts["staging"] == before.facts["staging"]
    assert len(versions(bench)) == 2


def test_more_places_are_filled_by_another_search_and_the_challenger_stays(bench: Workbench) -> None:
    one = replace(bench, spec=spec(staging=1))
    first = decide(one, "2021-03").partition.facts
    assert [row["alias"] for row in first["staging"]] == ["staging-1"]
    assert list(aliases(bench)) == ["champion", "staging-1"]
    both = decide(bench, "2021-03").partition.facts
    assert both["version"] == first["version"]
    assert [row["alias"] for row in both["staging"]] == ["staging-1", "staging-2"]
    assert len(versions(bench)) == 2


def test_the_aliases_follow_the_newest_period_and_older_ones_never_move_them(bench: Workbench) -> None:
    decide(bench, "2021-03")
    newest = decide(bench, "2021-04").partition.facts["staging"]
    wanted = {row["alias"]: row["version"] for row in newest}
    assert wanted.items() <= aliases(bench).items()
    decide(bench, "2021-03")
    assert wanted.items() <= aliases(bench).items()
    statuses = {version: tags["status"] for version, tags in versions(bench).items() if registry.RUNNER_UP_OF in tags}
    assert statuses == {version: "staging" if version == wanted["staging-2"] else "archived" for version in statuses}
    assert len(statuses) == 2


def test_aliases_without_a_model_are_removed(bench: Workbench) -> None:
    decide(bench, "2021-03")
    alone = replace(bench, spec=spec(candidates=[LOGISTIC], staging=3))
    made = decide(alone, "2021-04").partition.facts
    assert [row["alias"] for row in made["staging"]] == ["staging-1"]
    assert {name for name in aliases(bench) if name.startswith("staging")} == {"staging-1"}
    # Fewer models than places are what there is: the next time they are found again.
    assert decide(alone, "2021-04").metadata["reused"] is True


def test_without_staging_there_is_one_version_and_no_alias(tmp_path: Path) -> None:
    with tiny_model.ingested(tmp_path, spec(staging=0), MONTHS) as bench:
        made = decide(bench, "2021-03")
        assert "staging" not in made.partition.facts
        assert "staging" not in made.metadata
        assert list(aliases(bench)) == ["champion"]
        assert list(versions(bench)) == ["1"]


def test_the_aliases_stay_while_nothing_is_trained(bench: Workbench) -> None:
    alert = replace(bench, spec=spec(retrain="on_alert"))
    staging = decide(alert, "2021-03").partition.facts["staging"]
    quiet = decide(alert, "2021-04").partition
    assert quiet.reason == "not retrained: there is no cause (retrain: on_alert)"
    assert {row["alias"]: row["version"] for row in staging}.items() <= aliases(bench).items()


def test_two_stages_are_told_in_the_table_the_runs_and_the_fingerprint(bench: Workbench) -> None:
    together = challenger.make(bench, "2021-03").partition.facts["version"]
    two = replace(bench, spec=spec(search="compare_then_tune"))
    made = challenger.make(two, "2021-03")
    assert made.partition.facts["version"] != together
    text = made.metadata["trials"].text
    assert "| stage |" in text
    assert "| compare |" in text
    client, run = bench.run_required().client, bench.run_required()
    found = client.search_runs([run.experiment_id], f"tags.`mlflow.parentRunId` = '{run.run_id}'")
    stages = [trial.data.tags["stage"] for trial in found]
    assert stages.count("search") == 5
    assert stages.count("compare") == 2
