"""The months of green_taxi as plain calls of the steps, without Dagster: what the other figures are compared with."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from benchmarks.process import PROJECT, peak_memory
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.workbench import Workbench

MODEL = "green_taxi"


def declaration() -> tuple[ModelSpec, str]:
    """The shipped declaration of green_taxi, and its SQL."""
    import yaml

    folder = PROJECT / "mlops_assets" / "defs" / MODEL
    spec = ModelSpec.model_validate(yaml.safe_load((folder / "defs.yaml").read_text())["attributes"])
    return spec, (folder / spec.features).read_text()


@contextmanager
def workbench(period: str) -> Iterator[Workbench]:
    """A workbench for one period with its MLflow run open, as the period's job has it."""
    from mlops_assets.home import Home
    from mlops_assets.incidents.store import Store
    from mlops_assets.lake.connection import connect
    from mlops_assets.lake.store import Lake
    from mlops_assets.monitored_model.workbench import PeriodRun
    from mlops_assets.training import tracking

    spec, sql = declaration()
    home = Home.from_env()
    lake = Lake(home.lake_url)
    tracking.initialise(home.tracking_uri, home.artifacts)
    client = tracking.client(home.tracking_uri)
    experiment = tracking.experiment(client, MODEL, home.artifacts)
    with tracking.open_run(client, experiment, period) as run_id, connect(lake, read_views=False) as con:
        run = PeriodRun(client, experiment, run_id)
        yield Workbench(spec=spec, sql=sql, home=home, lake=lake, con=con, store=Store(home.store_url), period_run=run)


def step_paths() -> dict[str, str]:
    """The module of each asset's step, by the asset's name, in an order in which they can run."""
    from mlops_assets.monitored_model.graph import graph

    return {asset.name: asset.step for asset in graph(declaration()[0])}


def run_steps(period: str, assets: Sequence[str]) -> dict[str, float]:
    """Make the assets of a period, in the given order; seconds of each step's call, `stores` those of opening them."""
    paths = step_paths()
    seconds = {}
    started = time.perf_counter()
    with workbench(period) as bench:
        seconds["stores"] = time.perf_counter() - started
        for asset in assets:
            started = time.perf_counter()
            import_module(f"mlops_assets.monitored_model.steps.{paths[asset]}").make(bench, period)
            seconds[asset] = time.perf_counter() - started
    return seconds


def months(periods: Sequence[str], assets: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Worker: make the periods, one at a time; after each its seconds by asset, CPU seconds and memory peak (MB)."""
    wanted = list(assets or step_paths())
    for period in periods:
        used = time.process_time()
        with peak_memory() as memory:
            seconds = run_steps(period, wanted)
        yield {"seconds": seconds, "cpu": time.process_time() - used, "peak": memory["peak"]}
