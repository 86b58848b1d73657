"""Small samples of three taxi months, and one challenger trained on them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlops_assets.training.candidates import Candidate, Target
from mlops_assets.training.search import Split, Trained, train
from mlops_assets_tests.training.taxi import KINDS, month, split


@pytest.fixture(scope="session")
def trips() -> pd.DataFrame:
    """About 2,500 trips."""
    return month("2021-01", 30)


@pytest.fixture(scope="session")
def splits() -> tuple[Split, Split, Split]:
    """About 2,500 trips each of three months in a row."""
    return split("2021-01", 30), split("2021-02", 30), split("2021-03", 30)


@pytest.fixture(scope="session")
def small_ebm() -> Candidate:
    return Candidate(
        estimator="interpret.glassbox.ExplainableBoostingClassifier",
        params={
            "outer_bags": 1,
            "interactions": 2,
            "max_rounds": 20,
            "max_interaction_bins": 8,
            "greedy_ratio": 0,
        },
        search={"max_bins": {"int": [8, 32]}},
        final={"outer_bags": 2},
    )


@pytest.fixture(scope="session")
def trained(splits: tuple[Split, Split, Split], small_ebm: Candidate) -> Trained:
    return train(*splits, candidates=[small_ebm], kinds=KINDS, target=Target(column="is_cash"), metric="f1", trials=2)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
