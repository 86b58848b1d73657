"""A month turns severe, breaks or stays away: who serves it, who is told, and what people may decide about it.

All on copies of one history of the tiny model. Its fourth month is severe, with no healthy one before it; in `turned`
there is a seventh, severe again, that plan B serves.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.utils import make_new_run_id

from mlops_assets import monitoring
from mlops_assets.cli import main
from mlops_assets.home import sensor_seconds
from mlops_assets.incidents.lease import Lease
from mlops_assets.incidents.store import AlreadyResolved, Incident, UnknownIncident
from mlops_assets.lake.connection import connect
from mlops_assets.monitored_model import decisions
from mlops_assets.monitored_model.arrivals import arrivals, missing_periods
from mlops_assets.monitored_model.assets import build_assets
from mlops_assets.monitored_model.backfill import reconcile
from mlops_assets.monitored_model.dead_runs import SILENT_INTERVALS, fail_dead_runs
from mlops_assets.monitored_model.decisions import Refused
from mlops_assets.monitored_model.findings import performance_judged
from mlops_assets.monitored_model.gates import period_gate
from mlops_assets.monitored_model.jobs import CAUSE_TAG, DECISION_TAG, MODEL_TAG
from mlops_assets.monitored_model.outcome import Outcome
from mlops_assets.monitored_model.reconciling import (
    FIRST_PAUSE_INTERVALS,
    MAX_ATTEMPTS,
    Plan,
    Wanted,
    order_runs,
    paused_by,
    plan_b_runs,
    retrain_runs,
)
from mlops_assets.monitored_model.resources import PARTITION_TAG, RUN_LEASE, mlflow_period_run
from mlops_assets.monitored_model.sensors import platform_sensors
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.steps import profile as profile_step
from mlops_assets.monitored_model.versions import Identity
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets_tests import rides_graph, tiny_model
from mlops_assets_tests.monitored_model.conftest import MADE, TURNED, History, turn_again

SEVERE, AFTER, NEWEST, NEXT = MADE[3], MADE[4], MADE[5], TURNED
SERVED_COLUMNS = [
    *("record_id", "started_at", "score", "prediction", "prediction_source", "is_fallback", "fallback_reason"),
    *("fallback_rung", "source_period", "model_version", "champion_version_intended", "decision_id"),
]
LENIENT = {"warning": 90.0, "severe": 100.0, "share": 1.0, "important_share": 1.0, "novelty": 1.0}


def of_spec(history: History, **changes: Any) -> History:
    """The history under another declaration."""
    return replace(history, definitions=rides_graph.definitions(tiny_model.spec(**changes)))


def follow(history: History) -> list[tuple[str, str, str]]:
    """Do what the sensors would do; job, period and outcome of each run."""
    return [(r.job, r.period, r.outcome) for r in reconcile(history.definitions, "rides", history.instance)]


def incident(history: History, period: str, kind: str = "drift") -> Incident:
    (found,) = [one for one in history.store.incidents(model="rides", period=period) if one.kind == kind]
    return history.store.incident(found.id)


def alerts(history: History, period: str) -> list[str]:
    return [alert.kind for alert in history.store.alerts("rides") if alert.period == period]


def served(history: History, period: str) -> tuple[int, str | None]:
    """How many records are served, and by whom."""
    found = history.partition("served_predictions", period)
    return found.rows, found.facts.get("source")


def digest(history: History, period: str) -> str:
    return str(history.partition("drift_report", period).facts["report_digest"])


def world(history: History) -> dict[str, Any]:
    """All that a refused decision must leave alone."""
    store, tables = history.store, rides_graph.TABLES
    return {
        "lake": {table: history.digests(table) for table in tables},
        "accepts": store.accepts(),
        "orders": store.orders("rides"),
        "causes": store.causes("rides"),
        "incidents": store.incidents(),
        "alerts": store.alerts(),
        "aliases": history.aliases(),
    }


def materialize(history: History, spec: ModelSpec, name: str, period: str) -> None:
    """A click on Materialize of one asset."""
    result = dg.materialize(
        build_assets(spec, tiny_model.SQL),
        selection=[dg.AssetKey(["rides", name])],
        partition_key=period,
        resources={**rides_graph.shared_resources(), "mlflow_rides": mlflow_period_run("rides")},
        instance=history.instance,
    )
    assert result.success


# -- a severe month -------------------------------------------------------------------------------------------


def test_a_severe_month_opens_one_incident_in_its_own_run_and_tells_people_once(history: History) -> None:
    found = incident(history, SEVERE)
    assert [event.event for event in found.history] == ["opened", "closed"]
    assert (found.verdict, str(found.since)) == ("severe", "2021-04-13")
    assert found.run_id == history.results[SEVERE].run_id
    columns = {reason["column"]: reason for reason in found.reasons if "column" in reason}
    assert set(columns) == {"fee", "fare"}
    assert all(reason["value"] > reason["threshold"] for reason in columns.values())
    assert columns["fee"]["since"] == "2021-04-11"
    assert Counter(alerts(history, SEVERE)) == {"incident_opened": 1, "incident_resolved": 1, "champion_promoted": 1}
    assert {alert.state for alert in history.store.alerts()} == {"not configured"}


def test_the_next_quiet_month_under_the_newer_champion_closes_the_incident(history: History) -> None:
    found = incident(history, SEVERE)
    version = history.partition("drift_report", AFTER).facts["champion_version"]
    assert (found.state, found.resolved_by) == ("resolved", "mlops_assets")
    verdict = history.partition("drift_report", AFTER).facts["verdict"]
    assert found.resolved_why == f"{AFTER} is {verdict} under the newer champion, version {version}"
    assert history.store.incidents(state="open", kind="drift") == []


def test_plan_b_is_served_for_every_record_with_all_that_a_consumer_asks(turned: History) -> None:
    gate = period_gate(tiny_model.spec(), turned.lake, turned.store, TURNED)
    with connect(turned.lake) as con:
        columns = con.sql("SELECT * EXCLUDE (period) FROM rides.served_predictions LIMIT 0").columns
        constant = con.execute(
            "SELECT DISTINCT prediction_source, is_fallback, fallback_reason, fallback_rung, source_period, "
            "champion_version_intended, decision_id FROM rides.served_predictions WHERE period = ?",
            [TURNED],
        ).fetchall()
        found = con.execute(
            "SELECT count(*), count(DISTINCT s.record_id), count(f.record_id), min(s.score), max(s.score), "
            "count(DISTINCT s.score) FROM rides.served_predictions s "
            "LEFT JOIN rides.features f ON f.period = s.period AND f.record_id = s.record_id "
            "AND f.started_at = s.started_at WHERE s.period = ?",
            [TURNED],
        ).fetchone()
    assert columns == SERVED_COLUMNS
    intended = turned.partition("drift_report", TURNED).facts["champion_version"]
    assert constant == [("plan_b", True, gate.reason, "segment_rate", NEWEST, intended, gate.decision_id)]
    assert served(turned, TURNED) == (600, "plan_b")
    assert found is not None
    assert found[:3] == (600, 600, 600)
    assert 0 <= found[3] <= found[4] <= 1


@pytest.mark.parametrize("rung", ["previous_champion", "global_rate"])
def test_another_ladder_serves_the_severe_month_anew(rung: str, own_turned: History) -> None:
    other = of_spec(own_turned, plan_b=[rung])
    assert ("rides_serve", TURNED, "success") in follow(other)
    with connect(other.lake) as con:
        ((rows, scores, found, source, version),) = con.execute(
            "SELECT count(*), count(DISTINCT score), any_value(fallback_rung), any_value(source_period), "
            "any_value(model_version) FROM rides.served_predictions WHERE period = ?",
            [TURNED],
        ).fetchall()
    assert (rows, found) == (600, rung)
    if rung == "global_rate":
        assert (scores, source) == (1, NEWEST)
    else:
        assert scores > 100
        assert version not in (None, other.partition("drift_report", TURNED).facts["champion_version"])


def test_performance_compares_what_was_served_with_the_scores_of_the_champion(turned: History) -> None:
    with connect(turned.lake) as con:
        rows = con.execute(
            "SELECT period, source, value, rows FROM rides.performance WHERE metric = 'f1' AND segment IS NULL "
            "AND source IN ('champion', 'served') AND period IN (?, ?) ORDER BY ALL",
            [NEWEST, TURNED],
        ).fetchall()
    assert [(row[0], row[1], row[3]) for row in rows] == [
        (period, source, 600) for period in (NEWEST, TURNED) for source in ("champion", "served")
    ]
    assert rows[2][2] != rows[3][2], "plan B is not the champion"
    assert rows[0][2] == rows[1][2], "the champion is served"
    facts = turned.partition("performance", TURNED).facts
    assert (facts["value"], facts["served_value"]) == (pytest.approx(rows[2][2]), pytest.approx(rows[3][2]))


def test_making_the_severe_month_again_never_takes_plan_b_away_and_tells_nobody_twice(own_turned: History) -> None:
    before = world(own_turned)
    (result,) = own_turned.run(TURNED).values()
    assert (result.outcome, result.served_after) == ("success", ())
    after = world(own_turned)
    assert after["lake"].pop("challenger")[TURNED]  # it says whether the version was found again
    before["lake"].pop("challenger")
    assert after == before
    assert follow(own_turned) == []


# -- what people decide about it ------------------------------------------------------------------------------


def test_accepting_the_very_report_serves_the_champion_and_resolves_the_incident(own_turned: History) -> None:
    assert served(own_turned, NEXT) == (600, "plan_b")
    assert incident(own_turned, NEXT).state == "open"
    decisions.accept("rides", own_turned.lake, own_turned.store, NEXT, digest(own_turned, NEXT)[:8], "ann", "known")
    found = incident(own_turned, NEXT)
    assert (found.state, found.resolved_by, found.resolved_why) == ("resolved", "ann", "accepted: known")
    assert follow(own_turned) == [("rides_serve", NEXT, "success")]
    assert served(own_turned, NEXT) == (600, "champion")
    (accept,) = own_turned.store.accepts("rides")
    assert own_turned.partition("fallback_predictions", NEXT).reason == (
        f"not needed: the gate is champion (severe drift, accepted by ann on {accept.at:%Y-%m-%d %H:%M} UTC: known)"
    )
    assert follow(own_turned) == [], "what was done is not due any more"
    assert alerts(own_turned, NEXT).count("incident_resolved") == 1
    # Made again with the same data the report is the same, so the accept still counts.
    assert own_turned.run(NEXT)[NEXT].outcome == "success"
    assert served(own_turned, NEXT) == (600, "champion")


@pytest.mark.parametrize(
    ("period", "wrong", "said"),
    [
        (SEVERE, "0123456789abcdef", "is not the digest of the present report of rides 2021-04, which is"),
        (SEVERE, "short", "at least 8 characters"),
        (AFTER, None, "so there is nothing to accept"),
        ("2021-12", "0123456789abcdef", "rides has no drift report of 2021-12; make the period first"),
    ],
)
def test_an_accept_that_can_not_be_is_refused_and_changes_nothing(
    period: str, wrong: str | None, said: str, own_history: History
) -> None:
    before = world(own_history)
    named = wrong or digest(own_history, period)
    named = named if named != "short" else digest(own_history, period)[:7]
    with pytest.raises(Refused, match=said):
        decisions.accept("rides", own_history.lake, own_history.store, period, named, "ann", "trust me")
    assert world(own_history) == before


def test_resolving_an_incident_changes_no_gate_and_can_be_done_once(own_turned: History) -> None:
    number = incident(own_turned, NEXT).id
    gate = period_gate(tiny_model.spec(), own_turned.lake, own_turned.store, NEXT)
    closed = own_turned.store.resolve(number, "ann", "looked at it")
    assert (closed.state, closed.resolved_by) == ("resolved", "ann")
    assert period_gate(tiny_model.spec(), own_turned.lake, own_turned.store, NEXT) == gate
    assert follow(own_turned) == []
    with pytest.raises(AlreadyResolved, match="was resolved by ann"):
        own_turned.store.resolve(number, "bob", "me too")
    with pytest.raises(UnknownIncident, match="there is no incident 99"):
        own_turned.store.resolve(99, "bob", "me too")
    # The same finding again is no news.
    own_turned.run(NEXT)
    assert incident(own_turned, NEXT).state == "resolved"
    assert alerts(own_turned, NEXT).count("incident_opened") == 1


def test_pause_withholds_without_plan_b_until_a_person_accepts(own_turned: History) -> None:
    paused = of_spec(own_turned, on_severe="pause")
    spec = tiny_model.spec(on_severe="pause")
    (result,) = paused.run(NEXT).values()
    assert result.outcome == "withheld"
    # The first severe month is withheld now too: what is served follows the declaration.
    assert ("rides_serve", SEVERE, "withheld") in [(r.job, r.period, r.outcome) for r in result.served_after]
    for period in (SEVERE, NEXT):
        assert served(paused, period) == (0, None)
        assert "the gate is withheld" in str(paused.partition("fallback_predictions", period).reason)
    number = incident(paused, NEXT).id
    assert paused_by(spec, paused.store) == (
        f"rides is paused by incident {number} (drift in {NEXT}); resolve or accept it to go on"
    )
    assert paused_by(tiny_model.spec(), paused.store) is None, "with fallback nothing waits"
    assert skipped(paused, "rides_new_data") == paused_by(spec, paused.store)
    assert follow(paused) == [], "withheld is what the gate says"
    decisions.accept("rides", paused.lake, paused.store, NEXT, digest(paused, NEXT), "ann", "expected")
    assert paused_by(spec, paused.store) is None
    assert follow(paused) == [("rides_serve", NEXT, "success")]
    assert served(paused, NEXT) == (600, "champion")


def test_new_thresholds_switch_what_is_served_once_the_report_is_made_again(own_turned: History) -> None:
    lenient = of_spec(own_turned, drift=LENIENT)
    assert follow(lenient) == [], "the report in the lake still says severe"
    materialize(lenient, tiny_model.spec(drift=LENIENT), "drift_report", TURNED)
    assert lenient.partition("drift_report", TURNED).facts["verdict"] == "ok"
    assert served(lenient, TURNED) == (600, "plan_b")
    assert follow(lenient) == [("rides_serve", TURNED, "success")]
    assert served(lenient, TURNED) == (600, "champion")
    materialize(lenient, tiny_model.spec(), "drift_report", TURNED)
    assert incident(lenient, TURNED).state == "open", "found again after it was gone"
    assert follow(own_turned) == [("rides_serve", TURNED, "success")]
    assert served(own_turned, TURNED) == (600, "plan_b")


# -- broken and missing files ---------------------------------------------------------------------------------


def test_a_broken_month_is_quarantined_the_next_goes_on_and_the_repaired_file_heals_it(own_history: History) -> None:
    file = own_history.data / "rides" / f"{NEXT}.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-900])
    made = own_history.run(NEXT, "2021-08")
    assert [result.outcome for result in made.values()] == ["withheld", "success"]
    assert all(result.served_after == () for result in made.values()), "plan B does not serve a quarantined month"
    found = incident(own_history, NEXT, "quality")
    assert (found.state, found.verdict) == ("open", "quarantined")
    assert "truncated Parquet file" in found.reasons[0]["sentence"]
    assert alerts(own_history, NEXT).count("incident_opened") == 1
    assert own_history.partition("champion", NEXT).facts["decision"] == "retained"
    before = world(own_history)
    with pytest.raises(Refused, match="can't be accepted: quarantined: source_schema"):
        decisions.accept(
            "rides", own_history.lake, own_history.store, NEXT, digest(own_history, NEXT), "ann", "let it through"
        )
    assert world(own_history) == before
    file.write_bytes(content)
    spec = tiny_model.spec()
    (arrival,) = arrivals(spec, own_history.lake, [*MADE, NEXT, "2021-08"], {})
    assert (arrival.period, arrival.why) == (NEXT, "its file has changed since it was ingested")
    assert own_history.run(NEXT)[NEXT].outcome == "success"
    assert served(own_history, NEXT) == (600, "champion")
    healed = incident(own_history, NEXT, "quality")
    assert (healed.state, healed.resolved_why) == ("resolved", "the period's data passes its checks")
    lines = {line.period: line.stale for line in monitoring.periods(own_history.lake, "rides")}
    assert f"features/{NEXT}" in str(lines["2021-08"])
    assert {period: stale for period, stale in lines.items() if stale and period != "2021-08"} == {}
    assert own_history.run("2021-08")["2021-08"].outcome == "success"
    assert {line.stale for line in monitoring.periods(own_history.lake, "rides")} == {None}


def test_a_missing_month_is_one_outage_with_one_alert_however_it_is_noticed(own_history: History) -> None:
    spec, lake, store = tiny_model.spec(), own_history.lake, own_history.store
    file = own_history.data / "rides" / f"{NEXT}.parquet"
    content = file.read_bytes()
    file.unlink()
    known = [*MADE, NEXT]
    assert missing_periods(spec, lake, store, known, datetime(2021, 8, 10)) == [], "there are ten days of grace"
    for _ in range(2):
        assert missing_periods(spec, lake, store, known, datetime(2021, 8, 12)) == [NEXT]
    assert own_history.run(NEXT)[NEXT].outcome == "withheld"
    own_history.run(NEXT)
    found = incident(own_history, NEXT, "outage")
    assert (found.state, found.verdict) == ("open", "no data")
    assert alerts(own_history, NEXT) == ["data_outage"]
    assert str(own_history.partition("served_predictions", NEXT).reason).startswith("withheld: no data")
    assert [one for one in store.incidents(period=NEXT) if one.kind != "outage"] == []
    file.write_bytes(content)
    assert [arrival.period for arrival in arrivals(spec, lake, known, {})] == [NEXT]
    assert own_history.run(NEXT)[NEXT].outcome == "success"
    closed = incident(own_history, NEXT, "outage")
    assert (closed.state, closed.resolved_why) == ("resolved", "the period's data has arrived")


# -- retraining for a cause -----------------------------------------------------------------------------------


def test_on_alert_trains_for_a_cause_only_and_consumes_it_once(own_history: History) -> None:
    quiet = of_spec(own_history, retrain="on_alert")
    (result,) = quiet.run(NEXT).values()
    assert (result.outcome, result.served_after) == ("success", ())
    assert quiet.partition("challenger", NEXT).reason == "not retrained: there is no cause (retrain: on_alert)"
    champion = quiet.partition("champion", NEXT).facts
    assert (champion["decision"], champion["version"]) == (
        "retained",
        quiet.partition("champion", NEWEST).facts["version"],
    )

    cause = decisions.retrain("rides", quiet.lake, quiet.store, "ann", "new tariff")
    assert (cause.period, cause.consumed_by) == (NEXT, None)
    # A command that was killed before its run, and is run again, asks for nothing more.
    assert decisions.retrain("rides", quiet.lake, quiet.store, "ann", "new tariff") == cause
    assert follow(quiet) == [("rides_train", NEXT, "success")]
    facts = quiet.partition("challenger", NEXT).facts
    assert facts["causes"] == ["person: new tariff"]
    (known,) = quiet.store.causes("rides")
    assert (known.consumed_by, quiet.store.pending("rides")) == (NEXT, [])
    version = quiet.client.get_model_version("rides", facts["version"])
    tags = quiet.client.get_run(str(version.run_id)).data.tags
    assert "person in 2021-07: new tariff (ann)" in tags["retrained_because"]
    assert follow(quiet) == [], "a cause is acted upon once"

    # Made again, the period finds the version that the cause has made.
    quiet.run(NEXT)
    assert quiet.partition("challenger", NEXT).facts["version"] == facts["version"]
    # Another cause in the same period is another training.
    decisions.retrain("rides", quiet.lake, quiet.store, "bob", "again")
    assert follow(quiet) == [("rides_train", NEXT, "success")]
    again = quiet.partition("challenger", NEXT).facts
    assert (again["version"] != facts["version"], again["reused"]) == (True, False)
    assert quiet.run("2021-08")["2021-08"].served_after == ()
    assert quiet.partition("challenger", "2021-08").rows == 0, "causes belong to one period"


def test_a_retraining_that_dies_before_the_decision_leaves_its_cause_waiting(own_history: History) -> None:
    quiet = of_spec(own_history, retrain="on_alert")
    quiet.run(NEXT)
    decisions.retrain("rides", quiet.lake, quiet.store, "ann", "new tariff")
    quiet.definitions.resolve_job_def("rides_train").execute_in_process(
        partition_key=NEXT, instance=quiet.instance, asset_selection=[dg.AssetKey(["rides", "challenger"])]
    )
    assert quiet.partition("challenger", NEXT).rows == 1
    (cause,) = quiet.store.pending("rides")
    assert cause.why == "new tariff"
    assert follow(quiet) == [("rides_train", NEXT, "success")]
    assert quiet.partition("challenger", NEXT).facts["reused"], "the version that was trained before is found again"
    assert quiet.store.pending("rides") == []
    quiet.run(NEXT)
    assert follow(quiet) == []


def test_on_alert_a_severe_month_is_its_own_cause(own_history: History) -> None:
    turn_again(own_history)
    alert = of_spec(own_history, retrain="on_alert")
    (result,) = alert.run(NEXT).values()
    done = [(after.job, after.outcome) for after in result.served_after]
    (cause,) = alert.store.causes("rides")
    assert (cause.kind, cause.period, cause.consumed_by) == ("severe_drift", NEXT, NEXT)
    assert done == [("rides_serve", "success"), ("rides_train", "success")]
    facts = alert.partition("challenger", NEXT).facts
    assert (facts["trained_on"], facts["causes"]) == ("since_break", [f"severe_drift: {cause.why}"])
    alert.run(NEXT)
    assert len(alert.store.causes("rides")) == 1
    assert alert.partition("challenger", NEXT).facts["version"] == facts["version"]


def test_every_period_needs_no_cause_and_stores_none(history: History) -> None:
    assert history.store.causes("rides") == []


@pytest.mark.parametrize("other", [Identity("2", "b"), Identity("1", "b")], ids=["number", "number_given_again"])
def test_a_metric_that_hovers_around_its_limit_retrains_once(tmp_path: Path, other: Identity) -> None:
    months = [f"2021-{month:02}" for month in range(1, 9)]
    verdicts = ["ok", "severe", "warning", "severe", "ok", "severe", "severe", "severe"]
    versions = [Identity("1", "a")] * 7 + [other]
    rows = pa.table({"value": [1.0]})
    with tiny_model.workbench(tmp_path, tmp_path, tiny_model.spec(retrain="on_alert")) as bench:
        for _ in range(2):  # a period made again is no new cause
            for period, verdict, version in zip(months, verdicts, versions, strict=True):
                facts = {"version": version.number, "fingerprint": version.fingerprint, "verdict": verdict}
                bench.lake.write("rides", "performance", period, rows, facts=facts)
                performance_judged(bench, period, verdict, f"f1 of {period} is {verdict}", version)
        causes = bench.store.causes("rides")
        assert [(cause.kind, cause.period) for cause in causes] == [
            ("performance", "2021-02"),  # and not 2021-04: between them it was never below the warning limit
            ("performance", "2021-06"),
            ("performance", "2021-08"),  # another champion
        ]
        open_now = [one.period for one in bench.store.incidents(model="rides", state="open")]
    assert open_now == ["2021-06", "2021-07", "2021-08"], "the months before a good one are closed"


# -- the champion by hand -------------------------------------------------------------------------------------


def test_a_rollback_is_stored_and_the_alias_follows_it(own_history: History) -> None:
    present = own_history.partition("champion", NEWEST).facts["version"]
    previous = own_history.aliases()["previous_champion"]
    order = decisions.rollback("rides", own_history.lake, own_history.store, None, "ann", "worse for nights")
    assert (order.period, order.version) == (NEWEST, previous)
    assert own_history.aliases()["champion"] == present, "the decision's run moves it"
    assert follow(own_history) == [("rides_decide", NEWEST, "success")]
    facts = own_history.partition("champion", NEWEST).facts
    assert (facts["decision"], facts["version"]) == ("rolled_back", previous)
    assert facts["reason"].startswith("ann: worse for nights (the comparison said: ")
    assert own_history.aliases()["champion"] == previous
    assert alerts(own_history, NEWEST).count("champion_rolled_back") == 1
    assert follow(own_history) == []
    # Deciding the period again keeps what the person has decided; the next month is scored by that version.
    own_history.run(NEWEST, NEXT)
    assert own_history.partition("champion", NEWEST).facts["decision"] == "rolled_back"
    assert own_history.partition("predictions", NEXT).facts["version"] == previous
    assert alerts(own_history, NEWEST).count("champion_rolled_back") == 1


def test_a_promotion_by_hand_puts_any_registered_version_in_force(own_history: History) -> None:
    decisions.promote("rides", own_history.lake, own_history.store, "1", "ann", "the old world is back")
    assert follow(own_history) == [("rides_decide", NEWEST, "success")]
    facts = own_history.partition("champion", NEWEST).facts
    assert (facts["decision"], facts["version"]) == ("promoted_by_hand", "1")
    assert own_history.aliases()["champion"] == "1"


def test_an_order_that_can_not_be_followed_is_refused_and_changes_nothing(own_history: History) -> None:
    present = own_history.partition("champion", NEWEST).facts["version"]
    gone = own_history.partition("challenger", SEVERE).facts["version"]
    if gone == present:
        gone = "1"
    own_history.client.delete_model_version("rides", gone)
    lake, store = own_history.lake, own_history.store
    before = world(own_history)
    for refused, said in (
        (lambda: decisions.promote("rides", lake, store, "99", "ann", "why"), "version 99 of rides can't be put in"),
        (lambda: decisions.promote("rides", lake, store, gone, "ann", "why"), f"version {gone} of rides can't be put"),
        (lambda: decisions.rollback("rides", lake, store, gone, "ann", "why"), f"version {gone} of rides can't be put"),
        (lambda: decisions.promote("rides", lake, store, present, "ann", "why"), "is the champion of rides already"),
        (lambda: decisions.rollback("rides", lake, store, present, "ann", "why"), "is the champion of rides already"),
        (lambda: decisions.promote("rides", lake, store, None, "ann", "why"), "names the version"),
        (lambda: decisions.rollback("sales", lake, store, None, "ann", "why"), "sales has no champion yet"),
        (lambda: decisions.retrain("sales", lake, store, "ann", "why"), "sales has no period to train yet"),
    ):
        with pytest.raises(Refused, match=said):
            refused()
    assert world(own_history) == before


# -- runs that fail, runs that die ----------------------------------------------------------------------------


def test_plan_b_that_fails_is_tried_again_after_a_growing_pause_and_ends_in_an_incident(
    own_history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, instance = tiny_model.spec(), own_history.instance

    def plan(now: float | None = None) -> Plan:
        return plan_b_runs(spec, own_history.lake, own_history.store, instance, now=now)

    def broken(*_: object) -> None:
        raise OSError("no space left on device")

    own_history.withhold(SEVERE)
    monkeypatch.setattr("mlops_assets.plan_b.ladder.serve", broken)
    keys, ended = [], time.time()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        if attempt > 1:
            pause = FIRST_PAUSE_INTERVALS * sensor_seconds() * 2 ** (attempt - 2)
            early = plan(ended + pause - 5)
            assert early.runs == []
            assert early.message.startswith(f"{SEVERE}: attempt {attempt} in ")
            (wanted,) = plan(ended + pause + 5).runs
        else:
            (wanted,) = plan().runs
        keys.append(wanted.run_key)
        assert run_it(own_history, "rides_serve", wanted) == "FAILURE"
        ended = time.time()
        assert own_history.store.incidents(kind="plan_b_failed") == []
    assert len(set(keys)) == MAX_ATTEMPTS
    for _ in range(2):
        given_up = plan(ended + 1e6)
        assert given_up.runs == []
        assert given_up.message.endswith("see the incident plan_b_failed")
    found = incident(own_history, SEVERE, "plan_b_failed")
    assert found.reasons[0]["sentence"].startswith(f"{MAX_ATTEMPTS} runs that should serve {SEVERE} failed; the gate: ")
    opened = [alert for alert in own_history.store.alerts("rides") if "plan b failed" in alert.title]
    assert len(opened) == 1
    # Whoever makes the period again wants to see it served.
    (again,) = own_history.run(SEVERE).values()
    assert [(after.job, after.outcome) for after in again.served_after] == [("rides_serve", "failed")]


def test_a_cause_and_an_order_that_no_run_answers_end_in_incidents_that_close_when_one_does(
    own_history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, lake, store, instance = tiny_model.spec(), own_history.lake, own_history.store, own_history.instance
    decisions.retrain("rides", lake, store, "ann", "new tariff")
    decisions.promote("rides", lake, store, "1", "ann", "back")

    def broken(*_: object) -> None:
        raise OSError("no space left on device")

    long_after = time.time() + 1e6
    for planner, job, kind in (
        (order_runs, "rides_decide", "order_failed"),
        (retrain_runs, "rides_train", "retrain_failed"),
    ):
        with monkeypatch.context() as patch:
            for step in ("challenger", "champion"):
                patch.setattr(f"mlops_assets.monitored_model.steps.{step}.make", broken)
            keys = set()
            for attempt in range(1, MAX_ATTEMPTS + 1):
                (wanted,) = planner(spec, lake, store, instance, now=long_after).runs
                keys.add(wanted.run_key)
                assert run_it(own_history, job, wanted) == "FAILURE"
                if attempt < MAX_ATTEMPTS:
                    assert f"attempt {attempt + 1} in " in planner(spec, lake, store, instance).message
            assert len(keys) == MAX_ATTEMPTS
            for _ in range(2):
                given_up = planner(spec, lake, store, instance, now=long_after)
                assert (given_up.runs, given_up.message.endswith(f"see the incident {kind}")) == ([], True)
            assert incident(own_history, NEWEST, kind).state == "open"
        if kind == "retrain_failed":  # asked for again in the same words, it is tried again
            decisions.retrain("rides", lake, store, "ann", "new tariff")
            (wanted,) = planner(spec, lake, store, instance).runs
        # A person has freed the disk and starts the job by hand.
        assert run_it(own_history, job, replace(wanted, tags={})) == "SUCCESS"
        planner(spec, lake, store, instance)
        assert incident(own_history, NEWEST, kind).state == "resolved"
    opened = Counter(alert.kind for alert in store.alerts("rides"))
    assert opened["incident_opened"] >= 2


def run_it(history: History, job: str, wanted: Wanted) -> str:
    """Run what is wanted, as the daemon would; the run's status."""
    result = history.definitions.resolve_job_def(job).execute_in_process(
        partition_key=wanted.period, instance=history.instance, tags=wanted.tags, raise_on_error=False
    )
    return result.dagster_run.status.value if not result.success else "SUCCESS"


