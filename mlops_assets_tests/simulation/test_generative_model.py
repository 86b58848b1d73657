"""A simulation.yaml that can't work is refused with the place and the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mlops_assets.simulation.generative_model import SimulationError, read_generative_model
from mlops_assets_tests.simulation import clinic


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("variables.age", {"normal": {"mean": 1, "sd": 1}, "poisson": 3}, "exactly one of"),
        ("variables.age", {"about": "nothing"}, "found none"),
        ("variables.age.normal.mean", "50 + kept", "'kept', which is no parameter and not drawn before it"),
        ("variables.age.normal.mean", "50 + oldr", "did you mean older"),
        ("variables.age.normal.sigma", 3, "Extra inputs are not permitted"),
        ("variables.illness.missing", 0.1, "a latent variable is not written"),
        ("variables.way.round", 1, "choice gives names"),
        ("variables.urgency.levels.cuts", [1, -1], "they have to ascend"),
        ("variables.older", {"value": 1}, "has the name of a parameter"),
        ("variables.hour", {"value": 1}, "has the name of a parameter, the time"),
        ("outcome.column", "keeps", "outcome 'keeps' is not among the written variables"),
        ("outcome.column", "illness", "outcome 'illness' is not among the written variables"),
        ("drifts.covariate.parameters", {"age": 3}, "changes ['age']; parameters are ['older', 'stopped']"),
        ("drifts.covariate.parameters", {}, "the drift changes nothing"),
        ("drifts.prior.outcome_share", 1.0, "less than 1"),
        ("time.hours", [1, 2], "at least 24 items"),
        ("time.weekdays", [0] * 7, "one has to be above 0"),
        ("rows", 0, "greater than 0"),
    ],
)
def test_a_wrong_declaration_is_refused(place: str, value: Any, said: str) -> None:
    with pytest.raises(ValidationError) as error:
        clinic.generative_model(place, value)
    assert said in str(error.value)


def test_the_file_and_the_place_are_told(tmp_path: Path) -> None:
    folder = clinic.write_folder(tmp_path, clinic.changed(clinic.SIMULATION, "variables.age.normal.mean", "1 +"))
    with pytest.raises(SimulationError, match=r"simulation.yaml:\d+: variables.age.normal.mean.*'1 \+' is no formula"):
        read_generative_model(folder / "simulation.yaml")
    (folder / "simulation.yaml").write_text("a: [")
    with pytest.raises(SimulationError, match=r"simulation.yaml:2: found .*expected YAML"):
        read_generative_model(folder / "simulation.yaml")
