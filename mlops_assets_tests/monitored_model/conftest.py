"""A backfilled history of the tiny model, made once and only read; and copies of it for tests that change it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.home import Home
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake, Partition
from mlops_assets.monitored_model.backfill import PeriodRunResult
from mlops_assets.training import tracking
from mlops_assets_tests import rides_graph, tiny_model
from mlops_assets_tests.conftest import MLOPS_VARIABLES

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MADE = [f"2021-{month:02}" for month in range(1, 7)]
TURNED = "2021-07"


@dataclass(frozen=True)
class History:
    """What a backfill left behind: its home, data, Dagster instance and results by period."""

    home: Home
    data: Path
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    results: dict[str, PeriodRunResult]

    @property
    def lake(self) -> Lake:
        return Lake(self.home.root / "lake")

    @property
    def store(self) -> Store:
        return Store(self.home.store_url)

    @property
    def client(self) -> MlflowClient:
        return tracking.client(f"sqlite:///{self.home.mlflow / 'mlflow.db'}")

    def partition(self, table: str, period: str) -> Partition:
        return self.lake.partition("rides", table, period)

    def digests(self, table: str) -> dict[str, str]:
        """The content's digest by period."""
        return {period: self.partition(table, period).digest for period in self.lake.periods("rides", table)}

    def runs(self, **tags: str) -> list[Run]:
        """MLflow runs of the model with these tags (`period` for `mlops.period`), newest first."""
        experiment = self.client.get_experiment_by_name("rides")
        wanted = {name.replace("period", "mlops.period"): value for name, value in tags.items()}
        text = " and ".join(f"tags.`{name}` = '{value}'" for name, value in wanted.items())
        return list(self.client.search_runs([experiment.experiment_id], filter_string=text, max_results=1000))

    def aliases(self) -> dict[str, str]:
        return {name: str(v) for name, v in self.client.get_registered_model("rides").aliases.items()}

    def withhold(self, period: str) -> None:
        """Take plan B's predictions of a severe period away, as if its sensor had not run yet."""
        for table in ("fallback_predictions", "served_predictions"):
            Path(self.partition(table, period).url).unlink()

    def run(self, *periods: str) -> dict[str, PeriodRunResult]:
        """Backfill these periods, here and now."""
        return {result.period: result for result in rides_graph.run(self.definitions, periods, self.instance)}

    def environment(self) -> dict[str, str]:
        return {**os.environ, "MLOPS_HOME": str(self.home.root), "MLOPS_DATA_DIR": str(self.data)}


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Six months of the tiny model, with a break in the fourth and a consumer's asset; tests only read it."""
    root = tmp_path_factory.mktemp("history")
    home, data = Home(root / "home"), root / "data"
    rides_graph.write_turning_rides(data)
    spec = tiny_model.spec()
    definitions = rides_graph.definitions(spec, tiny_model.SQL, rides_graph.revenue(spec))
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        use_home(patch, home, data)
        results = {result.period: result for result in rides_graph.run(definitions, MADE, instance)}
        yield History(home, data, definitions, instance, results)


@pytest.fixture(scope="session")
def turned(history: History, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """The history and one month more, which turns again after healthy ones: plan B serves it. Tests only read it."""
    with pytest.MonkeyPatch.context() as patch, copied(history, tmp_path_factory.mktemp("turned"), patch) as copy:
        turn_again(copy)
        yield replace(copy, results=history.results | copy.run(TURNED))


@pytest.fixture
def own_history(history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    """A copy of the history that a test may change. Its MLflow runs keep their artifacts where they were."""
    with copied(history, tmp_path, monkeypatch) as copy:
        yield copy


@pytest.fixture
def own_turned(turned: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    """A copy of the history that has turned again, for a test to change."""
    with copied(turned, tmp_path, monkeypatch) as copy:
        yield copy


@pytest.fixture
def told(own_history: History, monkeypatch: pytest.MonkeyPatch) -> History:
    """The project has the tiny model and its history, for the command line."""
    monkeypatch.setattr("mlops_assets.definitions.defs", lambda: own_history.definitions)
    return own_history


def turn_again(history: History) -> None:
    """Write the month after the history: four of five fees were never seen."""
    rides = tiny_model.rides(TURNED)
    fees = pa.array([40.0 if number % 5 else 5.0 for number in range(rides.num_rows)])
    rides = rides.set_column(rides.schema.get_field_index("fee"), "fee", fees)
    pq.write_table(rides, history.data / "rides" / f"{TURNED}.parquet")


@contextmanager
def copied(history: History, root: Path, patch: pytest.MonkeyPatch) -> Iterator[History]:
    """A copy of a history below `root`, which the environment names; with a new Dagster instance."""
    home, data = Home(root / "copied_home"), root / "data"
    shutil.copytree(history.home.root, home.root, symlinks=True)
    shutil.copytree(history.data, data)
    use_home(patch, home, data)
    with dg.DagsterInstance.ephemeral() as instance:
        yield History(home, data, history.definitions, instance, history.results)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, where MLOPS_DATA_DIR points."""
    folder = tmp_path / "data"
    monkeypatch.setenv("MLOPS_DATA_DIR", str(folder))
    return folder


def use_home(patch: pytest.MonkeyPatch, home: Home, data: Path) -> None:
    """Let the environment name this home and nothing else; MLflow sets its own variable when it is used."""
    for variable in MLOPS_VARIABLES:
        patch.delenv(variable, raising=False)
    patch.setenv("MLOPS_HOME", str(home.root))
    patch.setenv("MLOPS_DATA_DIR", str(data))


def check_statuses(instance: dg.DagsterInstance, definitions: dg.Definitions) -> dict[tuple[str, str], dict[str, str]]:
    """Status by period of every declared check, by asset and check name."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    keys = definitions.resolve_asset_graph().asset_check_keys
    for key in sorted(keys, key=str):
        rows = instance.event_log_storage.get_asset_check_partition_info([key])
        found[key.asset_key.path[-1], key.name] = {
            row.partition_key: row.latest_execution_status.value for row in rows if row.partition_key
        }
    return found


def evaluations(result_events: Any) -> dict[tuple[str, str], Any]:
    """The check evaluations among a run's events, by asset and check name."""
    found = {}
    for event in result_events:
        if event.event_type_value == "ASSET_CHECK_EVALUATION":
            evaluation = event.asset_check_evaluation_data
            found[evaluation.asset_key.path[-1], evaluation.check_name] = evaluation
    return found
