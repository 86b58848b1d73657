"""From the source to features and their profile: the steps that bring a period's records in.

A period whose quality checks fail is quarantined: its rows stay to be looked at, `quality_failure` among the
partition's facts says why, and no step after it uses them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from mlops_assets.drift.profile import SCHEMA as PROFILE_SCHEMA
from mlops_assets.drift.profile import profile
from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.source import NoData, Reading, locate, read
from mlops_assets.lake.store import Partition, identifier
from mlops_assets.lake.validation import Violation, validate
from mlops_assets.monitored_model.features_sql import bind, columns_of, raw_columns_sql
from mlops_assets.monitored_model.outcome import Check, Outcome, table
from mlops_assets.monitored_model.workbench import FEATURES, PROFILE, Workbench

# A handful of records carry a wrong clock in every month of real files; that is no reason to warn each time.
OUTSIDE_TOLERATED = 0.001
OUTSIDE_FATAL = 0.5
COPIES_FATAL = 0.5
COPIES_SUSPECT = 0.05
VOLUME_FACTOR = 3.0
VOLUME_PERIODS = 6
COMPLETENESS_DROP = 0.5
PREVIEW_ROWS = 5


def raw(bench: Workbench, period: str) -> Outcome:
    """Read the period's records from the source into the lake.

    Without a file the partition is empty with the reason `no data: …`, unless the lake holds rows from an earlier
    ingestion: these are kept, because nothing is lost. An unreadable file gives an empty, quarantined partition.
    """
    spec = bench.spec
    try:
        located = locate(spec.source, period, bench.data_dir, bench.home.downloads)
    except NoData as error:
        return _without_source(bench, period, str(error))
    reading = read(spec.source, located, period, spec.calendar, bench.con)
    schema = _source_schema(reading)
    in_period = _in_period(reading, spec.source.time_column, period)
    copied_from = _same_rows_elsewhere(bench, period, reading)
    if any(problem.code == "unreadable" for problem in reading.problems):
        volume = Check("volume", True, "No row could be counted; see the check `source_schema`.")
    else:
        volume = _volume(bench, period, reading.rows, reading.duplicates, copied_from)
    checks = [schema, volume, in_period]
    unreadable = reading.rows == 0
    failure = quality_failure(checks)
    facts = {
        "origin": located.origin,
        "sha256": reading.sha256,
        "source_bytes": reading.bytes,
        "variant": reading.variant,
        "quality_failure": failure,
    }
    partition = bench.write(spec.raw_table, period, reading.reader, reason=failure if unreadable else None, facts=facts)
    metadata: dict[str, Any] = {
        "origin": located.origin,
        "sha256": reading.sha256,
        "source_bytes": reading.bytes,
        "schema_variant": reading.variant,
        **({"undeclared_columns": ", ".join(reading.extra)} if reading.extra else {}),
        **({"quarantined": failure} if failure else {}),
        "preview": _preview(bench, spec.raw_table, partition),
    }
    return Outcome(partition, metadata, checks)


def _without_source(bench: Workbench, period: str, message: str) -> Outcome:
    spec = bench.spec
    kept = bench.find(spec.raw_table, period)
    if kept is not None and kept.rows:
        passed = Check("volume", True, f"The source is no longer there; {kept.rows:,} rows ingested earlier are kept.")
        return Outcome(kept, {"note": f"kept rows of an earlier ingestion: {message}"}, [passed, *_not_read()])
    reason = f"no data: {message}"
    empty = bench.con.sql(raw_columns_sql(spec)).to_arrow_table().drop_columns(["period"])
    partition = bench.write(spec.raw_table, period, empty, reason=reason, facts={"quality_failure": reason})
    volume = Check("volume", False, reason, metadata={"rows": 0, "expected": "at least one row"})
    return Outcome(partition, {}, [volume, *_not_read()])


def _not_read() -> list[Check]:
    text = "There was no file to look at; see the check `volume`."
    return [Check("source_schema", True, text), Check("in_period", True, text)]


def quality_failure(checks: Sequence[Check]) -> str | None:
    """The reason for quarantine: the failed checks of severity ERROR, None when there is none."""
    failed = [check for check in checks if not check.passed and check.severity == "ERROR"]
    if not failed:
        return None
    return "quarantined: " + "; ".join(f"{check.name}: {check.description}" for check in failed)


def _source_schema(reading: Reading) -> Check:
    if not reading.problems:
        return Check(
            "source_schema",
            True,
            "The source has all declared columns and types.",
            metadata={"variant": reading.variant},
        )
    rows = [
        {
            "problem": problem.code,
            "column": problem.column,
            "found": problem.found,
            "expected": problem.expected,
            "rows": problem.rows,
            "examples": ", ".join(problem.examples),
            "what to do": problem.fix,
        }
        for problem in reading.problems
    ]
    return Check(
        "source_schema",
        False,
        " ".join(str(problem) for problem in reading.problems),
        metadata={"problems": table(rows), "variant": reading.variant},
    )


def _in_period(reading: Reading, time_column: str | None, period: str) -> Check:
    outside = reading.outside
    if outside is None or not reading.rows:
        return Check("in_period", True, "There is no time in the rows to compare with the period.")
    rows = outside.rows + outside.unknown
    share = rows / reading.rows
    metadata = {
        "rows_outside": outside.rows,
        "rows_without_time": outside.unknown,
        "share": share,
        "threshold": OUTSIDE_FATAL,
        "tolerated": OUTSIDE_TOLERATED,
        "first": str(outside.first),
        "last": str(outside.last),
    }
    text = (
        f"{rows:,} of {reading.rows:,} rows ({share:.2%}) have a {time_column} outside {period}: "
        f"it runs from {outside.first} to {outside.last}."
    )
    if share > OUTSIDE_FATAL:
        what = f"{text} Rows of {period} are expected; is it the file of another period? Replace it."
        return Check("in_period", False, what, metadata=metadata)
    return Check("in_period", share <= OUTSIDE_TOLERATED, text, "WARN", metadata)


def _same_rows_elsewhere(bench: Workbench, period: str, reading: Reading) -> str | None:
    """Another period that was made from this very file; None for a file that holds all periods."""
    spec = bench.spec
    if not spec.source.per_period or not reading.rows:
        return None
    for other in bench.lake.periods(spec.name, spec.raw_table):
        known = bench.find(spec.raw_table, other) if other != period else None
        if known is None or known.facts.get("sha256") != reading.sha256:
            continue
        # Of two periods with the same file the one that was refused for it is the copy, whichever is made again.
        if known.facts.get("quality_failure") is None:
            return other
    return None


def _volume(bench: Workbench, period: str, rows: int, copies: int, copied_from: str | None) -> Check:
    spec = bench.spec
    earlier = [known for known in bench.lake.periods(spec.name, spec.raw_table) if known < period][-VOLUME_PERIODS:]
    found = [bench.partition(spec.raw_table, known) for known in earlier]
    counts = [partition.rows for partition in found if partition.rows]
    usual = statistics.median(counts) if counts else None
    metadata: dict[str, Any] = {
        "rows": rows,
        "median_of_earlier_periods": usual,
        "allowed_factor": VOLUME_FACTOR,
        "copied_rows": copies,
    }
    if not rows:
        return Check(
            "volume",
            False,
            f"The source has no rows for {period}; at least one is expected.",
            metadata=metadata,
        )
    if copied_from is not None:
        text = (
            f"The file is the same, byte for byte, as the one of {copied_from}; a file of {period} is expected. "
            "Fetch it again."
        )
        return Check("volume", False, text, metadata=metadata | {"same_as": copied_from})
    if copies / rows >= COPIES_FATAL - 1e-9:
        text = (
            f"{copies:,} of {rows:,} rows are copies of another row; is the file's content doubled? Replace the file."
        )
        return Check("volume", False, text, metadata=metadata | {"threshold": COPIES_FATAL})
    if copies / rows > COPIES_SUSPECT:
        text = f"{copies:,} of {rows:,} rows are copies of another row."
        return Check("volume", False, text, "WARN", metadata | {"threshold": COPIES_SUSPECT})
    if usual is not None and not usual / VOLUME_FACTOR <= rows <= usual * VOLUME_FACTOR:
        text = (
            f"{rows:,} rows; the median of the {len(counts)} periods before is {usual:,.0f}, "
            f"and more than {VOLUME_FACTOR:g} times fewer or more is unusual."
        )
        return Check("volume", False, text, "WARN", metadata)
    return Check("volume", True, f"{rows:,} rows.", metadata=metadata)


def features(bench: Workbench, period: str) -> Outcome:
    """Run features.sql over the raw rows and validate what it gives.

    Columns: the record's key, the time column, the feature columns, the target. An unusable raw period gives an empty
    partition with its reason.
    """
    spec = bench.spec
    source = bench.partition(spec.raw_table, period)
    failure = source.facts.get("quality_failure") or source.reason
    if failure is not None:
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
    metadata: dict[str, Any] = {
        f"raw_{spec.records}": source.rows,
        "kept_share": total / source.rows if source.rows else None,
        **({"quarantined": failed} if failed else {}),
        **_target_metadata(bench, partition),
        "preview": _preview(bench, FEATURES, partition),
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


def profile_of_features(bench: Workbench, period: str) -> Outcome:
    """Count the values of every feature column by day."""
    spec = bench.spec
    reason = bench.unusable(period)
    if reason is not None:
        partition = bench.write(PROFILE, period, PROFILE_SCHEMA.empty_table(), reason=reason)
        return Outcome(partition)
    counted = profile(bench.con, bench.scan(FEATURES, [period]), spec.kinds, spec.source.time_column)
    partition = bench.write(PROFILE, period, counted.to_arrow(), facts={"rows": counted.rows})
    rows = []
    for name in counted.columns:
        column = counted.column(name)
        rows.append(
            {
                "column": name,
                "kind": column.kind,
                "distinct": column.distinct,
                "nulls": column.nulls,
                "quantised to digits": column.digits,
            }
        )
    metadata = {f"{spec.records}_profiled": counted.rows, "days": len(counted.days), "columns": table(rows)}
    return Outcome(partition, metadata)


def _preview(bench: Workbench, name: str, partition: Partition) -> Any:
    if not partition.rows:
        return table([])
    columns = columns_of(bench.spec) if name == FEATURES else ["record_id", *bench.spec.source.schema]
    listed = bench.columns_sql(columns)
    found = bench.con.execute(
        f"SELECT {listed} FROM {bench.scan(name, [partition.period])} LIMIT {PREVIEW_ROWS}"
    ).fetchall()
    # One line per column: twenty columns side by side don't fit on a page.
    values = zip(*found, strict=True)
    return table(
        [
            {"column": name, **{f"row {number}": value for number, value in enumerate(row, 1)}}
            for name, row in zip(columns, values, strict=True)
        ]
    )
