"""The period against the reference of the champion in force: one verdict with its reasons."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from mlops_assets.drift.profile import Profile
from mlops_assets.drift.verdict import NOTHING_YET, ROWS_SCHEMA, DriftReport, compare, in_words
from mlops_assets.lake.frames import exact_frame
from mlops_assets.lake.store import Partition
from mlops_assets.monitored_model.findings import drift_judged
from mlops_assets.monitored_model.gates import served_ahead
from mlops_assets.monitored_model.learning_plan import sum_of_profiles
from mlops_assets.monitored_model.outcome import Check, FilePath, Link, Markdown, Outcome, Severity, table
from mlops_assets.monitored_model.presentation import Presentation
from mlops_assets.monitored_model.scoring import (
    SCORE,
    model_that_scored,
    reference_profile,
    score_profile,
    score_reference,
)
from mlops_assets.monitored_model.tables import DEFINITION, DRIFT_REPORT, FEATURES, PREDICTIONS, PROFILE
from mlops_assets.monitored_model.versions import Identity
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets.training.registry import RegistryError

if TYPE_CHECKING:
    from mlops_assets.training.registry import LoadedModel

PAGE_SAMPLE_ROWS = 5_000
PICTURED_COLUMNS = 3
PSI_OF_SCORES = "psi/scores"
# The verdict as a number, for charts.
LEVELS = ("ok", "warning", "severe")


def make(bench: Workbench, period: str) -> Outcome:
    """Compare the period with the reference of the champion in force: features by its training rows, scores by its
    scores on test rows. The verdict counts columns, weighs them by the champion's importances, and has its reasons.
    """
    absent = bench.absent(PREDICTIONS, period) or bench.absent(PROFILE, period)
    if absent is not None:
        return _no_report(bench, period, absent)
    predictions = bench.partition(PREDICTIONS, period)
    try:
        model = model_that_scored(bench, predictions)
    except RegistryError as error:
        return _no_report(bench, period, str(error))
    known = bench.find(DRIFT_REPORT, period)
    if known is not None and known.rows and _defined_otherwise(bench, predictions):
        return _as_served(bench, known)
    spec = bench.spec
    current = sum_of_profiles(bench, [period])
    reference = reference_profile(bench, model)
    current_scores = score_profile(bench, bench.records(PREDICTIONS, [period])).column(SCORE)
    reference_scores = score_reference(model)
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
        "verdict": in_words(report.verdict),
        "since": str(report.since) if report.since else None,
        "champion_version": model.version,
        "report_digest": report.digest(),  # what a person names who accepts it
        "reference": f"{model.periods['train']} ({report.reference_rows:,} rows)",
        "reasons": "; ".join(report.reasons) or None,
        "report": Markdown(report.markdown()),
    }
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
            **Identity.of(model).facts(),
            "severe_columns": list(report.severe_columns),
            "warning_columns": list(report.warning_columns),
            **_prediction_drift_fact(report),
        },
    )
    drift_judged(bench, period, report, Identity.of(model))
    shown = Presentation(metadata)
    shown.add("the pictures", lambda: _pictures(bench, period, report, reference, current))
    shown.add("Evidently's page", lambda: _page(bench, period, model, report))
    shown.add("the drift metrics in MLflow", lambda: _log_drift(bench, period, report, model))
    return Outcome(partition, shown.metadata, [_drift_within_limits(report)], shown.warnings)


def _defined_otherwise(bench: Workbench, predictions: Partition) -> bool:
    """Whether the period was served before its outcomes were known, from features that are defined otherwise by now."""
    now = bench.partition(FEATURES, predictions.period).facts.get(DEFINITION)
    served = served_ahead(bench.lake, bench.name, predictions.period)
    return served and predictions.facts.get(DEFINITION, now) != now


def _as_served(bench: Workbench, known: Partition) -> Outcome:
    """The report that decided what was served: the features it compared are not those of now."""
    facts = {name: value for name, value in known.facts.items() if name != "made_from"}
    rows = bench.con.sql(f"SELECT * EXCLUDE (period) FROM {bench.scan(DRIFT_REPORT, [known.period])}").to_arrow_table()
    partition = bench.write(DRIFT_REPORT, known.period, rows, facts=facts)
    text = (
        f"Verdict {facts['verdict']}, of the time when the period was served. Its features are defined otherwise by "
        "now, so they can't be compared with what its champion was trained on."
    )
    passed = facts["verdict"] not in ("warning", "severe")
    severity: Severity = "WARN" if facts["verdict"] == "warning" else "ERROR"
    metadata = {name: facts[name] for name in ("verdict", "since", "champion_version", "report_digest")}
    return Outcome(partition, metadata, [Check("drift_within_limits", passed, text, severity)])


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
    return Outcome(partition, {"verdict": in_words("none")}, [Check("drift_within_limits", True, text)])


def _drift_within_limits(report: DriftReport) -> Check:
    limits = report.thresholds
    rows = [
        {
            "column": column.name,
            "verdict": column.verdict,
            "PSI": column.psi,
            "limit": column.threshold,
            "since": column.since,
            "change": column.change,
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
        **_prediction_drift(report),
        "since": str(report.since) if report.since else None,
    }
    verdict = f"Verdict {report.verdict}" if report.verdict != "none" else NOTHING_YET.capitalize()
    text = f"{verdict}. " + " ".join(f"{reason}." for reason in report.reasons[:4])
    severity: Severity = "WARN" if report.verdict == "warning" else "ERROR"
    return Check("drift_within_limits", report.verdict not in ("warning", "severe"), text.strip(), severity, metadata)


def _prediction_drift(report: DriftReport) -> dict[str, Any]:
    """Evidently's drift score of the predictions beside its limit, for a model that has one."""
    found = report.prediction_drift
    if found is None:
        return {}
    return {
        "prediction_drift": found.value,
        "prediction_drift_threshold": report.thresholds.predictions,
        "prediction_drift_method": found.display_name,
    }