def started(instance: dg.DagsterInstance, period: str = NEXT, **tags: str) -> dg.DagsterRun:
    """A run that has been started, and of which nothing more is known."""
    run = dg.DagsterRun("rides_monthly", run_id=make_new_run_id(), tags={PARTITION_TAG: period, **tags})
    instance.add_run(run)
    instance.report_dagster_event(
        DagsterEvent(DagsterEventType.RUN_START.value, job_name=run.job_name), run.run_id, timestamp=time.time()
    )
    (found,) = instance.get_runs(dg.RunsFilter(run_ids=[run.run_id]))
    assert found.status is dg.DagsterRunStatus.STARTED
    return found


def test_a_click_whose_process_was_killed_is_marked_as_failed(own_history: History) -> None:
    instance, store = own_history.instance, own_history.store
    click = started(instance)  # runs of Dagster's own job carry no tag of ours
    with Lease(store, f"{RUN_LEASE}{click.run_id}/1", what="a test", ttl=1e6):
        assert fail_dead_runs(instance, store) == []
        with store.write() as connection:
            leases = store._t.leases
            dead = subprocess.Popen(["true"])
            dead.wait()
            connection.execute(leases.update().values(pid=dead.pid))
        assert fail_dead_runs(instance, store) == [click.run_id]


