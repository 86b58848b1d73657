"""The platform left alone: a real code server and a real daemon, files that arrive, and people who are told.

The tiny model's world turns for good on 2021-05-11. Every test works on a copy of four healthy months.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from mlops_assets.monitored_model.jobs import DECISION_TAG, KIND_TAG, PERIOD_KIND, SERVE_KIND
from mlops_assets.monitored_model.reconciling import FINISHED_STATUSES
from mlops_assets.monitored_model.runs import run_outcome
from mlops_assets.monitoring import periods
from mlops_assets_tests import tiny_model
from mlops_assets_tests.end_to_end import automation
from mlops_assets_tests.end_to_end.automation import Deployment, of_kills, state, without_kills
from mlops_assets_tests.end_to_end.processes import wait_for

HEALTHY = ["2021-01", "2021-02", "2021-03", "2021-04"]
SEVERE, AFTER = "2021-05", "2021-06"
BREAK = date(2021, 5, 11)


@pytest.fixture(scope="session")
def four_months(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home and a data folder with four months, made without a daemon."""
    root = tmp_path_factory.mktemp("four_months")
    tiny_model.write_rides(root / "data", HEALTHY)
    assert [result.outcome for result in automation.backfilled(root, root / "data", HEALTHY)] == ["success"] * 4
    return root


@pytest.fixture
def works(four_months: Path, tmp_path: Path) -> Iterator[Deployment]:
    with automation.deployment(four_months, tmp_path / "works") as found:
        yield found


def runs(works: Deployment, period: str, kind: str) -> list[dg.DagsterRun]:
    """The runs of a period, newest first."""
    with works.instance() as instance:
        return list(instance.get_runs(dg.RunsFilter(tags={"dagster/partition": period, KIND_TAG: kind})))


def outcomes(works: Deployment, period: str, kind: str) -> list[str]:
    with works.instance() as instance:
        return [run_outcome(instance, run.run_id) for run in runs(works, period, kind)]


def turned(works: Deployment, *periods: str) -> None:
    """The files of months after the break arrive."""
    for period in periods:
        works.arrive(period, since=BREAK)


def test_a_month_that_turned_is_withheld_told_served_by_plan_b_and_outlived(works: Deployment, tmp_path: Path) -> None:
    told_before = len(works.store.alerts())
    turned(works, SEVERE)
    works.wait_until_settled(SEVERE)
    assert outcomes(works, SEVERE, PERIOD_KIND) == ["withheld"]
    assert outcomes(works, SEVERE, SERVE_KIND) == ["success"]
    served = works.lake.partition("rides", "served_predictions", SEVERE)
    assert served.facts["gate"] == "plan_b"
    assert served.rows == works.lake.partition("rides", "features", SEVERE).rows > 0
    found = {incident.kind: incident for incident in works.store.incidents()}
    assert found.keys() == {"drift", "performance"}, "the outcomes are known at once, and the champion missed them"
    assert {incident.period for incident in found.values()} == {SEVERE}
    assert {incident.state for incident in found.values()} == {"open"}

    turned(works, AFTER)
    works.wait_until_settled(AFTER)
    assert outcomes(works, AFTER, PERIOD_KIND) == ["success"]
    assert works.lake.partition("rides", "served_predictions", AFTER).facts["gate"] == "champion"
    (drift,) = works.store.incidents(kind="drift")
    assert drift.state == "resolved"
    assert "newer champion" in str(drift.resolved_why)

    expected = [alert for alert in works.store.alerts()[told_before:] if alert.state == "sent"]
    assert Counter(works.inbox.titles()) == Counter(alert.title for alert in expected)
    assert max(Counter(works.inbox.numbers()).values()) == 1, "an alert arrived twice"
    assert {alert.kind for alert in expected} >= {"incident_opened", "incident_resolved", "champion_promoted"}
    assert not [alert for alert in expected if alert.kind == "infrastructure_failure"]

    assert state(works.root) == without_a_daemon(tmp_path / "reference", works.data, SEVERE, AFTER)


KILLS = {"run": 8, "daemon": 7, "code server": 7}
# What fails four times in a row is given up, as it should be: what has failed so often already is left in peace.
FAILURES_IN_A_ROW = 2
STORY = ["2021-05", "2021-06", "2021-07", "2021-08"]
CHAOS_SECONDS = 540


@pytest.mark.chaos
def test_kills_at_random_points_change_nothing_in_the_end(works: Deployment, tmp_path: Path) -> None:
    seed = int(os.environ.get("MLOPS_CHAOS_SEED") or time.time())
    chance = random.Random(seed)
    targets = [name for name, count in KILLS.items() for _ in range(count)]
    chance.shuffle(targets)
    killed: Counter[str] = Counter()
    arrivals = list(STORY)
    deadline = time.monotonic() + CHAOS_SECONDS
    while targets and time.monotonic() < deadline:
        while arrivals and killed.total() >= (len(STORY) - len(arrivals)) * 5:
            turned(works, arrivals.pop(0))
        target = next((name for name in targets if name != "run" or works.run_processes()), None)
        time.sleep(chance.uniform(0, 3) if target == "run" else chance.uniform(0, 6))
        if target != "daemon" and _is_close_to_be_given_up(works):
            continue
        if target == "run":
            processes = works.run_processes()
            if not processes or not automation.interrupt(processes[-1]):
                continue
        elif target == "daemon":
            works.kill(works.daemon)
            time.sleep(chance.uniform(0, 2))
            works.start_daemon()
        elif target == "code server":
            works.kill(works.code_server)
            time.sleep(chance.uniform(0, 2))
            works.start_code_server()
        else:
            continue
        targets.remove(target)
        killed[target] += 1
    for period in arrivals:
        turned(works, period)
    told = f"seed {seed}: {killed.total()} kills: {dict(killed)}"
    print(told)
    assert killed.total() >= 20, told
    for period in STORY:
        works.wait_until_settled(period, 300)

    wait_for(
        lambda: {incident[3] for incident in of_kills(state(works.root))} <= {"resolved"},
        60,
        "the incidents of killed runs to be resolved",
        works.log,
    )
    assert without_kills(state(works.root)) == without_a_daemon(tmp_path / "reference", works.data, *STORY), told
    for period in STORY:
        _served_once(works, period)
    _told_once(works, killed)


