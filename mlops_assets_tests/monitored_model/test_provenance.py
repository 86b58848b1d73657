"""A partition knows what it was made from, and what it was made without."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest

from mlops_assets import monitoring
from mlops_assets.lake.store import Partition
from mlops_assets.monitored_model.provenance import made_otherwise, made_without, not_made_reason, provenance
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets_tests import tiny_model

MONTHS = ["2021-01", "2021-02", "2021-03", "2021-04"]
STEPS = (
    *("raw", "features", "profile", "challenger", "champion", "predictions", "drift_report"),
    *("fallback_predictions", "served_predictions", "performance"),
)


def make(bench: Workbench, period: str) -> list[tuple[str, str]]:
    """Make a period; what has become stale by it."""
    made = [import_module(f"mlops_assets.monitored_model.steps.{step}").make(bench, period) for step in STEPS]
    return [pair for outcome in made for pair in bench.stale_after(outcome.partition)]


def stale(bench: Workbench) -> dict[str, str]:
    return {line.period: line.stale for line in monitoring.periods(bench.lake, "rides") if line.stale}


def forget_what_was_absent(bench: Workbench) -> None:
    """Rewrite every partition as a home of an earlier version holds it: without the inputs that were not there."""
    for table in bench.lake.tables("rides"):
        for period in bench.lake.periods("rides", table):
            made = bench.lake.partition("rides", table, period)
            rows = bench.con.sql(f"SELECT * EXCLUDE (period) FROM {bench.scan(table, [period])}").to_arrow_table()
            facts = {name: value for name, value in made.facts.items() if name != "made_without"}
            bench.lake.write("rides", table, period, rows, reason=made.reason, facts=facts)


@pytest.mark.parametrize("home", ["of this version", "of an earlier version"])
def test_a_month_made_before_its_window_is_stale_when_the_window_comes(tmp_path, home):
    tiny_model.write_rides(tmp_path / "data", MONTHS)
    with tiny_model.workbench(tmp_path / "home", tmp_path / "data") as bench:
        make(bench, "2021-03")
        assert bench.partition("champion", "2021-03").facts["decision"] == "none"
        if home == "of an earlier version":
            forget_what_was_absent(bench)
        assert stale(bench) == {}
        told = make(bench, "2021-01") + make(bench, "2021-02")
        assert ("challenger", "2021-03") in told
        assert list(stale(bench)) == ["2021-03"]
        assert "features/2021-01" in stale(bench)["2021-03"]
        assert stale(bench)["2021-03"].endswith("made since")
        make(bench, "2021-03")
        assert bench.partition("champion", "2021-03").facts["decision"] == "first"
        assert stale(bench) == {}


def test_a_backfill_in_order_leaves_nothing_stale(tmp_path):
    tiny_model.write_rides(tmp_path / "data", MONTHS)
    with tiny_model.workbench(tmp_path / "home", tmp_path / "data") as bench:
        for period in MONTHS:
            assert make(bench, period) == []
            assert stale(bench) == {}


def test_inputs_that_were_absent_are_read_back_from_the_facts_or_the_reason():
    made = Partition("m", "challenger", "2021-03", "", 0, 0, "d", None, provenance({"features/2021-02": None}))
    assert made_without(made) == {"features/2021-02"}
    assert made_otherwise(made, "features/2021-02", "now")
    assert not made_otherwise(made, "features/2021-03", "now"), "an input that the record does not name"
    reason = f"no champion yet: no full window yet: {not_made_reason('features', '2014-01-06', '2014-01-13')}"
    earlier = replace(made, reason=reason, facts={"made_from": {}})
    assert made_without(earlier) == {"features/2014-01-06", "features/2014-01-13"}
    whole = replace(made, facts=provenance({"features/2021-02": "then"}))
    assert made_otherwise(whole, "features/2021-02", "now")
    assert not made_otherwise(whole, "features/2021-02", "then")