def test_a_started_run_without_a_sign_of_life_is_marked_as_failed(own_history: History) -> None:
    instance, store = own_history.instance, own_history.store
    silent = started(instance, SEVERE, **{MODEL_TAG: "rides"})
    foreign = started(instance)
    alive = started(instance, **{MODEL_TAG: "rides"})
    own_history.withhold(SEVERE)
    spec = tiny_model.spec()
    busy = plan_b_runs(spec, own_history.lake, store, instance)
    assert (busy.runs, busy.message) == ([], f"{SEVERE} is being made by run {silent.run_id[:8]}")
    with Lease(store, f"{RUN_LEASE}{alive.run_id}/1", what="a test"):
        assert fail_dead_runs(instance, store) == [], "it may still be about to give its first one"
        assert fail_dead_runs(instance, store, now=time.time() + SILENT_INTERVALS * sensor_seconds() + 1) == [
            silent.run_id
        ]
    statuses = {run.run_id: run.status.value for run in instance.get_runs()}
    assert statuses == {silent.run_id: "FAILURE", foreign.run_id: "STARTED", alive.run_id: "STARTED"}
    (wanted,) = plan_b_runs(spec, own_history.lake, store, instance).runs
    assert wanted.period == SEVERE, "its place is free"


# -- sensors --------------------------------------------------------------------------------------------------


