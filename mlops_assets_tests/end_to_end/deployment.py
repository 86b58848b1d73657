"""The real webserver and daemon over one home, driven as the pages do: by GraphQL."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlops_assets.home import PROJECT, Home
from mlops_assets_tests.end_to_end import automation
from mlops_assets_tests.end_to_end.processes import free_ports, running, wait_for

if TYPE_CHECKING:
    from dagster import DagsterInstance

# The location's name must be that of workspace.yaml, which runs of the command line are linked to.
LOCATION = "mlops_assets"
REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": LOCATION}
FINISHED = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
LAUNCH_BACKFILL = """
mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
    ... on UnauthorizedError { message }
  }
}
"""
BACKFILL_STATUS = """
query($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status error { message } }
  }
}
"""
LAUNCH_RUN = """
mutation($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""


@dataclass(frozen=True)
class Deployment:
    """A running webserver and daemon over one home."""

    url: str
    home: Home
    data: Path
    log: Path

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found["errors"]
        return found["data"]

    def instance(self) -> DagsterInstance:
        return automation.instance_of(self.home)

    def backfill(self, **params: Any) -> str:
        """Launch a backfill, return its id."""
        launched = self.graphql(LAUNCH_BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return launched["backfillId"]

    def backfill_job(self, job: str, periods: Sequence[str]) -> str:
        """Launch a backfill of a period job as its page does, return its id."""
        selector = {"partitionSetName": f"{job}_partition_set", "repositorySelector": REPOSITORY}
        return self.backfill(selector=selector, partitionNames=list(periods))

    def wait_for_backfill(self, backfill_id: str, seconds: float) -> None:
        def done() -> bool:
            found = self.graphql(BACKFILL_STATUS, id=backfill_id)["partitionBackfillOrError"]
            assert not found["error"], found["error"]
            return found["status"] in FINISHED

        wait_for(done, seconds, f"backfill {backfill_id}", self.log)

    def click(self, model: str, names: Sequence[str], period: str) -> str:
        """Materialize assets of one period as their page does, wait until it is done, return the run's id."""
        selection = [asset(model, name) for name in names]
        params = {
            "selector": {**REPOSITORY, "pipelineName": "__ASSET_JOB", "assetSelection": selection},
            "runConfigData": {},
            "mode": "default",
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": period}]},
        }
        launched = self.graphql(LAUNCH_RUN, params=params)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run_id = launched["run"]["runId"]
        with self.instance() as instance:
            wait_for(lambda: instance.get_run_by_id(run_id).is_finished, 300, f"run {run_id}", self.log)
        return run_id


def asset(model: str, name: str) -> dict[str, list[str]]:
    return {"path": [model, name]}


@contextmanager
def deployed(workspace: Path, home: Home, data: Path, log: Path) -> Iterator[Deployment]:
    """Webserver and daemon of a workspace, ended on leaving."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_HOME", raising=False)
        dagster_home = home.prepare_dagster()
    (port,) = free_ports(1)
    environment = {
        "MLOPS_HOME": str(home.root),
        "MLOPS_DATA_DIR": str(data),
        "DAGSTER_HOME": str(dagster_home),
        "PYTHONPATH": str(PROJECT),
    }
    command = [sys.executable, "-m", "mlops_assets.servers.dagster_ui", "-w", str(workspace), "--port", str(port)]
    with running(command, environment, log) as process:
        found = Deployment(f"http://127.0.0.1:{port}", home, data, log)

        def ready() -> bool:
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                return "repositoriesOrError" in found.graphql("{ repositoriesOrError { __typename } }")
            except (urllib.error.URLError, OSError):
                return False

        wait_for(ready, 120, "the webserver", log)
        yield found
