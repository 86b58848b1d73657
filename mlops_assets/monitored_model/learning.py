"""Challenger and champion: what a period learns, and which version is in force after it.

`challenger` reads features and profiles only, never predictions or drift reports, so the graph has no cycle. All that
it does is a function of the lake: the same data, declaration and code find the registered version again.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.drift.profile import Profile, profile
from mlops_assets.drift.verdict import DriftReport, compare
from mlops_assets.lake.store import Partition, identifier
from mlops_assets.monitored_model.outcome import Check, Link, Markdown, Outcome, table
from mlops_assets.monitored_model.watching import SCORE, SCORE_HISTOGRAM, score_profile
from mlops_assets.monitored_model.workbench import (
    CHALLENGER,
    CHAMPION,
    FEATURES,
    NO_CHAMPION,
    PROFILE,
    Workbench,
    to_json,
)

if TYPE_CHECKING:
    from mlops_assets.training.registry import LoadedModel
    from mlops_assets.training.search import Split, Trained

NO_WINDOW = "no full window yet"
REFERENCE_SAMPLE_ROWS = 5_000
ROLES = ("train", "validation", "test")

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
        ("reused", pa.bool_()),
    ]
)
CHAMPION_SCHEMA = pa.schema(
    [
        ("decision", pa.string()),
        ("version", pa.string()),
        ("previous_version", pa.string()),
        ("challenger_version", pa.string()),
        ("metric", pa.string()),
        ("champion_value", pa.float64()),
        ("challenger_value", pa.float64()),
        ("test_rows", pa.int64()),
        ("test_periods", pa.string()),
        ("reason", pa.string()),
        ("champion_metrics", pa.string()),
        ("challenger_metrics", pa.string()),
    ]
)


@dataclass(frozen=True)
class Part:
    """The rows of one role: whole periods, or the days `first` to `last` of one."""

    periods: Sequence[str]
    first: date | None = None
    last: date | None = None

    def __str__(self) -> str:
        if self.first is not None:
            return f"{self.first}..{self.last}"
        return self.periods[0] if len(self.periods) == 1 else f"{self.periods[0]}..{self.periods[-1]}"


@dataclass(frozen=True)
class LearningPlan:
    """What a period trains on, and why.

    `trained_on` is `window` or `since_break`; `since` the day of the break; `left_out` the unusable periods of the
    window with their reasons; `window_report` the comparison of the period with its window.
    """

    parts: Mapping[str, Part]
    trained_on: str
    since: date | None
    left_out: Mapping[str, str]
    window_report: DriftReport


class NothingToLearn(Exception):
    """A period has no rows to train on; the message is the reason that its empty partition carries."""


# -- which rows -----------------------------------------------------------------------------------------------


def learning_plan(bench: Workbench, period: str) -> LearningPlan:
    """The rows that the period's challenger learns from.

    The standard window, unless the period's profile is severely apart from the training periods': then the window is
    no longer this world, and the period's own rows since the break are split by days.

    Raises NothingToLearn when the window is not complete yet, or nothing usable is left in one of its parts.
    """
    spec = bench.spec
    unusable = bench.unusable(period)
    if unusable is not None:
        raise NothingToLearn(unusable)
    parts, left_out = _window_parts(bench, period)
    reference = _sum_of_profiles(bench, parts["train"].periods)
    current = _profile(bench, period)
    first_day, last_day = bench.days(period)
    report = compare(
        reference,
        current,
        spec.kinds,
        spec.drift,
        importances=None,
        scores=None,
        first_day=first_day,
        last_day=last_day,
    )
    if report.verdict != "severe":
        return LearningPlan(parts, "window", None, left_out, report)
    own = _parts_since_break(bench, period, current, report.since, first_day, last_day)
    if own is None:
        return LearningPlan(parts, "window", None, left_out, report)
    return LearningPlan(own, "since_break", own["train"].first, {}, report)


def _window_parts(bench: Workbench, period: str) -> tuple[dict[str, Part], dict[str, str]]:
    spec = bench.spec
    calendar = spec.calendar
    first = calendar.shift(period, spec.window.first)
    if calendar.start(first) < calendar.start(spec.start):
        raise NothingToLearn(f"{NO_WINDOW}: it begins with {first}, the data begins with {spec.start}")
    wanted = {role: calendar.window(period, getattr(spec.window, role)) for role in ROLES}
    not_made = [p for periods in wanted.values() for p in periods if bench.find(FEATURES, p) is None]
    if not_made:
        raise NothingToLearn(f"{NO_WINDOW}: the features of {', '.join(not_made)} have not been made")
    left_out = {p: why for periods in wanted.values() for p in periods if (why := bench.unusable(p)) is not None}
    parts = {}
    for role, periods in wanted.items():
        usable = [p for p in periods if p not in left_out]
        if not usable:
            reasons = "; ".join(f"{p} {left_out[p]}" for p in periods)
            raise NothingToLearn(f"no usable period to {_verb(role)} on: {reasons}")
        parts[role] = Part(usable)
    return parts, left_out


def _verb(role: str) -> str:
    return {"train": "train", "validation": "validate", "test": "test"}[role]


def _profile(bench: Workbench, period: str) -> Profile:
    return _sum_of_profiles(bench, [period])


def _sum_of_profiles(bench: Workbench, periods: Sequence[str]) -> Profile:
    kinds = bench.spec.kinds
    total = Profile.empty(kinds)
    for period in periods:
        bench.partition(PROFILE, period)
        stored = bench.con.sql(f"FROM {bench.scan(PROFILE, [period])}").to_arrow_table()
        total = total + Profile.from_arrow(stored, kinds)
    return total


def _parts_since_break(
    bench: Workbench, period: str, current: Profile, since: date | None, first_day: date, last_day: date
) -> dict[str, Part] | None:
    """Train, validation and test by days of the period since the break; the whole period when that is too little.

    None when even the whole period can't be split: it has no days, or fewer than three.
    """
    for start in dict.fromkeys([since or first_day, first_day]):
        rows = _rows_by_day(current, start, last_day)
        if len(rows) >= len(ROLES) and sum(rows.values()) >= bench.spec.since_break.min_rows:
            edges = split_days(rows, bench.spec.since_break.shares)
            return {role: Part([period], *edge) for role, edge in zip(ROLES, edges, strict=True)}
    return None


def _rows_by_day(current: Profile, first: date, last: date) -> dict[date, int]:
    span = current.between(first, last)
    return {day: span.on([day]).rows for day in span.days}


def split_days(rows: Mapping[date, int], shares: Sequence[float]) -> list[tuple[date, date]]:
    """First and last day of each part, in time order, so that their rows come close to `shares`.

    `rows` are the rows by day, ascending, at least as many days as shares. Every part gets at least one day and no day
    is in two.
    """
    days = list(rows)
    total = sum(rows.values())
    edges: list[tuple[date, date]] = []
    start, done, target = 0, 0, 0.0
    for index, share in enumerate(shares):
        target += share * total
        left = len(shares) - index - 1
        end = start + 1
        done += rows[days[start]]
        # Take the next day while that brings the running total closer to its share.
        while end < len(days) - left and abs(done + rows[days[end]] - target) <= abs(done - target):
            done += rows[days[end]]
            end += 1
        if left == 0:
            end = len(days)
        edges.append((days[start], days[end - 1]))
        start = end
    return edges


# -- their rows -----------------------------------------------------------------------------------------------


def part_sql(bench: Workbench, part: Part) -> str:
    """A SELECT of a part's rows with known target, with the columns of a features partition and the period."""
    spec = bench.spec
    conditions = [f"{identifier(spec.target.column)} IS NOT NULL"]
    if part.first is not None:
        time = identifier(spec.source.time_column or "")
        conditions.append(f"CAST({time} AS DATE) BETWEEN DATE '{part.first}' AND DATE '{part.last}'")
    return f"SELECT * FROM {bench.scan(FEATURES, part.periods)} WHERE {' AND '.join(conditions)}"


