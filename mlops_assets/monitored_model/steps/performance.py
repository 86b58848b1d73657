"""How good the champion's scores were, and what was estimated without outcomes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.lake.categories import text_of_each
from mlops_assets.lake.frames import exact_frame
from mlops_assets.lake.store import identifier
from mlops_assets.monitored_model.findings import performance_judged
from mlops_assets.monitored_model.outcome import Check, Markdown, Outcome, Severity, table
from mlops_assets.monitored_model.presentation import Presentation
from mlops_assets.monitored_model.scoring import SCORE, SCORE_HISTOGRAM, model_that_scored, score_profile
from mlops_assets.monitored_model.tables import FALLBACK_PREDICTIONS, FEATURES, PERFORMANCE, PREDICTIONS
from mlops_assets.monitored_model.workbench import Workbench

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from mlops_assets.training.registry import LoadedModel

WEAKEST_SHOWN = 10
# More segments than a person reads; of a column with so many values the largest are kept.
SEGMENTS_KEPT = 200
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


def make(bench: Workbench, period: str) -> Outcome:
    """Realised metrics of the champion's scores, the estimate without labels, and the weakest segments.

    Columns: source (`champion`, `served`, `estimate`), segment_column and segment (null for all rows), metric, value,
    rows, model_version.
    """
    absent = bench.absent(PREDICTIONS, period)
    if absent is not None:
        partition = bench.write(PERFORMANCE, period, PERFORMANCE_SCHEMA.empty_table(), reason=absent)
        text = f"Nothing to measure: {absent}"
        return Outcome(partition, {}, [Check("performance_within_limits", True, text)])
    scored = bench.partition(PREDICTIONS, period)
    model = model_that_scored(bench, scored)
    estimate, no_estimate = _estimate(bench, period, model)
    labelled = _labelled(bench, period)
    rows = _rows("estimate", estimate, scored.rows, model.version)
    if labelled.empty:
        partition = bench.write(PERFORMANCE, period, pa.Table.from_pylist(rows, PERFORMANCE_SCHEMA))
        text = f"No outcome is known yet; {'there is no estimate either' if no_estimate else 'the estimate is shown'}."
        known = {"estimate": no_estimate or table([estimate])}
        return Outcome(partition, known, [Check("performance_within_limits", True, text)])
    realised, correct = _realised(bench, labelled, model)
    weakest = _weakest(bench, labelled, correct)
    rows += _rows("champion", realised, len(labelled), model.version)
    served = _served(bench, period, realised)
    if served:
        rows += _rows("served", served, len(labelled), model.version)
    segments = _by_segment(bench, labelled, model)
    rows += [
        {
            "source": "champion",
            "segment_column": row["column"],
            "segment": row["segment"],
            "metric": name,
            "value": row[name],
            "rows": row["rows"],
            "model_version": model.version,
        }
        for row in segments
        for name in row.keys() - {"column", "segment", "rows"}
        if not math.isnan(row[name])
    ]
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
    check, verdict = _performance_within_limits(bench, model, realised, fisher)
    partition = bench.write(
        PERFORMANCE,
        period,
        pa.Table.from_pylist(rows, PERFORMANCE_SCHEMA),
        facts={
            "metric": bench.spec.metric,
            "value": _plain(realised[bench.spec.metric]),
            "passed": check.passed,
            "verdict": verdict,
            "version": model.version,
            "served_value": _plain(served[bench.spec.metric]) if served else None,
            "floor": _floor(bench.spec.metric, realised),
        },
    )
    performance_judged(bench, period, verdict, check.description, model.version)
    metadata = _performance_metadata(bench, model, labelled, realised, served, estimate, weakest, fisher)
    if no_estimate:
        metadata["estimate"] = no_estimate
    if segments:
        metadata["by_segment"] = table(segments)
    shown = Presentation(metadata)
    shown.add("the calibration curve", lambda: _calibration(bench, model, labelled))
    shown.add("the metrics in MLflow", lambda: _log_performance(bench, period, realised, estimate, model))
    return Outcome(partition, shown.metadata, [check], shown.warnings)


def _served(bench: Workbench, period: str, realised: Mapping[str, float]) -> Mapping[str, float]:
    """Metrics of what is served: the champion's own, plan B's measured with its own cut, or nothing."""
    from mlops_assets.training.search import encode_target, measure

    decided = bench.gate(period)
    if decided.state == "champion":
        return realised
    plan = bench.find(FALLBACK_PREDICTIONS, period)
    if decided.state != "plan_b" or plan is None or plan.facts.get("decision_id") != decided.decision_id:
        return {}
    labelled = _labelled(bench, period, FALLBACK_PREDICTIONS)
    truth = encode_target(labelled["outcome"], bench.spec.target)
    return measure(truth, labelled[SCORE].to_numpy(), plan.facts["cut"])


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
    return None if math.isnan(value) else float(value)


def _rows(source: str, metrics: Mapping[str, float | None], rows: int, version: str) -> list[dict[str, Any]]:
    return [
        {"source": source, "metric": name, "value": value, "rows": rows, "model_version": version}
        for name, value in metrics.items()
        if value is not None and not math.isnan(value) and name != "rows"
    ]


def _labelled(bench: Workbench, period: str, scored: str = PREDICTIONS) -> pd.DataFrame:
    """Score and target, of the champion's predictions the segments too, of the records whose outcome is known."""
    spec = bench.spec
    target = identifier(spec.target.column)
    keys = bench.columns_sql(spec.record_keys)
    names = spec.segments if scored == PREDICTIONS else []
    segments = "".join(f", f.{identifier(name)}" for name in names)
    columns = bench.columns_sql(dict.fromkeys([*spec.record_keys, spec.target.column, *names]))
    relation = bench.records(scored, [period]) if scored == PREDICTIONS else bench.scan(scored, [period])
    found = bench.con.sql(
        f"SELECT p.{SCORE}, f.{target} AS outcome{segments} FROM {relation} p "
        f"JOIN (SELECT {columns} FROM {bench.records(FEATURES, [period])}) f USING ({keys}) "
        f"WHERE f.{target} IS NOT NULL ORDER BY {keys}"
    )
    return exact_frame(found.to_arrow_table())


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


