from __future__ import annotations

import math

import pytest

from mlops_assets.training.decision import decide


@pytest.mark.parametrize(
    ("champion", "challenger", "metric", "outcome"),
    [
        (None, 0.4, "f1", "first"),
        (None, math.nan, "f1", "first"),
        (0.4, 0.41, "f1", "promoted"),
        (0.4, 0.4, "f1", "retained"),
        (0.4, 0.39, "f1", "retained"),
        (0.4, 0.39, "log_loss", "promoted"),
        (0.4, 0.41, "mae", "retained"),
        (math.nan, 0.9, "auc", "retained"),
        (0.4, math.nan, "auc", "retained"),
    ],
)
def test_strictly_better_wins(champion, challenger, metric, outcome):
    assert decide(champion, challenger, metric).outcome == outcome


def test_the_reason_has_both_values_and_the_difference():
    reason = decide(0.413, 0.384, "f1").reason
    assert "0.3840" in reason
    assert "0.4130" in reason
    assert "-0.0290" in reason


def test_an_undefined_value_is_named():
    assert "of the champion is undefined" in decide(math.nan, 0.5, "auc").reason


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="expected one of f1"):
        decide(0.1, 0.2, "f2")