def load_split(bench: Workbench, part: Part) -> Split:
    """A part's feature columns and encoded target, in the order of period and record key."""
    from mlops_assets.training.search import Split, encode_target

    spec = bench.spec
    columns = bench.columns_sql([*spec.columns, spec.target.column])
    order = bench.columns_sql(["period", *spec.record_keys])
    frame = bench.con.execute(f"SELECT {columns} FROM ({part_sql(bench, part)}) ORDER BY {order}").df()
    return Split(frame[list(spec.columns)], encode_target(frame[spec.target.column], spec.target))


# -- challenger -----------------------------------------------------------------------------------------------


def challenger(bench: Workbench, period: str) -> Outcome:
    """Train, log and register the period's challenger, or find the one that these inputs made before."""
    from mlops_assets.training import registry
    from mlops_assets.training.search import OneClassError

    try:
        plan = learning_plan(bench, period)
    except NothingToLearn as reason:
        return _no_challenger(bench, period, str(reason))
    run = bench.run_required()
    inputs = _fingerprint_parts(bench, plan)
    fingerprint = registry.fingerprint(inputs)
    version = registry.find_version(run.client, bench.name, fingerprint)
    reused = version is not None
    if version is None:
        try:
            version, trained = _train(bench, period, plan, fingerprint, inputs)
        except OneClassError as error:
            return _no_challenger(bench, period, f"one class only: {error}")
    model = registry.load(run.client, bench.name, version)
    row = _challenger_row(bench, plan, model, fingerprint, reused=reused)
    partition = bench.write(
        CHALLENGER,
        period,
        pa.Table.from_pylist([row], CHALLENGER_SCHEMA),
        facts={
            "version": version,
            "trained_on": plan.trained_on,
            "since": str(plan.since) if plan.since else None,
            "parts": {
                role: [list(part.periods), str(part.first or ""), str(part.last or "")]
                for role, part in plan.parts.items()
            },
        },
    )
    metadata = _challenger_metadata(bench, plan, model, row)
    if not reused:
        metadata |= _search_metadata(bench, trained)
    return Outcome(partition, metadata, [_training_sane(bench, plan, model)])


