"""Text that is safe inside Evidently's pages, whatever the data hold.

Evidently writes column names and category values into the script of its pages without escaping them, and draws them
with libraries that read some HTML and Markdown. So nothing that a browser could take for markup is handed to it.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from mlops_assets.lake.columns import Kind

MAX_CHARACTERS = 120
# Angle quotation marks look alike, are in every font, and mean nothing to HTML, scripts or plotly's own small markup.
_LOOK_ALIKE = str.maketrans({"<": "‹", ">": "›"})
# Control and format characters (bidirectional overrides, zero-width ones), line and paragraph separators, surrogates.
_UNSHOWN = {"Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"}


def neutral(text: str, limit: int | None = MAX_CHARACTERS) -> str:
    """The text without what could be markup: look-alikes for its characters, `�` for what can't be shown.

    A text of more than `limit` characters is cut, and ends with a short digest that keeps it apart from others.
    """
    safe = "".join("�" if unicodedata.category(c) in _UNSHOWN else c for c in text.translate(_LOOK_ALIKE))
    if limit is None or len(safe) <= limit:
        return safe
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe[:limit]}… ({digest})"


def neutral_names(names: Iterable[str]) -> dict[str, str]:
    """A safe name for each column; no two columns get the same one."""
    found: dict[str, str] = {}
    for name in names:
        safe, n = neutral(name), 1
        while safe in found.values():
            n += 1
            safe = f"{neutral(name)} ({n})"
        found[name] = safe
    return found


def neutral_frame(frame: pd.DataFrame, kinds: Mapping[str, Kind], names: Mapping[str, str]) -> pd.DataFrame:
    """The frame with safe column names, and with safe values in its categorical columns (text, None for missing)."""
    columns = {}
    for name, kind in kinds.items():
        values = frame[name]
        if kind == "categorical":
            safe = {value: neutral(value) for value in values.dropna().unique()}
            values = values.map(safe).astype(object).where(values.notna(), None)
        columns[names[name]] = values
    return type(frame)(columns, index=frame.index)
