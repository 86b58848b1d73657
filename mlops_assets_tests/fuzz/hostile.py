"""The tiny model with hostile column names and values, and a month in which the hostile values change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.lake.store import identifier
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets_tests import rides_graph, tiny_model

MARK = "document.title='owned'"
FEE = f'fee (km) %[x] <img src=x onerror="{MARK}"> \x1b[31m'
ZONE = f"</script><script>{MARK}</script> \u202e'; DROP TABLE rides; -- [/] {{0}}"
VALUES = (
    f"</script><script>{MARK}</script>",
    f'<img src=x onerror="{MARK}">',
    "[/] [bold red]",
    "\x1b]0;owned\x07\x1b[2J",
    "'; DROP TABLE rides; --",
)
NEW_VALUES = (
    f'<svg onload="{MARK}">',
    "\u202egnp.exe\u2028",
    f"[click](javascript:{MARK}) ![x](http://192.0.2.1/x.png)",
    "=cmd|' /C calc'!A0",
    "%s %n {0} ${x} `id` $(id)",
)
MONTHS = ("2021-01", "2021-02", "2021-03", "2021-04", "2021-05")
TURNED = "2021-04"


def spec() -> ModelSpec:
    """The declaration, with two of its columns called otherwise."""
    schema = tiny_model.SPEC["source"]["schema"]
    renamed = {"fee": FEE, "zone": ZONE}
    named = {renamed.get(name, name): "VARCHAR" if name == "zone" else kind for name, kind in schema.items()}
    columns = {renamed.get(name, name): rules for name, rules in tiny_model.SPEC["columns"].items()}
    return tiny_model.spec(
        end=MONTHS[-1], source={**tiny_model.SPEC["source"], "schema": named}, columns=columns, segments=[ZONE]
    )


def sql() -> str:
    """The query of the features."""
    listed = ", ".join(identifier(name) for name in ("record_id", "started_at", "fare", FEE, ZONE))
    return f"SELECT {listed}, hour(started_at) AS hour, (payment = 2)::INTEGER AS is_cash FROM raw_rides WHERE fare > 0"


def definitions() -> dg.Definitions:
    """The model's Dagster definitions."""
    return rides_graph.definitions(spec(), sql())


def write_rides(data: Path, periods: Sequence[str] = MONTHS) -> None:
    """Write the months' files; from `TURNED` on every zone is called otherwise."""
    (data / "rides").mkdir(parents=True, exist_ok=True)
    for period in periods:
        rides = tiny_model.rides(period)
        names = NEW_VALUES if period >= TURNED else VALUES
        zones = pa.array([names[zone % len(names)] for zone in rides["zone"].to_pylist()])
        columns = [zones if name == "zone" else rides[name] for name in rides.column_names]
        renamed = [{"fee": FEE, "zone": ZONE}.get(name, name) for name in rides.column_names]
        pq.write_table(pa.table(columns, names=renamed), data / "rides" / f"{period}.parquet")
