"""A column that holds the outcome is named; a strong but honest model is left alone."""

import numpy as np
import pandas as pd
import pytest

from mlops_assets.training.leakage import suspicion
from mlops_assets.training.search import Split

KINDS = {"amount": "numeric", "status": "categorical", "refund": "numeric", "noise": "numeric"}


def rows(seed: int, task: str = "classification", number: int = 800) -> Split:
    rng = np.random.default_rng(seed)
    amount = rng.gamma(2.0, 50.0, number)
    late = amount + rng.normal(0, 60, number) > 100
    outcome = late.astype("int8") if task == "classification" else amount * 3 + rng.normal(0, 80, number)
    frame = pd.DataFrame(
        {
            "amount": amount,
            "status": np.where(late, "closed", "open"),
            "refund": np.where(late, np.nan, 1.0) if task == "classification" else outcome / 7 + 2,
            "noise": rng.normal(size=number),
        }
    )
    return Split(frame, outcome)


@pytest.mark.parametrize("leak", ["status", "refund"])
def test_the_column_that_holds_a_class_is_named(leak):
    kinds = {name: kind for name, kind in KINDS.items() if name in (leak, "amount", "noise")}
    found = suspicion({"auc": 1.0}, rows(0), rows(1), kinds, "classification")
    assert found is not None
    assert list(found.alone) == [leak]
    assert found.alone[leak] == pytest.approx(1.0)


def test_the_column_that_holds_an_amount_is_named():
    kinds = {name: KINDS[name] for name in ("amount", "refund", "noise")}
    found = suspicion({"r2": 0.999}, rows(0, "regression"), rows(1, "regression"), kinds, "regression")
    assert found is not None
    assert list(found.alone) == ["refund"]


def test_a_near_perfect_model_of_several_columns_is_suspected_without_a_column():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({name: rng.normal(size=1_000) for name in ("a", "b")})
    split = Split(frame, ((frame["a"] > 0) ^ (frame["b"] > 0)).astype("int8").to_numpy())
    found = suspicion({"auc": 1.0}, split, split, {"a": "numeric", "b": "numeric"}, "classification")
    assert found is not None
    assert found.alone == {}


def test_a_good_model_is_not_suspected():
    assert suspicion({"auc": 0.95}, rows(0), rows(1), KINDS, "classification") is None
    assert suspicion({"auc": None}, rows(0), rows(1), KINDS, "classification") is None
