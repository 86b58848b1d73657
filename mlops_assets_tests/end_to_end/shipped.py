"""A shipped model for tests: its declaration with changes, its periods through Dagster or step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
import yaml

from mlops_assets.definitions import shared_resources
from mlops_assets.home import PROJECT, Home
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.backfill import PeriodRunResult, backfill
from mlops_assets.monitored_model.component import build_definitions
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.steps import features as features_step
from mlops_assets.monitored_model.steps import profile as profile_step
from mlops_assets.monitored_model.steps import raw as raw_step
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets_tests.conftest import MLOPS_VARIABLES

DATA = PROJECT / "data"


@dataclass(frozen=True)
class ShippedModel:
    """A model of `mlops_assets/defs`, by its name."""

    name: str

    @property
    def folder(self) -> Path:
        return PROJECT / "mlops_assets" / "defs" / self.name

    @property
    def sql(self) -> str:
        return (self.folder / "features.sql").read_text()

    def attributes(self) -> dict[str, Any]:
        """What the shipped defs.yaml says."""
        return yaml.safe_load((self.folder / "defs.yaml").read_text())["attributes"]

    def declared(self, **changes: Any) -> ModelSpec:
        """The shipped declaration, with top-level changes."""
        return ModelSpec.model_validate(self.attributes() | changes)

    def backfilled(
        self, root: Path, spec: ModelSpec, first: str, last: str, data_dir: Path = DATA
    ) -> tuple[Lake, list[PeriodRunResult]]:
        """Run periods by the period job, in this process, on a home at `root`; the lake and how the runs ended."""
        definitions = dg.Definitions.merge(
            build_definitions(spec, self.sql), dg.Definitions(resources=shared_resources())
        )
        with pytest.MonkeyPatch.context() as patch:
            for variable in MLOPS_VARIABLES:
                # Set first, so that what a test before left behind, or this one leaves, is undone.
                patch.setenv(variable, "")
                patch.delenv(variable)
            patch.setenv("MLOPS_HOME", str(root))
            patch.setenv("MLOPS_DATA_DIR", str(data_dir))
            results = list(backfill(definitions, spec.name, spec.calendar.between(first, last)))
            return Lake(Home(root).lake_url), results

    @contextmanager
    def workbench(self, root: Path, spec: ModelSpec, data_dir: Path = DATA) -> Iterator[Workbench]:
        """A workbench of the model with a lake below `root`, for the steps that log nothing."""
        home = Home(root)
        with duckdb.connect() as con:
            yield Workbench(
                spec=spec,
                sql=self.sql,
                home=home,
                lake=Lake(home.lake_url),
                con=con,
                store=Store(home.store_url),
                data_dir=data_dir,
            )


def ingest(bench: Workbench, periods: Sequence[str]) -> None:
    """Raw records, features and profiles of the periods."""
    for period in periods:
        raw_step.make(bench, period)
        features_step.make(bench, period)
        profile_step.make(bench, period)
