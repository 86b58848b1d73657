"""What a person does in the browser: the real webserver and daemon, backfills through GraphQL, the pages in Chromium.

The tiny model's world turns on 2021-04-11. One deployment serves all tests of this module, in the order of the file.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from mlops_assets.home import Home
from mlops_assets.monitored_model.runs import run_outcome
from mlops_assets.monitoring import periods as statuses
from mlops_assets_tests import rides_graph
from mlops_assets_tests.end_to_end.deployment import LOCATION, REPOSITORY, Deployment, asset, deployed

if TYPE_CHECKING:
    from dagster import DagsterInstance
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

MONTHS = ["2021-01", "2021-02", "2021-03", "2021-04", "2021-05"]
SEVERE = "2021-04"
CHECKS = {
    "source_schema",
    "volume",
    "in_period",
    "feature_schema",
    "completeness",
    "training_sane",
    "new_data_size",
    "drift_within_limits",
    "served_complete",
    "performance_within_limits",
}
# An asset backfill takes what depends on its periods along, to the last period of the model: 2021-07 has nothing after.
LAST = "2021-07"
PROJECT = f"""
from mlops_assets_tests import rides_graph, tiny_model

defs = rides_graph.definitions(tiny_model.spec(end="{LAST}"))
"""
JOB_RUNS = """
query {
  runsOrError(filter: {
    pipelineName: "rides_monthly", tags: [{key: ".dagster/repository", value: "__repository__@mlops_assets"}]
  }) {
    ... on Runs { results {
      runId tags { key value } repositoryOrigin { repositoryName repositoryLocationName }
    } }
  }
}
"""


WORKSPACE = f"""
load_from:
  - python_file:
      relative_path: project.py
      location_name: {LOCATION}
"""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    root = tmp_path_factory.mktemp("deployment")
    home = Home(root / "home")
    data = root / "data"
    rides_graph.write_turning_rides(data)
    (root / "project.py").write_text(PROJECT)
    (root / "workspace.yaml").write_text(WORKSPACE)
    with deployed(root / "workspace.yaml", home, data, root / "dagster.log") as found:
        yield found


@pytest.fixture(scope="module")
def backfilled(deployment: Deployment) -> Deployment:
    """The deployment after a backfill of the period job, as from its page."""
    deployment.wait_for_backfill(deployment.backfill_job("rides_monthly", MONTHS), 300)
    return deployment


def runs_of(instance: DagsterInstance, periods: Sequence[str]) -> dict[str, Any]:
    """The newest run record of each period."""
    records = {record.dagster_run.tags["dagster/partition"]: record for record in reversed(instance.get_run_records())}
    return {period: records[period] for period in periods}


def test_a_backfill_of_the_job_runs_the_months_in_order_and_one_at_a_time(backfilled: Deployment) -> None:
    with backfilled.instance() as instance:
        records = list(runs_of(instance, MONTHS).values())
        assert len(instance.get_run_records()) == len(MONTHS)
    for earlier, later in itertools.pairwise(records):
        assert earlier.end_time <= later.start_time


def test_a_severe_month_is_withheld_and_the_later_ones_go_on(backfilled: Deployment) -> None:
    with backfilled.instance() as instance:
        outcomes = {
            period: (record.dagster_run.status.value, run_outcome(instance, record.dagster_run.run_id))
            for period, record in runs_of(instance, MONTHS).items()
        }
    severe = outcomes.pop(SEVERE)
    assert severe == ("FAILURE", "withheld")
    assert set(outcomes.values()) == {("SUCCESS", "success")}
    from mlops_assets.lake.store import Lake

    made = {line.period: line for line in statuses(Lake(backfilled.home.lake_url), "rides")}
    assert made[SEVERE].verdict == "severe"
    assert made[SEVERE].served_rows == 0
    assert made["2021-05"].verdict != "severe", "the champion of 2021-04 was not trained on the new world"
    assert made["2021-05"].served_rows == made["2021-05"].rows > 0


def test_every_check_is_recorded_for_its_month(backfilled: Deployment) -> None:
    from dagster import DagsterEventType

    with backfilled.instance() as instance:
        for period, record in runs_of(instance, MONTHS).items():
            logged = instance.all_logs(record.dagster_run.run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION)
            found = [entry.dagster_event.asset_check_evaluation_data for entry in logged]
            assert {evaluation.partition for evaluation in found} == {period}
            assert {evaluation.check_name for evaluation in found} == CHECKS
            failed = {evaluation.check_name for evaluation in found if not evaluation.passed}
            expected = {"drift_within_limits", "served_complete"} if period == SEVERE else set()
            assert failed & {"drift_within_limits", "served_complete"} == expected


def test_the_lineage_page_shows_the_whole_graph(backfilled: Deployment, page: Page) -> None:
    page.goto(f"{backfilled.url}/locations/{LOCATION}/asset-groups/rides/lineage")
    for name in rides_graph.TABLES:
        # The graph shortens names that don't fit on a node.
        shown = re.compile(rf"^{re.escape(name)}$|^{name[:4]}\S*….*{name[-8:]}$")
        page.get_by_text(shown).first.wait_for(timeout=30_000)


def test_the_severe_months_report_shows_its_table_and_its_pictures(backfilled: Deployment, page: Page) -> None:
    page.goto(page_of(backfilled, "drift_report", "partitions", partition=SEVERE))
    page.get_by_text("since", exact=True).first.wait_for(timeout=30_000)
    assert page.get_by_text("severe", exact=True).count() >= 1
    assert page.get_by_text("2021-04-11").count() >= 1
    entry(page, "report").click()
    table = page.get_by_role("dialog").locator("table")
    table.wait_for(timeout=10_000)
    assert re.search(r"fee\s*severe", table.inner_text())
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached", timeout=10_000)
    entry(page, "drift_by_day").click()
    picture = page.get_by_role("dialog").locator("img")
    picture.wait_for(timeout=10_000)
    assert picture.evaluate("image => image.complete && image.naturalWidth > 300")
    box, around = picture.bounding_box(), page.get_by_role("dialog").locator(":scope > *").first.bounding_box()
    assert box is not None
    assert around is not None
    assert box["x"] + box["width"] <= around["x"] + around["width"], "the picture is wider than its dialog"


def entry(page: Page, name: str) -> Any:
    """The link that opens a metadata entry too long for its line."""
    row = page.locator("tr").filter(has=page.get_by_text(name, exact=True))
    return row.get_by_text(re.compile(r"\[Show"))


def test_the_checks_page_shows_which_month_failed(backfilled: Deployment, page: Page) -> None:
    page.goto(page_of(backfilled, "drift_report", "checks", checkDetail="drift_within_limits"))
    # The check's own tabs, which come after the asset's.
    page.get_by_text("Execution history").wait_for(timeout=30_000)
    page.get_by_text("Partitions", exact=True).last.click()
    page.get_by_text(SEVERE, exact=True).first.click(timeout=30_000)
    page.get_by_text("Verdict severe").first.wait_for(timeout=30_000)
    assert page.get_by_text("Failed", exact=True).count() >= 1


def test_runs_of_the_command_line_are_runs_of_the_job(backfilled: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_HOME", str(backfilled.home.root))
    monkeypatch.setenv("MLOPS_DATA_DIR", str(backfilled.data))
    with backfilled.instance() as instance:
        (result,) = rides_graph.run(rides_graph.definitions(), ["2021-06"], instance)
    assert result.outcome == "success", result.errors
    listed = {run["runId"]: run for run in backfilled.graphql(JOB_RUNS)["runsOrError"]["results"]}
    assert listed[result.run_id]["repositoryOrigin"] == REPOSITORY
    assert {"key": "dagster/partition", "value": "2021-06"} in listed[result.run_id]["tags"]


def test_a_backfill_of_assets_makes_them(backfilled: Deployment) -> None:
    """By the asset graph's own machinery, in the default executor: a process per step."""
    from mlops_assets.lake.store import Lake

    names = ["raw_rides", "features", "profile"]
    launched = backfilled.backfill(assetSelection=[asset("rides", name) for name in names], partitionNames=[LAST])
    backfilled.wait_for_backfill(launched, 300)
    lake = Lake(backfilled.home.lake_url)
    for name in names:
        assert lake.partition("rides", name, LAST).rows > 0
    assert lake.find("rides", "challenger", LAST) is None


