"""The Dagster entry point: every model below `defs/`, and the resources that they share."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from mlops_assets.declaration.checks import check_models
from mlops_assets.lake.io_manager import LakeIOManager
from mlops_assets.monitored_model.assets import LAKE_IO_MANAGER
from mlops_assets.monitored_model.resources import LakeResource, StoreResource, duckdb, heartbeat
from mlops_assets.monitored_model.sensors import platform_sensors


def shared_resources() -> dict[str, object]:
    """The resources that all models use; a deployment replaces those that it has its own of."""
    return {
        "lake": LakeResource(),
        "store": StoreResource(),
        "heartbeat": heartbeat,
        "duckdb": duckdb,
        LAKE_IO_MANAGER: LakeIOManager(),
    }


def monitored_models(package: Path) -> dg.Definitions:
    """The models below `defs/` of a package, with all that they share: what a project of your own returns, too.

    Raises DeclarationError, before Dagster loads anything, with the file and line of all that is wrong.
    """
    check_models(package / "defs")
    return dg.Definitions.merge(
        dg.load_from_defs_folder(path_within_project=package),
        dg.Definitions(
            resources=shared_resources(),
            sensors=platform_sensors(),
            # For clicks and asset backfills, as for the jobs: a process per step would cost several seconds each.
            executor=dg.in_process_executor,
        ),
    )


@dg.definitions
def defs() -> dg.Definitions:
    return monitored_models(Path(__file__).parent)