def evaluated(history: History, name: str, cursor: str | None = None) -> Any:
    """What a sensor of the model answers to a tick."""
    sensor = history.definitions.get_repository_def().get_sensor_def(name)
    return ticked(history, sensor, cursor)


def ticked(history: History, sensor: dg.SensorDefinition, cursor: str | None = None) -> Any:
    with dg.build_sensor_context(
        instance=history.instance,
        cursor=cursor,
        resources={name: rides_graph.shared_resources()[name] for name in ("lake", "store")},
        repository_def=history.definitions.get_repository_def(),
    ) as context:
        return sensor.evaluate_tick(context)


def skipped(history: History, name: str, cursor: str | None = None) -> str | None:
    tick = evaluated(history, name, cursor)
    assert tick.run_requests == []
    return tick.skip_message


def requested(requests: Sequence[dg.RunRequest]) -> list[tuple[str | None, str | None, str | None, str | None]]:
    return [(r.run_key, r.partition_key, r.tags.get(CAUSE_TAG), r.tags.get(DECISION_TAG)) for r in requests]


def planned(plan: Plan) -> list[tuple[str | None, str | None, str | None, str | None]]:
    return [(w.run_key, w.period, w.tags.get(CAUSE_TAG), w.tags.get(DECISION_TAG)) for w in plan.runs]


