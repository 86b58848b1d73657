"""The ten assets of a monitored model.

Here: keys, dependencies, partitions, descriptions and checks: what Dagster must know. What an asset does is one
function of a step module (`ingestion`, `learning`, `watching`, `delivery`), which knows no Dagster.

Inside the graph no check blocks: a period that can't be used is an empty partition with a reason. The one blocking
check is `served_complete`, at the border to the consumers. Hence nothing of ours depends on `served_predictions`.
https://docs.dagster.io/guides/test/asset-checks
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of an asset's function.
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from mlops_assets.home import Home
from mlops_assets.monitored_model.outcome import Check, FilePath, Link, Markdown, Outcome
from mlops_assets.monitored_model.resources import LakeResource, mlflow_resource_key
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.workbench import Workbench

LAKE_IO_MANAGER = "lake_io_manager"
SHOWN_DIGITS = 6
Step = Callable[[Workbench, str], Outcome]


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
    config: Mapping[str, Any] | None = None


TRIALS_CONFIG = {
    "trials": dg.Field(int, is_required=False, description="Trials of the search, instead of the declaration's.")
}


def graph(spec: ModelSpec) -> list[AssetDeclaration]:
    """The assets of a model, from raw records to served predictions."""
    window = (spec.window.first, 0)
    return [
        AssetDeclaration(
            name=spec.raw_table,
            step="ingestion.raw",
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
            step="ingestion.features",
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
            step="ingestion.profile_of_features",
            description="Per day and column the sorted values with their counts, and the nulls: exact, and mergeable "
            "by adding counts. All drift is computed from profiles.",
            kinds=frozenset({"parquet", "duckdb"}),
            depends_on={"features": (0, 0)},
        ),
        AssetDeclaration(
            name="challenger",
            step="learning.challenger",
            description=f"The version trained in this period: searched with Optuna, chosen by {spec.metric} on "
            "validation, logged and registered in MLflow. When the period is severely apart from its window, it is "
            "trained on the period's own rows since the break. The same data, SQL, spec and code reuse the "
            "registered version.",
            kinds=frozenset({"mlflow", "optuna", "scikitlearn"}),
            depends_on={"features": window, "profile": window},
            checks=[
                CheckDeclaration("training_sane", "No row is in two splits, and the model beats the base rate on test.")
            ],
            uses_mlflow=True,
            config=TRIALS_CONFIG,
        ),
        AssetDeclaration(
            name="champion",
            step="learning.champion",
            description="The decision of this period: which version is in force after it. The challenger replaces the "
            f"champion only when its {spec.metric} on the same test rows is better.",
            kinds=frozenset({"mlflow"}),
            depends_on={"challenger": (0, 0), "features": (0, 0), "champion": (-1, -1)},
            uses_mlflow=True,
        ),
        AssetDeclaration(
            name="predictions",
            step="watching.predictions",
            description="Scores of the champion of the period before: a model never scores a period that it was "
            "trained, tuned or chosen on.",
            kinds=frozenset({"parquet", "scikitlearn"}),
            depends_on={"features": (0, 0), "champion": (-1, -1)},
        ),
        AssetDeclaration(
            name="drift_report",
            step="watching.drift_report",
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
            step="delivery.fallback_predictions",
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
            step="delivery.served_predictions",
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
            step="watching.performance",
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


def partitions(spec: ModelSpec) -> dg.TimeWindowPartitionsDefinition:
    """The periods of a model as Dagster partitions: months `2021-01`, or weeks by their Monday."""
    calendar = spec.calendar
    # Dagster's end is exclusive.
    end = None if spec.end is None else calendar.end(spec.end)
    if spec.cadence == "monthly":
        return dg.TimeWindowPartitionsDefinition(
            cron_schedule="0 0 1 * *",
            fmt="%Y-%m",
            start=calendar.start(spec.start),
            end=end,
            end_offset=spec.lead,
        )
    return dg.TimeWindowPartitionsDefinition(
        cron_schedule="0 0 * * 1",
        fmt="%Y-%m-%d",
        start=calendar.start(spec.start),
        end=end,
        end_offset=spec.lead,
    )


def build_assets(spec: ModelSpec, sql: str) -> list[dg.AssetsDefinition]:
    """Dagster's definitions of a model's graph."""
    periods = partitions(spec)
    return [_asset(spec, sql, declaration, periods) for declaration in graph(spec)]


def _asset(
    spec: ModelSpec, sql: str, declaration: AssetDeclaration, periods: dg.TimeWindowPartitionsDefinition
) -> dg.AssetsDefinition:
    key = dg.AssetKey([spec.name, declaration.name])

    @dg.asset(
        key=key,
        group_name=spec.name,
        description=declaration.description,
        kinds=set(declaration.kinds),
        owners=spec.owners or None,
        tags={"mlops/model": spec.name},
        partitions_def=periods,
        deps=[_dep(spec, name, offsets) for name, offsets in declaration.depends_on.items()],
        check_specs=[
            dg.AssetCheckSpec(
                check.name,
                asset=key,
                description=check.description,
                blocking=check.blocking,
                partitions_def=periods,
            )
            for check in declaration.checks
        ],
        required_resource_keys={"lake", "duckdb"}
        | ({mlflow_resource_key(spec.name)} if declaration.uses_mlflow else set()),
        io_manager_key=LAKE_IO_MANAGER,
        op_tags={"mlops/model": spec.name},
        config_schema=dict(declaration.config) if declaration.config else None,
    )
    def materialize(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        configured = spec.model_copy(update=context.op_execution_context.op_config) if declaration.config else spec
        with _workbench(context, configured, sql, uses_mlflow=declaration.uses_mlflow) as workbench:
            outcome = _load(declaration.step)(workbench, context.partition_key)
        return materialize_result(key, outcome)

    return materialize


def _dep(spec: ModelSpec, name: str, offsets: tuple[int, int]) -> dg.AssetDep:
    key = dg.AssetKey([spec.name, name])
    if offsets == (0, 0):
        return dg.AssetDep(key)
    first, last = offsets
    return dg.AssetDep(
        key,
        partition_mapping=dg.TimeWindowPartitionMapping(
            start_offset=first, end_offset=last, allow_nonexistent_upstream_partitions=True
        ),
    )


def _load(step: str) -> Step:
    """The step's function; its module is imported at the first materialization, not when definitions load."""
    from importlib import import_module

    module, _, function = step.rpartition(".")
    return getattr(import_module(f"mlops_assets.monitored_model.{module}"), function)


