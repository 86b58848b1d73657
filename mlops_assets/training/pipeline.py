"""A candidate as a scikit-learn pipeline that takes raw feature columns, and what such a pipeline tells.

Here: building, scoring and explaining one pipeline. Choosing between them is `training.search`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.lake.columns import Kind
from mlops_assets.training.candidates import Candidate, Encoding, Target, Task, resolve_estimator

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

PERMUTATION_ROWS = 5_000
PERMUTATION_REPEATS = 3
# HistGradientBoosting takes at most 255 categories a column.
CODED_CATEGORIES = 255
ONE_HOT_MIN_ROWS = 20
CALIBRATION_FOLDS = 3


class ScoreError(TypeError):
    """An estimator can't give what the platform needs: a probability."""


def encoding_of(candidate: Candidate) -> Encoding:
    """The candidate's encoding, or the one that its estimator's family takes."""
    if candidate.encoding is not None:
        return candidate.encoding
    native = ("interpret.glassbox.ExplainableBoosting", "xgboost.", "sklearn.ensemble.HistGradientBoosting")
    path = candidate.estimator
    return "native" if path.startswith(native) or ".HistGradientBoosting" in path else "one_hot"


def build_pipeline(
    candidate: Candidate, kinds: Mapping[str, Kind], params: Mapping[str, Any], seed: int, task: Task
) -> Pipeline:
    """An unfitted pipeline: feature columns → encoding → estimator.

    Parameters
    ----------
    kinds
        The feature columns in order.
    params
        The estimator's parameters; `candidate.params` are *not* added.
    seed
        Goes to estimators that take a `random_state`. `n_jobs` is 1 unless given: starting processes costs
        more than a fit of this size.

    Fitted, it takes frames with more columns, unseen categories and columns that are null throughout.
    Raises EstimatorError for a wrong estimator, ValueError for a native encoding that it can't take.
    """
    from sklearn.pipeline import Pipeline

    return Pipeline([*preprocessing(candidate, kinds), ("estimator", estimator(candidate, kinds, params, seed, task))])


def preprocessing(candidate: Candidate, kinds: Mapping[str, Kind]) -> list[tuple[str, Any]]:
    """The steps before the estimator; nothing tuned is in them, so one fit serves a whole search."""
    from mlops_assets.training.encoding import CategoryCodes, FeatureColumns

    categorical = [c for c, kind in kinds.items() if kind == "categorical"]
    steps: list[tuple[str, Any]] = [("columns", FeatureColumns(list(kinds), categorical))]
    if encoding_of(candidate) == "one_hot":
        steps.append(("encoding", _one_hot(candidate, kinds)))
    elif "ExplainableBoosting" not in candidate.estimator:
        steps.append(("encoding", CategoryCodes(categorical, CODED_CATEGORIES)))
    return steps


def _one_hot(candidate: Candidate, kinds: Mapping[str, Kind]) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
    from sklearn.utils import get_tags

    from mlops_assets.training.encoding import CategoryNames

    takes = get_tags(resolve_estimator(candidate.estimator)()).input_tags
    # Counts, as naive Bayes takes them, are not negative, nor are those of later periods to be.
    scale = MinMaxScaler(clip=True) if takes.positive_only else StandardScaler()
    numeric = Pipeline([("impute", SimpleImputer(strategy="median", keep_empty_features=True)), ("scale", scale)])
    one_hot = Pipeline(
        [
            ("names", CategoryNames()),
            (
                "one_hot",
                OneHotEncoder(
                    handle_unknown="infrequent_if_exist",
                    min_frequency=ONE_HOT_MIN_ROWS,
                    sparse_output=bool(takes.sparse),
                ),
            ),
        ]
    )
    return ColumnTransformer(
        [
            ("numeric", numeric, [c for c, kind in kinds.items() if kind == "numeric"]),
            ("categorical", one_hot, [c for c, kind in kinds.items() if kind == "categorical"]),
        ]
    )


def estimator(candidate: Candidate, kinds: Mapping[str, Kind], params: Mapping[str, Any], seed: int, task: Task) -> Any:
    """The unfitted estimator with its parameters, its seed, and which of its inputs are categories."""
    from sklearn.base import is_classifier

    cls = resolve_estimator(candidate.estimator)
    defaults = cls().get_params(deep=False)
    known = set(inspect.signature(cls).parameters) | set(defaults)
    given = dict(params)
    if "random_state" in known:
        given.setdefault("random_state", seed)
    # None is one job in scikit-learn (and deprecated where it does nothing), every core in XGBoost.
    if "n_jobs" in known and (defaults["n_jobs"] is not None or candidate.estimator.startswith("xgboost.")):
        given.setdefault("n_jobs", 1)
    if encoding_of(candidate) == "native":
        given |= _native_types(candidate, kinds, known)
    if isinstance(given.get("exclude"), list):
        # YAML has lists only; EBM takes a term as a tuple.
        given["exclude"] = [tuple(t) if isinstance(t, list) else t for t in given["exclude"]]
    made = cls(**given)
    if task == "classification" and not hasattr(made, "predict_proba") and candidate.calibration is None:
        raise ScoreError(
            f"{candidate.estimator} gives no probabilities, which cuts, drift and plan B need; "
            "add `calibration: sigmoid` to the candidate, which wraps it in a CalibratedClassifierCV"
        )
    if candidate.calibration is not None:
        if not is_classifier(made):
            raise ScoreError(f"calibration is for classifiers, {candidate.estimator} is none; leave it out")
        from sklearn.calibration import CalibratedClassifierCV

        made = CalibratedClassifierCV(made, method=candidate.calibration, cv=CALIBRATION_FOLDS)
    return made