def test_sensors_skip_with_a_sentence_when_nothing_is_due(own_history: History) -> None:
    for period in ("2021-07", "2021-08"):
        (own_history.data / "rides" / f"{period}.parquet").unlink()
    assert skipped(own_history, "rides_serving") == "what is served is what the gates say"
    assert skipped(own_history, "rides_retrain") == "there is no cause for retraining"
    assert skipped(own_history, "rides_champion_orders") == "nobody has ordered a champion"
    assert str(skipped(own_history, "rides_new_data")).startswith("no data of 2021-07, 2021-08, ")


def test_sensors_ask_for_what_reconciling_says_and_duplicate_ticks_have_the_same_keys(own_history: History) -> None:
    own_history.withhold(SEVERE)
    store, lake, instance = own_history.store, own_history.lake, own_history.instance
    decisions.retrain("rides", lake, store, "ann", "new tariff")
    decisions.promote("rides", lake, store, "1", "ann", "back")
    for name, planner in (
        ("rides_serving", plan_b_runs),
        ("rides_retrain", retrain_runs),
        ("rides_champion_orders", order_runs),
    ):
        wanted = planner(tiny_model.spec(), lake, store, instance)
        assert len(wanted.runs) == 1
        for _ in range(2):
            assert requested(evaluated(own_history, name).run_requests) == planned(wanted)
    (request,) = evaluated(own_history, "rides_serving").run_requests
    gate = period_gate(tiny_model.spec(), lake, store, SEVERE)
    assert request.run_key == f"{SEVERE}:{gate.decision_id}:1"
    assert request.tags["mlops/incident"] == str(incident(own_history, SEVERE).id)
    # While a run of the period is under way nothing is asked for.
    started(instance, SEVERE, **{MODEL_TAG: "rides"})
    assert str(skipped(own_history, "rides_serving")).startswith(f"{SEVERE} is being made by run ")


