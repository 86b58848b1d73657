"""The result of features.sql, validated."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mlops_assets.lake.columns import Column
from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.store import Partition, identifier
from mlops_assets.lake.validation import Violation, validate
from mlops_assets.monitored_model.features_sql import bind, columns_of, raw_columns_sql
from mlops_assets.monitored_model.findings import NO_DATA, data_judged
from mlops_assets.monitored_model.gates import awaits_outcomes, served_ahead
from mlops_assets.monitored_model.outcome import Check, Outcome, quality_failure, table
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.tables import DEFINITION, FEATURES, WAITS_FOR
from mlops_assets.monitored_model.target_classes import (
    CLASSES,
    UnexpectedClasses,
    earlier_classes,
    noted_classes,
    unexpected_classes,
)
from mlops_assets.monitored_model.workbench import Workbench

VOLUME_PERIODS = 6
COMPLETENESS_DROP = 0.5


def make(bench: Workbench, period: str) -> Outcome:
    """Run features.sql over the raw rows and validate what it gives.

    Columns: the record's key, the time column, the feature columns, the target. An unusable raw period gives an empty
    partition with its reason; so does one that is opened before the outcomes it looks back at are known.
    """
    spec = bench.spec
    source = bench.partition(spec.raw_table, period)
    ahead = bool(spec.lead) and served_ahead(bench.lake, bench.name, period)
    stored = bench.partition(FEATURES, period) if ahead else None
    failure = source.facts.get("quality_failure") or source.reason
    if failure is not None:
        data_judged(bench, period, failure)
        return _no_features(bench, period, failure) if stored is None else _kept(bench, stored, failure)
    history, left_out = _history(bench, period)
    raw = bench.lake.files(bench.name, spec.raw_table, [*history, period])
    kept = stored is not None and _defined_as_now(bench, stored)
    known = bench.lake.files(bench.name, FEATURES, [period]) if kept else []
    with bench.confined([*raw, *known]) as confined:
        query = bind(confined.con, spec, bench.sql, period, f"SELECT * FROM {bench.lake.scan_files(raw)}")
        if known:
            rows = bench.lake.scan_files(known)
            unplanned = _unplanned(confined, rows, query)
            completed = _with_outcomes(bench, rows, query)
            return _from_rows(bench, confined, completed, source, stored, history, left_out, unplanned)
        return _from_rows(bench, confined, query, source, stored, history, left_out)


def _from_rows(
    bench: Workbench,
    confined: Workbench,
    query: str,
    source: Partition,
    stored: Partition | None,
    history: Sequence[str],
    left_out: Mapping[str, str],
    unplanned: int = 0,
) -> Outcome:
    """Write what a query gives on the confined database, with its checks."""
    spec, period = bench.spec, source.period
    violations = [*validate(confined.con, query, _rules(spec), spec.row_keys), *_not_planned_once(confined, query)]
    total, nulls, classes = _counts(confined, query)
    outcomes = total - nulls[spec.target.column]
    awaited = _awaited(bench, period)
    if awaited and awaited[-1] == _last_known(spec, period) and not outcomes and stored is None:
        failure = (
            f"{NO_DATA}: the outcomes of {awaited[-1]} are not known yet, and features look back at them; {period} is "
            "opened when they are"
        )
        data_judged(bench, period, failure)
        return _no_features(bench, period, failure, {WAITS_FOR: awaited[-1]})
    left_out = {**left_out, **dict.fromkeys(awaited, "its outcomes are not known")}
    checks = [
        _feature_schema(violations, total, _unexpected_classes(bench, confined, period, query, classes)),
        _completeness(bench, period, total, source.rows, nulls, left_out),
    ]
    failed = quality_failure(checks)
    if failed and stored is not None:
        data_judged(bench, period, failed)
        return _kept(bench, stored, failed, checks)
    records = _records(confined, query)
    partition = bench.write(
        FEATURES,
        period,
        query_batches(confined.con, query),
        reason=f"no data: {spec.features} returns no row for {period}" if not total else None,
        facts={
            "quality_failure": failed,
            "raw_rows": source.rows,
            "raw_digest": source.digest,
            "records": records,
            "outcomes": outcomes,
            "opened": stored is not None or (spec.lead > 0 and not outcomes),
            DEFINITION: _definition(bench),
            **({CLASSES: noted_classes(classes)} if classes else {}),
        },
    )
    data_judged(bench, period, failed or partition.reason)
    metadata: dict[str, Any] = {
        f"raw_{spec.records}": source.rows,
        "kept_share": total / source.rows if source.rows else None,
        **({"records": records} if spec.scenarios else {}),
        **({"outcomes": outcomes, "unplanned_records": unplanned} if spec.lead else {}),
        **({"records_without_outcome": _without_outcome(bench, period)} if outcomes and spec.lead else {}),
        **({"history": f"{history[0]} to {history[-1]}"} if history else {}),
        **({"quarantined": failed} if failed else {}),
        **_target_metadata(bench, partition),
        "preview": bench.preview(partition),
    }
    return Outcome(partition, metadata, checks)


def _history(bench: Workbench, period: str) -> tuple[list[str], dict[str, str]]:
    """The earlier periods of raw rows that features.sql may look at, and those that it can't, each with the reason.

    Periods before the first one of the model are in neither.
    """
    spec = bench.spec
    usable, left_out = [], {}
    for earlier in spec.calendar.window(period, (-spec.history, -1)) if spec.history else []:
        if spec.calendar.start(earlier) < spec.calendar.start(spec.start):
            continue
        found = bench.find(spec.raw_table, earlier)
        why = "was not made" if found is None else found.reason or found.facts.get("quality_failure")
        if why is None:
            usable.append(earlier)
        else:
            left_out[earlier] = str(why)
    return usable, left_out


def _last_known(spec: ModelSpec, period: str) -> str:
    """The last period that is over when this one begins to be opened: with a lead of 1 the one before."""
    return spec.calendar.shift(period, -spec.lead)


def _awaited(bench: Workbench, period: str) -> list[str]:
    """The periods that features look back at, whose outcomes should be known by now and are not."""
    spec = bench.spec
    if not spec.lead or not spec.history:
        return []
    over = spec.calendar.window(period, (-spec.history, -spec.lead))
    return [earlier for earlier in over if awaits_outcomes(bench.lake, bench.name, earlier)]


def _defined_as_now(bench: Workbench, stored: Partition) -> bool:
    """Whether the features that an opened period was served from are what features.sql still says.

    Then they stay as they are, and only outcomes are added: what was served was made from them. After a change they are
    made anew, so that no model learns from a mixture of two definitions; what was served stays all the same.
    """
    return bool(stored.facts.get(DEFINITION, _definition(bench)) == _definition(bench))


def _definition(bench: Workbench) -> str:
    """A name for what computes the features: 16 hex digits."""
    texts = [bench.sql, bench.spec.source.query, list(columns_of(bench.spec))]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def _kept(bench: Workbench, stored: Partition, failure: str, checks: Sequence[Check] = ()) -> Outcome:
    """The features that were served from, unchanged, as the period's data is unusable now."""
    facts = {name: value for name, value in stored.facts.items() if name != "made_from"}
    rows = query_batches(bench.con, f"FROM {bench.scan(FEATURES, [stored.period])}")
    partition = bench.write(FEATURES, stored.period, rows, facts=facts)
    text = f"Kept as they were when the period was served; nothing of the new data was added: {failure}"
    passed = [Check("feature_schema", True, text), Check("completeness", True, text, "WARN")]
    return Outcome(partition, {"not_added": failure}, checks or passed)


