"""The Dagster component: a `defs.yaml` with a `features.sql` beside it becomes a model's assets, checks and job.

https://docs.dagster.io/guides/build/components
"""

from __future__ import annotations

from typing import Self

import dagster as dg
from pydantic import BaseModel

from mlops_assets.monitored_model.assets import build_assets, partitions
from mlops_assets.monitored_model.features_sql import check_features_sql
from mlops_assets.monitored_model.jobs import PERIOD_KIND, build_decision_jobs, build_jobs, build_schedule
from mlops_assets.monitored_model.resources import mlflow_period_run, mlflow_resource_key
from mlops_assets.monitored_model.scaffold import MonitoredModelScaffolder
from mlops_assets.monitored_model.sensors import build_sensors
from mlops_assets.monitored_model.spec import ModelSpec

SPEC_RESOURCE = "mlops_spec_"


class SpecResource(dg.ResourceDefinition):
    """A model's declaration, which travels with the definitions for those who run them without a daemon.

    Not as metadata: Dagster shows that to whoever opens its pages, and the source's addresses may hold secrets.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(resource_fn=lambda _: spec, description=f"The declaration of {spec.name}.")
        self.spec = spec


@dg.scaffold_with(MonitoredModelScaffolder)
class MonitoredModel(dg.Component):
    """A model that is trained, promoted, scored and watched for every period of its data.

    Declared by one `defs.yaml`, whose attributes are those of `ModelSpec`, and the SQL file that it names.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        # The declaration itself, not a model derived from it: so every complaint of its validators, those about
        # several fields too, is reported with its file and line.
        return ModelSpec

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        if not isinstance(attributes, ModelSpec):
            raise dg.DagsterInvalidDefinitionError(
                f"{context.path / 'defs.yaml'} has no `attributes`; a model's declaration is expected there"
            )
        return cls(attributes)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        path = context.path / self.spec.features
        if not path.is_file():
            raise dg.DagsterInvalidDefinitionError(
                f"{context.path / 'defs.yaml'}: features is {self.spec.features!r}, but there is no such file beside "
                "it; write the query that makes the features there"
            )
        sql = path.read_text()
        check_features_sql(self.spec, sql, path)
        return build_definitions(self.spec, sql)


def build_definitions(spec: ModelSpec, sql: str) -> dg.Definitions:
    """The definitions of one model, without the resources and sensors that all models share."""
    periods = partitions(spec)
    assets = build_assets(spec, sql)
    jobs = build_jobs(spec, assets, periods)
    return dg.Definitions(
        assets=assets,
        jobs=[*jobs.values(), *build_decision_jobs(spec)],
        schedules=[build_schedule(spec, jobs[PERIOD_KIND], periods)],
        sensors=build_sensors(spec, jobs, periods),
        resources={
            mlflow_resource_key(spec.name): mlflow_period_run(spec.name),
            f"{SPEC_RESOURCE}{spec.name}": SpecResource(spec),
        },
    )
