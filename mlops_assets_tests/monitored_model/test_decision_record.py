"""What was decided stays on record, says the same everywhere, and can be taken back; what has to wait says for what."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.utils import make_new_run_id

from mlops_assets import monitoring
from mlops_assets.cli import main
from mlops_assets.drift.verdict import ColumnDrift, DriftReport
from mlops_assets.incidents.decision_log import Decision
from mlops_assets.incidents.lease import Lease, holders
from mlops_assets.incidents.processes import this_process
from mlops_assets.monitored_model import decisions
from mlops_assets.monitored_model.backfill import reconcile
from mlops_assets.monitored_model.dead_runs import fail_dead_runs
from mlops_assets.monitored_model.findings import _reasons
from mlops_assets.monitored_model.gates import period_gate
from mlops_assets.monitored_model.jobs import GATE_TAG, KIND_TAG, MODEL_TAG, PROCESS_TAG
from mlops_assets.monitored_model.resources import PARTITION_TAG, RUN_LEASE
from mlops_assets.training import tracking
from mlops_assets_tests import tiny_model
from mlops_assets_tests.monitored_model.conftest import MADE, TURNED, History, turn_again

SEVERE, NEWEST = MADE[3], MADE[5]


def follow(history: History) -> list[tuple[str, str, str]]:
    return [(r.job, r.period, r.outcome) for r in reconcile(history.definitions, "rides", history.instance)]


def lines(history: History, subject: str, period: str) -> list[Decision]:
    return [line for line in history.store.decisions("rides") if (line.subject, line.period) == (subject, period)]


def digest(history: History, period: str) -> str:
    return str(history.partition("drift_report", period).facts["report_digest"])


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def status_of(history: History, period: str) -> monitoring.PeriodStatus:
    (line,) = [line for line in monitoring.periods(history.lake, "rides") if line.period == period]
    return line


# -- the log --------------------------------------------------------------------------------------------------


def test_each_period_says_what_was_trained_decided_and_served_with_run_and_evidence(turned: History) -> None:
    for period in [*MADE, TURNED]:
        (champion,) = lines(turned, "champion", period)
        facts = turned.partition("champion", period).facts
        assert (champion.action, champion.after) == (facts["decision"], facts["version"])
        assert (champion.before, champion.actor) == (facts["previous_version"], "mlops_assets")
        served = lines(turned, "served", period)
        assert served[-1].evidence == turned.partition("served_predictions", period).facts["decision_id"]
    assert [line.action for line in lines(turned, "served", TURNED)] == ["withheld", "plan_b"]
    plan_b = lines(turned, "served", TURNED)[-1]
    assert (plan_b.before, plan_b.after) == ("nothing", f"plan B, segment_rate of {NEWEST}")
    (trained,) = lines(turned, "challenger", NEWEST)
    assert trained.evidence is not None
    assert len(trained.evidence) == 64
    assert trained.run_id == turned.results[NEWEST].run_id
    aliases = turned.store.decisions("rides", subject="alias")
    assert aliases[-1].after == ", ".join(f"{name}={v}" for name, v in sorted(turned.aliases().items()))
    assert not any(line.reconstructed for line in turned.store.decisions("rides"))


def test_a_period_made_again_with_the_same_outcome_adds_no_line(own_turned: History) -> None:
    before = own_turned.store.decisions("rides")
    own_turned.run(TURNED, NEWEST)
    follow(own_turned)
    assert own_turned.store.decisions("rides") == before
    with monitoring.connect(own_turned.lake, own_turned.store) as con:
        counted = con.sql("SELECT count(*), min(period) FROM monitoring.decisions").fetchall()
    assert counted == [(len(before), MADE[0])]


def test_what_a_rollback_and_a_retraining_replace_stays_on_record(told: History) -> None:
    present = told.partition("champion", NEWEST).facts["version"]
    assert command("champion", "rollback", "rides", "--why", "worse for nights", "--by", "ann").exit_code == 0
    first, back = lines(told, "champion", NEWEST)
    assert (first.after, back.before, back.action, back.actor) == (present, present, "rolled_back", "ann")
    (order,) = lines(told, "order", NEWEST)
    assert (order.action, order.before, order.after) == ("rollback", present, back.after)
    history = command("champion", "history", "rides").output
    assert "replaced" in history
    assert "ann" in history
    assert command("retrain", "rides", "--why", "new tariff", "--by", "bob").exit_code == 0
    old, new = lines(told, "challenger", NEWEST)
    assert new.before == old.after != new.after
    assert [line.action for line in lines(told, "retrain", NEWEST)] == ["asked", "trained"]
    shown = json.loads(command("log", "rides", "--json").output)
    assert [line["id"] for line in shown] == [line.id for line in told.store.decisions("rides")]
    assert (
        command("log", "rides", "--since", "2031-01-01").output == "Nothing was decided since 2031-01-01 00:00 UTC.\n"
    )
    assert "champion rolled back" in command("log", "rides").output
    unknown = command("log", "taxi")
    assert (unknown.exit_code, "nothing was decided about 'taxi'" in unknown.output) == (1, True)


def test_a_rollback_asked_for_again_neither_goes_further_nor_returns_to_what_was_left(told: History) -> None:
    rollback = ("champion", "rollback", "rides", "--why", "worse for nights", "--by", "ann")
    assert command(*rollback).exit_code == 0
    made = told.partition("champion", NEWEST)
    again = command(*rollback)
    assert again.exit_code == 1
    wanted = f"version {made.facts['version']} is in force already, by a rollback (ann: worse for nights"
    assert wanted in " ".join(again.output.split())
    assert told.partition("champion", NEWEST).digest == made.digest
    assert len(told.store.orders("rides")) == 1
    # A later period that keeps this version: the one before it in time is the one that was left.
    with monitoring.connect(told.lake, told.store) as con:
        rows = con.sql(f"SELECT * EXCLUDE (period) FROM rides.champions WHERE period = '{NEWEST}'").to_arrow_table()
    facts = {**made.facts, "decision": "retained", "order": None}
    told.lake.write("rides", "champion", TURNED, rows, facts=facts)
    left = lines(told, "order", NEWEST)[0].before
    found = rf"no other champion before version {made.facts['version']} .*\(as {left} was\)"
    with pytest.raises(decisions.Refused, match=found):
        decisions.rollback("rides", told.lake, told.store, None, "ann", "again")


def test_a_line_that_a_dead_process_could_not_write_is_added_as_reconstructed(own_history: History) -> None:
    lake = own_history.lake
    partition = own_history.partition("champion", NEWEST)
    facts = {**partition.facts, "decision": "retained", "version": "1", "reason": "a test"}
    with monitoring.connect(lake, own_history.store) as con:
        rows = con.sql(f"SELECT * EXCLUDE (period) FROM rides.champions WHERE period = '{NEWEST}'").to_arrow_table()
        lake.write("rides", "champion", NEWEST, rows, facts=facts)
    with monitoring.connect(lake, own_history.store) as con:
        found = con.sql(
            f"SELECT action, after, reconstructed FROM monitoring.decisions WHERE period = '{NEWEST}' "
            "AND subject = 'champion' ORDER BY id"
        ).fetchall()
    assert found[-1] == ("retained", "1", True)
    assert len(found) == 2


# -- who serves, and at what cost -----------------------------------------------------------------------------


def test_the_status_of_a_month_names_who_serves_it_and_the_metric_of_what_is_served(turned: History) -> None:
    facts = turned.partition("performance", TURNED).facts
    plan_b, quiet, withheld = (status_of(turned, period) for period in (TURNED, NEWEST, SEVERE))
    assert (plan_b.served_source, plan_b.served_version) == ("plan_b", None)
    assert (plan_b.metric_value, plan_b.champion_metric_value) == (facts["served_value"], facts["value"])
    assert plan_b.metric_value != plan_b.champion_metric_value
    assert facts["floor"] > 0.5, "f1 of calling every ride cash"
    assert quiet.served_version == turned.partition("predictions", NEWEST).facts["version"]
    assert quiet.metric_value == quiet.champion_metric_value
    assert (withheld.served_version, withheld.metric_value) == (None, None)
    assert withheld.champion_metric_value is not None
    assert str(withheld.reason).startswith("no rung of plan B can serve (segment_rate: ")
    assert "severe drift: fee" in str(withheld.reason)


# -- accept and withdraw --------------------------------------------------------------------------------------


def test_a_withdrawn_accept_brings_the_verdict_its_decision_id_and_plan_b_back(told: History) -> None:
    turn_again(told)
    assert command("backfill", "rides", TURNED).exit_code == 0
    spec = tiny_model.spec()
    before = period_gate(spec, told.lake, told.store, TURNED)
    accept = ("incidents", "accept", "rides", TURNED, "--digest", digest(told, TURNED)[:16], "--by", "ann")
    assert command(*accept, "--why", "known fares").exit_code == 0
    accepted = period_gate(spec, told.lake, told.store, TURNED)
    assert accepted.reason.startswith("severe drift, accepted by ann on ")
    assert accepted.reason.endswith("UTC: known fares")
    assert status_of(told, TURNED).reason == accepted.reason
    (incident,) = told.store.incidents(model="rides", period=TURNED)
    shown = " ".join(command("incidents", "show", str(incident.id)).output.split())
    assert "To take that back: mlops-assets incidents withdraw" in shown

    back = command("incidents", "withdraw", "rides", TURNED, "--why", "not so", "--by", "bob")
    assert back.exit_code == 0, back.output
    assert f"rides {TURNED} is no longer accepted and served by plan B, segment_rate of {NEWEST}." in back.output
    assert period_gate(spec, told.lake, told.store, TURNED) == before
    assert told.partition("served_predictions", TURNED).facts["decision_id"] == before.decision_id
    (incident,) = told.store.incidents(model="rides", period=TURNED)
    assert incident.state == "open"
    assert [(line.action, line.actor) for line in lines(told, "accept", TURNED)] == [
        ("accepted", "ann"),
        ("withdrawn", "bob"),
    ]
    again = command("incidents", "withdraw", "rides", TURNED, "--why", "again")
    assert (again.exit_code, len(lines(told, "accept", TURNED))) == (0, 2)
    never = command("incidents", "withdraw", "rides", NEWEST, "--why", "again")
    assert (never.exit_code, "was never accepted" in never.output) == (1, True)


def test_the_run_that_serves_an_accepted_champion_is_not_called_plan_b(own_turned: History) -> None:
    decisions.accept("rides", own_turned.lake, own_turned.store, TURNED, digest(own_turned, TURNED), "ann", "known")
    assert follow(own_turned) == [("rides_serve", TURNED, "success")]
    (run,) = own_turned.instance.get_runs()
    assert (run.tags[KIND_TAG], run.tags[GATE_TAG]) == ("serve", "champion")
    assert run.tags["mlops/cause"].startswith("severe drift, accepted by ann on ")
    (logged,) = own_turned.runs(dagster_run_id=run.run_id)
    assert logged.info.run_name == f"rides {TURNED} serve"
    assert not any("plan_b" in value for value in [*run.tags.values(), *logged.data.tags.values()])


# -- aliases --------------------------------------------------------------------------------------------------


def test_an_alias_moved_by_hand_is_shown_in_status_and_in_the_log_and_put_back_by_a_command(told: History) -> None:
    before = told.aliases()
    assert "MLflow's aliases say the same" in command("champion", "show", "rides").output
    told.client.set_registered_model_alias("rides", "champion", "1")
    assert "rides: moved by hand in MLflow: alias champion is 1" in command("status", "rides").output
    shown = command("champion", "show", "rides").output
    assert f"alias champion is 1, decided is {before['champion']}" in shown
    assert "mlops-assets champion repair rides --why" in shown
    assert "alias moved by hand" in command("log", "rides").output
    refused = command("champion", "promote", "rides", before["champion"], "--why", "x")
    assert refused.exit_code == 1
    assert (
        "MLflow's alias @champion points at version 1; to put it back: mlops-assets champion repair" in refused.output
    )
    repaired = command("champion", "repair", "rides", "--why", "not meant", "--by", "ann")
    assert repaired.exit_code == 0, repaired.output
    assert f"Put back: alias champion is 1, decided is {before['champion']}." in repaired.output
    assert told.aliases() == before
    assert "moved by hand" not in command("status", "rides").output


# -- dead runs ------------------------------------------------------------------------------------------------


def begun(instance: dg.DagsterInstance, period: str, **tags: str) -> dg.DagsterRun:
    """A run of the tiny model that has been started."""
    run = dg.DagsterRun(
        "rides_monthly", run_id=make_new_run_id(), tags={PARTITION_TAG: period, MODEL_TAG: "rides", **tags}
    )
    instance.add_run(run)
    event = DagsterEvent(DagsterEventType.RUN_START.value, job_name=run.job_name)
    instance.report_dagster_event(event, run.run_id, timestamp=time.time())
    return run


def dead_process() -> str:
    """The name of a process that has ended."""
    program = "from mlops_assets.incidents.processes import this_process; print(this_process())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_a_run_whose_process_is_dead_is_closed_at_once_with_its_mlflow_runs_and_leases(own_history: History) -> None:
    instance, store, client = own_history.instance, own_history.store, own_history.client
    dead = begun(instance, TURNED, **{PROCESS_TAG: dead_process()})
    alive = begun(instance, TURNED, **{PROCESS_TAG: this_process()})
    elsewhere = begun(instance, TURNED, **{PROCESS_TAG: "elsewhere 1 2 another machine"})
    experiment = tracking.experiment(client, "rides", own_history.home.artifacts)
    parent = client.create_run(experiment, tags={"dagster_run_id": dead.run_id}).info.run_id
    child = client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
    with Lease(store, "rides", what=f"run {dead.run_id}"), store.write() as connection:
        ended = subprocess.Popen(["true"])
        ended.wait()
        connection.execute(store._t.leases.update().values(pid=ended.pid))
    with store.write() as connection:
        connection.execute(store._t.leases.update().where(store._t.leases.c.model == "rides").values(held=True))
    assert fail_dead_runs(instance, store) == [dead.run_id]
    assert [client.get_run(run).info.status for run in (parent, child)] == ["FAILED", "FAILED"]
    assert holders(store, "rides") == []
    closed = instance.get_run_by_id(dead.run_id)
    assert closed is not None
    assert closed.status is dg.DagsterRunStatus.FAILURE
    # One that lives may be silent, of another machine's only the silence is known.
    assert fail_dead_runs(instance, store, now=time.time() + 1e6) == [elsewhere.run_id]
    assert {run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))} == {
        alive.run_id
    }


def test_an_accept_says_what_it_waits_for_while_a_run_of_the_period_lives_and_serves_after_a_dead_one(
    told: History,
) -> None:
    turn_again(told)
    assert command("backfill", "rides", TURNED).exit_code == 0
    accept = ("incidents", "accept", "rides", TURNED, "--digest", digest(told, TURNED)[:16], "--why", "known")
    with dg.DagsterInstance.get() as instance:
        run = begun(instance, TURNED, **{PROCESS_TAG: this_process()})
        with Lease(told.store, f"{RUN_LEASE}{run.run_id}/1", what=f"run {run.run_id}"):
            waits = command(*accept)
            assert waits.exit_code == 0, waits.output
            said = " ".join(waits.output.split())
            assert f"rides {TURNED} is accepted but still served by plan B, segment_rate of {NEWEST}" in said
            assert f"It waits: run {run.run_id[:8]} of this period has not ended (run {run.run_id} (process " in said
            assert "rides_serving" in said
        instance.add_run_tags(run.run_id, {PROCESS_TAG: dead_process()})
        done = command(*accept)
        assert f"rides {TURNED} is accepted and served by the champion, version " in " ".join(done.output.split())
        closed = instance.get_run_by_id(run.run_id)
        assert closed is not None
        assert closed.status is dg.DagsterRunStatus.FAILURE


# -- alerts ---------------------------------------------------------------------------------------------------


def test_an_alert_says_who_serves_at_what_cost_and_what_a_person_can_do(
    told: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = tmp_path / "alerts.jsonl"
    monkeypatch.setenv("MLOPS_ALERT_URLS", sent.as_uri())
    turn_again(told)
    assert command("backfill", "rides", TURNED).exit_code == 0
    alerts = [json.loads(line) for line in sent.read_text().splitlines()]
    assert Counter(alert["title"] for alert in alerts)[f"rides {TURNED}: drift severe"] == 1
    (body,) = [alert["body"] for alert in alerts if alert["title"] == f"rides {TURNED}: drift severe"]
    (incident,) = told.store.incidents(model="rides", period=TURNED)
    assert f"Served now: by plan B, segment_rate of {NEWEST} (severe drift: " in body
    facts = told.partition("performance", TURNED).facts
    cost = f"{facts['served_value']:.4f} of what is served, {facts['value']:.4f} of the champion's scores"
    assert f"f1: {cost}, {facts['floor']:.4f} without any model." in body
    assert f"mlops-assets incidents accept rides {TURNED} --digest {digest(told, TURNED)[:16]} --why" in body
    assert f"mlops-assets incidents resolve {incident.id} --why" in body
    stored = next(alert for alert in told.store.alerts("rides") if alert.title == f"rides {TURNED}: drift severe")
    assert "Served now" not in stored.body, "what changes later is not stored"


def column(name: str, verdict: str, psi: float, importance: float | None) -> ColumnDrift:
    drifted = {"noise_floor": 0.01, "threshold": 0.25, "kolmogorov_smirnov": None, "wasserstein": None}
    drifted |= {"jensen_shannon": None, "evidently": None, "novelty": None, "unseen": None}
    return ColumnDrift(
        name, "numeric", verdict, psi, null_shares=(0.0, 0.0), direction="higher", importance=importance, **drifted
    )  # type: ignore[arg-type]


def test_the_findings_of_a_severe_month_come_by_weight_rules_severe_columns_by_importance_then_warnings() -> None:
    columns = [
        column("little", "severe", 9.0, 0.01),
        column("noticed", "warning", 0.2, 0.9),
        column("much", "severe", 0.3, 0.5),
        column("unweighed", "severe", 0.4, None),
    ]
    sentences = [one.sentence() for one in (columns[1], columns[0], columns[3], columns[2])]
    report = DriftReport("severe", ["3 of 4 columns are severe", *sentences], columns)
    found = _reasons(report)
    assert [reason.get("column", reason["sentence"]) for reason in found] == [
        "3 of 4 columns are severe",
        "much",
        "little",
        "unweighed",
        columns[1].sentence(),
    ]
    assert [reason["verdict"] for reason in found] == ["severe"] * 4 + ["warning"]
