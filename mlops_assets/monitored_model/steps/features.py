"""The result of features.sql, validated."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.store import Partition, identifier
from mlops_assets.lake.validation import Violation, validate
from mlops_assets.monitored_model.features_sql import bind, raw_columns_sql
from mlops_assets.monitored_model.findings import data_judged
from mlops_assets.monitored_model.outcome import Check, Outcome, quality_failure, table
from mlops_assets.monitored_model.tables import FEATURES
from mlops_assets.monitored_model.workbench import Workbench

if TYPE_CHECKING:
    pass

VOLUME_PERIODS = 6
COMPLETENESS_DROP = 0.5


def make(bench: Workbench, period: str) -> Outcome:
    """Run features.sql over the raw rows and validate what it gives.

    Columns: the record's key, the time column, the feature columns, the target. An unusable raw period gives an empty
    partition with its reason.
    """
    spec = bench.spec
    source = bench.partition(spec.raw_table, period)
    failure = source.facts.get("quality_failure") or source.reason
    if failure is not None:
        data_judged(bench, period, failure)
        return _no_features(bench, period, failure)
    wanted = spec.calendar.window(period, (-spec.history, 0))
    made = [known for known in wanted if bench.find(spec.raw_table, known) is not None]
    query = bind(bench.con, spec, bench.sql, period, f"SELECT * FROM {bench.scan(spec.raw_table, made)}")
    keys = spec.record_keys
    violations = validate(bench.con, query, spec.columns, keys)
    total, nulls = _nulls(bench, query)
    checks = [
        _feature_schema(violations, total),
        _completeness(bench, period, total, source.rows, nulls),
    ]
    failed = quality_failure(checks)
    partition = bench.write(
        FEATURES,
        period,
        query_batches(bench.con, query),
        reason=f"no data: {spec.features} returns no row for {period}" if not total else None,
        facts={"quality_failure": failed, "raw_rows": source.rows, "raw_digest": source.digest},
    )
    data_judged(bench, period, failed or partition.reason)
    metadata: dict[str, Any] = {
        f"raw_{spec.records}": source.rows,
        "kept_share": total / source.rows if source.rows else None,
        **({"quarantined": failed} if failed else {}),
        **_target_metadata(bench, partition),
        "preview": bench.preview(partition),
    }
    return Outcome(partition, metadata, checks)


def _no_features(bench: Workbench, period: str, reason: str) -> Outcome:
    query = bind(bench.con, bench.spec, bench.sql, period, raw_columns_sql(bench.spec))
    empty = bench.con.sql(query).to_arrow_table()
    partition = bench.write(FEATURES, period, empty, reason=reason, facts={"quality_failure": reason})
    text = f"Not looked at, there are no rows: {reason}"
    return Outcome(partition, {}, [Check("feature_schema", True, text), Check("completeness", True, text, "WARN")])


def _nulls(bench: Workbench, query: str) -> tuple[int, dict[str, int]]:
    """Rows of a query, and missing values by feature column and target."""
    columns = [*bench.spec.columns, bench.spec.target.column]
    counts = ", ".join(f"count(*) - count({identifier(name)})" for name in columns)
    row = bench.con.execute(f"SELECT count(*), {counts} FROM ({query})").fetchall()[0]
    return int(row[0]), dict(zip(columns, map(int, row[1:]), strict=True))


def _feature_schema(violations: Sequence[Violation], rows: int) -> Check:
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
    if failed:
        worst = "; ".join(
            f"{violation.column} breaks {violation.rule} in {violation.rows:,} rows ({violation.share:.2%}, "
            f"tolerance {violation.tolerance:.2%}), e.g. {', '.join(violation.examples[:2])}"
            for violation in failed
        )
        what = f"{worst}. Repair the source, or widen the rule in defs.yaml if these values are real."
        return Check("feature_schema", False, what, metadata=metadata)
    kept = f", {len(listed)} rules broken within their tolerance" if listed else ""
    return Check("feature_schema", True, f"Types, ranges and missing values are as declared{kept}.", metadata=metadata)


def _completeness(bench: Workbench, period: str, rows: int, raw_rows: int, nulls: dict[str, int]) -> Check:
    spec = bench.spec
    limits = {name: column.max_null for name, column in spec.columns.items() if column.max_null is not None}
    shares = {name: count / rows if rows else 0.0 for name, count in nulls.items()}
    over = {name: shares[name] for name, limit in limits.items() if shares[name] > limit}
    kept = rows / raw_rows if raw_rows else 0.0
    usual = _usual_kept_share(bench, period)
    metadata = {
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
    if over:
        text = "; ".join(f"{name}: {share:.1%} missing, limit {limits[name]:.1%}" for name, share in over.items())
        return Check("completeness", False, text, "WARN", metadata)
    if usual is not None and kept < usual * COMPLETENESS_DROP:
        text = f"{kept:.1%} of the raw {spec.records} reach the features; the periods before had {usual:.1%}."
        return Check("completeness", False, text, "WARN", metadata)
    return Check("completeness", True, f"{kept:.1%} of the raw {spec.records} reach the features.", "WARN", metadata)


def _usual_kept_share(bench: Workbench, period: str) -> float | None:
    earlier = [known for known in bench.lake.periods(bench.name, FEATURES) if known < period][-VOLUME_PERIODS:]
    found = [bench.partition(FEATURES, known) for known in earlier]
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
