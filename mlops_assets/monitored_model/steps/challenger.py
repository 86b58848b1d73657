"""What a period learns: the version trained on its window, or found again by its fingerprint.

It reads features and profiles only, never predictions or drift reports, so the graph has no cycle. All that it does
is a function of the lake: the same data, declaration and code find the registered version again.
"""

from __future__ import annotations

import functools
import io
import json
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.drift.profile import Profile, profile
from mlops_assets.monitored_model import decision_log
from mlops_assets.monitored_model.gates import newest_to_train
from mlops_assets.monitored_model.learning_plan import (
    ROLES,
    SAMPLED_ROLES,
    LearningPlan,
    NothingToLearn,
    Part,
    PartRows,
    learning_plan,
    load_split,
    part_sql,
    samples,
    sum_of_profiles,
)
from mlops_assets.monitored_model.new_data import TRAIN_ROWS, TRAINED_UNTIL, new_data_size, nothing_new
from mlops_assets.monitored_model.outcome import Check, Link, Markdown, Outcome, Severity, table
from mlops_assets.monitored_model.presentation import Presentation
from mlops_assets.monitored_model.sampling import Sampled
from mlops_assets.monitored_model.scoring import SCORE, SCORE_HISTOGRAM, kept_scores, score_profile
from mlops_assets.monitored_model.tables import CAUSE_IDS, CHALLENGER, FEATURES
from mlops_assets.monitored_model.versions import Identity
from mlops_assets.monitored_model.workbench import Workbench, to_json

if TYPE_CHECKING:
    from mlops_assets.incidents.store import Cause
    from mlops_assets.training.registry import LoadedModel, Logged
    from mlops_assets.training.search import Split, Trained

# Tag of a challenger's version: how many places of staging its search has filled, as far as there were models.
STAGING_SEARCHED = "staging_searched"
FAILED_CANDIDATES = "failed_candidates"
MOST_OF_AN_ERROR = 500  # characters; MLflow takes tags of limited length
LEAKAGE_ROWS = 20_000  # of training and of test, when a model is too good to be true
REFERENCE_SAMPLE_ROWS = 5_000
CHALLENGER_SCHEMA = pa.schema(
    [
        ("version", pa.string()),
        ("run_id", pa.string()),
        ("candidate", pa.string()),
        ("params", pa.string()),
        ("metric", pa.string()),
        ("validation_value", pa.float64()),
        ("test_value", pa.float64()),
        ("cut", pa.float64()),
        ("trained_on", pa.string()),
        ("since", pa.date32()),
        ("train_periods", pa.string()),
        ("validation_periods", pa.string()),
        ("test_periods", pa.string()),
        ("train_rows", pa.int64()),
        ("validation_rows", pa.int64()),
        ("test_rows", pa.int64()),
        ("train_metrics", pa.string()),
        ("validation_metrics", pa.string()),
        ("test_metrics", pa.string()),
        ("importances", pa.string()),
        ("trials", pa.int64()),
        ("fingerprint", pa.string()),
        ("causes", pa.string()),
    ]
)


