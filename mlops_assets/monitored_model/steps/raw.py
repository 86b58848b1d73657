"""The period's records, from the source into the lake.

A period whose quality checks fail is quarantined: its rows stay to be looked at, `quality_failure` among the
partition's facts says why, and no step after it uses them.
"""

from __future__ import annotations

import statistics
from typing import Any

from mlops_assets.lake.store import DamagedPartition
from mlops_assets.monitored_model.features_sql import raw_columns_sql
from mlops_assets.monitored_model.findings import data_judged
from mlops_assets.monitored_model.outcome import Check, Outcome, quality_failure, table
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets.sources.declaration import Source
from mlops_assets.sources.failures import UnreadableSource
from mlops_assets.sources.location import Located, NoData, locate
from mlops_assets.sources.reading import Reading, read, read_nothing

# A handful of records carry a wrong clock in every month of real files; that is no reason to warn each time.
OUTSIDE_TOLERATED = 0.001
OUTSIDE_FATAL = 0.5
COPIES_FATAL = 0.5
COPIES_SUSPECT = 0.05
MODIFIED, CHANGED = "source_modified_ns", "changed_in_place_from"
VOLUME_FACTOR = 3.0
VOLUME_PERIODS = 6


def make(bench: Workbench, period: str) -> Outcome:
    """Read the period's records from the source into the lake.

    Without a file the partition is empty with the reason `no data: …`, unless the lake holds rows from an earlier
    ingestion: these are kept, because nothing is lost. An unreadable file gives an empty, quarantined partition.
    """
    spec = bench.spec
    try:
        located = locate(spec.source, period, bench.data_dir, bench.home.downloads)
    except NoData as error:
        return _without_source(bench, period, str(error))
    try:
        return _ingested(bench, period, located, read(spec.source, located, period, spec.calendar, bench.con))
    except UnreadableSource as error:
        return _ingested(bench, period, located, read_nothing(spec.source, located, error))


def _ingested(bench: Workbench, period: str, located: Located, reading: Reading) -> Outcome:
    """Judge what was read and write it. Raises UnreadableSource, with nothing written, for damage within its rows."""
    spec = bench.spec
    changed = _changed_in_place(bench, period, located, reading)
    schema = _source_schema(reading, spec, changed)
    in_period = _in_period(reading, spec.source, period)
    copied_from = _same_rows_elsewhere(bench, period, reading)
    if any(problem.code == "unreadable" for problem in reading.problems):
        volume = Check("volume", True, "No row could be counted; see the check `source_schema`.")
    else:
        volume = _volume(bench, period, reading, copied_from)
    checks = [schema, volume, in_period]
    unreadable = reading.rows == 0
    failure = quality_failure(checks)
    facts = {
        "origin": located.origin,
        "sha256": reading.sha256,
        "rows_digest": reading.rows_digest,
        "source_bytes": reading.bytes,
        MODIFIED: located.path.stat().st_mtime_ns,
        "variant": reading.variant,
        "quality_failure": failure,
        **({CHANGED: changed} if changed else {}),
    }
    if not spec.source.per_period and reading.outside is not None:
        facts["rows_of_no_period"] = reading.outside.unknown
    partition = bench.write(spec.raw_table, period, reading.reader, reason=failure if unreadable else None, facts=facts)
    bench.lake.write(spec.name, spec.rejected_table, period, reading.rejected)
    if failure is not None:
        # That all is well is for the features to say, which look at the rows too.
        data_judged(bench, period, failure)
    metadata: dict[str, Any] = {
        "origin": located.origin,
        "sha256": reading.sha256,
        "source_bytes": reading.bytes,
        "schema_variant": reading.variant,
        **({"undeclared_columns": ", ".join(reading.extra)} if reading.extra else {}),
        **({"rows_set_aside": reading.rejected_rows} if reading.rejected_rows else {}),
        **({"quarantined": failure} if failure else {}),
        "preview": bench.preview(partition),
    }
    return Outcome(partition, metadata, checks)