@contextmanager
def _workbench(
    context: dg.AssetExecutionContext, spec: ModelSpec, sql: str, *, uses_mlflow: bool
) -> Iterator[Workbench]:
    lake_resource: LakeResource = context.resources.lake
    duckdb: DuckDBResource = context.resources.duckdb
    lake = lake_resource.lake()
    with duckdb.get_connection() as con:
        yield Workbench(
            spec=spec,
            sql=sql,
            home=Home.from_env(),
            lake=lake,
            con=lake.attach(con),
            period_run=getattr(context.resources, mlflow_resource_key(spec.name)) if uses_mlflow else None,
        )


def materialize_result(key: dg.AssetKey, outcome: Outcome) -> dg.MaterializeResult:
    """An outcome in Dagster's words: what was written, and the checks of this partition."""
    partition = outcome.partition
    metadata: dict[str, Any] = {"dagster/row_count": partition.rows}
    if partition.reason is not None:
        metadata["reason"] = partition.reason
    metadata |= _shown(outcome.metadata)
    metadata["file"] = dg.MetadataValue.path(partition.url)
    metadata["bytes"] = partition.bytes
    metadata["digest"] = partition.digest
    return dg.MaterializeResult(
        asset_key=key,
        metadata=metadata,
        check_results=[_check_result(key, check) for check in outcome.checks],
        data_version=dg.DataVersion(partition.digest[:32]),
    )


def _check_result(key: dg.AssetKey, check: Check) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=check.name,
        passed=check.passed,
        severity=dg.AssetCheckSeverity[check.severity],
        description=check.description,
        metadata=_shown(check.metadata),
    )


def _shown(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What there is to show: entries without a value are left out."""
    return {name: metadata_value(value) for name, value in metadata.items() if value is not None}


def metadata_value(value: Any) -> Any:
    """A plain value, or one of the outcome's own types, as Dagster's metadata."""
    if isinstance(value, Markdown):
        return dg.MetadataValue.md(value.text)
    if isinstance(value, Link):
        return dg.MetadataValue.url(value.url)
    if isinstance(value, FilePath):
        return dg.MetadataValue.path(value.path)
    if isinstance(value, float):
        # For people; the exact value is in the partition.
        return float(f"{value:.{SHOWN_DIGITS}g}")
    if isinstance(value, (dict, list, tuple)):
        return dg.MetadataValue.json(list(value) if isinstance(value, tuple) else value)
    return value
