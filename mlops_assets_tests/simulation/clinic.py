"""A generative model small enough for a test, and the folder of a model that it belongs to."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.simulation.batches import SimulatedModel, simulated_model
from mlops_assets.simulation.generative_model import GenerativeModel

SIMULATION: dict[str, Any] = {
    "about": "Synthetic visits to a clinic.",
    "rows": 400,
    "time": {"column": "arrived_at", "hours": [0] * 8 + [1] * 8 + [0] * 8, "weekdays": [1, 1, 1, 1, 1, 0, 0]},
    "origin": "origin",
    "outcome": {"column": "kept", "positive": "yes"},
    "missing_in_table": ["NA"],
    "parameters": {"older": 0, "stopped": 0},
    "drifts": {
        "covariate": {"about": "Older people come.", "start": "2025-03", "parameters": {"older": 10}},
        "missing": {"about": "The laboratory stops.", "start": "2025-03", "parameters": {"stopped": 1}},
        "prior": {"about": "More of them stay.", "start": "2025-03", "outcome_share": 0.7},
        "other": {"about": "Fewer of them stay.", "start": "2025-03", "outcome_share": 0.1},
    },
    "variables": {
        "illness": {"latent": True, "normal": {"mean": 0, "sd": 1}},
        "age": {"normal": {"mean": "50 + older + 5 * illness", "sd": 10}, "clip": [18, 99], "round": 0},
        "way": {"choice": {"car": 1, "on foot": "exp(-illness)"}, "missing": 0.1},
        "urgency": {"levels": {"score": "illness", "cuts": [-1, 1], "first": 1}},
        "day": {"value": "weekday", "labels": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]},
        "count": {
            "lognormal": {"median": 8, "sigma": 0.2},
            "round": 1,
            "missing": "1 - logistic(illness) * (1 - stopped)",
        },
        "visits": {"negative_binomial": {"mean": "exp(0.5 * illness)", "size": 1}},
        "kept": {"bernoulli": "logistic(-1 + 1.5 * illness + 0.03 * (age - 50))", "labels": ["no", "yes"]},
    },
}
DEFS: dict[str, Any] = {
    "name": "clinic",
    "cadence": "monthly",
    "start": "2025-01",
    "end": "2025-12",
    "source": {
        "path": "clinic/visits_{period}.parquet",
        "time_column": "arrived_at",
        "schema": {
            "arrived_at": "TIMESTAMP",
            "origin": "VARCHAR",
            "age": "BIGINT",
            "way": "VARCHAR",
            "urgency": "BIGINT",
            "day": "VARCHAR",
            "count": "DOUBLE",
            "visits": "BIGINT",
            "kept": "VARCHAR",
        },
    },
}


def changed(declared: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A declaration with one value replaced or added at a dotted place; None takes it away."""
    own = copy.deepcopy(declared)
    *parents, last = place.split(".")
    inside: Any = own
    for name in parents:
        inside = inside.setdefault(name, {})
    if value is None:
        del inside[last]
    else:
        inside[last] = value
    return own


def generative_model(place: str | None = None, value: Any = None) -> GenerativeModel:
    return GenerativeModel.model_validate(SIMULATION if place is None else changed(SIMULATION, place, value))


def write_folder(root: Path, simulation: dict[str, Any] = SIMULATION, defs: dict[str, Any] = DEFS) -> Path:
    """The model's folder, with its declaration and its generative model."""
    folder = root / "defs" / "clinic"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "defs.yaml").write_text(
        yaml.safe_dump({"type": "mlops_assets.MonitoredModel", "attributes": defs}, sort_keys=False)
    )
    (folder / "simulation.yaml").write_text(yaml.safe_dump(simulation, sort_keys=False))
    return folder


def model(root: Path, simulation: dict[str, Any] = SIMULATION, defs: dict[str, Any] = DEFS) -> SimulatedModel:
    return simulated_model(write_folder(root, simulation, defs))