def _without_source(bench: Workbench, period: str, message: str) -> Outcome:
    spec = bench.spec
    kept = bench.find(spec.raw_table, period)
    if kept is not None and kept.damaged:
        # Nothing is written in its place: the rest of the period is still what was made from it.
        raise DamagedPartition(f"{kept.damaged}; but its source is not there: {message}")
    if kept is not None and kept.rows:
        failure = kept.facts.get("quality_failure")
        text = f"The source is no longer there; {kept.rows:,} rows ingested earlier are kept."
        volume = Check("volume", failure is None, f"{text} They stay {failure}" if failure else text)
        metadata = {"note": f"kept rows of an earlier ingestion: {message}"}
        return Outcome(kept, metadata | ({"quarantined": failure} if failure else {}), [volume, *_not_read()])
    reason = f"no data: {message}"
    empty = bench.con.sql(raw_columns_sql(spec)).to_arrow_table().drop_columns(["period"])
    partition = bench.write(spec.raw_table, period, empty, reason=reason, facts={"quality_failure": reason})
    data_judged(bench, period, reason)
    volume = Check("volume", False, reason, metadata={"rows": 0, "expected": "at least one row"})
    return Outcome(partition, {}, [volume, *_not_read()])


def _not_read() -> list[Check]:
    text = "There was no file to look at; see the check `volume`."
    return [Check("source_schema", True, text), Check("in_period", True, text)]


def _changed_in_place(bench: Workbench, period: str, located: Located, reading: Reading) -> str | None:
    """The SHA-256 that the period's file had before it changed without being newer; None when it has not.

    It stays known, however often the period is made again, until the file is newer: delivered again, or touched by
    somebody who has looked at it.
    """
    known = bench.find(bench.spec.raw_table, period)
    if known is None or known.damaged:
        return None
    before = known.facts
    if MODIFIED not in before or located.path.stat().st_mtime_ns > before[MODIFIED]:
        return None
    return before.get(CHANGED) if before["sha256"] == reading.sha256 else before["sha256"]


def _source_schema(reading: Reading, spec: ModelSpec, changed_from: str | None) -> Check:
    if not reading.problems and changed_from is not None:
        text = (
            f"The file has changed without being newer: when it was ingested before, its SHA-256 was {changed_from}, "
            f"now it is {reading.sha256}. It was damaged in storage, or replaced by a copy that keeps times. Compare "
            "it with the publisher's, and fetch it again when it differs; `touch` it when it is right."
        )
        metadata = {"variant": reading.variant, "sha256_before": changed_from}
        return Check("source_schema", False, text, "WARN", metadata)
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
    text = " ".join(str(problem) for problem in reading.problems)
    set_aside = all(problem.set_aside for problem in reading.problems)
    if set_aside:
        text = (
            f"{reading.rejected_rows:,} rows were set aside (source.tolerance is {spec.source.tolerance:g}); "
            f"{spec.name}.{spec.rejected_table} holds them. {text}"
        )
    return Check(
        "source_schema",
        False,
        text,
        "WARN" if set_aside else "ERROR",
        metadata={
            "problems": table(rows),
            "variant": reading.variant,
            "rows_set_aside": reading.rejected_rows,
            "tolerance": spec.source.tolerance,
        },
    )