def make(bench: Workbench, period: str) -> Outcome:
    """Train, log and register the period's challenger, or find the one that these inputs made before."""
    from mlops_assets.training import registry
    from mlops_assets.training.search import OneClassError, UndefinedMetricError

    causes = _causes(bench, period)
    try:
        plan = learning_plan(bench, period, causes)
    except NothingToLearn as reason:
        return _no_challenger(bench, period, str(reason))
    told = [f"{cause.kind}: {cause.why}" for cause in causes]
    if bench.spec.retrain == "on_alert" and not causes:
        if bench.champion_before(period) is not None:
            return _no_challenger(bench, period, "not retrained: there is no cause (retrain: on_alert)")
        told = ["no_champion: there is none before this period"]
    sampled = samples(bench, plan)
    fingerprint = registry.fingerprint(_fingerprint_parts(bench, plan, causes, sampled))
    models, lost = _made_before(bench, fingerprint)
    reused = models is not None
    if models is None:
        try:
            models, trained = _train(bench, period, plan, fingerprint, sampled, again=lost is not None)
        except OneClassError as error:
            return _no_challenger(bench, period, f"one class only: {error}")
        except UndefinedMetricError as error:
            return _no_challenger(bench, period, f"nothing to choose by: {error}")
    model = models[0]
    staging = _staging_rows(bench, models)
    row = _challenger_row(bench, plan, model, fingerprint)
    baseline = _against_baseline(bench, plan, model)
    partition = bench.write(
        CHALLENGER,
        period,
        pa.Table.from_pylist([row | {"causes": "; ".join(told) or None}], CHALLENGER_SCHEMA),
        facts={
            "causes": told,
            CAUSE_IDS: [cause.id for cause in causes],
            "reused": reused,
            "version": model.version,
            "versions": {known.version: Identity.of(known).facts() for known in models},
            **Identity.of(model).facts(),
            **({"trained_again_because": lost} if lost else {}),
            "trained_on": plan.trained_on,
            "since": str(plan.since) if plan.since else None,
            "parts": {
                role: {"periods": list(part.periods), "days": [str(day) for day in part.days]}
                for role, part in plan.parts.items()
            },
            **({"sampled": {role: {"rows": s.rows, "of": s.of} for role, s in sampled.items()}} if sampled else {}),
            **({"staging": staging} if staging else {}),
            **({"baseline": baseline} if baseline else {}),
        },
    )
    decision_log.record(bench.lake, bench.store, bench.name, period, "challenger", bench.run_id)
    shown = Presentation(_challenger_metadata(bench, plan, model, row, told, reused=reused))
    shown.metadata |= {f"{role}_sample": str(found) for role, found in sampled.items()}
    if staging:
        shown.metadata["staging"] = table(staging)
    if lost:
        shown.metadata["trained_again_because"] = lost
    if causes:
        shown.add("the causes in MLflow", lambda: _note_causes(bench, model, causes))
    shown.add("the importances", lambda: _importances(model))
    if not reused:
        shown.metadata["training_seconds"] = trained.seconds
        shown.add("the trials", lambda: _trials(bench, trained))
    checks = [
        _training_sane(bench, plan, model, _failed_candidates(model)),
        new_data_size(bench, period, plan),
    ]
    if baseline is not None:
        checks.append(_beats_baseline(bench, baseline))
    return Outcome(partition, shown.metadata, checks, shown.warnings)


def _made_before(bench: Workbench, fingerprint: str) -> tuple[list[LoadedModel] | None, str | None]:
    """What was made from these inputs before, as `staged_models`, and why it has to be made again if it has to.

    A version that was logged but can't be loaded any more is trained again: nobody can do anything else with it.
    """
    from mlops_assets.training.registry import RegistryError

    try:
        return staged_models(bench, fingerprint), None
    except RegistryError as error:
        return None, str(error)


def staged_models(bench: Workbench, fingerprint: str) -> list[LoadedModel] | None:
    """The versions that were made from these inputs, the challenger first, as many as are wanted for staging.

    None when there is no challenger yet, or when fewer runners-up were fitted than are wanted now. Raises RegistryError
    when one of them can't be loaded.
    """
    from mlops_assets.training.registry import place_fingerprint

    versions = bench.versions
    challenger = versions.find(fingerprint)
    if challenger is None or bench.spec.staging <= 1:
        return None if challenger is None else [challenger]
    if int(challenger.tags.get(STAGING_SEARCHED, "1")) < bench.spec.staging:
        return None
    places = [versions.find(place_fingerprint(fingerprint, place)) for place in range(2, bench.spec.staging + 1)]
    return [challenger, *(model for model in places if model is not None)]