def _with_outcomes(bench: Workbench, stored: str, query: str) -> str:
    """The stored rows (a table expression) with the target of the query."""
    keys = bench.columns_sql(bench.spec.row_keys)
    target = identifier(bench.spec.target.column)
    return (
        f"SELECT {bench.columns_sql(columns_of(bench.spec))} FROM (SELECT * EXCLUDE ({target}) FROM {stored}) "
        f"LEFT JOIN (SELECT {keys}, {target} FROM ({query})) USING ({keys})"
    )


def _unplanned(bench: Workbench, stored: str, query: str) -> int:
    """Records with an outcome that nobody had planned when the period was opened."""
    keys = bench.columns_sql(bench.spec.row_keys)
    target = identifier(bench.spec.target.column)
    sold = f"SELECT {keys} FROM ({query}) WHERE {target} IS NOT NULL"
    found = bench.con.execute(f"SELECT count(*) FROM ({sold}) ANTI JOIN {stored} USING ({keys})").fetchall()
    return int(found[0][0])


def _not_planned_once(bench: Workbench, query: str) -> list[Violation]:
    """Of a record's scenarios exactly one is the planned one."""
    scenarios = bench.spec.scenarios
    if scenarios is None:
        return []
    keys, planned = bench.columns_sql(bench.spec.record_keys), identifier(scenarios.planned)
    counted = f"SELECT {keys}, count(*) FILTER ({planned}) AS times FROM ({query}) GROUP BY {keys}"
    records, wrong = bench.con.execute(f"SELECT count(*), count(*) FILTER (times <> 1) FROM ({counted})").fetchall()[0]
    if not wrong:
        return []
    found = bench.con.execute(f"SELECT * FROM ({counted}) WHERE times <> 1 ORDER BY ALL LIMIT 5").fetchall()
    examples = tuple(f"{', '.join(map(str, key))}: {times} times" for *key, times in found)
    return [Violation(scenarios.planned, "planned once a record", int(wrong), wrong / records, 0.0, examples)]


