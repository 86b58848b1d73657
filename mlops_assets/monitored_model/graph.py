"""The graph of a model, before Dagster: its assets, what each reads of which periods, and their checks.

One table for all who ask: the Dagster definitions, the lake (which inputs a partition was made from), the pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlops_assets.monitored_model.spec import ModelSpec


@dataclass(frozen=True)
class CheckDeclaration:
    """A check as the UI announces it before it has run."""

    name: str
    description: str
    blocking: bool = False


@dataclass(frozen=True)
class AssetDeclaration:
    """An asset of the graph, before Dagster.

    `depends_on` gives offsets of periods by asset: `{"features": (-2, 0)}` reads the two earlier periods too.
    """

    name: str
    step: str
    description: str
    kinds: frozenset[str]
    depends_on: Mapping[str, tuple[int, int]]
    checks: Sequence[CheckDeclaration] = ()
    uses_mlflow: bool = False
    takes_trials: bool = False


def graph(spec: ModelSpec) -> list[AssetDeclaration]:
    """The assets of a model, from raw records to served predictions."""
    window = (spec.window.first, 0)
    return [
        AssetDeclaration(
            name=spec.raw_table,
            step="raw",
            description=f"The source's {spec.records} of the period, cast to one declared schema whatever the source's "
            "variant. A row's number in the source is its record_id.",
            kinds=frozenset({"parquet", "duckdb", "bronze"}),
            depends_on={},
            checks=[
                CheckDeclaration("source_schema", "The source is readable, has every declared column and their types."),
                CheckDeclaration("volume", "There are rows, about as many as in earlier periods, and they are new."),
                CheckDeclaration("in_period", "The rows belong to this period. Flags, drops nothing."),
            ],
        ),
        AssetDeclaration(
            name="features",
            step="features",
            description=f"The result of {spec.features}: record key, features and target, one row per usable record.",
            kinds=frozenset({"parquet", "duckdb", "sql", "silver"}),
            depends_on={spec.raw_table: (-spec.history, 0)},
            checks=[
                CheckDeclaration("feature_schema", "Types, ranges and missing values are as declared (pandera)."),
                CheckDeclaration("completeness", "Enough records reach the features, with their values and target."),
            ],
        ),
        AssetDeclaration(
            name="profile",
            step="profile",
            description="Per day and column the sorted values with their counts, and the nulls: exact, and mergeable "
            "by adding counts. All drift is computed from profiles.",
            kinds=frozenset({"parquet", "duckdb"}),
            depends_on={"features": (0, 0)},
        ),
        AssetDeclaration(
            name="challenger",
            step="challenger",
            description=f"The version trained in this period: searched with Optuna, chosen by {spec.metric} on "
            "validation, logged and registered in MLflow. When the period is severely apart from its window, it is "
            "trained on the period's own rows since the break. The same data, SQL, spec and code reuse the "
            "registered version.",
            kinds=frozenset({"mlflow", "optuna", "scikitlearn"}),
            depends_on={"features": window, "profile": window},
            checks=_challenger_checks(spec),
            uses_mlflow=True,
            takes_trials=True,
        ),
        AssetDeclaration(
            name="champion",
            step="champion",
            description="The decision of this period: which version is in force after it. The challenger replaces the "
            f"champion only when its {spec.metric} on the same test rows is better.",
            kinds=frozenset({"mlflow"}),
            depends_on={"challenger": (0, 0), "features": (spec.window.test[0], 0), "champion": (-1, -1)},
            uses_mlflow=True,
        ),
        AssetDeclaration(
            name="predictions",
            step="predictions",
            description="Scores of the champion of the period before: a model never scores a period that it was "
            "trained, tuned or chosen on.",
            kinds=frozenset({"parquet", "scikitlearn"}),
            depends_on={"features": (0, 0), "champion": (-1, -1)},
        ),
        AssetDeclaration(
            name="drift_report",
            step="drift_report",
            description="Features and scores of the period against the reference of the champion in force, one row per "
            "column and method, with one verdict, its reasons and the day since when.",
            kinds=frozenset({"parquet", "evidently"}),
            depends_on={"profile": (0, 0), "features": (0, 0), "predictions": (0, 0), "champion": (-1, -1)},
            checks=[
                CheckDeclaration("drift_within_limits", "Fails when the verdict is severe, warns when it is a warning.")
            ],
            uses_mlflow=True,
        ),
        AssetDeclaration(
            name="fallback_predictions",
            step="fallback_predictions",
            description="Plan B's predictions, with why and from where; empty when they are not needed.",
            kinds=frozenset({"parquet"}),
            depends_on={
                "features": (0, 0),
                "predictions": (-1, 0),
                "drift_report": (0, 0),
                "champion": (-1, -1),
            },
        ),
        AssetDeclaration(
            name="served_predictions",
            step="served_predictions",
            description=f"What consumers read: exactly one prediction for each of the period's {spec.records}, with "
            "its source and decision, or no row and the reason.",
            kinds=frozenset({"parquet", "gold"}),
            depends_on={"predictions": (0, 0), "drift_report": (0, 0), "fallback_predictions": (0, 0)},
            checks=[
                CheckDeclaration(
                    "served_complete",
                    "Every record that should be served is. Stops the consumers' assets of this period otherwise.",
                    blocking=True,
                )
            ],
        ),
        AssetDeclaration(
            name="performance",
            step="performance",
            description="Realised metrics of the champion's scores where outcomes are known, a label-free estimate "
            "beside them, Fisher's exact test against the champion's test period, and the weakest segments.",
            kinds=frozenset({"parquet"}),
            depends_on={
                "features": (0, 0),
                "predictions": (0, 0),
                "drift_report": (0, 0),
                "fallback_predictions": (0, 0),
                "champion": (-1, -1),
            },
            checks=[
                CheckDeclaration(
                    "performance_within_limits",
                    "The metric has not fallen far behind the champion's test period.",
                )
            ],
            uses_mlflow=True,
        ),
    ]


def _challenger_checks(spec: ModelSpec) -> list[CheckDeclaration]:
    checks = [
        CheckDeclaration(
            "training_sane",
            "No row is in two splits, and the model beats the base rate on test. Warns when it is too good to be true.",
        ),
        CheckDeclaration(
            "new_data_size",
            "Enough rows are later than what the champion was trained on, compared with what it learned from.",
        ),
    ]
    if spec.baseline is not None:
        text = f"The model's {spec.metric} is better than that of the naive forecast {spec.baseline} on the same rows."
        checks.append(CheckDeclaration("beats_baseline", text))
    return checks


def inputs_of(spec: ModelSpec, table: str, period: str) -> list[tuple[str, str]]:
    """The (table, period) pairs that a partition is made from; of its own earlier partitions only the one before."""
    wanted = next(declared for declared in graph(spec) if declared.name == table)
    return [
        (name, other) for name, offsets in wanted.depends_on.items() for other in spec.calendar.window(period, offsets)
    ]


def made_from(spec: ModelSpec, table: str, period: str) -> list[tuple[str, str]]:
    """The (table, period) pairs of later periods that are made from a partition: the other way round of `inputs_of`."""
    return [
        (declared.name, spec.calendar.shift(period, -offset))
        for declared in graph(spec)
        for offset in range(*_inclusive(declared.depends_on.get(table, (0, 0))))
        if offset < 0
    ]


def _inclusive(offsets: tuple[int, int]) -> tuple[int, int]:
    return offsets[0], offsets[1] + 1
