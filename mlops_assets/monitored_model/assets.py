"""The ten assets of a monitored model.

Here: keys, dependencies, partitions, descriptions and checks: what Dagster must know. What an asset does is one
module of `steps`, which knows no Dagster.

Inside the graph no check blocks: a period that can't be used is an empty partition with a reason. The one blocking
check is `served_complete`, at the border to the consumers. Hence nothing of ours depends on `served_predictions`.
https://docs.dagster.io/guides/test/asset-checks
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of an asset's function.
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from mlops_assets.home import Home
from mlops_assets.incidents.store import Incident
from mlops_assets.monitored_model.graph import AssetDeclaration, CheckDeclaration, graph
from mlops_assets.monitored_model.jobs import period_job_name
from mlops_assets.monitored_model.memory_failures import out_of_memory_is_an_incident
from mlops_assets.monitored_model.outcome import Check, FilePath, Link, Markdown, Outcome, table
from mlops_assets.monitored_model.resources import LakeResource, mlflow_resource_key
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets.outages import explained
from mlops_assets.ownership import claim
from mlops_assets.redaction import errors_redacted, redact, redacted

LAKE_IO_MANAGER = "lake_io_manager"
SHOWN_DIGITS = 6
Step = Callable[[Workbench, str], Outcome]


TRIALS_CONFIG = {
    "trials": dg.Field(int, is_required=False, description="Trials of the search, instead of the declaration's.")
}


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
        check_specs=[_check_spec(key, check, periods) for check in declaration.checks],
        required_resource_keys={"lake", "duckdb", "store", "heartbeat"}
        | ({mlflow_resource_key(spec.name)} if declaration.uses_mlflow else set()),
        io_manager_key=LAKE_IO_MANAGER,
        op_tags={"mlops/model": spec.name},
        config_schema=TRIALS_CONFIG if declaration.takes_trials else None,
    )
    def materialize(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        configured = (
            spec.model_copy(update=context.op_execution_context.op_config) if declaration.takes_trials else spec
        )
        with (
            errors_redacted(),
            explained(),
            _workbench(context, configured, sql, uses_mlflow=declaration.uses_mlflow) as workbench,
        ):
            with out_of_memory_is_an_incident(
                configured, workbench.store, context.partition_key, declaration.name, context.run_id
            ):
                outcome = _load(declaration.step)(workbench, context.partition_key)
            stale = workbench.stale_after(outcome.partition)
            incidents = workbench.store.incidents(model=spec.name, period=context.partition_key)
        for warning in outcome.warnings:
            context.log.warning(f"{declaration.name} of {context.partition_key}: {warning}")
        for name, period in stale:
            context.log_event(_made_before(spec, name, period, declaration.name, context.partition_key))
        return materialize_result(key, outcome, stale, incidents)

    return materialize


def _check_spec(
    key: dg.AssetKey, check: CheckDeclaration, periods: dg.TimeWindowPartitionsDefinition
) -> dg.AssetCheckSpec:
    with _known_as_new("partitions_def"):
        return dg.AssetCheckSpec(
            check.name,
            asset=key,
            description=check.description,
            blocking=check.blocking,
            partitions_def=periods,
        )


def _dep(spec: ModelSpec, name: str, offsets: tuple[int, int]) -> dg.AssetDep:
    key = dg.AssetKey([spec.name, name])
    if offsets == (0, 0):
        return dg.AssetDep(key)
    first, last = offsets
    with _known_as_new("allow_nonexistent_upstream_partitions"):
        mapping = dg.TimeWindowPartitionMapping(
            start_offset=first, end_offset=last, allow_nonexistent_upstream_partitions=True
        )
    return dg.AssetDep(key, partition_mapping=mapping)


@contextmanager
def _known_as_new(parameter: str) -> Iterator[None]:
    """Without Dagster's warning that this parameter may change: its version is pinned, and the tests would notice."""
    with warnings.catch_warnings():
        for category in (dg.BetaWarning, dg.PreviewWarning):
            warnings.filterwarnings("ignore", rf".*\b{parameter}\b", category)
        yield


def _load(step: str) -> Step:
    """The step's function; its module is imported at the first materialization, not when definitions load."""
    from importlib import import_module

    return import_module(f"mlops_assets.monitored_model.steps.{step}").make


@contextmanager
def _workbench(
    context: dg.AssetExecutionContext, spec: ModelSpec, sql: str, *, uses_mlflow: bool
) -> Iterator[Workbench]:
    home = Home.from_env()
    claim(home)
    lake_resource: LakeResource = context.resources.lake
    duckdb: DuckDBResource = context.resources.duckdb
    lake = lake_resource.lake()
    with duckdb.get_connection() as con:
        yield Workbench(
            spec=spec,
            sql=sql,
            home=home,
            lake=lake,
            con=lake.attach(con),
            store=context.resources.store.store(),
            run_id=context.run_id,
            plan_b_waits=context.job_name == period_job_name(spec),
            period_run=getattr(context.resources, mlflow_resource_key(spec.name)) if uses_mlflow else None,
        )


def _made_before(spec: ModelSpec, name: str, period: str, changed: str, since: str) -> dg.AssetObservation:
    """Tells, at a later period's partition, that it was made before this one was made, or made again."""
    text = f"{changed} of {since} was made with another result since. Materialize this period too to take it in."
    return dg.AssetObservation(
        asset_key=dg.AssetKey([spec.name, name]), partition=period, description=text, metadata={"stale": text}
    )


def materialize_result(
    key: dg.AssetKey,
    outcome: Outcome,
    stale: Sequence[tuple[str, str]] = (),
    incidents: Sequence[Incident] = (),
) -> dg.MaterializeResult:
    """An outcome in Dagster's words: what was written, its checks, whom it has made stale, the period's incidents."""
    partition = outcome.partition
    metadata: dict[str, Any] = {"dagster/row_count": partition.rows}
    if partition.reason is not None:
        metadata["reason"] = redact(partition.reason)
    metadata |= _shown(outcome.metadata)
    if outcome.warnings:
        metadata["not_shown"] = dg.MetadataValue.md("\n".join(f"- {warning}" for warning in outcome.warnings))
    if incidents:
        rows = [
            {
                "incident": incident.id,
                "kind": incident.kind,
                "why": "; ".join(str(reason.get("sentence", "")) for reason in incident.reasons),
                # Not its state, which changes while this stays.
                "state": f"mlops-assets incidents show {incident.id}",
            }
            for incident in incidents
        ]
        metadata["incidents"] = metadata_value(table(rows))
    if stale:
        metadata["made_stale"] = ", ".join(f"{name} of {period}" for name, period in stale)
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
        description=redact(check.description),
        metadata=_shown(check.metadata),
    )


def _shown(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What there is to show: entries without a value are left out."""
    return {name: metadata_value(value) for name, value in redacted(dict(metadata)).items() if value is not None}


def metadata_value(value: Any) -> Any:
    """A plain value, or one of the outcome's own types, as Dagster's metadata."""
    if isinstance(value, Markdown):
        return dg.MetadataValue.md(redact(value.text))
    if isinstance(value, Link):
        return dg.MetadataValue.url(redact(value.url))
    if isinstance(value, FilePath):
        return dg.MetadataValue.path(value.path)
    if isinstance(value, float):
        # For people; the exact value is in the partition.
        return float(f"{value:.{SHOWN_DIGITS}g}")
    if isinstance(value, (dict, list, tuple)):
        return dg.MetadataValue.json(list(value) if isinstance(value, tuple) else value)
    return value