def _no_challenger(bench: Workbench, period: str, reason: str) -> Outcome:
    partition = bench.write(CHALLENGER, period, CHALLENGER_SCHEMA.empty_table(), reason=reason)
    return Outcome(partition, {}, [Check("training_sane", True, f"Nothing was trained: {reason}")])


def _fingerprint_parts(bench: Workbench, plan: LearningPlan) -> dict[str, Any]:
    from mlops_assets.training import registry

    spec = bench.spec
    periods = sorted({p for part in plan.parts.values() for p in part.periods})
    return {
        "data": {p: bench.partition(FEATURES, p).digest for p in periods},
        "parts": {role: str(part) for role, part in plan.parts.items()},
        "sql": bench.sql,
        "spec": spec.model_dump(
            mode="json", include={"target", "columns", "candidates", "trials", "seed", "metric", "cut"}
        ),
        "code": registry.code_version(),
    }


def _train(
    bench: Workbench, period: str, plan: LearningPlan, fingerprint: str, inputs: Mapping[str, Any]
) -> tuple[str, Trained]:
    from mlops_assets.training import registry, search, tracking

    spec, run = bench.spec, bench.run_required()
    splits = {role: load_split(bench, part) for role, part in plan.parts.items()}
    trained = search.train(
        splits["train"],
        splits["validation"],
        splits["test"],
        candidates=spec.candidates,
        kinds=spec.kinds,
        target=spec.target,
        metric=spec.metric,
        cut=spec.cut,
        trials=spec.trials,
        seed=spec.seed,
        storage=bench.home.studies / spec.name / f"{period}.journal",
    )
    periods = {role: str(part) for role, part in plan.parts.items()}
    tags = {"mlops.model": spec.name, "mlops.period": period, "trained_on": plan.trained_on}
    if plan.since is not None:
        tags["since"] = str(plan.since)
    runs = tracking.log_trials(
        run.client,
        run.experiment_id,
        run.run_id,
        trained.trials,
        periods=periods,
        tags=tags,
        chosen=trained.chosen.number,
    )
    chosen_run = runs[trained.chosen.number]
    logged = registry.log_model(
        run.client,
        chosen_run,
        trained,
        example=splits["train"].features,
        periods=periods,
        features_sql=bench.sql,
        reference_profile=_parquet(_reference_profile(bench, plan).to_arrow()),
        score_reference=_parquet(_test_score_profile(bench, trained).to_arrow()),
        files=_extra_files(bench, plan, trained, splits["test"]),
        data=[_training_data(bench, role, part, len(splits[role].target)) for role, part in plan.parts.items()],
        tags=tags,
        title=f"{spec.name} {period}",
    )
    with bench.lease():
        version = registry.register(
            run.client,
            spec.name,
            chosen_run,
            logged.uri,
            fingerprint,
            tags=tags | {f"{role}_periods": text for role, text in periods.items()},
            description=f"Trained in {period} on {periods['train']} ({plan.trained_on}).",
        )
    return version, trained