def _is_close_to_be_given_up(works: Deployment) -> bool:
    """Whether the newest runs of any job and period have failed in a row."""
    ended: dict[tuple[str, str], list[str]] = {}
    with works.instance() as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=FINISHED_STATUSES)):
            outcome = run_outcome(instance, run.run_id)
            ended.setdefault((run.job_name, run.tags["dagster/partition"]), []).append(outcome)
    return any(outcomes[:FAILURES_IN_A_ROW] == ["failed"] * FAILURES_IN_A_ROW for outcomes in ended.values())


def _served_once(works: Deployment, period: str) -> None:
    """Every record of a period is served exactly once, by one decision that one run put into effect."""
    served = works.lake.partition("rides", "served_predictions", period)
    rows = pq.read_table(served.url)
    assert rows.num_rows == works.lake.partition("rides", "features", period).rows > 0
    assert len(rows["record_id"].unique()) == rows.num_rows
    assert rows["decision_id"].unique().to_pylist() == [served.facts["decision_id"]]
    effective = Counter(
        run.tags[DECISION_TAG] for run in runs(works, period, SERVE_KIND) if run.status is dg.DagsterRunStatus.SUCCESS
    )
    assert all(count == 1 for count in effective.values()), effective


def _told_once(works: Deployment, killed: Counter[str]) -> None:
    """Every alert has arrived; twice only where a code server was killed between the answer and the note of it."""
    arrived = Counter(works.inbox.numbers())
    expected = {f"Alert {alert.id}" for alert in works.store.alerts() if alert.state == "sent"}
    assert arrived.keys() == expected
    assert sum(count - 1 for count in arrived.values()) <= killed["code server"], arrived


def test_a_broken_file_is_quarantined_later_months_go_on_and_the_repaired_file_heals_it(
    works: Deployment, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and then nothing of use")
    works.arrive(SEVERE, broken)
    works.wait_until_settled(SEVERE)
    assert outcomes(works, SEVERE, PERIOD_KIND) == ["withheld"]
    (incident,) = works.store.incidents(state="open")
    assert (incident.period, incident.kind, incident.verdict) == (SEVERE, "quality", "quarantined")

    works.arrive(AFTER)
    works.wait_until_settled(AFTER)
    assert outcomes(works, AFTER, PERIOD_KIND) == ["success"]
    assert works.lake.partition("rides", "served_predictions", AFTER).rows > 0
    assert works.store.incident(incident.id).state == "open"

    works.arrive(SEVERE)
    wait_for(lambda: works.store.incident(incident.id).state == "resolved", 120, "the repair", works.log)
    works.wait_until_settled(SEVERE)
    assert outcomes(works, SEVERE, PERIOD_KIND) == ["success", "withheld"]
    healed = works.lake.partition("rides", "served_predictions", SEVERE)
    assert (healed.facts["gate"], healed.rows) == ("champion", works.lake.partition("rides", "features", SEVERE).rows)
    assert len(runs(works, AFTER, PERIOD_KIND)) == 1, "a later month was silently made again"
    stale = {status.period: status.stale for status in periods(works.lake, "rides")}
    assert stale[SEVERE] is None
    assert f"features/{SEVERE}" in str(stale[AFTER])
    assert max(Counter(works.inbox.numbers()).values()) == 1


def test_new_thresholds_and_the_report_alone_switch_what_is_served(works: Deployment) -> None:
    turned(works, SEVERE)
    works.wait_until_settled(SEVERE)
    by_plan_b = works.lake.partition("rides", "served_predictions", SEVERE)
    assert by_plan_b.facts["gate"] == "plan_b"

    works.declare(drift={"severe": 50.0, "novelty": 1.0})
    works.kill(works.code_server)
    works.start_code_server()
    works.report_again(SEVERE)
    wait_for(lambda: len(runs(works, SEVERE, SERVE_KIND)) == 2, 120, "the reconciler", works.log)
    works.wait_until_settled(SEVERE)
    served = works.lake.partition("rides", "served_predictions", SEVERE)
    assert served.facts["gate"] == "champion"
    assert served.rows == by_plan_b.rows
    assert served.facts["decision_id"] != by_plan_b.facts["decision_id"]
    assert outcomes(works, SEVERE, SERVE_KIND) == ["success", "success"]
    assert len(runs(works, SEVERE, PERIOD_KIND)) == 1, "more than the report was made again"
    (drift,) = works.store.incidents(kind="drift")
    assert drift.state == "resolved"


def without_a_daemon(root: Path, data: Path, *periods: str) -> dict[str, object]:
    """The state that the command line reaches with the same files."""
    automation.backfilled(root, data, [*HEALTHY, *periods])
    return state(root)
