"""What data hold reaches Evidently's pages as text, never as markup."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_assets.drift.evidently_page import write_page
from mlops_assets.drift.evidently_text import neutral_frame, neutral_names
from mlops_assets.lake.columns import Kind
from mlops_assets.neutral_text import MAX_CHARACTERS, neutral

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "<!--<script>",
    "&lt;script&gt;document.title='owned'&lt;/script&gt;",
    "<a href=\"javascript:document.title='owned'\">click</a>",
    "[click](javascript:alert(1)) ![x](http://192.0.2.1/x.png)",
    "`${document.title='owned'}`",
    "\u202egnp.exe\u2028\u0000\u200b",
    "' onmouseover='x",
    "{{constructor.constructor('alert(1)')()}}",
)


def hostile_frame(rows: int = 400, seed: int = 0) -> tuple[pd.DataFrame, dict[str, Kind]]:
    """A frame whose column names and categories are all hostile, and the kinds of its columns."""
    rng = np.random.default_rng(seed)
    kinds: dict[str, Kind] = {}
    columns: dict[str, object] = {}
    for number, name in enumerate(HOSTILE):
        kinds[name] = "categorical" if number % 2 else "numeric"
        columns[name] = rng.choice(list(HOSTILE), rows) if number % 2 else rng.normal(number, 1, rows)
    return pd.DataFrame(columns), kinds


@pytest.mark.parametrize("text", HOSTILE)
def test_a_neutral_text_has_no_markup_and_nothing_invisible(text: str) -> None:
    safe = neutral(text)
    assert not set(safe) & set("<>\u2028\u0000\u200b\u202e")
    assert neutral(safe) == safe


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("Zürich", "価格", "a/b (km) 5 % [x]", "O'Hare", 'the "old" town', "naïve – 3×", "a{b}"):
        assert neutral(text) == text


def test_long_texts_are_cut_and_stay_apart() -> None:
    one, other = "x" * 5000 + "1", "x" * 5000 + "2"
    assert neutral(one) != neutral(other)
    assert len(neutral(one)) < MAX_CHARACTERS + 20


def test_names_that_look_alike_stay_apart() -> None:
    names = neutral_names(["a<", "a‹", "a"])
    assert len(set(names.values())) == 3
    assert names["a"] == "a"


def test_a_frame_keeps_its_rows_missing_values_and_numbers() -> None:
    frame = pd.DataFrame({"<b>": ["<i>", None, "x"], "n": [1.0, np.nan, 3.0]})
    kinds: dict[str, Kind] = {"<b>": "categorical", "n": "numeric"}
    safe = neutral_frame(frame, kinds, neutral_names(kinds))
    assert list(safe.columns) == ["‹b›", "n"]
    assert safe["‹b›"].tolist() == ["‹i›", None, "x"]
    assert safe["n"].equals(frame["n"])


def test_a_page_of_hostile_names_and_values_has_the_scripts_of_a_harmless_one(tmp_path: Path) -> None:
    reference, kinds = hostile_frame(seed=1)
    current, _ = hostile_frame(seed=2)
    current[HOSTILE[0]] += 50.0
    workspace = tmp_path / "workspace"
    page = write_page(
        reference,
        current,
        kinds,
        model="m",
        period="2021-01",
        timestamp=datetime(2021, 1, 1),
        html=tmp_path / "hostile.html",
        title=f"severe {HOSTILE[0]}",
        notes=HOSTILE,
        workspace=workspace,
        tags=HOSTILE,
    )
    plain = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": ["x", "y", "x"]})
    harmless = write_page(
        plain,
        plain,
        {"a": "numeric", "b": "categorical"},
        model="m",
        period="2021-01",
        timestamp=datetime(2021, 1, 1),
        html=tmp_path / "harmless.html",
        title="ok",
    )
    tags = re.compile(r"</?(?:script|img|a|iframe|svg)\b|<!--", re.I)
    assert tags.findall(page.html.read_text("utf-8")) == tags.findall(harmless.html.read_text("utf-8"))
    (snapshot,) = workspace.glob("*/snapshots/*.json")
    assert not [text for text in strings(json.loads(snapshot.read_text("utf-8"))) if "<" in text and "owned" in text]
    assert HOSTILE[0] in page.drifted_columns, "the caller knows the columns by their real names"


def strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for key, inner in value.items() for text in (str(key), *strings(inner))]
    if isinstance(value, list):
        return [text for inner in value for text in strings(inner)]
    return [value] if isinstance(value, str) else []
