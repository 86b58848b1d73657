"""The shipped green taxi model for tests: its declaration with changes, its months through Dagster or step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

NAME = "green_taxi"
DATA = PROJECT / "data"
FOLDER = PROJECT / "mlops_assets" / "defs" / NAME
SQL = (FOLDER / "features.sql").read_text()

# As small as the one of the replaced system: few bins, no interactions, one bag, judged at the 0.5 cut.
SMALL: dict[str, Any] = {
    "candidates": [
        {
            "estimator": "interpret.glassbox.ExplainableBoostingClassifier",
            "params": {"interactions": 0, "outer_bags": 1},
            "search": {"max_bins": {"int": [8, 16]}},
        }
    ],
    "trials": 1,
    "seed": 42,
    "cut": 0.5,
}


def attributes() -> dict[str, Any]:
    """What the shipped defs.yaml says."""
    return yaml.safe_load((FOLDER / "defs.yaml").read_text())["attributes"]


def declared(**changes: Any) -> ModelSpec:
    """The shipped declaration, with top-level changes."""
    return ModelSpec.model_validate(attributes() | changes)


def as_small_as_the_replaced_system() -> ModelSpec:
    """The declaration with that system's model: small, and every column a number to it, location ids too."""
    columns = {name: {**rules, "categorical": False} for name, rules in attributes()["columns"].items()}
    return declared(columns=columns, **SMALL)


def path(period: str) -> Path:
    """The shipped file of a month."""
    return DATA / NAME / f"green_tripdata_{period}.parquet"


def backfilled(root: Path, spec: ModelSpec, first: str, last: str) -> tuple[Lake, list[PeriodRunResult]]:
    """Run the months by the period job, in this process, on a home at `root`; the lake and how the runs ended."""
    definitions = dg.Definitions.merge(build_definitions(spec, SQL), dg.Definitions(resources=shared_resources()))
    with pytest.MonkeyPatch.context() as patch:
        for variable in MLOPS_VARIABLES:
            # Set first, so that what a test before left behind, or this one leaves, is undone.
            patch.setenv(variable, "")
            patch.delenv(variable)
        patch.setenv("MLOPS_HOME", str(root))
        results = list(backfill(definitions, spec.name, spec.calendar.between(first, last)))
        return Lake(Home(root).lake_url), results


@contextmanager
def workbench(root: Path, spec: ModelSpec, data_dir: Path = DATA) -> Iterator[Workbench]:
    """A workbench of the model with a lake below `root`, for the steps that log nothing."""
    home = Home(root)
    with duckdb.connect() as con:
        yield Workbench(
            spec=spec,
            sql=SQL,
            home=home,
            lake=Lake(home.lake_url),
            con=con,
            store=Store(home.store_url),
            data_dir=data_dir,
        )


def ingest(bench: Workbench, periods: Sequence[str]) -> None:
    """Raw trips, features and profiles of the months."""
    for period in periods:
        raw_step.make(bench, period)
        features_step.make(bench, period)
        profile_step.make(bench, period)
