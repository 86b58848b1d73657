"""The shipped green taxi model for tests, also as small as the one of the replaced system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets_tests.end_to_end.shipped import DATA, ShippedModel, ingest

GREEN_TAXI = ShippedModel("green_taxi")
NAME, SQL = GREEN_TAXI.name, GREEN_TAXI.sql
declared, backfilled, workbench = GREEN_TAXI.declared, GREEN_TAXI.backfilled, GREEN_TAXI.workbench
__all__ = [
    "NAME",
    "SMALL",
    "SQL",
    "as_small_as_the_replaced_system",
    "backfilled",
    "declared",
    "ingest",
    "path",
    "workbench",
]

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


def as_small_as_the_replaced_system() -> ModelSpec:
    """The declaration with that system's model: small, and every column a number to it, location ids too."""
    columns = {name: {**rules, "categorical": False} for name, rules in GREEN_TAXI.attributes()["columns"].items()}
    return declared(columns=columns, **SMALL)


def path(period: str) -> Path:
    """The shipped file of a month."""
    return DATA / NAME / f"green_tripdata_{period}.parquet"
