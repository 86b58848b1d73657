"""The first steps of every model's pipeline: from raw feature columns to what an estimator takes.

The classes here are part of stored models. This is the one module of the package that imports scikit-learn
at its top: import it inside functions only.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from mlops_assets.lake.categories import category_text

if TYPE_CHECKING:
    from numpy.typing import NDArray


LARGEST_NUMBER = 1e38


class MissingFeatureError(ValueError):
    """A feature column that the model was trained on is not there."""


class FeatureValueError(ValueError):
    """A numeric feature column holds something that is not a number."""


class FeatureColumns(TransformerMixin, BaseEstimator):
    """Picks the feature columns by name, in the order of training, and gives each its type.

    Numeric columns become float64: booleans 0/1, numbers in text are read, ±inf is missing, others are cut at ±1e38,
    as float32 and squares can't hold larger ones. Categorical columns become text categories: `5`, `5.0` and `"5"` are
    the same one. Missing stays missing. So the same model takes a features partition and a record parsed from JSON.

    Parameters
    ----------
    columns, categorical
        All feature columns in order, and those of them that are categorical.
    """

    def __init__(self, columns: list[str], categorical: list[str]) -> None:
        self.columns = columns
        self.categorical = categorical

    def fit(self, X: pd.DataFrame, y: Any = None) -> FeatureColumns:
        """Check that the columns are there; nothing is learned."""
        self._check(X)
        self.n_features_in_ = len(self.columns)
        return self

    def _check(self, X: Any) -> None:
        if not isinstance(X, pd.DataFrame):
            raise TypeError(f"expected a pandas DataFrame with columns {self.columns}, found {type(X).__name__}")
        missing = [c for c in self.columns if c not in X.columns]
        if missing:
            spare = [str(c) for c in X.columns if c not in self.columns]
            near = [m for name in missing for m in difflib.get_close_matches(name, spare, n=1)]
            hint = f"; is it called {', '.join(near)} now?" if near else ""
            raise MissingFeatureError(
                f"missing feature column{'s' if len(missing) > 1 else ''} {', '.join(missing)}{hint} "
                f"(the model takes {', '.join(self.columns)}; send null for a value that is not known)"
            )

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Typed frame of shape (n_rows, n_columns)."""
        self._check(X)
        categorical = set(self.categorical)
        typed = {c: as_category(X[c]) if c in categorical else as_number(X[c]) for c in self.columns}
        return pd.DataFrame(typed, index=X.index)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """The feature columns' names."""
        return np.asarray(self.columns, dtype=object)


def as_number(values: pd.Series) -> NDArray[np.float64]:
    """Float64 values, missing as NaN. Raises FeatureValueError with examples of what is no number."""
    if values.dtype == np.float64:
        numbers = values.to_numpy()
    elif isinstance(values.dtype, pd.CategoricalDtype) or values.dtype == object or values.dtype == "string":
        parsed = pd.to_numeric(values.astype(object), errors="coerce")
        odd = values[parsed.isna() & values.notna()]
        odd = odd[odd.astype(str).str.lower() != "nan"]
        if len(odd):
            examples = ", ".join(repr(v) for v in odd.unique()[:3])
            raise FeatureValueError(f"column {values.name} must be numeric, found {examples} in {len(odd)} rows")
        numbers = parsed.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    # Not only infinities: estimators that take float32, or squares, make infinities of larger numbers.
    if not (np.abs(numbers) > LARGEST_NUMBER).any():
        return numbers
    return np.where(np.isinf(numbers), np.nan, np.clip(numbers, -LARGEST_NUMBER, LARGEST_NUMBER))


def as_category(values: pd.Series) -> pd.Categorical:
    """Text categories, sorted; missing stays missing."""
    codes, distinct = pd.factorize(values)
    texts = [category_text(v) for v in distinct]
    categories = sorted({text for text in texts if text is not None})
    position: dict[str | None, int] = {text: i for i, text in enumerate(categories)}
    # One more place at the end: the code -1 of a missing value picks it.
    lookup = np.array([*(position.get(t, -1) for t in texts), -1], dtype=np.int64)
    return pd.Categorical.from_codes(lookup[codes], categories=pd.Index(categories, dtype=object))


class CategoryCodes(TransformerMixin, BaseEstimator):
    """Categories as codes in the column's order of training: shape (n_rows, n_columns), float64.

    The most frequent `max_categories` of a column get a code. Rarer ones, and those that training never saw,
    are missing (NaN), which tree ensembles send the way that fitted best. A column without any value in
    training is 0 for ever: it tells nothing, and some ensembles refuse it.
    """

    def __init__(self, categorical: list[str], max_categories: int) -> None:
        self.categorical = categorical
        self.max_categories = max_categories

    def fit(self, X: pd.DataFrame, y: Any = None) -> CategoryCodes:
        """Learn each categorical column's most frequent categories (ties by name)."""
        self.categories_ = {}
        self.empty_ = [str(c) for c in X.columns if X[c].isna().all()]
        for column in self.categorical:
            counts = X[column].value_counts().sort_index()
            kept = counts[counts > 0].sort_values(ascending=False, kind="stable").index[: self.max_categories]
            self.categories_[column] = sorted(str(c) for c in kept)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """Codes 0 … n-1 of the categorical columns beside the numeric columns as they are."""
        out = np.empty(X.shape, dtype=np.float64)
        for i, column in enumerate(X.columns):
            if column in self.empty_:
                out[:, i] = 0.0
            elif column in self.categories_:
                codes = pd.Index(self.categories_[column]).get_indexer(pd.Index(X[column].cat.categories))
                codes = np.append(codes, -1)[X[column].cat.codes.to_numpy()]
                out[:, i] = np.where(codes < 0, np.nan, codes)
            else:
                out[:, i] = X[column].to_numpy()
        return out


class CategoryNames(TransformerMixin, BaseEstimator):
    """Categories as plain text in object columns, missing as `(missing)`, for a one-hot encoder."""

    def fit(self, X: pd.DataFrame, y: Any = None) -> CategoryNames:
        """Nothing is learned."""
        self.n_features_in_ = X.shape[1]
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        return self

    def transform(self, X: pd.DataFrame) -> NDArray[np.object_]:
        """Text of shape (n_rows, n_columns)."""
        columns = []
        for name in X.columns:
            names = np.append(X[name].cat.categories.to_numpy(dtype=object), "(missing)")
            columns.append(names[X[name].cat.codes.to_numpy()])
        return np.column_stack(columns) if columns else np.empty(X.shape, dtype=object)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """The columns' names."""
        return self.feature_names_in_