def _staging_rows(bench: Workbench, models: Sequence[LoadedModel]) -> list[dict[str, Any]]:
    """The versions in staging, best first, with the metric that ranks them and that of the test rows."""
    from mlops_assets.training import registry

    metric = bench.spec.metric
    return [
        {
            "alias": registry.staging_alias(place),
            "version": model.version,
            "candidate": model.candidate,
            f"validation {metric}": model.metrics["validation"][metric],
            f"test {metric}": model.metrics["test"][metric],
        }
        for place, model in enumerate(models[: bench.spec.staging], start=1)
    ]


def _note_causes(bench: Workbench, model: LoadedModel, causes: Sequence[Cause]) -> None:
    """Write the causes on the version's run. They are acted upon only when the champion has been decided."""
    from mlops_assets.training import tracking

    told = "; ".join(f"{cause.kind} in {cause.period}: {cause.why} ({cause.by})" for cause in causes)
    tracking.log(bench.run_required().client, model.run_id, tags={"retrained_because": told})


def _no_challenger(bench: Workbench, period: str, reason: str) -> Outcome:
    partition = bench.write(CHALLENGER, period, CHALLENGER_SCHEMA.empty_table(), reason=reason)
    checks = [Check("training_sane", True, f"Nothing was trained: {reason}"), nothing_new(reason)]
    if bench.spec.baseline is not None:
        checks.append(Check("beats_baseline", True, f"Nothing was trained: {reason}"))
    return Outcome(partition, {}, checks)


def _causes(bench: Workbench, period: str) -> list[Cause]:
    """Why to train in this period: the causes that it has consumed, and in the newest one to train those that wait."""
    newest = newest_to_train(bench.lake, bench.name) == period
    return [
        cause
        for cause in bench.store.causes(bench.name)
        if cause.consumed_by == period or (newest and cause.consumed_by is None and cause.period <= period)
    ]


def _fingerprint_parts(
    bench: Workbench, plan: LearningPlan, causes: Sequence[Cause], sampled: Mapping[str, Sampled]
) -> dict[str, Any]:
    from mlops_assets.training.fit_version import FIT_VERSION

    spec = bench.spec
    periods = sorted({p for part in plan.parts.values() for p in part.periods})
    return {
        "data": {p: bench.partition(FEATURES, p).digest for p in periods},
        "parts": {role: [*part.periods, *(str(day) for day in part.days)] for role, part in plan.parts.items()},
        "sql": bench.sql,
        "spec": spec.model_dump(
            mode="json",
            include={"target", "columns", "candidates", "trials", "seed", "metric", "cut"},
            exclude={"candidates": {"__all__": {"pickle"}}},  # how a model is stored changes no fit
        ),
        "code": FIT_VERSION,
        # What is not the default only, so that models without these keys keep their versions. How many models
        # are staged is not among the inputs: the challenger is the same.
        **({"search": spec.search} if spec.search != "together" else {}),
        # Where every row is learned from, the limit makes no difference.
        **({"max_rows": spec.max_rows} if sampled else {}),
        # Only where there is one, so that a period without a cause keeps its version.
        **({"causes": sorted(cause.key for cause in causes)} if causes else {}),
    }