def _parquet(rows: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    return buffer.getvalue()


def _reference_profile(bench: Workbench, plan: LearningPlan) -> Profile:
    """The profile of exactly the rows that were trained on."""
    spec = bench.spec
    if plan.trained_on == "window" and spec.target.required:
        return _sum_of_profiles(bench, plan.parts["train"].periods)
    return profile(bench.con, f"({part_sql(bench, plan.parts['train'])})", spec.kinds, spec.source.time_column)


def _test_score_profile(bench: Workbench, trained: Trained) -> Profile:
    bench.con.register("test_scores", pa.table({SCORE: trained.test_scores}))
    try:
        return score_profile(bench, "test_scores")
    finally:
        bench.con.unregister("test_scores")


def _extra_files(bench: Workbench, plan: LearningPlan, trained: Trained, test: Split) -> dict[str, bytes]:
    from mlops_assets.drift.estimate import ScoreHistogram
    from mlops_assets.training import registry

    files = {registry.REFERENCE_SAMPLE: _parquet(_reference_sample(bench, plan, trained))}
    if trained.cut is not None:
        histogram = ScoreHistogram.of(trained.test_scores, test.target)
        files[SCORE_HISTOGRAM] = _parquet(histogram.to_arrow())
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
    drawn = np.random.default_rng(spec.seed).choice(trained.test_scores, size=sample.num_rows)
    return sample.append_column(SCORE, pa.array(drawn, pa.float64()))


def _training_data(bench: Workbench, role: str, part: Part, rows: int) -> Any:
    from mlops_assets.training.tracking import TrainingData

    digests = {p: bench.partition(FEATURES, p).digest for p in part.periods}
    return TrainingData(
        role, f"{bench.name}.{FEATURES} {part}", f"{bench.lake.url}/{bench.name}/{FEATURES}", digests, rows
    )


def _challenger_row(
    bench: Workbench, plan: LearningPlan, model: LoadedModel, fingerprint: str, *, reused: bool
) -> dict[str, Any]:
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
        "reused": reused,
    }


def _challenger_metadata(
    bench: Workbench, plan: LearningPlan, model: LoadedModel, row: Mapping[str, Any]
) -> dict[str, Any]:
    from mlops_assets.training.pictures import as_markdown, importances_picture

    shown = [name for name in model.metrics["test"] if name != "rows"]
    why = "the standard window" if plan.trained_on == "window" else _why_since_break(plan)
    return {
        "version": model.version,
        "reused": row["reused"],
        "trained_on": why,
        **{f"{role}_periods": row[f"{role}_periods"] for role in ROLES},
        **{f"{role}_rows": row[f"{role}_rows"] for role in ROLES},
        **({"left_out": dict(plan.left_out)} if plan.left_out else {}),
        "metrics": table(
            [{"metric": name, **{role: model.metrics[role].get(name) for role in ROLES}} for name in shown]
        ),
        **({} if model.cut is None else {"cut": model.cut}),
        "importances": Markdown(as_markdown(importances_picture(model.importances), "importances")),
        "mlflow_run": Link(bench.run_url(model.run_id)),
        "mlflow_model": Link(bench.version_url(model.version)),
    }


def _why_since_break(plan: LearningPlan) -> str:
    return f"the period's own rows since {plan.since}: {'; '.join(plan.window_report.reasons)}"


