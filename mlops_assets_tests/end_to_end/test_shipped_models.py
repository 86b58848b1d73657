"""All shipped models in one deployment: backfills from the page, and `status` of them all.

ed_admission over its whole first year; the others, whose histories take longer, over a few periods. They run side by
side, each model's periods in order.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from mlops_assets.cli import main
from mlops_assets.home import PROJECT, Home
from mlops_assets.incidents.store import Store
from mlops_assets.monitored_model.runs import run_outcome
from mlops_assets_tests.conftest import MLOPS_VARIABLES
from mlops_assets_tests.end_to_end.deployment import Deployment, deployed
from mlops_assets_tests.end_to_end.shipped import DATA, ShippedModel

pytestmark = [pytest.mark.slow, pytest.mark.real_data]

SECONDS = 1200
PERIODS = {
    "green_taxi": ("2021-01", "2021-04"),
    "bank_marketing": ("2008-05", "2008-10"),
    "ed_admission": ("2025-01", "2025-12"),
    "unit_sales": ("2014-01-06", "2014-02-17"),
}
NO_FILE = ("bank_marketing", "2008-09")


@dataclass(frozen=True)
class Backfilled:
    deployment: Deployment
    periods: dict[str, list[str]]


@pytest.fixture(scope="module")
def backfilled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backfilled]:
    root = tmp_path_factory.mktemp("shipped")
    home = Home(root / "home")
    with pytest.MonkeyPatch.context() as patch:
        for variable in MLOPS_VARIABLES:
            patch.delenv(variable, raising=False)
        patch.setenv("MLOPS_HOME", str(home.root))
        drawn = CliRunner().invoke(main, ["simulate", "ed_admission", "--rows", "1500", "--months", "12"])
        assert drawn.exit_code == 0, drawn.output
        with deployed(PROJECT / "workspace.yaml", home, DATA, root / "dagster.log") as found:
            periods, launched = {}, []
            for model, (first, last) in PERIODS.items():
                spec = ShippedModel(model).declared()
                periods[model] = list(spec.calendar.between(first, last))
                launched.append(found.backfill_job(f"{model}_{spec.cadence}", periods[model]))
            for backfill_id in launched:
                found.wait_for_backfill(backfill_id, SECONDS)
            yield Backfilled(found, periods)


@pytest.mark.parametrize("model", PERIODS)
def test_a_backfill_of_the_job_makes_each_period_once_and_in_order(backfilled: Backfilled, model: str) -> None:
    with backfilled.deployment.instance() as instance:
        found = [
            record
            for record in reversed(instance.get_run_records())
            if record.dagster_run.tags.get("mlops/model") == model
        ]
        outcomes = {
            record.dagster_run.tags["dagster/partition"]: run_outcome(instance, record.dagster_run.run_id)
            for record in found
        }
    assert sorted(outcomes) == backfilled.periods[model]
    assert len(found) == len(outcomes), "a period was made twice"
    for earlier, later in itertools.pairwise(sorted(found, key=lambda one: one.dagster_run.tags["dagster/partition"])):
        assert earlier.end_time <= later.start_time
    assert set(outcomes.values()) <= {"success", "withheld"}, outcomes


def test_no_incident_is_opened_but_for_the_month_without_a_file_and_what_drifts(backfilled: Backfilled) -> None:
    incidents = Store(backfilled.deployment.home.store_url).incidents()
    outages = [(one.model, one.period) for one in incidents if one.kind == "outage"]
    assert outages == [NO_FILE]
    assert {one.kind for one in incidents} <= {"outage", "drift", "performance"}


def test_status_shows_them_all(backfilled: Backfilled, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in MLOPS_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MLOPS_HOME", str(backfilled.deployment.home.root))
    told = CliRunner().invoke(main, ["status", "--json"])
    assert told.exit_code == 0, told.output
    listed: dict[str, list[str]] = {}
    for line in json.loads(told.output):
        listed.setdefault(line["model"], []).append(line["period"])
    assert {model: sorted(periods) for model, periods in listed.items()} == backfilled.periods
    served = {line["model"] for line in json.loads(told.output) if line["served_rows"]}
    assert {"green_taxi", "ed_admission"} <= served
