"""The whole history of each shipped model by one backfill: time for a period, memory, overhead over the work."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.backfill import finished
from benchmarks.measurement import Measurement
from benchmarks.process import command, script, worker

TITLE = "Whole histories"
METHOD = """\
For each shipped model the work of `mlops-assets backfill MODEL FROM..TO` over all its periods, in one process with a
fresh MLOPS_HOME; ed_admission's months are simulated before. The time within the calls of the steps is measured in
that same process: it is the work itself, MLflow logging, pictures and Evidently page included. What remains is the
overhead: loading the definitions, opening the stores, Dagster's runs, events and checks, and the reconciling after
each period. It is fixed, about the same for each period, so it weighs the more the less there is to do: the weeks of
unit_sales have 118 rows."""
MODELS: dict[str, tuple[str, str]] = {
    "green_taxi": ("2021-01", "2023-03"),
    "bank_marketing": ("2008-05", "2010-11"),
    "ed_admission": ("2025-01", "2025-12"),
    "unit_sales": ("2014-01-06", "2018-12-24"),
}
SIMULATED = {"ed_admission": ("--rows", "4000", "--months", "12")}
OVERHEAD = 1.15
QUICK_PERIODS = 4


def run(quick: bool) -> list[Measurement]:
    found = []
    for model, (first, last) in MODELS.items():
        with tempfile.TemporaryDirectory(prefix="mlops_bench_") as scratch:
            home = Path(scratch) / "home"
            if model in SIMULATED:
                command([script("mlops-assets"), "simulate", model, *SIMULATED[model]], home)
            found += _history(model, first, last, home, QUICK_PERIODS if quick else None)
    return found


def _history(model: str, first: str, last: str, home: Path, at_most: int | None) -> list[Measurement]:
    started = time.perf_counter()
    with worker("benchmarks.histories:periods", home, model=model, first=first, last=last, at_most=at_most) as ours:
        next(ours)  # the definitions are loaded
        runs = list(ours)
        total = time.perf_counter() - started
    made = [finished(one) for one in runs]
    steps = sum(one["steps"] for one in made)
    return [
        Measurement(f"{model}: backfill of {len(made)} periods ÷ the steps' calls in it", total / steps, "×", OVERHEAD),
        Measurement(f"{model}: whole backfill", total, "s"),
        Measurement(f"{model}: a period (median)", statistics.median(one["seconds"] for one in made), "s"),
        Measurement(f"{model}: beyond the steps' calls, a period", (total - steps) / len(made), "s"),
        Measurement(f"{model}: peak memory", max(one["peak"] for one in made), "MB"),
    ]


def periods(model: str, first: str, last: str, at_most: int | None) -> Iterator[dict[str, Any]]:
    """Worker: what the command line does, a period at a time, with the seconds within the steps' calls."""
    from mlops_assets.home import Home
    from mlops_assets.lake.periods import Calendar

    Home.from_env().prepare_dagster()
    from mlops_assets.definitions import defs
    from mlops_assets.monitored_model import assets
    from mlops_assets.monitored_model.backfill import backfill

    spent = 0.0
    load = assets._load

    def timed(step: str) -> assets.Step:
        make = load(step)

        def call(bench: Any, period: str) -> Any:
            nonlocal spent
            began = time.perf_counter()
            try:
                return make(bench, period)
            finally:
                spent += time.perf_counter() - began

        return call

    assets._load = timed
    definitions = defs()
    wanted: Sequence[str] = Calendar("weekly" if len(first) > len("2021-01") else "monthly").between(first, last)
    yield {}
    results = backfill(definitions, model, wanted[:at_most])
    while True:
        before, began = spent, time.perf_counter()
        result = next(results, None)
        if result is None:
            return
        answer = {"outcome": result.outcome, "errors": result.errors, "steps": spent - before}
        yield answer | {"seconds": time.perf_counter() - began, "peak": _peak_so_far()}


def _peak_so_far() -> float:
    """Largest resident memory of this process until now, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
