"""Scores: the champion that makes them, their columns, and their profile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.drift.profile import ColumnProfile, Profile, profile
from mlops_assets.lake.store import Partition
from mlops_assets.monitored_model.features_sql import bind, columns_of, raw_columns_sql
from mlops_assets.monitored_model.versions import named_by
from mlops_assets.monitored_model.workbench import Workbench

if TYPE_CHECKING:
    from mlops_assets.training.registry import LoadedModel
    from mlops_assets.training.scored_rows import ScoredRows
    from mlops_assets.training.search import Split

SCORE = "score"
SCORE_KINDS: dict[str, Any] = {SCORE: "numeric"}
SCORE_DECIMALS = 4
SCORE_HISTOGRAM = "score_histogram.parquet"  # scores and outcomes of the test rows, beside the model


def champion_model(bench: Workbench, period: str) -> LoadedModel | None:
    """The version in force before the period, loaded; None when there is none yet.

    Raises RegistryError when that version is unknown or can't be loaded.
    """
    decision = bench.champion_before(period)
    return None if decision is None else load_version(bench, decision)


def model_that_scored(bench: Workbench, predictions: Partition) -> LoadedModel:
    """The version that made a period's predictions, whatever has been decided since; raises as `champion_model`."""
    return load_version(bench, predictions)


def load_version(bench: Workbench, partition: Partition) -> LoadedModel:
    """The version that a decision or predictions name, loaded; raises as `champion_model`."""
    named = named_by(bench.lake, partition)
    if named is None:
        raise ValueError(f"{partition.table} of {bench.name} {partition.period} names no version")
    return bench.versions.load(named)


def kept_scores(bench: Workbench) -> ScoredRows:
    """An empty collection of scores beside outcomes, which keeps what is more than `max_rows` in the database."""
    from mlops_assets.training.scored_rows import ScoredRows

    return ScoredRows(bench.con, bench.spec.max_rows)


def scored_rows(bench: Workbench, model: LoadedModel, rows: Iterable[Split]) -> ScoredRows:
    """A version's scores of rows, beside their outcomes; close it after use."""
    from mlops_assets.training.pipeline import scores

    found = kept_scores(bench)
    for split in rows:
        found.add(split.target, scores(model.pipeline, split.features, bench.spec.target))
    return found


def score_profile(bench: Workbench, relation: str) -> Profile:
    """The profile of a relation's column `score`, rounded to four decimals."""
    rounded = f"(SELECT round({SCORE}, {SCORE_DECIMALS}) AS {SCORE} FROM {relation})"
    return profile(bench.con, rounded, SCORE_KINDS, None)


def reference_profile(bench: Workbench, model: LoadedModel) -> Profile:
    """The profile of the rows that a version was trained on."""
    if model.reference_profile is None:
        raise ValueError(
            f"version {model.version} of {bench.name} was registered without a reference profile, so nothing can be "
            "compared with it; materialize the challenger of its period again"
        )
    return Profile.from_arrow(pq.read_table(model.reference_profile), bench.spec.kinds)


def score_reference(model: LoadedModel) -> ColumnProfile | None:
    if model.score_reference is None:
        return None
    return Profile.from_arrow(pq.read_table(model.score_reference), SCORE_KINDS).column(SCORE)


def predictions_schema(bench: Workbench) -> pa.Schema:
    """The columns of a predictions partition."""
    spec = bench.spec
    query = bind(bench.con, spec, bench.sql, spec.start, raw_columns_sql(spec))
    names = [name for name in columns_of(spec) if name != spec.target.column]
    found = bench.con.sql(f"SELECT {bench.columns_sql(names)} FROM ({query}) LIMIT 0").to_arrow_table().schema
    own = [
        (SCORE, pa.float64()),
        ("prediction", pa.float64()),
        ("cut", pa.float64()),
        ("model_version", pa.string()),
    ]
    return pa.schema([*found, *(pa.field(name, kind) for name, kind in own)])


def served_schema(bench: Workbench) -> pa.Schema:
    """The columns of served and fallback predictions: the record's key and time, then what was served and why."""
    spec = bench.spec
    time = [spec.source.time_column] if spec.source.time_column else []
    known = predictions_schema(bench)
    fields = [known.field(name) for name in dict.fromkeys([*spec.record_keys, *time])]
    own = {
        "score": pa.float64(),
        "prediction": pa.float64(),
        "prediction_source": pa.string(),
        "is_fallback": pa.bool_(),
        "fallback_reason": pa.string(),
        "fallback_rung": pa.string(),
        "source_period": pa.string(),
        "model_version": pa.string(),
        "champion_version_intended": pa.string(),
        "decision_id": pa.string(),
    }
    return pa.schema([*fields, *(pa.field(name, kind) for name, kind in own.items())])
