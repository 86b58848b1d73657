"""The synthetic emergency department: its columns, its medicine, and what each kind of drift does to a model."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlops_assets.home import PROJECT
from mlops_assets.simulation.batches import SimulatedModel, simulated_model
from mlops_assets.simulation.sampling import ActiveDrift, draw
from mlops_assets.training.candidates import Candidate, Target
from mlops_assets.training.metrics import classification_metrics
from mlops_assets.training.pipeline import build_pipeline, scores

SCHEMA = json.loads((PROJECT / "data" / "ed_admission" / "schema.json").read_text())["columns"]
TARGET = Target(column="admitted")
FOLDER = Path(PROJECT) / "mlops_assets" / "defs" / "ed_admission"


@cache
def model() -> SimulatedModel:
    return simulated_model(FOLDER)


@cache
def visits(period: str = "2025-01", drift: str | None = None, strength: float = 1.0) -> pd.DataFrame:
    """8,000 visits of a month."""
    known = model()
    active = [ActiveDrift(drift, strength)] if drift else []
    first, end = known.calendar.start(period), known.calendar.end(period)
    records = draw(known.generative, known.name, period, 8000, first=first, end=end, seed=42, drifts=active)
    return pd.DataFrame({name: pd.Series(v).mask(records.missing[name]) for name, v in records.values.items()})


def admitted(frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    return (frame["disposition"] == "admit").to_numpy(dtype=np.int8)


@cache
def trained() -> Any:
    """A logistic regression of January."""
    frame = visits()
    features = frame.drop(columns=["disposition", "arrivalmonth"])
    kinds = {name: "categorical" if features[name].dtype == object else "numeric" for name in features}
    logistic = Candidate(estimator="sklearn.linear_model.LogisticRegression")
    pipeline = build_pipeline(logistic, kinds, {"max_iter": 500, "C": 0.05}, 42, "classification")
    return pipeline.fit(features, admitted(frame))


def measured(frame: pd.DataFrame) -> tuple[float, np.ndarray[Any, Any]]:
    scored = scores(trained(), frame, TARGET)
    return classification_metrics(admitted(frame), scored, 0.5)["auc"], scored


def prediction_drift(frame: pd.DataFrame) -> float:
    """Evidently's default: Wasserstein distance over the standard deviation of the reference."""
    before, after = measured(visits("2025-02"))[1], measured(frame)[1]
    return float(stats.wasserstein_distance(before, after) / before.std())


def test_every_column_of_the_schema_is_drawn_with_its_categories_and_no_other() -> None:
    assert set(model().table_columns) == set(SCHEMA) == set(visits().columns)
    year = pd.concat([visits(f"2025-{month:02}") for month in range(1, 13)])
    for name, declared in SCHEMA.items():
        if declared["type"] != "numeric":
            assert set(year[name].dropna()) <= set(declared["categories"]), name
        elif declared["integer"] and name != "platelets_median":
            assert (year[name].dropna() % 1 == 0).all(), name
    assert set(year["arrivalmonth"]) == set(SCHEMA["arrivalmonth"]["categories"])
    assert set(year["arrivalhour_bin"]) == set(SCHEMA["arrivalhour_bin"]["categories"])


def test_shares_of_missing_values_and_medians_are_about_those_of_the_schema() -> None:
    frame = visits()
    for name, declared in SCHEMA.items():
        if declared["type"] == "target":
            continue
        assert frame[name].isna().mean() == pytest.approx(declared["null_share"], abs=0.06), name
        if declared["type"] == "numeric" and not name.startswith(("cktotal", "d-dimer")):  # too few in the sample
            assert frame[name].quantile(0.2) <= declared["median"] <= frame[name].quantile(0.8), name


def test_three_of_ten_are_admitted_and_a_plain_model_can_tell_them_but_not_perfectly() -> None:
    assert admitted(visits("2025-02")).mean() == pytest.approx(0.30, abs=0.025)
    assert 0.84 < measured(visits("2025-02"))[0] < 0.90


def test_the_findings_go_together_as_in_patients() -> None:
    frame = visits()
    yes = frame["disposition"] == "admit"
    assert frame["esi"][yes].mean() < frame["esi"][~yes].mean()
    assert frame["age"][yes].mean() > frame["age"][~yes].mean() + 5
    assert (frame["arrivalmode"] == "ambulance")[yes].mean() > 2 * (frame["arrivalmode"] == "ambulance")[~yes].mean()
    assert frame["triage_vital_sbp"].corr(frame["triage_vital_dbp"], method="spearman") > 0.4
    assert frame["triage_vital_hr"].corr(frame["triage_vital_temp"], method="spearman") > 0.1
    assert frame["triage_vital_o2"].corr(frame["triage_vital_rr"], method="spearman") < -0.1
    assert (frame["age"][frame["cc_fall>65"] == 1] > 65).all()
    assert (frame["gender"][frame["cc_abdominalpainpregnant"] == 1] == "female").all()
    for lab in ("wbc", "rbc", "platelets", "albumin"):
        known = frame[[f"{lab}_min", f"{lab}_median", f"{lab}_max"]].dropna()
        assert (known[f"{lab}_min"] <= known[f"{lab}_median"]).all()
        assert (known[f"{lab}_median"] <= known[f"{lab}_max"]).all()
        last = frame[f"{lab}_last"].dropna()
        assert frame.loc[last.index, f"{lab}_max"].notna().all(), "the last value is one of those"


def test_laboratory_values_are_known_of_the_sicker() -> None:
    frame = visits()
    tested = frame["wbc_max"].notna()
    assert admitted(frame[tested]).mean() > admitted(frame[~tested]).mean() + 0.08
    assert (tested == frame["rbc_max"].notna()).all(), "a blood count comes as a whole"


def test_a_quiet_month_does_not_drift() -> None:
    assert prediction_drift(visits("2025-03")) < 0.1


def test_covariate_drift_moves_the_predictions_beyond_the_threshold() -> None:
    wave = visits("2025-03", "covariate")
    assert wave["age"].median() > visits("2025-03")["age"].median() + 10
    assert wave["triage_vital_temp"].median() > visits("2025-03")["triage_vital_temp"].median() + 0.4
    assert prediction_drift(wave) > 0.65
    assert measured(wave)[0] > 0.85
    assert prediction_drift(visits("2025-03", "covariate", 0.5)) < prediction_drift(wave)


def test_concept_drift_leaves_who_comes_and_changes_who_is_admitted() -> None:
    before, after = visits("2025-03"), visits("2025-03", "concept")
    assert before.drop(columns="disposition").equals(after.drop(columns="disposition"))
    assert admitted(after).mean() < admitted(before).mean() - 0.05
    assert measured(after)[0] < measured(before)[0] - 0.04


def test_missing_drift_takes_laboratory_values_and_vital_signs_away() -> None:
    before, after = visits("2025-03"), visits("2025-03", "missing")
    assert after["wbc_max"].isna().mean() > 0.9
    assert after["triage_vital_sbp"].isna().mean() > before["triage_vital_sbp"].isna().mean() + 0.3
    assert (after["disposition"] == before["disposition"]).all()


def test_prior_drift_sets_the_share_of_admissions() -> None:
    before, after = visits("2025-03"), visits("2025-03", "prior")
    assert admitted(after).mean() == pytest.approx(0.6, abs=0.001)
    ages = [frame["age"][frame["disposition"] == "admit"] for frame in (before, after)]
    assert stats.ks_2samp(*ages).pvalue > 0.001