def _train(
    bench: Workbench,
    period: str,
    plan: LearningPlan,
    fingerprint: str,
    sampled: Mapping[str, Sampled],
    *,
    again: bool,
) -> tuple[list[LoadedModel], Trained]:
    """Search, and register what was found: the challenger first, then the runners-up.

    `again` registers new versions, whatever is registered with these fingerprints.
    """
    from mlops_assets.training import registry, search, tracking

    spec, run = bench.spec, bench.run_required()
    splits = {role: load_split(bench, plan.parts[role], spec.max_rows) for role in SAMPLED_ROLES}
    trained = search.train(
        splits["train"],
        splits["validation"],
        PartRows(bench, plan.parts["test"]),
        candidates=spec.candidates,
        kinds=spec.kinds,
        target=spec.target,
        metric=spec.metric,
        cut=spec.cut,
        trials=spec.trials,
        seed=spec.seed,
        plan=spec.search,
        runners_up=max(spec.staging - 1, 0),
        storage=bench.home.studies / spec.name / f"{period}.journal",
        keep_test=lambda: kept_scores(bench),
    )
    models = [trained, *trained.runners_up]
    periods = {role: str(part) for role, part in plan.parts.items()}
    tags = {
        "mlops.model": spec.name,
        "mlops.period": period,
        "trained_on": plan.trained_on,
        TRAINED_UNTIL: plan.parts["train"].periods[-1],
    }
    if plan.since is not None:
        tags["since"] = str(plan.since)
    tags |= {f"{role}_sample": str(found) for role, found in sampled.items()}
    if "train" in sampled:
        tags[TRAIN_ROWS] = str(sampled["train"].of)
    staged = {model.chosen.number: registry.staging_alias(place) for place, model in enumerate(models, start=1)}
    runs = tracking.log_trials(
        run.client,
        run.experiment_id,
        run.run_id,
        trained.trials,
        periods=periods,
        tags=tags,
        chosen=trained.chosen.number,
        staged=staged if spec.staging else None,
    )
    logged = []
    for model in models:
        with model.test:
            logged.append(_log(bench, plan, model, splits, runs[model.chosen.number], tags, period))
    version_tags = tags | {f"{role}_periods": text for role, text in periods.items()}
    if trained.failed:
        version_tags[FAILED_CANDIDATES] = to_json(
            {name: why[:MOST_OF_AN_ERROR] for name, why in trained.failed.items()}
        )
    registered: list[LoadedModel] = []
    with bench.lease() as lease:
        for place, (model, its) in enumerate(zip(models, logged, strict=True), start=1):
            best = place == 1
            lease.check()
            registered.append(
                bench.versions.register(
                    runs[model.chosen.number],
                    its,
                    registry.place_fingerprint(fingerprint, place),
                    again=again,
                    tags=version_tags if best else version_tags | {registry.RUNNER_UP_OF: registered[0].version},
                    description=f"Trained in {period} on {periods['train']} ({plan.trained_on})"
                    + ("." if best else f"; number {place} of its search, behind version {registered[0].version}."),
                    status="challenger" if best else "staging",
                )
            )
        if spec.staging:
            # Last: a search that broke off before is made again.
            lease.check()
            best_version = registered[0].version
            run.client.set_model_version_tag(spec.name, best_version, STAGING_SEARCHED, str(spec.staging))
    return registered, trained


def _log(
    bench: Workbench,
    plan: LearningPlan,
    model: Trained,
    splits: Mapping[str, Split],
    run_id: str,
    tags: Mapping[str, str],
    period: str,
) -> Logged:
    """Log a model into its trial's run, with all that watching it takes."""
    from mlops_assets.training import registry

    return registry.log_model(
        bench.run_required().client,
        run_id,
        model,
        example=splits["train"].features,
        periods={role: str(part) for role, part in plan.parts.items()},
        features_sql=bench.sql,
        reference_profile=_parquet(_reference_profile(bench, plan).to_arrow()),
        score_reference=_parquet(_test_score_profile(bench, model).to_arrow()),
        files=_extra_files(bench, plan, model),
        data=[_training_data(bench, role, part, int(model.metrics[role]["rows"])) for role, part in plan.parts.items()],
        tags=tags,
        title=f"{bench.name} {period}",
    )


