"""What a category is called: one text for a value, whatever type it is stored as.

An encoder, a drift profile and a plan B segment must agree on it: `5`, `5.0` and DECIMAL 5.00 are one category.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray


def category_text(value: Any) -> str | None:
    """The name of a category; None for ±inf and NaN, which are missing values.

    Whole numbers have no decimal point whatever their type and size (`5` for 5, 5.0 and Decimal("5.00")), other
    decimals the shortest text of their double where it is exact (`3.5` for 3.5 and Decimal("3.50")). Booleans are
    `true` and `false`, all else is its text.
    """
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        number = float(value)
        if not np.isfinite(number):
            return None
        return str(int(number)) if number.is_integer() else str(value)
    if isinstance(value, Decimal):
        return _decimal_text(value)
    if isinstance(value, bytearray):  # what DuckDB gives for a BLOB; Arrow gives bytes
        return str(bytes(value))
    return str(value)


def _decimal_text(value: Decimal) -> str | None:
    if not value.is_finite():
        return None
    if value == value.to_integral_value():
        return str(int(value))
    as_double = str(float(value))
    return as_double if Decimal(as_double) == value else f"{value.normalize():f}"


def category_texts(values: pa.Array) -> pa.Array:
    """`category_text` of each value of an Arrow array, as strings; null stays null."""
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return values.cast(pa.string())
    if pa.types.is_integer(values.type):
        return values.cast(pa.string())
    encoded = values.dictionary_encode()
    texts = pa.array([category_text(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return texts.take(encoded.indices)


def text_of_each(values: pd.Series) -> NDArray[np.object_]:
    """`category_text` of each value of a pandas column, shape (n_rows,); a missing value is None."""
    import pandas as pd

    codes, distinct = pd.factorize(values)
    # One more place at the end: the code -1 of a missing value picks it.
    texts = np.array([*(category_text(value) for value in distinct), None], dtype=object)
    return texts[codes]


def number_text_sql(number: str) -> str:
    """SQL that gives a number of any type as `category_text` does: `3` for 3.0, `3.5` for DECIMAL 3.50; NULL for NULL.

    NaN, ±inf and whole numbers beyond 38 digits are as DuckDB writes them.
    """
    whole = f"TRY_CAST({number} AS HUGEINT)"
    text = f"CAST({number} AS VARCHAR)"
    # Only behind the decimal point are zeros without meaning, and not in an exponent.
    fraction = f"CASE WHEN contains({text}, 'e') THEN {text} ELSE rtrim({text}, '0') END"
    return f"CASE WHEN {whole} = {number} THEN CAST({whole} AS VARCHAR) ELSE {fraction} END"
