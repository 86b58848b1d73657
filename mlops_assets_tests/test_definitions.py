"""What Dagster finds in this project: a list that changes on purpose only, and Dagster's own tools at work on it."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.definitions import defs
from mlops_assets.simulation.batches import simulated_model
from mlops_assets_tests.shipped_files import shipped

PROJECT = Path(__file__).resolve().parents[1]
ASSETS = {
    "raw_trips": {"source_schema", "volume", "in_period"},
    "features": {"feature_schema", "completeness"},
    "profile": set(),
    "challenger": {"training_sane", "new_data_size"},
    "champion": set(),
    "predictions": set(),
    "drift_report": {"drift_within_limits"},
    "fallback_predictions": set(),
    "served_predictions": {"served_complete"},
    "performance": {"performance_within_limits"},
}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return defs()


MODELS = [
    ("green_taxi", "trips", "monthly", ("2021-01", "2023-03", 27)),
    ("bank_marketing", "calls", "monthly", ("2008-05", "2010-11", 31)),
    ("ed_admission", "visits", "monthly", None),
    ("unit_sales", "sales", "weekly", ("2014-01-06", "2018-12-24", 260)),
]


def added() -> set[str]:
    """The models of one's own, beside those that ship: a model's folder has its name."""
    folder = PROJECT / "mlops_assets" / "defs"
    ours = {path.relative_to(folder).parts[0] for path in shipped(folder)}
    return {path.name for path in folder.iterdir()} - ours


def shipped_keys(definitions: dg.Definitions) -> list[dg.AssetKey]:
    own = added()
    return [key for key in definitions.resolve_asset_graph().get_all_asset_keys() if key.path[0] not in own]


def test_these_models_are_declared(definitions: dg.Definitions) -> None:
    assert {key.path[0] for key in shipped_keys(definitions)} == {name for name, *_ in MODELS}


@pytest.mark.parametrize(("model", "records", "cadence", "periods"), MODELS)
def test_a_model_has_these_assets_checks_jobs_periods_and_schedules(
    definitions: dg.Definitions, model: str, records: str, cadence: str, periods: tuple[str, str, int] | None
) -> None:
    graph = definitions.resolve_asset_graph()
    checks: dict[str, set[str]] = {key.path[1]: set() for key in graph.get_all_asset_keys() if key.path[0] == model}
    for key in graph.asset_check_keys:
        if key.asset_key.path[0] == model:
            checks[key.asset_key.path[1]].add(key.name)
    expected = {name.replace("raw_trips", f"raw_{records}"): found for name, found in ASSETS.items()}
    if model == "unit_sales":
        expected["challenger"] = expected["challenger"] | {"beats_baseline"}
    assert checks == expected
    jobs = {job.name for job in definitions.resolve_all_job_defs() if not job.name.startswith("__")}
    assert f"{model}_{cadence}" in jobs
    schedule = definitions.resolve_schedule_def(f"{model}_{cadence}_schedule")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    resources = definitions.get_repository_def().get_top_level_resources()
    assert {"lake", "duckdb", "lake_io_manager", f"mlflow_{model}"} <= set(resources)
    partitions = definitions.resolve_job_def(f"{model}_{cadence}").partitions_def
    assert partitions is not None
    if periods is not None:
        keys = partitions.get_partition_keys()
        assert (keys[0], keys[-1], len(keys)) == periods


def test_simulate_calls_those_months_makeable_that_are_partitions_of_dagster(definitions: dg.Definitions) -> None:
    model = simulated_model(PROJECT / "mlops_assets" / "defs" / "ed_admission")
    partitions = definitions.resolve_job_def("ed_admission_monthly").partitions_def
    assert isinstance(partitions, dg.TimeWindowPartitionsDefinition)
    drawn = model.periods("24")
    last = model.calendar.end(drawn[-1])
    moments = [model.calendar.start(drawn[0]), model.calendar.end(drawn[0]), datetime(2026, 11, 21, 12), last]
    moments += [moment - timedelta(seconds=1) for moment in moments]
    for moment in [*moments, last + timedelta(days=400)]:
        keys = partitions.get_partition_keys(current_time=moment.replace(tzinfo=UTC))
        assert [period for period in drawn if model.can_be_made_from(period) <= moment] == keys, moment


def test_every_asset_is_described_owned_grouped_and_partitioned(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in shipped_keys(definitions):
        node = graph.get(key)
        model = key.path[0]
        assert node.description, key
        assert node.kinds, key
        assert node.owners, key
        assert node.group_name == model
        assert node.tags["mlops/model"] == model
        assert node.partitions_def is not None


def test_checks_are_described_partitioned_and_only_the_border_blocks(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    specs = [graph.get_check_spec(key) for key in graph.asset_check_keys]
    assert all(spec.description and spec.partitions_def is not None for spec in specs)
    assert {spec.name for spec in specs if spec.blocking} == {"served_complete"}


def test_nothing_of_the_platform_hangs_below_what_is_served(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        if key.path[1] == "served_predictions":
            assert graph.get(key).child_keys == set()


def test_dagsters_own_tools_read_the_project(home: Path) -> None:
    expected = {
        ("check", "yaml"): "All component YAML validated successfully",
        ("check", "defs"): "All component YAML validated successfully",
        ("list", "defs"): "green_taxi/served_predictions",
        ("list", "components"): "mlops_assets.MonitoredModel",
    }
    environment = {**os.environ, "COLUMNS": "200", "DAGSTER_HOME": ""}
    dg_command = str(Path(sys.executable).with_name("dg"))
    for command, said in expected.items():
        done = subprocess.run(
            [dg_command, *command], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
        )
        printed = done.stdout + done.stderr
        assert done.returncode == 0, f"dg {' '.join(command)}: {printed}"
        assert said in printed, f"dg {' '.join(command)}: {printed}"