def _search_metadata(bench: Workbench, trained: Trained) -> dict[str, Any]:
    from mlops_assets.training.pictures import as_markdown, trials_picture

    metric = bench.spec.metric
    rows = [
        {
            "trial": trial.number,
            "candidate": trial.candidate,
            "state": trial.state,
            f"validation {metric}": trial.metrics.get(metric),
            "seconds": trial.seconds,
            "params": to_json(trial.params),
            **({"error": trial.error} if trial.error else {}),
        }
        for trial in trained.trials
    ]
    picture = as_markdown(trials_picture(trained.trials, metric, f"Trials: {metric} on validation"), "trials")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return {
        "trials": Markdown(f"{picture}\n\n{table(rows, columns).text}"),
        "training_seconds": trained.seconds,
    }


def _training_sane(bench: Workbench, plan: LearningPlan, model: LoadedModel) -> Check:
    """No row in two splits, and a test metric above what needs no model."""
    spec = bench.spec
    test = model.metrics["test"]
    shared = _shared_rows(bench, plan)
    floor_name, value, floor, better = _against_base_rate(spec.metric, test)
    metadata = {
        "rows_in_two_splits": shared,
        "test_value": value,
        floor_name: floor,
        "metric": spec.metric,
        "splits": table([{"part": role, "rows of": str(part)} for role, part in plan.parts.items()]),
    }
    problems = []
    if shared:
        problems.append(f"{shared:,} rows are in two splits")
    if not better:
        problems.append(
            f"{spec.metric} on test is {_number(value)}, {floor_name.replace('_', ' ')} is {_number(floor)}"
        )
    text = "; ".join(problems) or (
        f"No row is in two splits; {spec.metric} on test {_number(value)} against {_number(floor)} "
        f"({floor_name.replace('_', ' ')})."
    )
    return Check("training_sane", not problems, text, metadata=metadata)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _shared_rows(bench: Workbench, plan: LearningPlan) -> int:
    keys = bench.columns_sql(["period", *bench.spec.record_keys])
    parts = [
        f"SELECT DISTINCT {keys}, '{role}' AS role FROM ({part_sql(bench, part)})" for role, part in plan.parts.items()
    ]
    union = " UNION ALL ".join(parts)
    found = bench.con.execute(
        f"SELECT count(*) FROM (SELECT {keys} FROM ({union}) GROUP BY ALL HAVING count(*) > 1)"
    ).fetchall()
    return int(found[0][0])


def _against_base_rate(metric: str, test: Mapping[str, float | None]) -> tuple[str, float | None, float | None, bool]:
    """The test metric beside that of a model which knows only the base rate."""
    if metric == "f1":
        value, floor = test["f1"], test["f1_all_positive"]
    elif "auc" in test:
        metric, value, floor = "auc", test["auc"], 0.5
    else:
        value, floor = test["r2"], 0.0
    better = value is not None and floor is not None and value > floor
    return (
        {"f1": "f1_all_positive", "auc": "auc_of_chance"}.get(metric, "r2_of_the_mean"),
        value,
        floor,
        better,
    )


# -- champion -------------------------------------------------------------------------------------------------


def champion(bench: Workbench, period: str) -> Outcome:
    """Decide which version is in force after the period, and point the registry's aliases at it.

    The aliases follow the newest period's decision only: deciding an old period again never moves them.
    """
    proposed = bench.partition(CHALLENGER, period)
    before = bench.champion_before(period)
    with bench.lease():
        if proposed.reason is not None:
            row = _without_challenger(bench, before, proposed.reason)
        else:
            row = _compared(bench, period, proposed, before)
        reason = None if row["version"] else f"{NO_CHAMPION}: {row['reason']}"
        rows = [row] if row["version"] else []
        partition = bench.write(
            CHAMPION,
            period,
            pa.Table.from_pylist(rows, CHAMPION_SCHEMA),
            reason=reason,
            facts={name: row[name] for name in ("decision", "version", "previous_version", "reason")},
        )
        if row["version"] and bench.lake.periods(bench.name, CHAMPION)[-1] == period:
            _move_aliases(bench, period, row["version"])
    return Outcome(partition, _champion_metadata(bench, row))


def _without_challenger(bench: Workbench, before: Partition | None, why: str) -> dict[str, Any]:
    version = before.facts["version"] if before is not None else None
    return {
        "decision": "retained" if version else "none",
        "version": version,
        "previous_version": version,
        "challenger_version": None,
        "metric": bench.spec.metric,
        "reason": why,
    }


