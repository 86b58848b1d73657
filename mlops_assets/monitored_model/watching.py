"""Predictions, drift report and performance: what the champion of the period before says, and how it fares."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.drift.profile import ColumnProfile, Profile, profile
from mlops_assets.drift.verdict import ROWS_SCHEMA, DriftReport, compare
from mlops_assets.incidents.gate import Gate, gate
from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.store import identifier
from mlops_assets.monitored_model.features_sql import bind, columns_of, raw_columns_sql
from mlops_assets.monitored_model.outcome import Check, FilePath, Link, Markdown, Outcome, Severity, table
from mlops_assets.monitored_model.workbench import (
    DRIFT_REPORT,
    FEATURES,
    NO_CHAMPION,
    PERFORMANCE,
    PREDICTIONS,
    PROFILE,
    Workbench,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from mlops_assets.training.registry import LoadedModel

SCORE = "score"
SCORE_KINDS: dict[str, Any] = {SCORE: "numeric"}
SCORE_DECIMALS = 4
SCORE_HISTOGRAM = "score_histogram.parquet"  # scores and outcomes of the test rows, beside the model
PAGE_SAMPLE_ROWS = 5_000
PICTURED_COLUMNS = 3
WEAKEST_SHOWN = 10
SEGMENT_MIN_ROWS = 100

PERFORMANCE_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("segment_column", pa.string()),
        ("segment", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("rows", pa.int64()),
        ("model_version", pa.string()),
    ]
)


def champion_model(bench: Workbench, period: str) -> LoadedModel | None:
    """The version in force before the period, loaded; None when there is none yet."""
    from mlops_assets.training import registry, tracking

    decision = bench.champion_before(period)
    if decision is None:
        return None
    client = bench.period_run.client if bench.period_run else tracking.client(bench.home.tracking_uri)
    return registry.load(client, bench.name, decision.facts["version"])


def score_profile(bench: Workbench, relation: str) -> Profile:
    """The profile of a relation's column `score`, rounded to four decimals."""
    rounded = f"(SELECT round({SCORE}, {SCORE_DECIMALS}) AS {SCORE} FROM {relation})"
    return profile(bench.con, rounded, SCORE_KINDS, None)


# -- predictions ----------------------------------------------------------------------------------------------


def predictions(bench: Workbench, period: str) -> Outcome:
    """Score the period's features with the champion of the period before.

    Columns: those of the features but the target, then `score` (probability of the positive class, or the predicted
    amount), `prediction` (1 or 0 by the champion's cut; the amount), `cut` and `model_version`.
    """
    spec = bench.spec
    reason = bench.unusable(period)
    model = champion_model(bench, period) if reason is None else None
    if reason is None and model is None:
        reason = NO_CHAMPION
    # Before the stream is opened: DuckDB takes no other statement while a result is being read.
    schema = predictions_schema(bench)
    if model is None:
        return Outcome(bench.write(PREDICTIONS, period, schema.empty_table(), reason=reason))
    columns = [name for name in columns_of(spec) if name != spec.target.column]
    source = query_batches(bench.con, f"SELECT {bench.columns_sql(columns)} FROM {bench.scan(FEATURES, [period])}")
    scored = pa.RecordBatchReader.from_batches(schema, _scored(source, model, bench, schema))
    partition = bench.write(PREDICTIONS, period, scored, facts={"version": model.version, "cut": model.cut})
    return Outcome(partition, _predictions_metadata(bench, period, model))


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