def test_assets_by_a_click_give_the_same_records_as_the_job(backfilled: Deployment) -> None:
    from mlops_assets.lake.store import Lake
    from mlops_assets.training import tracking

    run_id = backfilled.click("rides", rides_graph.TABLES[3:], LAST)
    made = {line.period: line for line in statuses(Lake(backfilled.home.lake_url), "rides")}
    with backfilled.instance() as instance:
        assert run_outcome(instance, run_id) == "success", made
    assert made[LAST].served_rows == made[LAST].rows > 0
    assert made[LAST].champion_version is not None
    client = tracking.client(backfilled.home.tracking_uri)
    experiment = client.get_experiment_by_name("rides")
    assert experiment is not None
    logged = client.search_runs([experiment.experiment_id], f"tags.`mlops.period` = '{LAST}'")
    assert {run.info.status for run in logged} == {"FINISHED"}
    (parent,) = [run for run in logged if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in logged if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.info.run_name.split()[0] for run in children} >= {"trial", "drift_report", "performance"}


def test_one_asset_made_again_by_a_click_gives_the_same_rows(backfilled: Deployment) -> None:
    from mlops_assets.lake.store import Lake

    lake = Lake(backfilled.home.lake_url)
    before = {name: lake.partition("rides", name, "2021-05").digest for name in rides_graph.TABLES}
    run_id = backfilled.click("rides", ["predictions"], "2021-05")
    with backfilled.instance() as instance:
        assert run_outcome(instance, run_id) == "success"
    assert {name: lake.partition("rides", name, "2021-05").digest for name in rides_graph.TABLES} == before


def page_of(deployment: Deployment, asset: str, view: str, **query: str) -> str:
    more = "".join(f"&{name}={value}" for name, value in query.items())
    return f"{deployment.url}/assets/rides/{asset}?view={view}{more}"