def _in_period(reading: Reading, source: Source, period: str) -> Check:
    outside = reading.outside
    if outside is None or not outside.file_rows:
        return Check("in_period", True, "There is no time in the rows to compare with the period.")
    rows = outside.rows + outside.unknown
    share = rows / outside.file_rows
    metadata = {
        "rows_outside": outside.rows,
        "rows_without_time": outside.unknown,
        "share": share,
        "threshold": OUTSIDE_FATAL,
        "tolerated": OUTSIDE_TOLERATED,
        "first": str(outside.first),
        "last": str(outside.last),
    }
    if source.per_period:
        text = (
            f"{rows:,} of {outside.file_rows:,} rows ({share:.2%}) have a {source.time_column} outside {period}: "
            f"it runs from {outside.first} to {outside.last}."
        )
        what = f"{text} Rows of {period} are expected; is it the file of another period? Replace it."
    elif rows:
        text = what = (
            f"{rows:,} of the file's {outside.file_rows:,} rows ({share:.2%}) have no {source.time_column} that can be "
            "read, so they are in no period. A time is expected in each: correct the source, or leave such rows out "
            "by a source.query."
        )
    else:
        text = what = f"All {outside.file_rows:,} rows of the file have a {source.time_column}."
    if share > OUTSIDE_FATAL:
        return Check("in_period", False, what, metadata=metadata)
    return Check("in_period", share <= OUTSIDE_TOLERATED, text, "WARN", metadata)


def _same_rows_elsewhere(bench: Workbench, period: str, reading: Reading) -> str | None:
    """Another period that was made from this very file, or from one with these very rows; None for a file of all
    periods.
    """
    spec = bench.spec
    if not spec.source.per_period or not reading.rows:
        return None
    for other in bench.lake.periods(spec.name, spec.raw_table):
        known = bench.find(spec.raw_table, other) if other != period else None
        if (
            known is None
            or known.damaged
            or not (
                known.facts.get("sha256") == reading.sha256
                or (reading.rows_digest is not None and known.facts.get("rows_digest") == reading.rows_digest)
            )
        ):
            continue
        # Of two periods with the same file the one that was refused for it is the copy, whichever is made again.
        if known.facts.get("quality_failure") is None:
            return other
    return None


def _volume(bench: Workbench, period: str, reading: Reading, copied_from: str | None) -> Check:
    spec = bench.spec
    rows, copies = reading.rows, reading.duplicates
    earlier = [known for known in bench.lake.periods(spec.name, spec.raw_table) if known < period][-VOLUME_PERIODS:]
    found = bench.readable(spec.raw_table, earlier)
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
            f"The file has the same rows as the one of {copied_from}; a file of {period} is expected. Fetch it again."
        )
        return Check("volume", False, text, metadata=metadata | {"same_as": copied_from})
    if copies / rows >= COPIES_FATAL - 1e-9:
        text = (
            f"{copies:,} of {rows:,} rows are copies of another row; is the file's content doubled? Replace the file."
        )
        return Check("volume", False, text, metadata=metadata | {"threshold": COPIES_FATAL})
    if spec.source.max_missing_days is not None:
        metadata["days_without_rows"] = ", ".join(map(str, reading.missing_days)) or "none"
        if len(reading.missing_days) > spec.source.max_missing_days:
            text = (
                f"{len(reading.missing_days)} days of {period} have no row ({metadata['days_without_rows']}); at most "
                f"{spec.source.max_missing_days} are expected (source.max_missing_days). Complete the file."
            )
            return Check("volume", False, text, metadata=metadata)
    if copies / rows > COPIES_SUSPECT:
        text = f"{copies:,} of {rows:,} rows are copies of another row."
        return Check("volume", False, text, "WARN", metadata | {"threshold": COPIES_SUSPECT})
    if usual is not None and not usual / VOLUME_FACTOR <= rows <= usual * VOLUME_FACTOR:
        text = (
            f"{rows:,} rows; the median of the {len(counts)} periods before is {usual:,.0f}, "
            f"and more than {VOLUME_FACTOR:g} times fewer or more is unusual."
        )
        return Check("volume", False, text, "WARN", metadata)
    if reading.missing_days:
        text = (
            f"No row in {period} of {metadata['days_without_rows']}. Up to {spec.source.max_missing_days} days may be "
            "missing (source.max_missing_days), so it counts as complete; if this was no holiday, complete the file."
        )
        return Check("volume", False, text, "WARN", metadata)
    return Check("volume", True, f"{rows:,} rows.", metadata=metadata)
