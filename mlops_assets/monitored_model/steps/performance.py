"""How good the champion's scores were, and what was estimated without outcomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.monitored_model.findings import performance_judged
from mlops_assets.monitored_model.outcome import Check, Markdown, Outcome, Severity, table
from mlops_assets.monitored_model.presentation import Presentation
from mlops_assets.monitored_model.realised import Realised, realised, served_metrics
from mlops_assets.monitored_model.scoring import SCORE, SCORE_HISTOGRAM, model_that_scored, score_profile
from mlops_assets.monitored_model.tables import FALLBACK_PREDICTIONS, PERFORMANCE, PREDICTIONS
from mlops_assets.monitored_model.versions import Identity
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets.training.registry import RegistryError

if TYPE_CHECKING:
    from mlops_assets.training.registry import LoadedModel

WEAKEST_SHOWN = 10
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


def make(bench: Workbench, period: str) -> Outcome:
    """Realised metrics of the champion's scores, the estimate without labels, and the weakest segments.

    Columns: source (`champion`, `served`, `estimate`), segment_column and segment (null for all rows), metric, value,
    rows, model_version.
    """
    absent = bench.absent(PREDICTIONS, period)
    if absent is not None:
        return _nothing_to_measure(bench, period, absent)
    scored = bench.partition(PREDICTIONS, period)
    try:
        model = model_that_scored(bench, scored)
    except RegistryError as error:
        return _nothing_to_measure(bench, period, str(error))
    estimate, no_estimate = _estimate(bench, period, model)
    found = realised(bench, period, model)
    rows = _rows("estimate", estimate, scored.rows, model.version)
    if not found.rows:
        partition = bench.write(PERFORMANCE, period, pa.Table.from_pylist(rows, PERFORMANCE_SCHEMA))
        text = f"No outcome is known yet; {'there is no estimate either' if no_estimate else 'the estimate is shown'}."
        known = {"estimate": no_estimate or table([estimate])}
        return Outcome(partition, known, [Check("performance_within_limits", True, text)])
    rows += _rows("champion", found.metrics, found.rows, model.version)
    served = _served(bench, period, found.metrics)
    if served:
        rows += _rows("served", served, found.rows, model.version)
    rows += _segment_rows(found, model)
    fisher = _fisher(model, found)
    rows += _rows(
        "champion",
        {name: value for name, value in fisher.items() if value is not None},
        found.rows,
        model.version,
    )
    check, verdict = _performance_within_limits(bench, model, found.metrics, fisher)
    partition = bench.write(
        PERFORMANCE,
        period,
        pa.Table.from_pylist(rows, PERFORMANCE_SCHEMA),
        facts={
            "metric": bench.spec.metric,
            "value": _plain(found.metrics[bench.spec.metric]),
            "passed": check.passed,
            "verdict": verdict,
            "version": model.version,
            **Identity.of(model).facts(),
            "served_value": _plain(served[bench.spec.metric]) if served else None,
            "floor": _floor(bench.spec.metric, found.metrics),
        },
    )
    performance_judged(bench, period, verdict, check.description, Identity.of(model))
    metadata = _performance_metadata(bench, model, found, served, estimate, fisher)
    if no_estimate:
        metadata["estimate"] = no_estimate
    if found.by_segment:
        metadata["by_segment"] = table(found.by_segment)
    shown = Presentation(metadata)
    shown.add("the calibration curve", lambda: _calibration(found))
    shown.add("the metrics in MLflow", lambda: _log_performance(bench, period, found.metrics, estimate, model))
    return Outcome(partition, shown.metadata, [check], shown.warnings)


def _nothing_to_measure(bench: Workbench, period: str, reason: str) -> Outcome:
    partition = bench.write(PERFORMANCE, period, PERFORMANCE_SCHEMA.empty_table(), reason=reason)
    return Outcome(partition, {}, [Check("performance_within_limits", True, f"Nothing to measure: {reason}")])


def _segment_rows(found: Realised, model: LoadedModel) -> list[dict[str, Any]]:
    """The champion's metrics by declared segment, and the share of right predictions in the weakest segments."""
    share_of_right = "accuracy" if model.cut is not None else "within_tolerance"
    by_segment = [
        (row, name, row[name])
        for row in found.by_segment
        for name in row
        if name not in ("column", "segment", "rows") and not math.isnan(row[name])
    ]
    return [
        {
            "source": "champion",
            "segment_column": row["column"],
            "segment": row["segment"],
            "metric": metric,
            "value": value,
            "rows": row["rows"],
            "model_version": model.version,
        }
        for row, metric, value in [*by_segment, *((row, share_of_right, row["accuracy"]) for row in found.weakest)]
    ]