def _records(bench: Workbench, query: str) -> int:
    """How many records there are: of several scenarios the planned one counts."""
    scenarios = bench.spec.scenarios
    where = f" WHERE {identifier(scenarios.planned)}" if scenarios else ""
    return int(bench.con.execute(f"SELECT count(*) FROM ({query}){where}").fetchall()[0][0])


def _without_outcome(bench: Workbench, period: str) -> int:
    """Records of a completed period that have none: their plan was changed after it had been opened, for example."""
    target = identifier(bench.spec.target.column)
    found = bench.con.execute(f"SELECT count(*) - count({target}) FROM {bench.records(FEATURES, [period])}").fetchall()
    return int(found[0][0])


def _no_features(bench: Workbench, period: str, reason: str, facts: Mapping[str, Any] | None = None) -> Outcome:
    query = bind(bench.con, bench.spec, bench.sql, period, raw_columns_sql(bench.spec))
    empty = bench.con.sql(query).to_arrow_table()
    partition = bench.write(FEATURES, period, empty, reason=reason, facts={"quality_failure": reason, **(facts or {})})
    text = f"Not looked at, there are no rows: {reason}"
    return Outcome(partition, {}, [Check("feature_schema", True, text), Check("completeness", True, text, "WARN")])


def _rules(spec: ModelSpec) -> dict[str, Column]:
    """The rules of the feature columns, and of the target where its classes are declared."""
    target = spec.target
    return dict(spec.columns) | ({target.column: Column(categorical=True, isin=target.isin)} if target.isin else {})


def _counts(bench: Workbench, query: str) -> tuple[int, dict[str, int], dict[str, int]]:
    """Rows of a query, missing values by feature column and target, and rows by class of a classification's target."""
    target = bench.spec.target
    columns = [*bench.spec.columns, target.column]
    counts = ", ".join(f"count(*) - count({identifier(name)})" for name in columns)
    classes = f"histogram({identifier(target.column)}::VARCHAR)" if target.task == "classification" else "NULL"
    ((total, by_class, *nulls),) = bench.con.execute(f"SELECT count(*), {classes}, {counts} FROM ({query})").fetchall()
    return int(total), dict(zip(columns, map(int, nulls), strict=True)), by_class or {}


def _unexpected_classes(
    bench: Workbench, confined: Workbench, period: str, query: str, classes: Mapping[str, int]
) -> UnexpectedClasses | None:
    """What is odd about the classes of a query on the confined database, which can't open earlier periods."""
    target = bench.spec.target
    if not classes:
        return None
    # As the column's type spells it: 1 is `1.0` among doubles, `true` among booleans.
    kind = confined.con.sql(f"DESCRIBE SELECT {identifier(target.column)} FROM ({query})").fetchall()[0][1]
    ((positive,),) = confined.con.execute(f"SELECT TRY_CAST(? AS {kind})::VARCHAR", [target.positive]).fetchall()
    seen = earlier_classes(bench, period)
    return unexpected_classes(target.column, str(positive), classes, seen, declared=target.isin is not None)