def calibration_folds(target: NDArray[Any]) -> int:
    """Folds of a calibration's cross-validation: `CALIBRATION_FOLDS`, or as many as the rarer class has rows.

    Raises ScoreError when a class has one row only: it can't be both fitted on and calibrated with.
    """
    rarer = int(np.bincount(np.asarray(target, dtype=np.int64), minlength=2).min())
    if rarer < 2:
        raise ScoreError(
            f"calibration needs two rows of each class, found {rarer} of one; choose a wider training window"
        )
    return min(CALIBRATION_FOLDS, rarer)


def _native_types(candidate: Candidate, kinds: Mapping[str, Kind], known: set[str]) -> dict[str, Any]:
    categorical = [kind == "categorical" for kind in kinds.values()]
    if "ExplainableBoosting" in candidate.estimator:
        return {"feature_types": ["nominal" if c else "continuous" for c in categorical]}
    if "categorical_features" in known:
        return {"categorical_features": categorical}
    if {"enable_categorical", "feature_types"} <= known:
        return {"enable_categorical": True, "feature_types": ["c" if c else "q" for c in categorical]}
    raise ValueError(
        f"encoding native is not known for {candidate.estimator}; use `encoding: one_hot`, "
        "or an EBM, a HistGradientBoosting or an XGBoost estimator"
    )


def scores(pipeline: Pipeline, frame: pd.DataFrame, target: Target) -> NDArray[np.float64]:
    """Probability of the positive class per row, or the prediction of a regression: shape (n_rows,).

    No rows give no scores. Raises MissingFeatureError, FeatureValueError, and ScoreError for a classifier
    without probabilities.
    """
    if not frame.shape[0]:  # an encoded frame may be a sparse matrix, which has no len()
        return np.empty(0, dtype=np.float64)
    if target.task == "regression":
        return np.asarray(pipeline.predict(frame), dtype=np.float64)
    if not hasattr(pipeline, "predict_proba"):
        raise ScoreError(f"{type(pipeline[-1]).__name__} gives no probabilities; add `calibration: sigmoid`")
    positive = int(np.flatnonzero(np.asarray(pipeline.classes_) == 1)[0])
    return np.asarray(pipeline.predict_proba(frame)[:, positive], dtype=np.float64)


def importances(
    pipeline: Pipeline, X: pd.DataFrame, y: NDArray[Any], kinds: Mapping[str, Kind], seed: int = 42
) -> dict[str, float]:
    """Each feature column's share of what the model uses, summing to 1, most important first.

    EBM, unless its columns are one-hot encoded: mean absolute contribution of its terms over the training rows, a
    term of several columns divided equally between them; X and y are not used. Other estimators: loss of AUC
    (regression: rise of the mean absolute error) when the column is shuffled, on at most 5,000 of the rows given,
    negative ones as 0 (Breiman, Random forests, 2001). When no column makes a difference, all have the same share.
    """
    last = pipeline[-1]
    if hasattr(last, "term_importances") and "encoding" not in pipeline.named_steps:
        shares = dict.fromkeys(kinds, 0.0)
        names = list(kinds)
        for features, value in zip(last.term_features_, last.term_importances(), strict=True):
            for i in features:
                shares[names[i]] += float(value) / len(features)
    else:
        shares = _permutation_importances(pipeline, X, y, kinds, seed)
    total = sum(shares.values())
    shares = {c: v / total if total > 0 else 1 / len(kinds) for c, v in shares.items()}
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def _permutation_importances(
    pipeline: Pipeline, X: pd.DataFrame, y: NDArray[Any], kinds: Mapping[str, Kind], seed: int
) -> dict[str, float]:
    from sklearn.base import is_classifier

    from mlops_assets.training.metrics import classification_metrics, regression_metrics

    rng = np.random.default_rng(seed)
    picked = np.sort(rng.permutation(len(X))[:PERMUTATION_ROWS])
    rows, labels = X.iloc[picked].reset_index(drop=True)[list(kinds)], np.asarray(y)[picked]
    classify = is_classifier(pipeline)
    target = Target(column="", task="classification" if classify else "regression")

    def loss(frame: pd.DataFrame) -> float:
        predicted = scores(pipeline, frame, target)
        if not classify:
            return regression_metrics(labels, predicted)["mae"]
        metrics = classification_metrics(labels, predicted, 0.5)
        return 1 - metrics["auc"] if "auc" not in metrics.undefined else metrics["log_loss"]

    base = loss(rows)
    found = {}
    for column in kinds:
        rises = []
        for _ in range(PERMUTATION_REPEATS):
            shuffled = rows[column].iloc[rng.permutation(len(rows))].reset_index(drop=True)
            rises.append(loss(rows.assign(**{column: shuffled})) - base)
        found[column] = max(0.0, float(np.mean(rises)))
    return found