def _served(bench: Workbench, period: str, realised: Mapping[str, float]) -> Mapping[str, float]:
    """Metrics of what is served: the champion's own, plan B's measured with its own cut, or nothing."""
    decided = bench.gate(period)
    if decided.state == "champion":
        return realised
    plan = bench.find(FALLBACK_PREDICTIONS, period)
    if decided.state != "plan_b" or plan is None or plan.facts.get("decision_id") != decided.decision_id:
        return {}
    return served_metrics(bench, period, FALLBACK_PREDICTIONS, plan.facts["cut"])


def _floor(metric: str, realised: Mapping[str, float]) -> float | None:
    """The metric without any model: all called positive, or one score for all; None where that is not defined."""
    rate = realised.get("positive_rate", math.nan)
    if math.isnan(rate):
        return 0.0 if metric == "r2" else None
    floors = {
        "f1": realised["f1_all_positive"],
        "precision": rate,
        "average_precision": rate,
        "auc": 0.5,
        "accuracy": max(rate, 1 - rate),
        "brier": rate * (1 - rate),
        "log_loss": -sum(share * math.log(share) for share in (rate, 1 - rate) if share > 0),
    }
    return _plain(floors.get(metric, math.nan))


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _rows(source: str, metrics: Mapping[str, float | None], rows: int, version: str) -> list[dict[str, Any]]:
    return [
        {"source": source, "metric": name, "value": value, "rows": rows, "model_version": version}
        for name, value in metrics.items()
        if value is not None and not math.isnan(value) and name != "rows"
    ]


def _estimate(bench: Workbench, period: str, model: LoadedModel) -> tuple[dict[str, float | None], str | None]:
    """Expected metrics from the calibrated scores alone; empty, and the reason, where there is no estimate."""
    from mlops_assets.drift.estimate import ScoreCalibration, ScoreHistogram, expected_metrics, why_no_estimate

    file = model.file(SCORE_HISTOGRAM)
    test = None if file is None else ScoreHistogram.from_arrow(pq.read_table(file))
    reason = why_no_estimate(bench.spec.target.task, test)
    if reason is not None or test is None or model.cut is None:
        return {}, reason
    found = score_profile(bench, bench.records(PREDICTIONS, [period])).column(SCORE)
    return dict(expected_metrics(found, ScoreCalibration.fit_histogram(test), model.cut)), None  # type: ignore[arg-type]


def _fisher(model: LoadedModel, found: Realised) -> dict[str, float | None]:
    """Fisher's exact test on correct and incorrect predictions of this period and of the champion's test rows."""
    from mlops_assets.training.metrics import fisher_exact

    test = model.metrics["test"]
    accuracy = test.get("accuracy")
    if accuracy is None:
        return {}
    rows = int(test["rows"] or 0)
    right_then = round(accuracy * rows)
    result = fisher_exact(found.right, found.rows - found.right, right_then, rows - right_then)
    odds = result.odds_ratio if math.isfinite(result.odds_ratio) else None
    return {"fisher_p_value": result.p_value, "fisher_odds_ratio": odds}


def _performance_within_limits(
    bench: Workbench, model: LoadedModel, realised: Mapping[str, float], fisher: Mapping[str, float | None]
) -> tuple[Check, str]:
    """The check, and its verdict: `ok`, `warning`, `severe`, or `none` where the metric is not defined."""
    spec = bench.spec
    then, now = model.metrics["test"][spec.metric], realised[spec.metric]
    if then is None or math.isnan(now):
        text = f"{spec.metric} is not defined " + (
            "on the champion's test rows." if then is None else "for this period."
        )
        return Check("performance_within_limits", False, text, "WARN", {"metric": spec.metric}), "none"
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
    return Check("performance_within_limits", verdict == "ok", text, severity, metadata), verdict


def _performance_metadata(
    bench: Workbench,
    model: LoadedModel,
    found: Realised,
    served: Mapping[str, float],
    estimate: Mapping[str, float | None],
    fisher: Mapping[str, float | None],
) -> dict[str, Any]:
    test = model.metrics["test"]
    metrics = [
        {
            "metric": name,
            "champion": value,
            "served": served.get(name),
            "estimate without labels": estimate.get(name),
            "champion's test": test.get(name),
        }
        for name, value in found.metrics.items()
        if name != "rows"
    ]
    metadata: dict[str, Any] = {
        "labelled_rows": found.rows,
        "champion_version": model.version,
        bench.spec.metric: found.metrics[bench.spec.metric],
        "metrics": table(metrics),
        **{name: value for name, value in fisher.items() if value is not None},
    }
    if found.weakest:
        metadata["weakest_segments"] = table([_segment_line(row) for row in found.weakest[:WEAKEST_SHOWN]])
    return metadata


def _calibration(found: Realised) -> dict[str, Any]:
    from mlops_assets.training.pictures import as_markdown, calibration_picture

    if found.calibration is None:
        return {}
    return {"calibration": Markdown(as_markdown(calibration_picture(found.calibration), "calibration"))}


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
