"""Numbers near the end of double precision, as some systems write for "no data": the run goes on, and drift says so."""

from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.drift import distances
from mlops_assets.drift.profile import ColumnProfile
from mlops_assets.monitored_model.outcome import Outcome
from mlops_assets.training.metrics import regression_metrics
from mlops_assets_tests import tiny_model

MONTHS = ["2021-01", "2021-02", "2021-03", "2021-04"]
HUGE = 1.7e308
STEPS = (
    *("raw", "features", "profile", "challenger", "champion", "predictions", "drift_report"),
    *("fallback_predictions", "served_predictions", "performance"),
)


def rides(period: str, huge: bool) -> pa.Table:
    """Rides of which, when `huge`, a third has an absurd fare of either sign."""
    table = tiny_model.rides(period)
    fare = table["fare"].to_numpy().copy()
    if huge:
        fare[::6], fare[3::6] = HUGE, -HUGE
    return table.set_column(table.schema.get_field_index("fare"), "fare", pa.array(fare))


def outcomes(root, spec, sql, huge) -> dict[tuple[str, str], Outcome]:
    (root / "rides").mkdir()
    found = {}
    with tiny_model.workbench(root / "home", root, spec, sql) as bench:
        for period in MONTHS:
            pq.write_table(rides(period, period in huge), root / "rides" / f"{period}.parquet")
            for step in STEPS:
                made = import_module(f"mlops_assets.monitored_model.steps.{step}").make(bench, period)
                found[step, period] = made
    return found


@pytest.mark.parametrize("huge", [MONTHS[-1:], MONTHS[:3]], ids=["scored", "trained on"])
def test_a_period_with_huge_numbers_in_a_feature_is_judged_served_and_shown(tmp_path, huge):
    spec = tiny_model.spec(columns={**tiny_model.SPEC["columns"], "fare": {}})
    made = outcomes(tmp_path, spec, tiny_model.SQL.replace("WHERE fare > 0", ""), huge)
    report = made["drift_report", MONTHS[-1]]
    assert report.partition.facts["verdict"] == "severe"
    assert report.partition.facts["severe_columns"] == ["fare"]
    assert made["performance", MONTHS[-1]].partition.facts["value"] is not None
    assert [warning for outcome in made.values() for warning in outcome.warnings] == []


def test_a_period_with_huge_outcomes_is_measured_as_far_as_it_can_be(tmp_path):
    columns: dict[str, Any] = {name: tiny_model.SPEC["columns"][name] for name in ("fee", "zone", "hour")}
    spec = tiny_model.spec(
        columns=columns,
        target={"column": "fare", "task": "regression"},
        metric="mae",
        candidates=[{"estimator": "sklearn.ensemble.RandomForestRegressor", "params": {"n_estimators": 5}}],
    )
    sql = "SELECT record_id, started_at, fare, fee, zone, hour(started_at) AS hour FROM raw_rides"
    made = outcomes(tmp_path, spec, sql, MONTHS[-1:])
    assert made["champion", MONTHS[2]].partition.facts["decision"] == "first"
    last = made["performance", MONTHS[-1]]
    assert last.partition.facts["value"] is None, "a mean of errors beyond double precision is no number"
    assert made["champion", MONTHS[-1]].partition.facts["decision"] == "retained"


def test_distances_of_huge_numbers_are_numbers():
    rng = np.random.default_rng(0)
    quiet = ColumnProfile.of("x", "numeric", rng.normal(size=2_000))
    turned = ColumnProfile.of("x", "numeric", np.where(rng.random(2_000) < 0.1, HUGE, rng.normal(size=2_000)))
    both = ColumnProfile.of("x", "numeric", np.where(rng.random(2_000) < 0.5, HUGE, -HUGE))
    for reference, current in ((quiet, turned), (turned, quiet), (both, turned), (both, both), (quiet, both)):
        for distance in (
            *(distances.psi, distances.wasserstein, distances.wasserstein_normed, distances.jensen_shannon),
            *(distances.kolmogorov_smirnov, distances.evidently_jensen_shannon, distances.evidently_psi),
        ):
            value = distance(reference, current)
            assert value is not None, distance.__name__
            assert np.isfinite(value), distance.__name__
        assert len(distances.direction(reference, current)) < 80
    spread = distances.standard_deviation(both)
    assert spread is not None
    assert spread == pytest.approx(HUGE, rel=0.01)


def test_distances_do_not_depend_on_the_unit():
    rng = np.random.default_rng(1)
    left, right = rng.normal(size=3_000), rng.normal(0.3, 1.2, size=3_000)
    plain = [ColumnProfile.of("x", "numeric", side) for side in (left, right)]
    scaled = [ColumnProfile.of("x", "numeric", side * 2.0**1000) for side in (left, right)]
    for distance in (distances.wasserstein_normed, distances.jensen_shannon, distances.psi):
        assert distance(*scaled) == pytest.approx(distance(*plain), rel=1e-12)


def test_regression_metrics_beyond_double_precision_are_undefined_with_a_reason():
    found = regression_metrics([HUGE, -HUGE, 1.0], [-HUGE, HUGE, 1.0])
    assert np.isnan(found["rmse"])
    assert "too large" in found.undefined["rmse"]
    assert found["rows"] == 3