def _feature_schema(violations: Sequence[Violation], rows: int, odd: UnexpectedClasses | None) -> Check:
    listed = [
        {
            "column": violation.column,
            "rule": violation.rule,
            "rows": violation.rows,
            "share": violation.share,
            "tolerance": violation.tolerance,
            "verdict": "fails" if violation.failed else "tolerated",
            "examples (record: value)": ", ".join(violation.examples),
        }
        for violation in violations
    ]
    failed = [violation for violation in violations if violation.failed]
    metadata: dict[str, Any] = {"rows": rows}
    if listed:
        metadata["violations"] = table(listed)
    wrong = []
    if failed:
        worst = "; ".join(
            f"{violation.column} breaks {violation.rule} in {violation.rows:,} rows ({violation.share:.2%}, "
            f"tolerance {violation.tolerance:.2%}), e.g. {', '.join(violation.examples[:2])}"
            for violation in failed
        )
        wrong.append(f"{worst}. Repair the source, or widen the rule in defs.yaml if these values are real.")
    if odd is not None and odd.severity == "ERROR":
        wrong.append(odd.text)
    if wrong:
        return Check("feature_schema", False, " ".join(wrong), metadata=metadata)
    if odd is not None:
        return Check("feature_schema", False, odd.text, odd.severity, metadata)
    kept = f", {len(listed)} rules broken within their tolerance" if listed else ""
    return Check("feature_schema", True, f"Types, ranges and missing values are as declared{kept}.", metadata=metadata)


def _completeness(
    bench: Workbench, period: str, rows: int, raw_rows: int, nulls: dict[str, int], no_history: dict[str, str]
) -> Check:
    spec = bench.spec
    limits = {name: column.max_null for name, column in spec.columns.items() if column.max_null is not None}
    shares = {name: count / rows if rows else 0.0 for name, count in nulls.items()}
    over = {name: shares[name] for name, limit in limits.items() if shares[name] > limit}
    kept = rows / raw_rows if raw_rows else 0.0
    usual = _usual_kept_share(bench, period)
    metadata: dict[str, Any] = {
        "rows": rows,
        "raw_rows": raw_rows,
        "kept_share": kept,
        "usual_kept_share": usual,
        "null_shares": table(
            [
                {"column": name, "null share": share, "limit": limits.get(name)}
                for name, share in sorted(shares.items(), key=lambda item: -item[1])
            ]
        ),
    }
    if no_history:
        metadata["history_left_out"] = table([{"period": p, "reason": why} for p, why in no_history.items()])
        some = ", ".join(list(no_history)[:3]) + (", …" if len(no_history) > 3 else "")
        text = (
            f"{len(no_history)} of {spec.history} periods of history can't be looked at ({some}), so features that "
            "look back are missing or cut short. Materialize these periods first, then this one again."
        )
        return Check("completeness", False, text, "WARN", metadata)
    if over:
        text = "; ".join(f"{name}: {share:.1%} missing, limit {limits[name]:.1%}" for name, share in over.items())
        return Check("completeness", False, text, "WARN", metadata)
    if usual is not None and kept < usual * COMPLETENESS_DROP:
        text = f"{kept:.1%} of the raw {spec.records} reach the features; the periods before had {usual:.1%}."
        return Check("completeness", False, text, "WARN", metadata)
    return Check("completeness", True, f"{kept:.1%} of the raw {spec.records} reach the features.", "WARN", metadata)


def _usual_kept_share(bench: Workbench, period: str) -> float | None:
    earlier = [known for known in bench.lake.periods(bench.name, FEATURES) if known < period][-VOLUME_PERIODS:]
    found = bench.readable(FEATURES, earlier)
    shares = [made.rows / made.facts["raw_rows"] for made in found if made.rows and made.facts.get("raw_rows")]
    return statistics.median(shares) if shares else None


def _target_metadata(bench: Workbench, partition: Partition) -> dict[str, Any]:
    target = bench.spec.target
    if not partition.rows:
        return {}
    scan = bench.scan(FEATURES, [partition.period])
    column = identifier(target.column)
    if target.task == "regression":
        mean = bench.con.execute(f"SELECT avg({column}) FROM {scan}").fetchall()[0][0]
        return {f"mean_{target.column}": mean}
    rate = bench.con.execute(f"SELECT avg(({column} = ?)::INT) FROM {scan}", [target.positive]).fetchall()[0][0]
    return {f"share_{target.column}": rate}
