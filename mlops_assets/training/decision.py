"""The rule that names a champion: on the same test rows, strictly better wins, and never what a rule of thumb beats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mlops_assets.training.metrics import HIGHER_IS_BETTER

Outcome = Literal["none", "first", "promoted", "retained"]


@dataclass(frozen=True)
class Decision:
    """Outcome of a comparison and its reason in words, with both values."""

    outcome: Outcome
    reason: str


def decide(
    champion_metric: float | None, challenger_metric: float, metric: str, *, disqualified: str | None = None
) -> Decision:
    """Compare a challenger with the champion by one metric, measured on the same test rows.

    Parameters
    ----------
    champion_metric
        The champion's value; None when there is no champion yet. NaN when its value is undefined on these
        rows (e.g. an AUC where all outcomes are the same).
    challenger_metric
        The challenger's value; may be NaN. An undefined value never wins: without a measured difference the
        champion stays. Only the first champion needs none.
    metric
        A key of `HIGHER_IS_BETTER`, which says which direction is better.
    disqualified
        Why the challenger may not be champion whatever the comparison says: the champion stays, or there is none.

    Raises
    ------
    ValueError
        For an unknown metric.
    """
    if metric not in HIGHER_IS_BETTER:
        raise ValueError(f"unknown metric {metric!r}; expected one of {', '.join(HIGHER_IS_BETTER)}")
    if disqualified is not None:
        return Decision("none" if champion_metric is None else "retained", disqualified)
    if champion_metric is None:
        if math.isnan(challenger_metric):
            return Decision("first", f"the first champion; its {metric} is undefined on the test rows")
        return Decision("first", f"the first champion; {metric} {challenger_metric:.4f}")
    if math.isnan(champion_metric) or math.isnan(challenger_metric):
        unknown = [
            who
            for who, value in (("champion", champion_metric), ("challenger", challenger_metric))
            if math.isnan(value)
        ]
        return Decision(
            "retained",
            f"{metric} of the {' and the '.join(unknown)} is undefined on the test rows "
            f"({champion_metric:.4f}, challenger {challenger_metric:.4f}): none shown to be better",
        )
    difference = challenger_metric - champion_metric
    better = difference > 0 if HIGHER_IS_BETTER[metric] else difference < 0
    word = "better than" if better else "not better than"
    return Decision(
        "promoted" if better else "retained",
        f"{metric} of the challenger {challenger_metric:.4f} is {word} the champion's {champion_metric:.4f} "
        f"({difference:+.4f}) on the same test rows",
    )