def test_the_new_data_sensor_asks_once_for_each_content_of_a_file(own_history: History) -> None:
    (own_history.data / "rides" / "2021-08.parquet").unlink()
    tick = evaluated(own_history, "rides_new_data")
    (request,) = tick.run_requests
    assert (request.partition_key, request.tags[CAUSE_TAG]) == (NEXT, f"{NEXT}: its file has arrived")
    again = evaluated(own_history, "rides_new_data", tick.cursor)
    assert [r.run_key for r in again.run_requests] == [request.run_key]
    assert set(json.loads(tick.cursor)) == set(MADE), "what was found ingested is not read again"
    own_history.run(NEXT)
    tick = evaluated(own_history, "rides_new_data", tick.cursor)
    assert tick.run_requests == []
    tiny_model.write_rides(own_history.data, [NEXT], since=rides_graph.BREAK, seed=5)
    (changed,) = evaluated(own_history, "rides_new_data", tick.cursor).run_requests
    assert changed.partition_key == NEXT
    assert changed.run_key != request.run_key


def test_the_sensors_of_the_platform_say_what_they_did(own_history: History) -> None:
    alerts_sensor, dead_runs, _ = platform_sensors()
    own_history.store.announce("infrastructure_failure", "rides", NEXT, "a title", "a body", "key")
    assert ticked(own_history, alerts_sensor).skip_message == "0 alerts sent, 0 failed and will be tried again, 0 wait"
    assert own_history.store.alerts("rides")[-1].state == "not configured"
    assert ticked(own_history, dead_runs).skip_message == "every started run gives signs of life"


