"""How much of what a challenger has learned from the champion in force has not: the check `new_data_size`.

A challenger differs from the champion by chance alone when both have seen nearly the same rows: then a better metric
is no reason to change, and a promotion means little. So the new rows are counted, and compared with the rows that the
champion was trained on.
"""

from __future__ import annotations

from mlops_assets.monitored_model.learning_plan import ROLES, LearningPlan, part_sql
from mlops_assets.monitored_model.outcome import Check, table
from mlops_assets.monitored_model.scoring import champion_model
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets.training.registry import RegistryError

NEW_DATA_SIZE = "new_data_size"
TRAINED_UNTIL = "trained_until"
"""Tag of a version: the last period among its training rows."""
TRAIN_ROWS = "train_rows"
"""Tag of a version that was trained on a sample: how many training rows there were."""


def new_data_size(bench: Workbench, period: str, plan: LearningPlan) -> Check:
    """Compare the rows of the challenger that lie after the champion's training rows with the champion's training rows.

    New are the rows of periods later than the last one that the champion in force was trained on, whichever part of
    the challenger they are in. It warns when their number is below `min_new_data` times the rows that the champion
    was trained on.
    """
    counts = _rows_by_period(bench, plan)
    rows = sum(sum(by_period.values()) for by_period in counts.values())
    try:
        champion = champion_model(bench, period)
    except RegistryError as error:
        return Check(NEW_DATA_SIZE, True, f"Nothing to compare the new rows with: {error}", "WARN")
    if champion is None:
        text = f"There is no champion yet: all {rows:,} rows are new."
        return Check(NEW_DATA_SIZE, True, text, "WARN", {"new_rows": rows})
    until = champion.tags.get(TRAINED_UNTIL)
    if until is None:
        text = f"Version {champion.version} does not say until when it was trained, so nothing can be counted as new."
        return Check(NEW_DATA_SIZE, True, text, "WARN", {"champion_version": champion.version})
    new = {role: {p: n for p, n in by_period.items() if p > until} for role, by_period in counts.items()}
    new_rows = sum(sum(by_period.values()) for by_period in new.values())
    new_periods = sorted({p for by_period in new.values() for p in by_period})
    # Of a champion that learned from a sample: the rows that the sample stands for.
    trained_rows = int(champion.tags.get(TRAIN_ROWS) or champion.metrics["train"]["rows"] or 0)
    ratio, limit = new_rows / trained_rows, bench.spec.min_new_data
    metadata = {
        "new_rows": new_rows,
        "new_periods": ", ".join(new_periods),
        "champion_version": champion.version,
        "champion_training_rows": trained_rows,
        "champion_training_periods": champion.periods["train"],
        "ratio": ratio,
        "threshold": limit,
        "rows_by_part": table(
            [
                {
                    "part": role,
                    "of": str(plan.parts[role]),
                    "rows": sum(counts[role].values()),
                    "new": sum(new[role].values()),
                }
                for role in ROLES
            ]
        ),
    }
    text = (
        f"{new_rows:,} of {rows:,} rows are later than what the champion, version {champion.version}, was trained on "
        f"({champion.periods['train']}, {trained_rows:,} rows): {ratio:.2f} new rows for each of those."
    )
    if ratio < limit:
        text += f" Below {limit:g} the two have seen nearly the same, and a difference between them is mostly chance."
    return Check(NEW_DATA_SIZE, ratio >= limit, text, "WARN", metadata)


def nothing_new(reason: str) -> Check:
    """The check of a period that trained nothing."""
    return Check(NEW_DATA_SIZE, True, f"Nothing was trained: {reason}", "WARN")


def _rows_by_period(bench: Workbench, plan: LearningPlan) -> dict[str, dict[str, int]]:
    """Rows with known target, by part and period."""
    return {
        role: dict(
            bench.con.execute(f"SELECT period, count(*) FROM ({part_sql(bench, part)}) GROUP BY period").fetchall()
        )
        for role, part in plan.parts.items()
    }
