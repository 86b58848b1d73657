"""Scores of the champion of the period before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.frames import exact_frame
from mlops_assets.lake.store import Partition
from mlops_assets.monitored_model.features_sql import columns_of
from mlops_assets.monitored_model.gates import served_ahead
from mlops_assets.monitored_model.outcome import Link, Markdown, Outcome
from mlops_assets.monitored_model.presentation import Presentation
from mlops_assets.monitored_model.scoring import (
    SCORE,
    champion_model,
    load_version,
    predictions_schema,
    score_profile,
    score_reference,
)
from mlops_assets.monitored_model.tables import DEFINITION, FEATURES, NO_CHAMPION, PREDICTIONS
from mlops_assets.monitored_model.versions import Identity
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets.training.registry import RegistryError

if TYPE_CHECKING:
    from mlops_assets.training.registry import LoadedModel


def make(bench: Workbench, period: str) -> Outcome:
    """Score the period's features with the champion of the period before.

    Columns: those of the features but the target, then `score` (probability of the positive class, or the predicted
    amount), `prediction` (1 or 0 by the champion's cut; the amount), `cut` and `model_version`.
    """
    spec = bench.spec
    reason = bench.unusable(period)
    known = bench.find(PREDICTIONS, period)
    if reason is None and known is not None and known.rows and served_ahead(bench.lake, bench.name, period):
        return _as_served(bench, known)
    model = None
    if reason is None:
        model, reason = _champion(bench, period)
    # Before the stream is opened: DuckDB takes no other statement while a result is being read.
    schema = predictions_schema(bench)
    if model is None:
        return Outcome(bench.write(PREDICTIONS, period, schema.empty_table(), reason=reason))
    columns = [name for name in columns_of(spec) if name != spec.target.column]
    source = query_batches(bench.con, f"SELECT {bench.columns_sql(columns)} FROM {bench.scan(FEATURES, [period])}")
    scored = pa.RecordBatchReader.from_batches(schema, _scored(source, model, bench, schema))
    features = bench.partition(FEATURES, period).facts
    facts = {name: features[name] for name in ("records", DEFINITION) if name in features}
    facts |= {"version": model.version, "cut": model.cut, **Identity.of(model).facts()}
    partition = bench.write(PREDICTIONS, period, scored, facts=facts)
    return _outcome(bench, partition, model)


def _champion(bench: Workbench, period: str) -> tuple[LoadedModel | None, str | None]:
    """The version in force before the period, or why there is none to score with."""
    try:
        model = champion_model(bench, period)
    except RegistryError as error:
        return None, str(error)
    return model, NO_CHAMPION if model is None else None


def _as_served(bench: Workbench, known: Partition) -> Outcome:
    """The predictions of a period that was served before its outcomes were known, whoever is champion by now."""
    facts = {name: value for name, value in known.facts.items() if name != "made_from"}
    stored = query_batches(bench.con, f"FROM {bench.scan(PREDICTIONS, [known.period])}")
    partition = bench.write(PREDICTIONS, known.period, stored, facts=facts)
    try:
        return _outcome(bench, partition, load_version(bench, known))
    except RegistryError as error:
        return Outcome(partition, {"model_version": facts["version"], "model": str(error)})


def _outcome(bench: Workbench, partition: Partition, model: LoadedModel) -> Outcome:
    shown = Presentation()
    shown.add("the scores", lambda: _predictions_metadata(bench, partition.period, model))
    return Outcome(partition, shown.metadata, warnings=shown.warnings)


def _scored(
    source: pa.RecordBatchReader, model: LoadedModel, bench: Workbench, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    from mlops_assets.training.pipeline import scores

    for batch in source:
        found = scores(model.pipeline, exact_frame(batch), bench.spec.target)
        predicted = found if model.cut is None else (found >= model.cut).astype("float64")
        columns = [
            *batch.columns,
            pa.array(found, pa.float64()),
            pa.array(predicted, pa.float64()),
            pa.repeat(pa.scalar(model.cut, pa.float64()), batch.num_rows),
            pa.repeat(pa.scalar(model.version), batch.num_rows),
        ]
        cast = [column.cast(field.type) for column, field in zip(columns, schema, strict=True)]
        yield pa.RecordBatch.from_arrays(cast, schema=schema)


def _predictions_metadata(bench: Workbench, period: str, model: LoadedModel) -> dict[str, Any]:
    from mlops_assets.drift.pictures import score_histogram_picture
    from mlops_assets.training.pictures import as_markdown

    found = score_profile(bench, bench.records(PREDICTIONS, [period])).column(SCORE)
    reference = score_reference(model)
    mean, positive = bench.con.execute(
        f"SELECT avg({SCORE}), avg(prediction) FROM {bench.records(PREDICTIONS, [period])}"
    ).fetchall()[0]
    metadata: dict[str, Any] = {
        "model_version": model.version,
        "trained_on": model.periods["train"],
        "mean_score": mean,
        "mlflow_model": Link(bench.version_url(model.version)),
    }
    if model.cut is not None:
        metadata |= {"cut": model.cut, "share_predicted_positive": positive}
    if reference is not None:
        picture = score_histogram_picture(reference, found, model.cut)
        metadata["scores"] = Markdown(as_markdown(picture, "scores in this period and on the champion's test rows"))
    return metadata