def test_a_run_that_fails_is_told_once_and_a_withheld_one_is_not(
    own_history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = profile_step.make

    def fails_in_july(bench: Workbench, period: str) -> Outcome:
        if period == NEXT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return make(bench, period)

    monkeypatch.setattr(profile_step, "make", fails_in_july)
    own_history.withhold(SEVERE)
    made = own_history.run(SEVERE, NEXT)
    assert [result.outcome for result in made.values()] == ["withheld", "failed"]
    follow(own_history)
    told = [alert for alert in own_history.store.alerts("rides") if alert.kind == "infrastructure_failure"]
    assert [(alert.period, alert.title) for alert in told] == [(NEXT, f"rides {NEXT}: the run of rides_monthly failed")]


def test_the_failures_sensor_tells_of_what_failed_before_its_first_tick_and_of_each_run_once(
    own_history: History,
) -> None:
    failures = platform_sensors()[2]
    run = started(own_history.instance, NEXT, **{MODEL_TAG: "rides"})
    own_history.instance.report_run_failed(run, "its disk is full")
    tick = ticked(own_history, failures)
    assert tick.skip_message == f"told of {run.run_id[:8]}"
    for cursor in (tick.cursor, None):
        again = ticked(own_history, failures, cursor)
        assert again.skip_message == "no run has failed since the last look"
    later = started(own_history.instance, SEVERE, **{MODEL_TAG: "rides"})
    own_history.instance.report_run_failed(later, "killed")
    assert ticked(own_history, failures, tick.cursor).skip_message == f"told of {later.run_id[:8]}"
    told = [alert.period for alert in own_history.store.alerts("rides") if alert.kind == "infrastructure_failure"]
    assert told == [NEXT, SEVERE]


def test_a_repaired_month_says_in_dagster_which_later_ones_were_made_without_it(own_history: History) -> None:
    tiny_model.write_rides(own_history.data, [AFTER], since=rides_graph.BREAK, seed=6)
    assert own_history.run(AFTER)[AFTER].outcome == "success"
    instance = own_history.instance

    later = dg.AssetRecordsFilter(dg.AssetKey(["rides", "challenger"]), asset_partitions=[NEWEST])
    told = [record.asset_observation for record in instance.fetch_observations(later, limit=5).records]
    sentences = {str(one.metadata["stale"].value).partition(" was made with")[0] for one in told if one is not None}
    assert sentences == {f"features of {AFTER}", f"profile of {AFTER}"}
    made = materialization(own_history, "features", AFTER)
    assert f"challenger of {NEWEST}" in str(made.metadata["made_stale"].value)


def materialization(history: History, table: str, period: str) -> dg.AssetMaterialization:
    """The newest of a period."""
    wanted = dg.AssetRecordsFilter(dg.AssetKey(["rides", table]), asset_partitions=[period])
    (record,) = history.instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization is not None
    return record.asset_materialization


def test_the_assets_of_a_severe_month_show_its_gate_its_verdict_and_its_incident(history: History) -> None:
    made = materialization(history, "served_predictions", SEVERE)
    assert made.metadata["gate"].value == "plan_b"
    shown = str(made.metadata["incidents"].value)
    assert f"mlops-assets incidents show {incident(history, SEVERE).id}" in shown
    assert "| drift |" in shown
    assert " open " not in shown, "what changes later is not stored"
    assert "resolved" not in shown


# -- the command line -----------------------------------------------------------------------------------------


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_incidents_are_listed_shown_and_resolved(told: History) -> None:
    assert command("incidents", "list").output == "No open incident.\n1 resolved: mlops-assets incidents list --all\n"
    everything = command("incidents", "list", "rides", "--all").output
    assert "severe" in everything
    assert SEVERE in everything
    digest = told.lake.partition("rides", "drift_report", SEVERE).facts["report_digest"][:16]
    (drift,) = told.store.incidents(model="rides", period=SEVERE, kind="drift")
    asked = command("incidents", "show", str(drift.id)).output
    assert (f"rides {SEVERE} --digest {digest} " in asked) == (drift.state == "open")
    opened = told.store.found(
        "rides", NEWEST, "performance", verdict="severe", reasons=[{"sentence": "f1 fell"}], evidence="x"
    )
    number = str(opened.id)
    assert "f1 fell" in command("incidents", "list", "rides").output
    shown = command("incidents", "show", number).output
    assert f"Incident {number}: performance in rides {NEWEST}, open" in shown
    assert "  - f1 fell" in shown
    assert command("incidents", "resolve", number).exit_code == 2, "a reason is asked for"
    resolved = command("incidents", "resolve", number, "--why", "labels were late", "--by", "ann")
    assert (resolved.exit_code, resolved.output) == (0, f"Incident {number} is resolved.\n")
    assert "resolved by ann: labels were late" in command("incidents", "show", number).output
    for arguments, said in (
        (("incidents", "resolve", number, "--why", "again"), "was resolved by ann"),
        (("incidents", "resolve", number, "--why", " "), "why is ' '"),
        (("incidents", "resolve", "99", "--why", "x"), "there is no incident 99"),
        (("incidents", "show", "99"), "there is no incident 99"),
    ):
        refused = command(*arguments)
        assert (refused.exit_code, said in refused.output) == (1, True), refused.output
        assert refused.output.startswith("Error: ")


def test_accept_from_the_command_line_serves_at_once(told: History) -> None:
    refused = command("incidents", "accept", "rides", SEVERE, "--digest", "0123456789", "--why", "x")
    assert refused.exit_code == 1
    assert "is not the digest of the present report of rides 2021-04" in refused.output
    assert (
        "no model is called 'taxi'"
        in command("incidents", "accept", "taxi", SEVERE, "--digest", "0", "--why", "x").output
    )
    accepted = command("incidents", "accept", "rides", SEVERE, "--digest", digest(told, SEVERE)[:16], "--why", "known")
    assert accepted.exit_code == 0, accepted.output
    assert f"done: rides_serve {SEVERE}  success" in accepted.output
    version = told.partition("predictions", SEVERE).facts["version"]
    assert accepted.output.endswith(f"rides {SEVERE} is accepted and served by the champion, version {version}.\n")
    assert served(told, SEVERE) == (600, "champion")


def test_the_champion_is_shown_rolled_back_and_promoted_from_the_command_line(told: History) -> None:
    history = command("champion", "history", "rides").output
    assert all(period in history for period in MADE)
    shown = command("champion", "show", "rides").output
    assert NEWEST in shown
    assert SEVERE not in shown
    present = told.partition("champion", NEWEST).facts["version"]
    back = command("champion", "rollback", "rides", "--why", "worse for nights", "--by", "ann")
    assert back.exit_code == 0, back.output
    assert "rolled back" in back.output
    assert told.aliases()["champion"] != present
    by_hand = command("champion", "promote", "rides", present, "--why", "the old world is back", "--by", "ann")
    assert by_hand.exit_code == 0, by_hand.output
    assert told.aliases()["champion"] == present
    for arguments, said in (
        (("champion", "promote", "rides", "99", "--why", "x"), "version 99 of rides can't be put in force"),
        (
            ("champion", "promote", "rides", present, "--why", "x"),
            f"version {present} is the champion of rides already",
        ),
        (("champion", "rollback", "rides", "--to", present, "--why", "x"), "is the champion of rides already"),
        (("champion", "show", "taxi"), "taxi has no decision yet"),
    ):
        refused = command(*arguments)
        assert (refused.exit_code, said in refused.output) == (1, True), refused.output


def test_retrain_from_the_command_line_trains_the_newest_period_for_the_reason(told: History) -> None:
    done = command("retrain", "rides", "--why", "new tariff", "--by", "ann")
    assert done.exit_code == 0, done.output
    assert f"done: rides_train {NEWEST}  success" in done.output
    assert told.partition("challenger", NEWEST).facts["causes"] == ["person: new tariff"]
    refused = command("retrain", "taxi", "--why", "x")
    assert (refused.exit_code, "no model is called 'taxi'" in refused.output) == (1, True)
    assert [cause.consumed_by for cause in told.store.causes("rides")] == [NEWEST]


def test_every_decision_job_stores_who_when_and_why(own_history: History) -> None:
    jobs = own_history.definitions
    done = jobs.resolve_job_def("rides_accept_period").execute_in_process(
        run_config={
            "ops": {
                "rides_accept_period_op": {
                    "config": {
                        "period": SEVERE,
                        "report_digest": digest(own_history, SEVERE),
                        "by": "ann",
                        "why": "known",
                    }
                }
            }
        },
        instance=own_history.instance,
    )
    assert done.success
    (accept,) = own_history.store.accepts("rides")
    assert (accept.period, accept.by, accept.why) == (SEVERE, "ann", "known")
    for job, config in (
        ("rollback_champion", {"by": "ann", "why": "worse"}),
        ("promote_champion", {"version": "1", "by": "ann", "why": "back"}),
    ):
        assert (
            jobs.resolve_job_def(f"rides_{job}")
            .execute_in_process(
                run_config={"ops": {f"rides_{job}_op": {"config": config}}}, instance=own_history.instance
            )
            .success
        )
    assert [(order.action, order.by, order.why) for order in own_history.store.orders("rides")] == [
        ("rollback", "ann", "worse"),
        ("promote", "ann", "back"),
    ]
    refused = jobs.resolve_job_def("rides_resolve_incident").execute_in_process(
        run_config={"ops": {"rides_resolve_incident_op": {"config": {"incident": 99, "by": "ann", "why": "x"}}}},
        instance=own_history.instance,
        raise_on_error=False,
    )
    assert not refused.success