def _parquet(rows: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    return buffer.getvalue()


def _reference_profile(bench: Workbench, plan: LearningPlan) -> Profile:
    """The profile of the training rows, of all of them where the model learned from a sample."""
    spec = bench.spec
    if plan.trained_on == "window" and spec.target.required:
        return sum_of_profiles(bench, plan.parts["train"].periods)
    return profile(bench.con, f"({part_sql(bench, plan.parts['train'])})", spec.kinds, spec.source.time_column)


def _test_score_profile(bench: Workbench, trained: Trained) -> Profile:
    with trained.test.relation(bench.con) as relation:
        return score_profile(bench, relation)


def _extra_files(bench: Workbench, plan: LearningPlan, trained: Trained) -> dict[str, bytes]:
    from mlops_assets.drift.estimate import ScoreHistogram
    from mlops_assets.training import registry

    files = {registry.REFERENCE_SAMPLE: _parquet(_reference_sample(bench, plan, trained))}
    if trained.cut is not None:
        parts = (ScoreHistogram.of(scores, outcomes) for outcomes, scores in trained.test.chunks())
        files[SCORE_HISTOGRAM] = _parquet(functools.reduce(operator.add, parts).to_arrow())
    return files


def _reference_sample(bench: Workbench, plan: LearningPlan, trained: Trained) -> pa.Table:
    """A sample of training rows for the Evidently page, beside a sample of the scores on test rows.

    Columns drift one by one there, so a row's score need not be its own: in-sample scores would look like drift.
    """
    import numpy as np

    spec = bench.spec
    columns = bench.columns_sql(list(spec.columns))
    # Without a fixed seed and order the page would change each time that the version is trained again.
    order = bench.columns_sql(["period", *spec.record_keys])
    sql = f"SELECT {columns}, hash({order}, {spec.seed}) AS __order FROM ({part_sql(bench, plan.parts['train'])})"
    sample = bench.con.sql(
        f"SELECT * EXCLUDE (__order) FROM ({sql}) ORDER BY __order LIMIT {REFERENCE_SAMPLE_ROWS}"
    ).to_arrow_table()
    drawn = trained.test.draw(np.random.default_rng(spec.seed), sample.num_rows)
    return sample.append_column(SCORE, pa.array(drawn, pa.float64()))


def _training_data(bench: Workbench, role: str, part: Part, rows: int) -> Any:
    from mlops_assets.training.tracking import TrainingData

    digests = {p: bench.partition(FEATURES, p).digest for p in part.periods}
    return TrainingData(
        role, f"{bench.name}.{FEATURES} {part}", f"{bench.lake.url}/{bench.name}/{FEATURES}", digests, rows
    )


def _challenger_row(bench: Workbench, plan: LearningPlan, model: LoadedModel, fingerprint: str) -> dict[str, Any]:
    metric = bench.spec.metric
    return {
        "version": model.version,
        "run_id": model.run_id,
        "candidate": model.candidate,
        "params": to_json(model.params),
        "metric": metric,
        "validation_value": model.metrics["validation"][metric],
        "test_value": model.metrics["test"][metric],
        "cut": model.cut,
        "trained_on": plan.trained_on,
        "since": plan.since,
        **{f"{role}_periods": str(part) for role, part in plan.parts.items()},
        **{f"{role}_rows": int(model.metrics[role]["rows"] or 0) for role in ROLES},
        **{f"{role}_metrics": to_json(model.metrics[role]) for role in ROLES},
        "importances": to_json(model.importances),
        "trials": bench.spec.trials,
        "fingerprint": fingerprint,
    }


def _challenger_metadata(
    bench: Workbench,
    plan: LearningPlan,
    model: LoadedModel,
    row: Mapping[str, Any],
    causes: Sequence[str],
    *,
    reused: bool,
) -> dict[str, Any]:
    shown = [name for name in model.metrics["test"] if name != "rows"]
    why = "the standard window" if plan.trained_on == "window" else _why_since_break(plan)
    return {
        "version": model.version,
        "reused": reused,
        "retrained_because": "; ".join(causes) or None,
        "trained_on": why,
        **{f"{role}_periods": row[f"{role}_periods"] for role in ROLES},
        **{f"{role}_rows": row[f"{role}_rows"] for role in ROLES},
        **({"left_out": dict(plan.left_out)} if plan.left_out else {}),
        "metrics": table(
            [{"metric": name, **{role: model.metrics[role].get(name) for role in ROLES}} for name in shown]
        ),
        **({} if model.cut is None else {"cut": model.cut}),
        "mlflow_run": Link(bench.run_url(model.run_id)),
        "explanation": Link(bench.artifact_url(model.run_id, "monitoring/explanation.html")),
        "mlflow_model": Link(bench.version_url(model.version)),
    }


def _importances(model: LoadedModel) -> dict[str, Any]:
    from mlops_assets.training.pictures import as_markdown, importances_picture

    return {"importances": Markdown(as_markdown(importances_picture(model.importances), "importances"))}


def _why_since_break(plan: LearningPlan) -> str:
    return f"the period's own rows since {plan.since}: {'; '.join(plan.because)}"


def _trials(bench: Workbench, trained: Trained) -> dict[str, Any]:
    from mlops_assets.training.pictures import as_markdown, trials_picture

    metric = bench.spec.metric
    rows = [
        {
            "trial": trial.number,
            "candidate": trial.candidate,
            **({"stage": trial.stage} if bench.spec.search != "together" else {}),
            "state": trial.state,
            f"validation {metric}": trial.metrics.get(metric),
            "seconds": trial.seconds,
            "params": to_json(trial.params),
            **({"error": trial.error} if trial.error else {}),
            **({"warnings": "; ".join(trial.warnings)} if trial.warnings else {}),
        }
        for trial in trained.trials
    ]
    picture = as_markdown(trials_picture(trained.trials, metric, f"Trials: {metric} on validation"), "trials")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return {"trials": Markdown(f"{picture}\n\n{table(rows, columns).text}")}


def _failed_candidates(model: LoadedModel) -> dict[str, str]:
    """The candidates that took no part in the search of this version, each with its first error."""
    failed: dict[str, str] = json.loads(model.tags.get(FAILED_CANDIDATES, "{}"))
    return failed


def _training_sane(bench: Workbench, plan: LearningPlan, model: LoadedModel, failed: Mapping[str, str]) -> Check:
    """No row in two splits, a test metric above what needs no model; as warnings: it is not too good to be true, and
    every candidate could compete.
    """
    spec = bench.spec
    test = model.metrics["test"]
    shared = _shared_rows(bench, plan)
    metric, floor_name, value, floor, better = _against_base_rate(spec.metric, test)
    metadata: dict[str, Any] = {
        "rows_in_two_splits": shared,
        "test_value": value,
        floor_name: floor,
        "metric": metric,
        "splits": table([{"part": role, "rows of": str(part)} for role, part in plan.parts.items()]),
    }
    problems = []
    if shared:
        problems.append(f"{shared:,} rows are in two splits")
    if not better:
        problems.append(f"{metric} on test is {_number(value)}, {floor_name.replace('_', ' ')} is {_number(floor)}")
    severity: Severity = "ERROR" if problems else "WARN"
    problems += _too_good(bench, plan, model, metadata)
    problems += [f"candidate {label} took no part, as none of its trials ended: {why}" for label, why in failed.items()]
    text = "; ".join(problems) or (
        f"No row is in two splits; {metric} on test {_number(value)} against {_number(floor)} "
        f"({floor_name.replace('_', ' ')})."
    )
    return Check("training_sane", not problems, text, severity if problems else "ERROR", metadata)


def _too_good(bench: Workbench, plan: LearningPlan, model: LoadedModel, metadata: dict[str, Any]) -> list[str]:
    """Why the model is too good to be true, with the columns that explain it in `metadata`; nothing when it is not."""
    from mlops_assets.training.leakage import is_near_perfect, suspicion

    spec = bench.spec
    if not is_near_perfect(model.metrics["test"], spec.target.task):
        return []
    train, test = (load_split(bench, plan.parts[role], LEAKAGE_ROWS) for role in ("train", "test"))
    found = suspicion(model.metrics["test"], train, test, spec.kinds, spec.target.task)
    if found is None:
        return []
    metadata["columns_that_explain_it_alone"] = table(
        [{"column": name, f"{found.metric} of this column alone": value} for name, value in found.alone.items()]
    )
    names = list(found.alone)
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    why = (
        f"{listed} alone {'reaches' if len(names) == 1 else 'reach'} {found.alone[names[0]]:.4f}. Is it known before "
        "the outcome? If not, leave it out of `columns`"
        if names
        else "no column alone explains it. Is one of them known only after the outcome?"
    )
    return [f"{found.metric} on test is {found.value:.4f}, too good to be true: {why}"]


def _against_baseline(bench: Workbench, plan: LearningPlan, model: LoadedModel) -> dict[str, Any] | None:
    """The model and the naive forecast, measured on the test rows that have one; None when none is declared."""
    from mlops_assets.training.pipeline import scores

    spec = bench.spec
    if spec.baseline is None:
        return None
    with kept_scores(bench) as forecast, kept_scores(bench) as scored:
        for test in PartRows(bench, plan.parts["test"]):
            known = test.features[spec.baseline].notna().to_numpy()
            truth, rows = test.target[known], test.features[known]
            forecast.add(truth, rows[spec.baseline].to_numpy("float64"))
            scored.add(truth, scores(model.pipeline, rows, spec.target))
        compared: dict[str, Any] = {"column": spec.baseline, "metric": spec.metric, "rows": forecast.rows}
        if not forecast.rows:
            return compared | {"value": None, "challenger_value": None, "beaten": False}
        naive, ours = forecast.metrics(None)[spec.metric], scored.metrics(None)[spec.metric]
    if naive != naive or ours != ours:
        # Undefined on these rows (wMAPE where nothing was sold): nothing is shown to be better.
        return compared | {"value": None, "challenger_value": None, "beaten": False}
    beaten = ours > naive if spec.higher_is_better else ours < naive
    return compared | {"value": float(naive), "challenger_value": float(ours), "beaten": bool(beaten)}


def _beats_baseline(bench: Workbench, baseline: Mapping[str, Any]) -> Check:
    name = baseline["column"]
    if not baseline["rows"]:
        text = f"No test row has the naive forecast {name}, so nothing can be compared, and nothing is promoted."
        return Check("beats_baseline", False, text, "WARN", baseline)
    if baseline["value"] is None:
        text = (
            f"{bench.spec.metric} is undefined on {baseline['rows']:,} test rows: nothing can be compared or promoted."
        )
        return Check("beats_baseline", False, text, "WARN", baseline)
    text = (
        f"{bench.spec.metric} on {baseline['rows']:,} test rows: {baseline['challenger_value']:.4f} against "
        f"{baseline['value']:.4f} of the naive forecast {name}."
        + ("" if baseline["beaten"] else " A model that is not better is not promoted.")
    )
    return Check("beats_baseline", baseline["beaten"], text, metadata=baseline)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _shared_rows(bench: Workbench, plan: LearningPlan) -> int:
    periods = [period for part in plan.parts.values() for period in part.periods]
    if len(set(periods)) == len(periods):
        # A row's period is part of its name: parts of different periods share none.
        return 0
    keys = bench.columns_sql(["period", *bench.spec.record_keys])
    parts = [
        f"SELECT DISTINCT {keys}, '{role}' AS role FROM ({part_sql(bench, part)})" for role, part in plan.parts.items()
    ]
    union = " UNION ALL ".join(parts)
    found = bench.con.execute(
        f"SELECT count(*) FROM (SELECT {keys} FROM ({union}) GROUP BY ALL HAVING count(*) > 1)"
    ).fetchall()
    return int(found[0][0])


def _against_base_rate(
    metric: str, test: Mapping[str, float | None]
) -> tuple[str, str, float | None, float | None, bool]:
    """A test metric beside that of a model which knows only the base rate, with the names of both.

    F1 is compared as it is. Of the others not each has such a value, so AUC stands for a classification, and R² for a
    regression.
    """
    if metric == "f1":
        name, value, floor = "f1_all_positive", test["f1"], test["f1_all_positive"]
    elif "auc" in test:
        metric, name, value, floor = "auc", "auc_of_chance", test["auc"], 0.5
    else:
        metric, name, value, floor = "r2", "r2_of_the_mean", test["r2"], 0.0
    better = value is not None and floor is not None and value > floor
    return metric, name, value, floor, better
