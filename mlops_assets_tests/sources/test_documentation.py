"""docs/sources.md names every key and every option, and its examples are declarations that load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mlops_assets.sources.csv_options import OF_THE_CAST, OF_THE_READER, REFUSED, SYNONYMS
from mlops_assets.sources.declaration import Source
from mlops_assets.sources.rejects import REJECTED

PAGE = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
NAMED = set(re.findall(r"`([a-z_]+)`", PAGE))
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_every_key_option_and_column_is_documented() -> None:
    options = OF_THE_READER | OF_THE_CAST | SYNONYMS.keys() | REFUSED.keys()
    assert {*Source.model_fields, *options, *REJECTED.names} <= NAMED


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_are_declarations(text: str) -> None:
    said = yaml.safe_load(text)
    whole = {"path": "{period}.csv", "schema": {"date": "DATE", "article": "VARCHAR", "units": "DOUBLE"}}
    assert Source(**(said["source"] if "source" in said else whole | said))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3
