from __future__ import annotations

import pytest
from pydantic import ValidationError

from mlops_assets.lake.columns import Column, kinds


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        ({"gt": 0, "ge": 0}, "both gt"),
        ({"lt": 0, "le": 0}, "both lt"),
        ({"ge": 5, "le": 3}, "has to be smaller"),
        ({"gt": 5, "le": 5}, "has to be smaller"),
        ({"categorical": True, "gt": 0}, "no range"),
        ({"isin": []}, "empty list"),
        ({"isin": [1], "gt": 0}, "the list alone"),
        ({"nullable": False, "max_null": 0.5}, "max_null allows 0.5"),
        ({"tolerance": 1.5}, "less than or equal to 1"),
        ({"minimum": 3}, "minimum"),
    ],
)
def test_contradicting_or_unknown_rules_are_refused_with_what_is_wrong(rules: dict, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Column(**rules)


def test_a_range_of_one_value_is_allowed_when_both_ends_belong_to_it() -> None:
    assert Column(ge=5, le=5).ge == 5


def test_kinds_keep_the_order_of_the_declaration() -> None:
    found = kinds({"b": Column(), "a": Column(categorical=True)})
    assert list(found.items()) == [("b", "numeric"), ("a", "categorical")]
