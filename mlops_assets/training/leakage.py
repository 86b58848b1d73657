"""Columns that tell the outcome by themselves: the usual cause of a model that is too good to be true.

A column that is filled after the outcome is known (a refund, a discharge date, a status) gives a perfect metric in
training and nothing in use (Kaufman et al., Leakage in data mining, ACM TKDD 6(4), 2012).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.lake.columns import Kind
from mlops_assets.training.candidates import Task

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mlops_assets.training.search import Split

NEAR_PERFECT = 0.98
"""AUC or R² on test rows from which a model is suspected."""

TREE_DEPTH = 8
LEAST_LEAF = 5
SHRINKAGE = 1.0


@dataclass(frozen=True)
class Suspicion:
    """A model that is too good to be true.

    Attributes
    ----------
    metric, value
        `auc` or `r2` of the model on its test rows.
    alone
        The same metric of the columns that reach it by themselves, best first; empty when none does.
    """

    metric: str
    value: float
    alone: Mapping[str, float]


def suspicion(
    metrics: Mapping[str, float | None], train: Split, test: Split, kinds: Mapping[str, Kind], task: Task
) -> Suspicion | None:
    """What is suspicious about a model with these test metrics; None when they are not near perfect.

    A column reaches the model's value when a model of that column alone, fitted on the rows of `train`, is as good on
    the rows of `test`, or as near perfect: the mean outcome of each category, a small decision tree or a straight line
    for numbers.
    """
    metric = "auc" if task == "classification" else "r2"
    value = metrics.get(metric)
    if not is_near_perfect(metrics, task) or value is None:
        return None
    enough = min(value, NEAR_PERFECT)
    found = {name: _alone(name, kind, train, test, task) for name, kind in kinds.items()}
    reached = sorted(((v, name) for name, v in found.items() if v >= enough), key=lambda pair: (-pair[0], pair[1]))
    return Suspicion(metric, value, {name: v for v, name in reached})


def is_near_perfect(metrics: Mapping[str, float | None], task: Task) -> bool:
    """Whether test metrics are so good that a column is suspected to hold the outcome."""
    value = metrics.get("auc" if task == "classification" else "r2")
    return value is not None and value >= NEAR_PERFECT


def _alone(name: str, kind: Kind, train: Split, test: Split, task: Task) -> float:
    """AUC (of either direction) or R² on test of a model of one column; 0 where it is undefined."""
    columns = train.features[name], test.features[name]
    scored = [_category_means(*columns, train.target)] if kind == "categorical" else _numeric(*columns, train, task)
    return max((_value(test.target, scores, task) for scores in scored), default=0.0)


def _category_means(seen: pd.Series, new: pd.Series, target: NDArray[Any]) -> NDArray[np.float64]:
    import pandas as pd

    from mlops_assets.lake.categories import text_of_each

    overall = float(np.mean(target))
    outcomes = pd.Series(np.asarray(target, dtype=np.float64)).groupby(text_of_each(seen), dropna=False)
    means = (outcomes.sum() + SHRINKAGE * overall) / (outcomes.size() + SHRINKAGE)
    known = {None if category != category else category: float(mean) for category, mean in means.items()}
    return np.array([known.get(category, overall) for category in text_of_each(new)])


def _numeric(seen: pd.Series, new: pd.Series, train: Split, task: Task) -> list[NDArray[np.float64]]:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    from mlops_assets.training.encoding import as_number

    x, x_new = as_number(seen).reshape(-1, 1), as_number(new).reshape(-1, 1)
    if np.isnan(x).all():
        return []
    if task == "classification":
        tree = DecisionTreeClassifier(max_depth=TREE_DEPTH, min_samples_leaf=LEAST_LEAF, random_state=0)
        tree.fit(x, train.target)
        return [tree.predict_proba(x_new)[:, -1]]
    regressor = DecisionTreeRegressor(max_depth=TREE_DEPTH, min_samples_leaf=LEAST_LEAF, random_state=0)
    regressor.fit(x, train.target)
    return [regressor.predict(x_new), _line(x[:, 0], train.target, x_new[:, 0])]


def _line(x: NDArray[np.float64], y: NDArray[Any], x_new: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least squares line through the rows that have a number; their mean outcome elsewhere."""
    known = ~np.isnan(x)
    outcomes, mean = np.asarray(y, dtype=np.float64)[known], float(np.mean(y))
    centre, spread = x[known].mean(), x[known].std()
    if not spread:
        return np.full(len(x_new), mean)
    slope = float(np.mean((x[known] - centre) / spread * (outcomes - outcomes.mean())))
    return np.where(np.isnan(x_new), mean, outcomes.mean() + slope * (x_new - centre) / spread)


def _value(outcomes: NDArray[Any], scores: NDArray[np.float64], task: Task) -> float:
    from mlops_assets.training.metrics import classification_metrics, regression_metrics

    if task == "classification":
        value = classification_metrics(outcomes, np.clip(scores, 0, 1), 0.5)["auc"]
    else:
        value = regression_metrics(outcomes, scores)["r2"]
    return value if np.isfinite(value) else 0.0