def _scored(
    source: pa.RecordBatchReader, model: LoadedModel, bench: Workbench, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    from mlops_assets.training.pipeline import scores

    for batch in source:
        found = scores(model.pipeline, batch.to_pandas(), bench.spec.target)
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

    found = score_profile(bench, bench.scan(PREDICTIONS, [period])).column(SCORE)
    reference = _score_reference(model)
    mean, positive = bench.con.execute(
        f"SELECT avg({SCORE}), avg(prediction) FROM {bench.scan(PREDICTIONS, [period])}"
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


def _score_reference(model: LoadedModel) -> ColumnProfile | None:
    if model.score_reference is None:
        return None
    return Profile.from_arrow(pq.read_table(model.score_reference), SCORE_KINDS).column(SCORE)


# -- drift report ---------------------------------------------------------------------------------------------


def drift_report(bench: Workbench, period: str) -> Outcome:
    """Compare the period with the reference of the champion in force: features by its training rows, scores by its
    scores on test rows. The verdict counts columns, weighs them by the champion's importances, and has its reasons.
    """
    reason = bench.unusable(period)
    model = champion_model(bench, period) if reason is None else None
    if reason is None and model is None:
        reason = NO_CHAMPION
    if model is None:
        return _no_report(bench, period, reason or NO_CHAMPION)
    if model.reference_profile is None:
        raise ValueError(
            f"version {model.version} of {bench.name} was registered without a reference profile, so nothing can be "
            "compared with it; materialize the challenger of its period again"
        )
    spec = bench.spec
    stored = bench.con.sql(f"FROM {bench.scan(PROFILE, [period])}").to_arrow_table()
    current = Profile.from_arrow(stored, spec.kinds)
    reference = Profile.from_arrow(pq.read_table(model.reference_profile), spec.kinds)
    current_scores = score_profile(bench, bench.scan(PREDICTIONS, [period])).column(SCORE)
    reference_scores = _score_reference(model)
    first_day, last_day = bench.days(period)
    report = compare(
        reference,
        current,
        spec.kinds,
        spec.drift,
        importances=model.importances,
        scores=None if reference_scores is None else (reference_scores, current_scores),
        first_day=first_day,
        last_day=last_day,
    )
    metadata: dict[str, Any] = {
        "verdict": report.verdict,
        "since": str(report.since) if report.since else None,
        "champion_version": model.version,
        "reference": f"{model.periods['train']} ({report.reference_rows:,} rows)",
        "reasons": "; ".join(report.reasons) or None,
        "report": Markdown(report.markdown()),
    }
    metadata |= _pictures(bench, period, report, reference, current)
    metadata |= _page(bench, period, model, report)
    partition = bench.write(
        DRIFT_REPORT,
        period,
        report.rows(),
        facts={
            "verdict": report.verdict,
            "reasons": list(report.reasons),
            "since": str(report.since) if report.since else None,
            "report_digest": report.digest(),
            "champion_version": model.version,
            "severe_columns": list(report.severe_columns),
            "warning_columns": list(report.warning_columns),
        },
    )
    _log_drift(bench, period, report, model)
    return Outcome(partition, metadata, [_drift_within_limits(report)])


def _no_report(bench: Workbench, period: str, reason: str) -> Outcome:
    report = DriftReport.none(reason)
    partition = bench.write(
        DRIFT_REPORT,
        period,
        ROWS_SCHEMA.empty_table(),
        reason=reason,
        facts={
            "verdict": "none",
            "reasons": [reason],
            "report_digest": report.digest(),
            "champion_version": None,
        },
    )
    text = f"Nothing to compare: {reason}"
    return Outcome(partition, {"verdict": "none"}, [Check("drift_within_limits", True, text)])


def _drift_within_limits(report: DriftReport) -> Check:
    limits = report.thresholds
    rows = [
        {
            "column": column.name,
            "verdict": column.verdict,
            "PSI": column.psi,
            "limit": column.threshold,
            "since": column.since,
            "change": column.direction,
        }
        for column in [*([report.scores] if report.scores else []), *report.columns]
        if column.verdict in ("warning", "severe")
    ]
    metadata = {
        "verdict": report.verdict,
        "columns": table(rows) if rows else None,
        "share_of_severe_columns": report.severe_share,
        "share_threshold": limits.share,
        "importance_of_severe_columns": report.important_share,
        "important_share_threshold": limits.important_share,
        "since": str(report.since) if report.since else None,
    }
    text = f"Verdict {report.verdict}. " + " ".join(f"{reason}." for reason in report.reasons[:4])
    severity: Severity = "WARN" if report.verdict == "warning" else "ERROR"
    return Check("drift_within_limits", report.verdict not in ("warning", "severe"), text.strip(), severity, metadata)


def _pictures(
    bench: Workbench, period: str, report: DriftReport, reference: Profile, current: Profile
) -> dict[str, Any]:
    from mlops_assets.drift.break_day import psi_by_day
    from mlops_assets.drift.pictures import column_change_picture, drift_by_day_picture
    from mlops_assets.training.pictures import as_markdown

    pictures: dict[str, Any] = {}
    # Rows whose clock is wrong lie on other days; the picture is of the period's own.
    first, last = bench.days(period)
    both = [name for name in bench.spec.kinds if name in reference.columns and name in current.columns]
    inside = current.between(first, last)
    if inside.days and both:
        daily = psi_by_day(reference, inside, both)
        picture = drift_by_day_picture(
            daily.days,
            daily.columns,
            daily.psi,
            warning=bench.spec.drift.warning,
            severe=bench.spec.drift.severe,
            noise_floor=daily.noise_floor,
            since=report.since,
        )
        pictures["drift_by_day"] = Markdown(as_markdown(picture, "PSI by column and day"))
    worst = [*report.severe_columns, *report.warning_columns][:PICTURED_COLUMNS]
    changed = [
        as_markdown(column_change_picture(reference.column(name), current.column(name)), f"change of {name}")
        for name in worst
        if name in both
    ]
    if changed:
        pictures["what_changed"] = Markdown("\n\n".join(changed))
    return pictures


def _page(bench: Workbench, period: str, model: LoadedModel, report: DriftReport) -> dict[str, Any]:
    """Evidently's own page from samples of both sides, and the period's run in the model's Evidently project."""
    from mlops_assets.drift.evidently_page import project_url_path, write_page
    from mlops_assets.training import registry

    spec = bench.spec
    sample = model.file(registry.REFERENCE_SAMPLE)
    if sample is None:
        return {"evidently_page": "not made: the champion was registered without a reference sample"}
    keys = bench.columns_sql(spec.record_keys)
    # In order of time, so that the page's plots by row show when a value changed.
    order = bench.columns_sql([spec.source.time_column] if spec.source.time_column else spec.record_keys)
    current = bench.con.execute(
        f"SELECT {bench.columns_sql([*spec.columns, SCORE])} FROM (SELECT * FROM {bench.scan(PREDICTIONS, [period])} "
        f"ORDER BY hash({keys}, {spec.seed}) LIMIT {PAGE_SAMPLE_ROWS}) ORDER BY {order}"
    ).df()
    html = bench.home.reports / spec.name / f"{period}.html"
    since = f" since {report.since}" if report.since else ""
    page = write_page(
        pq.read_table(sample).to_pandas(),
        current,
        spec.kinds,
        model=spec.name,
        period=period,
        timestamp=spec.calendar.start(period),
        html=html,
        title=f"Verdict: {report.verdict}{since}",
        score_column=SCORE,
        notes=[
            f"Reference: the rows that version {model.version} was trained on ({model.periods['train']}), "
            f"and its scores on its test rows ({model.periods['test']}).",
            *report.reasons[:5],
        ],
        workspace=bench.home.evidently,
        tags=[f"verdict: {report.verdict}", f"version: {model.version}"],
    )
    metadata: dict[str, Any] = {
        "evidently_page": Link(bench.report_url(html)),
        "evidently_file": FilePath(str(html)),
        "evidently_project": Link(f"{bench.addresses.evidently}/{project_url_path(spec.name).lstrip('/')}"),
        "evidently_drifted_columns": ", ".join(page.drifted_columns) or "none",
    }
    if page.left_out:
        metadata["evidently_left_out"] = dict(page.left_out)
    return metadata


def _log_drift(bench: Workbench, period: str, report: DriftReport, model: LoadedModel) -> None:
    """The report as a run below the period's."""
    from mlops_assets.training import tracking

    run = bench.run_required()
    metrics = {f"psi/{column.name}": column.psi for column in report.columns if column.psi is not None}
    if report.scores is not None and report.scores.psi is not None:
        metrics["psi/scores"] = report.scores.psi
    if report.severe_share is not None:
        metrics["share_of_severe_columns"] = report.severe_share
    tags = {
        "mlops.model": bench.name,
        "mlops.period": period,
        "verdict": report.verdict,
        "since": str(report.since or ""),
        "champion_version": model.version,
    }
    with tracking.open_run(
        run.client, run.experiment_id, f"drift_report {period}", parent_run_id=run.run_id, tags=tags
    ) as run_id:
        tracking.log(run.client, run_id, metrics=metrics)


# -- performance ----------------------------------------------------------------------------------------------


def performance(bench: Workbench, period: str) -> Outcome:
    """Realised metrics of the champion's scores, the estimate without labels, and the weakest segments.

    Columns: source (`champion`, `served`, `estimate`), segment_column and segment (null for all rows), metric, value, rows,
    model_version.
    """
    scored = bench.partition(PREDICTIONS, period)
    if scored.reason is not None:
        partition = bench.write(PERFORMANCE, period, PERFORMANCE_SCHEMA.empty_table(), reason=scored.reason)
        text = f"Nothing to measure: {scored.reason}"
        return Outcome(partition, {}, [Check("performance_within_limits", True, text)])
    model = champion_model(bench, period)
    if model is None:
        raise RuntimeError(
            f"{bench.name} {period} has predictions of version {scored.facts.get('version')}, but no champion before "
            "it; were decisions removed? Materialize the predictions of this period again"
        )
    estimate = _estimate(bench, period, model)
    labelled = _labelled(bench, period)
    rows = _rows("estimate", estimate, scored.rows, model.version)
    if labelled.empty:
        partition = bench.write(PERFORMANCE, period, pa.Table.from_pylist(rows, PERFORMANCE_SCHEMA))
        text = "No outcome is known yet; the estimate without labels is shown."
        return Outcome(partition, {"estimate": table([estimate])}, [Check("performance_within_limits", True, text)])
    realised, correct = _realised(bench, labelled, model)
    weakest = _weakest(bench, labelled, correct)
    rows += _rows("champion", realised, len(labelled), model.version)
    if period_gate(bench, period).state == "champion":
        # What was served are the champion's own predictions.
        rows += _rows("served", realised, len(labelled), model.version)
    rows += [
        {
            "source": "champion",
            "segment_column": row["column"],
            "segment": row["segment"],
            "metric": "accuracy" if model.cut is not None else "within_tolerance",
            "value": row["accuracy"],
            "rows": row["rows"],
            "model_version": model.version,
        }
        for row in weakest
    ]
    fisher = _fisher(model, correct)
    rows += _rows(
        "champion",
        {name: value for name, value in fisher.items() if value is not None},
        len(labelled),
        model.version,
    )
    check = _performance_within_limits(bench, model, realised, fisher)
    partition = bench.write(
        PERFORMANCE,
        period,
        pa.Table.from_pylist(rows, PERFORMANCE_SCHEMA),
        facts={
            "metric": bench.spec.metric,
            "value": _plain(realised[bench.spec.metric]),
            "passed": check.passed,
        },
    )
    _log_performance(bench, period, realised, estimate, model)
    return Outcome(
        partition, _performance_metadata(bench, model, labelled, realised, estimate, weakest, fisher), [check]
    )


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _rows(source: str, metrics: Mapping[str, float | None], rows: int, version: str) -> list[dict[str, Any]]:
    return [
        {"source": source, "metric": name, "value": value, "rows": rows, "model_version": version}
        for name, value in metrics.items()
        if value is not None and not math.isnan(value) and name != "rows"
    ]


def _labelled(bench: Workbench, period: str) -> pd.DataFrame:
    """Score, target and segment columns of the period's records whose outcome is known, by record key."""
    spec = bench.spec
    target = identifier(spec.target.column)
    keys = bench.columns_sql(spec.record_keys)
    segments = "".join(f", p.{identifier(name)}" for name in spec.segments)
    return bench.con.execute(
        f"SELECT p.{SCORE}, f.{target} AS outcome{segments} FROM {bench.scan(PREDICTIONS, [period])} p "
        f"JOIN (SELECT {keys}, {target} FROM {bench.scan(FEATURES, [period])}) f USING ({keys}) "
        f"WHERE f.{target} IS NOT NULL ORDER BY {keys}"
    ).df()


def _realised(bench: Workbench, labelled: pd.DataFrame, model: LoadedModel) -> tuple[Mapping[str, float], np.ndarray]:
    """Metrics, and for each record whether the prediction was right (regression: within the champion's test MAE)."""
    import numpy as np

    from mlops_assets.training.search import encode_target, measure

    truth = encode_target(labelled["outcome"], bench.spec.target)
    found = labelled[SCORE].to_numpy()
    realised = measure(truth, found, model.cut)
    if model.cut is None:
        return realised, np.abs(found - truth) <= float(model.metrics["test"]["mae"] or 0.0)
    return realised, (found >= model.cut) == (truth == 1)


def _estimate(bench: Workbench, period: str, model: LoadedModel) -> dict[str, float | None]:
    """Expected metrics from the calibrated scores alone; empty for a regression, which has none."""
    from mlops_assets.drift.estimate import ScoreCalibration, ScoreHistogram, expected_metrics

    calibration = model.file(SCORE_HISTOGRAM)
    if model.cut is None or calibration is None:
        return {}
    fitted = ScoreCalibration.fit_histogram(ScoreHistogram.from_arrow(pq.read_table(calibration)))
    found = score_profile(bench, bench.scan(PREDICTIONS, [period])).column(SCORE)
    return dict(expected_metrics(found, fitted, model.cut))  # type: ignore[arg-type]


def _weakest(bench: Workbench, labelled: pd.DataFrame, correct: np.ndarray) -> list[dict[str, Any]]:
    from mlops_assets.training.metrics import weakest_segments

    if not bench.spec.segments:
        return []
    found = weakest_segments(labelled[bench.spec.segments], correct, min_rows=SEGMENT_MIN_ROWS)
    return [{str(name): value for name, value in row.items()} for row in found.to_dict("records")]


def _fisher(model: LoadedModel, correct: np.ndarray) -> dict[str, float | None]:
    """Fisher's exact test on correct and incorrect predictions of this period and of the champion's test rows."""
    from mlops_assets.training.metrics import fisher_exact

    test = model.metrics["test"]
    accuracy = test.get("accuracy")
    if accuracy is None:
        return {}
    rows = int(test["rows"] or 0)
    right_then = round(accuracy * rows)
    right_now = int(correct.sum())
    result = fisher_exact(right_now, len(correct) - right_now, right_then, rows - right_then)
    odds = result.odds_ratio if math.isfinite(result.odds_ratio) else None
    return {"fisher_p_value": result.p_value, "fisher_odds_ratio": odds}


def _performance_within_limits(
    bench: Workbench, model: LoadedModel, realised: Mapping[str, float], fisher: Mapping[str, float | None]
) -> Check:
    spec = bench.spec
    then, now = model.metrics["test"][spec.metric], realised[spec.metric]
    if then is None or math.isnan(now):
        text = f"{spec.metric} is not defined " + (
            "on the champion's test rows." if then is None else "for this period."
        )
        return Check("performance_within_limits", False, text, "WARN", {"metric": spec.metric})
    loss = (then - now if spec.higher_is_better else now - then) / abs(then) if then else 0.0
    limits = spec.performance
    verdict = "severe" if loss >= limits.severe else "warning" if loss >= limits.warning else "ok"
    text = (
        f"{spec.metric} is {now:.4f}; on the test rows of version {model.version} ({model.periods['test']}) it was "
        f"{then:.4f}: {'a loss' if loss > 0 else 'a gain'} of {abs(loss):.1%}."
    )
    metadata = {
        "metric": spec.metric,
        "value": now,
        "value_on_the_champions_test_rows": then,
        "relative_loss": loss,
        "warning_threshold": limits.warning,
        "severe_threshold": limits.severe,
        **fisher,
    }
    severity: Severity = "WARN" if verdict == "warning" else "ERROR"
    return Check("performance_within_limits", verdict == "ok", text, severity, metadata)


def _performance_metadata(
    bench: Workbench,
    model: LoadedModel,
    labelled: pd.DataFrame,
    realised: Mapping[str, float],
    estimate: Mapping[str, float | None],
    weakest: Sequence[Mapping[str, Any]],
    fisher: Mapping[str, float | None],
) -> dict[str, Any]:
    from mlops_assets.training.metrics import calibration_curve
    from mlops_assets.training.pictures import as_markdown, calibration_picture
    from mlops_assets.training.search import encode_target

    test = model.metrics["test"]
    metrics = [
        {
            "metric": name,
            "this period": value,
            "estimate without labels": estimate.get(name),
            "champion's test": test.get(name),
        }
        for name, value in realised.items()
        if name != "rows"
    ]
    metadata: dict[str, Any] = {
        "labelled_rows": len(labelled),
        "champion_version": model.version,
        bench.spec.metric: realised[bench.spec.metric],
        "metrics": table(metrics),
        **{name: value for name, value in fisher.items() if value is not None},
    }
    if weakest:
        metadata["weakest_segments"] = table([_segment_line(row) for row in weakest[:WEAKEST_SHOWN]])
    if model.cut is not None:
        curve = calibration_curve(encode_target(labelled["outcome"], bench.spec.target), labelled[SCORE])
        metadata["calibration"] = Markdown(as_markdown(calibration_picture(curve), "calibration"))
    return metadata


def _segment_line(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "column": row["column"],
        "segment": row["segment"],
        "rows": row["rows"],
        "accuracy": row["accuracy"],
        "95 % interval": f"{row['low']:.3f} to {row['high']:.3f}",
        "against all rows": f"{row['gap']:+.3f}",
        "surely worse": "yes" if row["certain"] else "no",
    }


def _log_performance(
    bench: Workbench,
    period: str,
    realised: Mapping[str, float],
    estimate: Mapping[str, float | None],
    model: LoadedModel,
) -> None:
    from mlops_assets.training import tracking

    run = bench.run_required()
    metrics = dict(realised)
    metrics |= {f"estimate_{name}": value for name, value in estimate.items() if value is not None}
    tags = {"mlops.model": bench.name, "mlops.period": period, "champion_version": model.version}
    with tracking.open_run(
        run.client, run.experiment_id, f"performance {period}", parent_run_id=run.run_id, tags=tags
    ) as run_id:
        tracking.log(run.client, run_id, metrics=metrics)


def period_gate(bench: Workbench, period: str) -> Gate:
    """What may be served for a period, from the lake as it is now."""
    spec = bench.spec
    report = bench.find(DRIFT_REPORT, period)
    facts = report.facts if report is not None else {}
    champion = bench.champion_before(period)
    features = bench.find(FEATURES, period)
    failure = None if features is None else features.reason or features.facts.get("quality_failure")
    return gate(
        champion_version=champion.facts["version"] if champion is not None else None,
        quality_failure=failure,
        verdict=facts.get("verdict", "none"),
        verdict_reasons=facts.get("reasons", []),
        report_digest=facts.get("report_digest"),
        on_severe=spec.on_severe,
        ladder=spec.plan_b,
    )
