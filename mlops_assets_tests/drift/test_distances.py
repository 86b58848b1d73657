"""Distances on counts agree with scipy, numpy and the installed Evidently on the rows behind the counts."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from mlops_assets.drift import distances
from mlops_assets.drift.profile import ColumnProfile

QUICK = settings(max_examples=50, deadline=None)
numbers = st.lists(
    st.one_of(st.integers(-5, 5).map(float), st.floats(-1e6, 1e6, allow_subnormal=False)),
    min_size=1,
    max_size=60,
)
categories = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=60)


def numeric(values: Any) -> ColumnProfile:
    return ColumnProfile.of("x", "numeric", list(values))


def categorical(values: Any) -> ColumnProfile:
    return ColumnProfile.of("x", "categorical", list(values))


@QUICK
@given(numbers, numbers)
def test_kolmogorov_smirnov_and_wasserstein_agree_with_scipy(a: list[float], b: list[float]) -> None:
    left, right = numeric(a), numeric(b)
    assert distances.kolmogorov_smirnov(left, right) == pytest.approx(stats.ks_2samp(a, b).statistic, abs=1e-12)
    scale = max(map(abs, a + b)) + 1
    expected = stats.wasserstein_distance(a, b)
    assert distances.wasserstein(left, right) == pytest.approx(expected, abs=1e-9 * scale)
    assert distances.standard_deviation(left) == pytest.approx(float(np.std(a)), abs=1e-9 * scale)


@QUICK
@given(categories, categories)
def test_jensen_shannon_of_categories_agrees_with_scipy(a: list[str], b: list[str]) -> None:
    shares = [[side.count(c) / len(side) for c in "abcdefg"] for side in (a, b)]
    found = distances.jensen_shannon(categorical(a), categorical(b))
    assert found == pytest.approx(jensenshannon(*shares), abs=1e-7)


@QUICK
@given(numbers, numbers)
def test_symmetric_distances_are_symmetric(a: list[float], b: list[float]) -> None:
    left, right = numeric(a), numeric([*b, None])
    for distance in (distances.kolmogorov_smirnov, distances.wasserstein, distances.jensen_shannon):
        assert distance(left, right) == pytest.approx(distance(right, left), rel=1e-9, abs=1e-9)


@QUICK
@given(numbers, st.integers(1, 5))
def test_equal_columns_are_at_distance_zero(a: list[float], nulls: int) -> None:
    column = numeric([*a, *([None] * nulls)])
    for distance in (
        distances.psi,
        distances.kolmogorov_smirnov,
        distances.wasserstein,
        distances.wasserstein_normed,
        distances.jensen_shannon,
        distances.evidently_psi,
        distances.evidently_jensen_shannon,
    ):
        assert distance(column, column) == pytest.approx(0, abs=1e-7)


@QUICK
@given(numbers, numbers)
def test_psi_is_never_negative_and_counts_every_row_in_one_bin(a: list[float], b: list[float]) -> None:
    reference, current = numeric(a), numeric([*b, None])
    assert distances.psi(reference, current) >= 0
    partition = distances.reference_bins(reference)
    assert partition.counts(current).sum() == len(b) + 1
    assert partition.counts(current)[-1] == 1


def test_psi_of_quantile_bins_is_the_textbook_formula() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=20_000), rng.normal(0.5, 1.2, size=30_000)
    edges = np.quantile(a, np.arange(1, 10) / 10)
    p = np.bincount(np.searchsorted(edges, a), minlength=10) / len(a)
    q = np.bincount(np.searchsorted(edges, b), minlength=10) / len(b)
    expected = np.sum((q - p) * np.log(q / p))
    assert distances.psi(numeric(a), numeric(b)) == pytest.approx(expected, rel=5e-3)


def test_nulls_are_a_bin_of_their_own() -> None:
    values = np.arange(2000.0)
    current = numeric([None if i % 2 else v for i, v in enumerate(values)])
    assert distances.psi(numeric(values), current) > 1
    assert distances.direction(numeric(values), current) == "null share 0 % → 50 %"


def test_a_heavy_value_at_either_end_does_not_hide_a_change() -> None:
    for sign in (1.0, -1.0):
        heavy = [sign * 100.0] * 970
        reference = numeric(heavy + [sign * v for v in np.linspace(1, 99, 30)])
        current = numeric([sign * 100.0] * 700 + [sign * v for v in np.linspace(1, 99, 300)])
        assert distances.psi(reference, current) > 0.25


def test_rare_and_unseen_categories_share_one_bin() -> None:
    reference = categorical([f"c{i:02d}" for i in range(25) for _ in range(100 - i)])
    partition = distances.reference_bins(reference)
    assert partition.size == distances.TOP_CATEGORIES + 2
    counts = partition.counts(categorical(["c24", "c23", "never seen", "c00", None]))
    assert counts[-2] == 3
    assert counts[-1] == 1


def test_one_outlier_does_not_move_psi() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=20_000), rng.normal(0.7, 1, size=20_000)
    plain = distances.psi(numeric(a), numeric(b))
    assert distances.psi(numeric(a), numeric([*b, 1e9])) == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("rows", [50, 200, 1000, 20_000])
def test_noise_stays_below_the_noise_floor(rows: int) -> None:
    rng = np.random.default_rng(2)
    above = 0
    for _ in range(100):
        reference, current = numeric(rng.normal(size=20_000)), numeric(rng.normal(size=rows))
        above += distances.psi(reference, current) > distances.psi_noise_floor(10, 20_000, rows)
    assert above <= 5


def test_noise_floor_is_infinite_without_rows_and_zero_with_one_bin() -> None:
    assert np.isinf(distances.psi_noise_floor(5, 100, 0))
    assert distances.psi_noise_floor(1, 100, 100) == 0


def test_distances_without_values_are_undefined_not_zero() -> None:
    some, nulls, none = numeric([1.0, 2.0]), numeric([None, None]), numeric([])
    for other in (nulls, none):
        assert distances.kolmogorov_smirnov(some, other) is None
        assert distances.wasserstein_normed(other, some) is None
        assert distances.evidently_score(some, other) is None
        assert distances.evidently_psi(other, some) is None
        assert distances.novelty(some, other) is None
    assert distances.psi(some, none) is None
    assert distances.psi(some, nulls) is not None
    assert distances.direction(some, none) == "no rows to compare"


def test_novelty_names_the_values_that_the_reference_never_had() -> None:
    reference = categorical(["a"] * 90 + ["b"] * 10)
    found = distances.novelty(reference, categorical(["a"] * 20 + ["z"] * 60 + ["y"] * 20))
    assert found is not None
    assert found.share == pytest.approx(0.8)
    assert found.unseen == (("z", 0.6), ("y", 0.2))
    assert found.noise_floor == 0


def test_a_few_continuous_numbers_have_no_novelty() -> None:
    rng = np.random.default_rng(3)
    assert distances.novelty(numeric(rng.normal(size=15)), numeric(rng.normal(size=1000))) is None


@pytest.mark.parametrize(
    ("reference", "current", "expected"),
    [
        (list(np.linspace(0, 20, 101)), list(np.linspace(20, 60, 101)), "median 10 → 40, +300 %"),
        ([0.3] * 99 + [0.0], [1.0] * 79 + [0.3] * 21, "1: 0 % → 79 %"),
        ([1.0] * 50, [1.0] * 70, "no change"),
    ],
)
def test_direction_says_what_changed(reference: list[float], current: list[float], expected: str) -> None:
    assert distances.direction(numeric(reference), numeric(current)).startswith(expected)


def evidently_says(
    reference: pd.DataFrame, current: pd.DataFrame, numerical: list[str], categorical_: list[str]
) -> dict[str, tuple[str, float, float]]:
    """Column → (method, value, threshold) of the installed Evidently's DataDriftPreset with its defaults."""
    os.environ["DO_NOT_TRACK"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        definition = DataDefinition(numerical_columns=numerical, categorical_columns=categorical_)
        sides = [Dataset.from_pandas(side, data_definition=definition) for side in (current, reference)]
        snapshot = Report([DataDriftPreset()]).run(*sides)
        metrics = snapshot.dict()["metrics"]
    found = [(m["config"], m["value"]) for m in metrics if m["config"]["type"].endswith("ValueDrift")]
    return {c["column"]: (c["method"], float(value), c["threshold"]) for c, value in found}


def assert_equals_evidently(
    reference: pd.DataFrame, current: pd.DataFrame, numerical: list[str], categorical_: list[str]
) -> set[str]:
    theirs = evidently_says(reference, current, numerical, categorical_)
    assert set(theirs) == {*numerical, *categorical_}
    for name, (method, value, threshold) in theirs.items():
        make = numeric if name in numerical else categorical
        sides = [make(None if pd.isna(v) else v for v in side[name].tolist()) for side in (reference, current)]
        ours = distances.evidently_score(*sides)
        assert ours is not None
        assert (ours.display_name, ours.threshold) == (method, threshold), name
        assert ours.value == pytest.approx(value, abs=1e-6), name
    return {method for method, _, _ in theirs.values()}


def synthetic(rng: np.random.Generator, rows: int, shift: float) -> pd.DataFrame:
    continuous = rng.normal(shift, 1, rows)
    return pd.DataFrame(
        {
            "continuous": continuous,
            "with_gaps": np.where(rng.random(rows) < 0.2, np.nan, np.where(continuous > 2.5, np.inf, continuous)),
            "skewed": rng.lognormal(shift, 1, rows).round(1),
            "whole": rng.poisson(4 + 4 * shift, rows),
            "few": rng.choice([0.0, 0.5, 2.5], rows, p=[0.7 - shift, 0.2, 0.1 + shift]),
            "flag": rng.choice([0, 1], rows, p=[0.6 - shift, 0.4 + shift]),
            "fixed": np.full(rows, 7.0),
            "tiny": rng.normal(0, 1e-5, rows),
            "city": rng.choice(list("abcdefghij"), rows),
            "yes_no": rng.choice(["no", "yes"], rows, p=[0.5 + shift, 0.5 - shift]),
            "holes": np.where(rng.random(rows) < 0.1, None, rng.choice(["x", "y", "z"], rows)),
            "always": np.full(rows, "same", dtype=object),
            "code": rng.choice([1, 2, 3], rows),
        }
    )


NUMERICAL = ["continuous", "with_gaps", "skewed", "whole", "few", "flag", "fixed", "tiny"]
CATEGORICAL = ["city", "yes_no", "holes", "always", "code"]


@pytest.mark.parametrize(
    ("reference_rows", "current_rows", "shift"),
    [
        (60, 45, 0.0),
        (400, 300, 0.15),
        (900, 12_000, 0.02),
        (1000, 1000, 0.05),
        (3000, 2500, 0.1),
        (1100, 40, 0.0),
    ],
)
def test_default_scores_equal_those_of_the_installed_evidently(
    reference_rows: int, current_rows: int, shift: float
) -> None:
    rng = np.random.default_rng(reference_rows)
    reference, current = synthetic(rng, reference_rows, 0.0), synthetic(rng, current_rows, shift)
    current.loc[0, "city"] = "unseen"
    methods = assert_equals_evidently(reference, current, NUMERICAL, CATEGORICAL)
    expected = (
        {"Wasserstein distance (normed)", "Jensen-Shannon distance"}
        if reference_rows >= 1250
        else {"K-S p_value", "chi-square p_value", "Z-test p_value"}
        if reference_rows <= 1000
        else methods
    )
    assert methods == expected


@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_the_distance_for_small_samples_is_the_one_that_evidently_takes_for_large_ones(kind: Any) -> None:
    rng = np.random.default_rng(3)
    draws = [rng.normal(0, 1, 300).round(2), rng.normal(0.8, 1, 200).round(2)]
    if kind == "categorical":
        draws = [np.array(list("abcd"))[np.digitize(values, [-1, 0, 1])] for values in draws]
    small = [ColumnProfile.of("x", kind, values.tolist()) for values in draws]
    large = [ColumnProfile.of("x", kind, values.tolist() * 20) for values in draws]
    assert distances.evidently_score(*small).method in ("ks", "chisquare")
    found, expected = distances.evidently_distance(*small), distances.evidently_score(*large)
    assert found.method == expected.method
    assert found.value == pytest.approx(expected.value)
    assert distances.evidently_distance(*large) == expected
    assert distances.evidently_distance(small[0], ColumnProfile.of("x", kind, [None])) is None


def test_psi_and_jensen_shannon_on_evidentlys_bins_equal_evidentlys() -> None:
    from evidently.legacy.calculations.stattests.jensenshannon import _jensenshannon
    from evidently.legacy.calculations.stattests.psi import _psi
    from evidently.legacy.core import ColumnType

    rng = np.random.default_rng(5)
    frames = synthetic(rng, 2500, 0.0), synthetic(rng, 1800, 0.1)
    for name in ("continuous", "skewed", "few", "city", "yes_no"):
        type_ = ColumnType.Numerical if name in NUMERICAL else ColumnType.Categorical
        make = numeric if name in NUMERICAL else categorical
        sides = [make(frame[name]) for frame in frames]
        columns = [frame[name] for frame in frames]
        assert distances.evidently_psi(*sides) == pytest.approx(_psi(*columns, type_, 0.1)[0], abs=1e-9)
        theirs = _jensenshannon(*columns, type_, 0.1)[0]
        assert distances.evidently_jensen_shannon(*sides) == pytest.approx(theirs, abs=1e-9)
