"""What is drawn has the declared distributions, and depends on model, period and seed alone."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlops_assets.simulation.generative_model import GenerativeModel, SimulationError
from mlops_assets.simulation.sampling import ActiveDrift, Records, draw
from mlops_assets_tests.simulation import clinic

FIRST, END = datetime(2025, 3, 1), datetime(2025, 4, 1)


def drawn(
    *drifts: ActiveDrift,
    rows: int = 4000,
    seed: int = 1,
    period: str = "2025-03",
    declared: GenerativeModel | None = None,
) -> Records:
    declared = declared or clinic.generative_model()
    return draw(declared, "clinic", period, rows, first=FIRST, end=END, seed=seed, drifts=drifts)


def one(**variable: Any) -> np.ndarray[Any, Any]:
    """4,000 values of a single variable."""
    declared = clinic.generative_model("variables.tested", variable)
    return drawn(declared=declared).values["tested"]


def test_the_same_seed_gives_the_same_records_and_another_gives_others() -> None:
    same, again = drawn(), drawn()
    assert (same.time == again.time).all()
    assert all((same.values[name] == again.values[name]).all() for name in same.values)
    assert all((same.missing[name] == again.missing[name]).all() for name in same.missing)
    for other in (drawn(seed=2), drawn(period="2025-04")):
        assert (other.values["count"] != same.values["count"]).mean() > 0.5


def test_latent_variables_are_not_written() -> None:
    assert list(drawn().values) == ["age", "way", "urgency", "day", "count", "visits", "kept"]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 300), st.integers(0, 10_000))
def test_times_lie_in_the_period_ascending_and_by_the_weights(rows: int, seed: int) -> None:
    records = drawn(rows=rows, seed=seed)
    moments = records.time.astype(datetime)
    assert len(records) == rows
    assert list(moments) == sorted(moments)
    assert all(FIRST <= moment < END and moment.weekday() < 5 and 8 <= moment.hour < 16 for moment in moments)
    days = np.array(["mon", "tue", "wed", "thu", "fri", "sat", "sun"])
    assert records.values["day"].tolist() == days[[moment.weekday() for moment in moments]].tolist()


def test_distributions_are_the_declared_ones() -> None:
    assert stats.kstest(one(normal={"mean": 3, "sd": 2}), stats.norm(3, 2).cdf).pvalue > 0.001
    assert stats.kstest(one(lognormal={"median": 3, "sigma": 0.5}), stats.lognorm(0.5, scale=3).cdf).pvalue > 0.001
    counts = one(poisson="4")
    assert (counts.mean(), counts.var()) == (pytest.approx(4, abs=0.15), pytest.approx(4, abs=0.4))
    varied = one(negative_binomial={"mean": "2", "size": 1})
    assert (varied.mean(), varied.var()) == (pytest.approx(2, abs=0.2), pytest.approx(6, abs=1))
    assert one(bernoulli="0.3").mean() == pytest.approx(0.3, abs=0.03)
    shares = one(choice={"a": 1, "b": "2", "c": 0})
    assert (shares == "b").mean() == pytest.approx(2 / 3, abs=0.03)
    assert "c" not in shares
    assert set(one(levels={"score": "illness", "cuts": [-1, 1], "first": 1})) == {1.0, 2.0, 3.0}


def test_missing_values_follow_their_probability_and_hide_nothing_from_later_formulas() -> None:
    records = drawn()
    assert records.missing["way"].mean() == pytest.approx(0.1, abs=0.02)
    assert not records.missing["age"].any()
    severe, mild = records.values["urgency"] == 3, records.values["urgency"] == 1
    measured = ~records.missing["count"]
    assert measured[severe].mean() > measured[mild].mean() + 0.2, "the sicker are measured more often"


def test_a_drift_changes_what_it_touches_and_nothing_else() -> None:
    before, after = drawn(), drawn(ActiveDrift("covariate"))
    assert (after.time == before.time).all()
    for name in ("way", "urgency", "day", "count", "visits"):
        assert (after.values[name] == before.values[name]).all(), name
    shift = after.values["age"].mean() - before.values["age"].mean()
    assert shift == pytest.approx(10, abs=0.5)
    half = drawn(ActiveDrift("covariate", 0.5)).values["age"].mean() - before.values["age"].mean()
    assert half == pytest.approx(5, abs=0.5)


def test_a_measurement_that_stops_is_missing_for_all() -> None:
    assert drawn(ActiveDrift("missing")).missing["count"].all()
    assert 0.5 < drawn(ActiveDrift("missing", 0.5)).missing["count"].mean() < 0.9


@pytest.mark.parametrize(("name", "share"), [("prior", 0.7), ("other", 0.1)])
def test_a_prior_shift_sets_the_share_and_leaves_records_as_they_are_given_the_outcome(name: str, share: float) -> None:
    before, after = drawn(), drawn(ActiveDrift(name))
    assert len(after) == len(before)
    assert (after.values["kept"] == "yes").mean() == pytest.approx(share, abs=0.001)
    assert (np.diff(after.time.astype(int)) >= 0).all()
    for outcome in ("yes", "no"):
        ages = [records.values["age"][records.values["kept"] == outcome] for records in (before, after)]
        assert stats.ks_2samp(*ages).pvalue > 0.001
    natural = (before.values["kept"] == "yes").mean()
    half = (drawn(ActiveDrift(name, 0.5)).values["kept"] == "yes").mean()
    assert half == pytest.approx((natural + share) / 2, abs=0.03)


def test_what_can_not_be_drawn_says_why() -> None:
    with pytest.raises(SimulationError, match="there is no drift 'flu'; declared are covariate, missing"):
        drawn(ActiveDrift("flu"))
    with pytest.raises(SimulationError, match="the drifts prior, other all set the outcome's share"):
        drawn(ActiveDrift("prior"), ActiveDrift("other"))
    never = clinic.generative_model("variables.kept", {"bernoulli": 0, "labels": ["no", "yes"]})
    with pytest.raises(SimulationError, match=r"wants .* but only 0.00% are; choose a smaller strength"):
        drawn(ActiveDrift("prior"), rows=50, declared=never)
    with pytest.raises(SimulationError, match="variable 'tested' can't be drawn: 4000 values are not finite"):
        one(value="log(0 * age)")
    with pytest.raises(SimulationError, match="have 1 labels"):
        one(value="urgency", labels=["one"])
    with pytest.raises(SimulationError, match="the weights of a choice"):
        one(choice={"a": "0 * age", "b": 0})