def _weakest(bench: Workbench, labelled: pd.DataFrame, correct: np.ndarray) -> list[dict[str, Any]]:
    from mlops_assets.training.metrics import weakest_segments

    if not bench.spec.segments:
        return []
    found = weakest_segments(labelled[bench.spec.segments], correct, min_rows=SEGMENT_MIN_ROWS)
    return [{str(name): value for name, value in row.items()} for row in found.to_dict("records")]


def _by_segment(bench: Workbench, labelled: pd.DataFrame, model: LoadedModel) -> list[dict[str, Any]]:
    """All metrics of a regression in each segment, largest first; a classification has its weakest segments only."""
    import pandas as pd

    from mlops_assets.training.search import encode_target, measure

    if model.cut is not None:
        return []
    found: list[dict[str, Any]] = []
    for column in bench.spec.segments:
        names = ["null" if text is None else text for text in text_of_each(labelled[column])]
        for segment, part in labelled.groupby(pd.Index(names)):
            metrics = measure(encode_target(part["outcome"], bench.spec.target), part[SCORE].to_numpy(), None)
            numbers = {name: value for name, value in metrics.items() if name != "rows"}
            found.append({"column": column, "segment": str(segment), "rows": len(part), **numbers})
    return sorted(found, key=lambda row: (row["column"], -row["rows"], row["segment"]))[:SEGMENTS_KEPT]


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
    labelled: pd.DataFrame,
    realised: Mapping[str, float],
    served: Mapping[str, float],
    estimate: Mapping[str, float | None],
    weakest: Sequence[Mapping[str, Any]],
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
    return metadata


def _calibration(bench: Workbench, model: LoadedModel, labelled: pd.DataFrame) -> dict[str, Any]:
    from mlops_assets.training.metrics import calibration_curve
    from mlops_assets.training.pictures import as_markdown, calibration_picture
    from mlops_assets.training.search import encode_target

    if model.cut is None:
        return {}
    curve = calibration_curve(encode_target(labelled["outcome"], bench.spec.target), labelled[SCORE])
    return {"calibration": Markdown(as_markdown(calibration_picture(curve), "calibration"))}


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
