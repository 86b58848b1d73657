"""What a backfill costs beyond the work itself: process start, definitions, Dagster's runs, events and checks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measurement import Measurement
from benchmarks.process import worker
from benchmarks.steps import MODEL

TITLE = "Backfill of twelve months"
METHOD = """\
The numerator is the work of `mlops-assets backfill green_taxi 2021-01..2021-12`: a process starts, loads the
definitions and runs `backfill()`, every month a run of the period's job on a Dagster instance of its own. The
denominator is the sum of the plain calls of the steps in another process, which do the same work on another lake,
MLflow logging and Evidently page included, with the opening of the stores that they write to; the start of that
process is not counted. The two take turns month by month, so that whatever else the machine does slows both."""
MONTHS = [f"2021-{month:02}" for month in range(1, 13)]


def run(quick: bool) -> list[Measurement]:
    periods = MONTHS[:4] if quick else MONTHS
    with (
        tempfile.TemporaryDirectory(prefix="mlops_bench_") as scratch,
        worker("benchmarks.steps:months", Path(scratch) / "steps", periods=periods) as plain,
    ):
        started = time.perf_counter()
        with worker("benchmarks.backfill:runs", Path(scratch) / "backfill", periods=periods) as ours:
            start_cpu = float(next(ours)["cpu"])
            start = time.perf_counter() - started
            calls, runs = [], []
            for _ in periods:
                calls.append(next(plain))
                runs.append(finished(next(ours)))
    stores = sum(call["seconds"].pop("stores") for call in calls)
    steps = sum(sum(call["seconds"].values()) for call in calls)
    total = start + sum(one["seconds"] for one in runs)
    cpu = (start_cpu + sum(one["cpu"] for one in runs)) / sum(call["cpu"] for call in calls)
    count = len(periods)
    return [
        Measurement(f"backfill of {count} months ÷ the same calls", total / (steps + stores), "×", 1.15),
        Measurement("the same ratio in CPU seconds", cpu, "×"),
        Measurement(f"backfill of {count} months", total, "s"),
        Measurement("process start and definitions, within the backfill", start, "s"),
        Measurement("the steps' calls", steps, "s"),
        Measurement("opening the stores for the calls (imports MLflow, makes its database)", stores, "s"),
    ]


def finished(result: dict[str, Any]) -> dict[str, Any]:
    """The result of a run that did not fail; the time of one that did means nothing."""
    if result["outcome"] == "failed":
        raise RuntimeError(f"a run failed, so its time means nothing: {result['errors']}")
    return result


def runs(periods: Sequence[str]) -> Iterator[Any]:
    """Worker: what the command line does, a period at a time; its first answer says that the definitions are there."""
    from mlops_assets.home import Home

    Home.from_env().prepare_dagster()
    from mlops_assets.definitions import defs
    from mlops_assets.monitored_model.backfill import backfill

    definitions = defs()
    yield {"cpu": time.process_time()}
    used = time.process_time()
    for result in backfill(definitions, MODEL, list(periods)):
        cpu = time.process_time() - used
        yield {"outcome": result.outcome, "seconds": result.seconds, "cpu": cpu, "errors": result.errors}
        used = time.process_time()
