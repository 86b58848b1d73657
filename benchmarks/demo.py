"""The demonstration: eight months of green_taxi by one command."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.measurement import Measurement
from benchmarks.process import command, script

TITLE = "The demonstration"
METHOD = "`mlops-assets demo`, the work of `make demo` once the environment is there: one process, a fresh MLOPS_HOME."


def run(quick: bool) -> list[Measurement]:
    with tempfile.TemporaryDirectory(prefix="mlops_bench_") as scratch:
        if quick:
            one = ["backfill", "green_taxi", "2022-08..2022-10"]
            seconds = command([script("mlops-assets"), *one], Path(scratch) / "home")
            return [Measurement("three of the eight months", seconds, "s")]
        seconds = command([script("mlops-assets"), "demo"], Path(scratch) / "home")
    return [Measurement("mlops-assets demo, eight months", seconds, "s", 300)]
