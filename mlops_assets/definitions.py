"""The Dagster entry point: every model below `defs/`, and the resources that they share."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from mlops_assets.lake.io_manager import LakeIOManager
from mlops_assets.monitored_model.assets import LAKE_IO_MANAGER
from mlops_assets.monitored_model.resources import LakeResource, StoreResource, duckdb_resource, heartbeat
from mlops_assets.monitored_model.sensors import platform_sensors


def shared_resources() -> dict[str, object]:
    """The resources that all models use; a deployment replaces those that it has its own of."""
    return {
        "lake": LakeResource(),
        "store": StoreResource(),
        "heartbeat": heartbeat,
        "duckdb": duckdb_resource(),
        LAKE_IO_MANAGER: LakeIOManager(),
    }


@dg.definitions
def defs() -> dg.Definitions:
    models = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    return dg.Definitions.merge(
        models,
        dg.Definitions(
            resources=shared_resources(),
            sensors=platform_sensors(),
            # For clicks and asset backfills, as for the jobs: a process per step would cost several seconds each.
            executor=dg.in_process_executor,
        ),
    )
