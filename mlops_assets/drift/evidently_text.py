"""Text that is safe inside Evidently's pages, whatever the data hold.

Evidently writes column names and category values into the script of its pages without escaping them, and draws them
with libraries that read some HTML and Markdown. So nothing that a browser could take for markup is handed to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mlops_assets.neutral_text import neutral

if TYPE_CHECKING:
    import pandas as pd

    from mlops_assets.lake.columns import Kind


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