def _prediction_drift_fact(report: DriftReport) -> dict[str, str]:
    """The rule on prediction drift in a few words for the gate's reason, where it made the period severe."""
    found, limit = report.prediction_drift, report.thresholds.predictions
    if found is None or limit is None or found.value <= limit:
        return {}
    return {"prediction_drift": f"prediction drift {found.value:.2f} > {limit:g}"}


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
    current = bench.con.sql(
        f"SELECT {bench.columns_sql([*spec.columns, SCORE])} "
        f"FROM (SELECT * FROM {bench.records(PREDICTIONS, [period])} "
        f"ORDER BY hash({keys}, {spec.seed}) LIMIT {PAGE_SAMPLE_ROWS}) ORDER BY {order}"
    ).to_arrow_table()
    html = bench.home.reports / spec.name / f"{period}.html"
    since = f" since {report.since}" if report.since else ""
    page = write_page(
        exact_frame(pq.read_table(sample)),
        exact_frame(current),
        spec.kinds,
        model=spec.name,
        period=period,
        timestamp=spec.calendar.start(period),
        html=html,
        title=f"Verdict: {in_words(report.verdict)}{since}",
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
    metrics = {_psi_metric(column.name): column.psi for column in report.columns if column.psi is not None}
    if report.scores is not None and report.scores.psi is not None:
        metrics[PSI_OF_SCORES] = report.scores.psi
    if report.prediction_drift is not None:
        metrics["prediction_drift"] = report.prediction_drift.value
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
    if bench.spec.drift_experiment is not None and report.verdict in LEVELS:
        _log_series(bench, period, metrics, LEVELS.index(report.verdict))


def _psi_metric(column: str) -> str:
    name = f"psi/{column}"
    return name if name != PSI_OF_SCORES else "psi/scores (a column)"


def _log_series(bench: Workbench, period: str, metrics: Mapping[str, float], verdict: int) -> None:
    """The same metrics as a step of the model's series, whose charts show drift over all periods."""
    from mlops_assets.training import tracking

    spec, client = bench.spec, bench.run_required().client
    experiment = tracking.experiment(client, spec.drift_experiment or "", bench.home.artifacts)
    start = spec.calendar.start(period)
    with bench.lease():
        run_id = tracking.series_run(client, experiment, f"{spec.name} drift", {"mlops.model": spec.name})
    tracking.log(
        client,
        run_id,
        metrics={**metrics, "verdict": verdict},
        timestamp=int(start.replace(tzinfo=UTC).timestamp() * 1000),
        step=len(spec.calendar.between(spec.start, period)) - 1,
    )