def _compared(bench: Workbench, period: str, proposed: Partition, before: Partition | None) -> dict[str, Any]:
    from mlops_assets.training import registry
    from mlops_assets.training.decision import decide
    from mlops_assets.training.pipeline import scores
    from mlops_assets.training.search import measure

    run, metric = bench.run_required(), bench.spec.metric
    challenger_model = registry.load(run.client, bench.name, proposed.facts["version"])
    challenger_metrics = challenger_model.metrics["test"]
    part = _stored_part(proposed, "test")
    champion_metrics: Mapping[str, Any] | None = None
    if before is not None:
        in_force = registry.load(run.client, bench.name, before.facts["version"])
        rows = load_split(bench, part)
        champion_metrics = measure(
            rows.target, scores(in_force.pipeline, rows.features, bench.spec.target), in_force.cut
        )
    ours = challenger_metrics[metric]
    decision = decide(
        None if champion_metrics is None else champion_metrics[metric],
        float("nan") if ours is None else ours,
        metric,
    )
    previous = before.facts["version"] if before is not None else None
    row = {
        "decision": decision.outcome,
        "version": previous if decision.outcome == "retained" else challenger_model.version,
        "previous_version": previous,
        "challenger_version": challenger_model.version,
        "metric": metric,
        "champion_value": None if champion_metrics is None else champion_metrics[metric],
        "challenger_value": ours,
        "test_rows": int(challenger_metrics["rows"] or 0),
        "test_periods": str(part),
        "reason": decision.reason,
        "champion_metrics": None if champion_metrics is None else to_json(champion_metrics),
        "challenger_metrics": to_json(challenger_metrics),
    }
    _note_outcome(bench, period, challenger_model, row)
    return row


def _stored_part(proposed: Partition, role: str) -> Part:
    periods, first, last = proposed.facts["parts"][role]
    if not first:
        return Part(periods)
    return Part(periods, date.fromisoformat(first), date.fromisoformat(last))


def _note_outcome(bench: Workbench, period: str, model: LoadedModel, row: Mapping[str, Any]) -> None:
    """Write the comparison on the challenger's run and on the period's."""
    from mlops_assets.training import tracking

    run = bench.run_required()
    tags = {"decision": row["decision"], "decision_period": period, "decision_reason": row["reason"]}
    tracking.log(run.client, model.run_id, tags=tags)
    metrics = {
        name: float(row[name])
        for name in ("champion_value", "challenger_value")
        if row[name] is not None and row[name] == row[name]
    }
    tracking.log(
        run.client,
        run.run_id,
        metrics=metrics,
        tags=tags | {"champion": row["version"], "challenger": model.version},
    )


def _move_aliases(bench: Workbench, period: str, version: str) -> None:
    from mlops_assets.training import registry

    previous = None
    for earlier in reversed([p for p in bench.lake.periods(bench.name, CHAMPION) if p < period]):
        decided = bench.partition(CHAMPION, earlier).facts.get("version")
        if decided and decided != version:
            previous = decided
            break
    registry.set_champion(bench.run_required().client, bench.name, version, previous)


def _champion_metadata(bench: Workbench, row: Mapping[str, Any]) -> dict[str, Any]:
    import json

    shown = {
        name: row[name]
        for name in ("decision", "version", "previous_version", "challenger_version", "reason")
        if row.get(name) is not None
    }
    if row.get("challenger_metrics"):
        theirs = json.loads(row["champion_metrics"]) if row["champion_metrics"] else {}
        ours = json.loads(row["challenger_metrics"])
        names = sorted(ours.keys() - {"rows"}, key=lambda name: (name != bench.spec.metric, name))
        shown["metrics_on_the_same_test_rows"] = table(
            [{"metric": name, "champion": theirs.get(name), "challenger": ours[name]} for name in names]
        )
        shown["test_rows"] = row["test_rows"]
        shown["test_periods"] = row["test_periods"]
    if row.get("version"):
        shown["mlflow_model"] = Link(bench.version_url(row["version"]))
    return shown
