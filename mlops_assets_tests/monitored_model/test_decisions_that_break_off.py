"""A decision that is killed between two writes is finished by whoever comes next; a lost lease writes nothing."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.home import Home
from mlops_assets.incidents.lease import Lease
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model import decisions
from mlops_assets.monitored_model.aliases import BY_HAND, alias_state, finish, notice, restore
from mlops_assets.monitored_model.backfill import reconcile
from mlops_assets.monitored_model.reconciling import finish_decisions
from mlops_assets.monitored_model.steps import challenger
from mlops_assets.training import tracking
from mlops_assets_tests import tiny_model
from mlops_assets_tests.monitored_model import dying_decider
from mlops_assets_tests.monitored_model.conftest import MADE, History, use_home

NEWEST = MADE[5]
MOST_WRITES = 20


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([dying_decider.__name__])
    return context


def killed_at(
    context: multiprocessing.context.ForkServerContext, home: Path, data: Path, period: str, before_write: int
) -> bool:
    """Decide a period in a process that is killed before a write; False when it had no such write."""
    process = context.Process(target=dying_decider.decide_and_die, args=(home, data, period, before_write))
    process.start()
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def statuses(history: History) -> dict[str, str]:
    found = history.client.search_model_versions("name = 'rides'")
    return {str(version.version): version.tags["status"] for version in found}


def newest_line(history: History, subject: str) -> tuple[str, str | None]:
    line = history.store.decisions("rides", subject=subject)[-1]  # type: ignore[arg-type]
    return line.action, line.after


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_an_order_killed_between_any_two_writes_is_finished_by_the_next_who_comes(
    action: str, history: History, processes: multiprocessing.context.ForkServerContext, tmp_path: Path
) -> None:
    """Whole again: the decision, both aliases, the status tags, the alert and the log."""
    outcomes = []
    for before_write in range(1, MOST_WRITES):
        root = tmp_path / str(before_write)
        with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
            home, data = Home(root / "home"), root / "data"
            shutil.copytree(history.home.root, home.root, symlinks=True)
            shutil.copytree(history.data, data)
            use_home(patch, home, data)
            copy = replace(history, home=home, data=data, instance=instance)
            if action == "promote":
                wanted = decisions.promote("rides", copy.lake, copy.store, "1", "ann", "the old world is back")
            else:
                wanted = decisions.rollback("rides", copy.lake, copy.store, None, "ann", "worse for nights")
            killed = killed_at(processes, home.root, data, NEWEST, before_write)
            reconcile(copy.definitions, "rides", instance)
            assert [run.status.value for run in instance.get_runs()] in ([], ["SUCCESS"])
            assert copy.partition("champion", NEWEST).facts["version"] == wanted.version
            assert reconcile(copy.definitions, "rides", instance) == [], "nothing is due any more"
            outcomes.append(
                (
                    copy.aliases(),
                    statuses(copy),
                    newest_line(copy, "champion"),
                    newest_line(copy, "alias"),
                    [alert.title for alert in copy.store.alerts("rides") if alert.period == NEWEST],
                )
            )
        if not killed:
            break
    assert len(outcomes) >= 7, "decision, log, alert, two aliases, two tags at least"
    assert all(outcome == outcomes[-1] for outcome in outcomes)
    aliases, tags, *_ = outcomes[-1]
    assert (aliases["champion"], tags[wanted.version]) == (wanted.version, "champion")
    assert list(tags.values()).count("champion") == 1


def test_the_first_promotion_killed_between_any_two_writes_is_finished(
    processes: multiprocessing.context.ForkServerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    with tiny_model.ingested(made, tiny_model.spec(), MADE[:3]) as bench:
        challenger.make(bench, MADE[2])
    found = []
    for before_write in range(1, MOST_WRITES):
        home = Home(tmp_path / str(before_write))
        shutil.copytree(made / "home", home.root, symlinks=True)
        use_home(monkeypatch, home, made / "data")
        lake, store, client = Lake(home.lake_url), Store(home.store_url), tracking.client(home.tracking_uri)
        killed = killed_at(processes, home.root, made / "data", MADE[2], before_write)
        if lake.find("rides", "champion", MADE[2]) is None:
            assert before_write == 1, "nothing was decided, so nothing is finished"
            assert finish_decisions(tiny_model.spec(), lake, store) is None
            continue
        finish_decisions(tiny_model.spec(), lake, store)
        assert finish(lake, store, "rides", 0, dying_decider.no_client) is None
        aliases = {name: str(v) for name, v in client.get_registered_model("rides").aliases.items()}
        lines = [(line.subject, line.action, line.after) for line in store.decisions("rides")]
        status = client.get_model_version("rides", "1").tags["status"]
        found.append((aliases, lines, [alert.kind for alert in store.alerts("rides")], status))
        if not killed:
            break
    assert len(found) >= 4
    assert all(one == found[-1] for one in found)
    assert found[-1][0] == {"champion": "1"}
    assert found[-1][2:] == (["champion_promoted"], "champion")


@pytest.mark.parametrize("before", ["decision", "log", "aliases"])
def test_a_paused_holder_that_wakes_up_after_the_takeover_writes_nothing(
    before: str, own_history: History, processes: multiprocessing.context.ForkServerContext
) -> None:
    decisions.promote("rides", own_history.lake, own_history.store, "1", "ann", "back")
    aliases, decided = own_history.aliases(), own_history.partition("champion", NEWEST).digest
    process = processes.Process(
        target=dying_decider.decide_and_pause, args=(own_history.home.root, own_history.data, NEWEST, before)
    )
    process.start()
    try:
        deadline = time.monotonic() + 60
        while _state(process.pid) != "T":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        leases = own_history.store._t.leases
        with own_history.store.write() as connection:
            long_ago = own_history.store.now(connection) - timedelta(hours=1)
            connection.execute(leases.update().where(leases.c.model == "rides").values(heartbeat_at=long_ago))
        written = own_history.store.decisions("rides"), own_history.store.alerts("rides")
        with Lease(own_history.store, "rides", what="who takes over", wait=0):
            os.kill(process.pid or 0, signal.SIGCONT)
            process.join(60)
        assert process.exitcode == dying_decider.LOST
    finally:
        process.kill()
    assert own_history.aliases() == aliases, "no alias was moved"
    assert (own_history.store.decisions("rides"), own_history.store.alerts("rides")) == written, "and nothing logged"
    assert (own_history.partition("champion", NEWEST).digest == decided) == (before == "decision")
    reconcile(own_history.definitions, "rides", own_history.instance)
    assert own_history.aliases()["champion"] == "1"


def _state(pid: int | None) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# -- moved by hand --------------------------------------------------------------------------------------------


def test_an_alias_moved_by_hand_is_noticed_written_down_and_put_back_by_a_person(own_history: History) -> None:
    store, client = own_history.store, own_history.client
    before, tags = own_history.aliases(), statuses(own_history)
    state = alias_state(store, client, "rides")
    assert state is not None
    assert (state.changes, notice(store, client, "rides")) == ([], None)
    client.set_registered_model_alias("rides", "champion", "1")
    client.set_registered_model_alias("rides", "mine", "1")
    client.set_model_version_tag("rides", "1", "status", "champion")
    reconcile(own_history.definitions, "rides", own_history.instance)
    assert own_history.aliases()["champion"] == "1", "what a person does in MLflow is not undone by itself"
    line = notice(store, client, "rides")
    assert line is not None
    assert (line.action, line.before, line.after) == (BY_HAND, _text(before), _text(before | {"champion": "1"}))
    assert notice(store, client, "rides") is None, "written down once"
    state = alias_state(store, client, "rides")
    assert state is not None
    assert [change.what for change in state.changes] == ["alias champion", "status of version 1"]
    assert str(state).startswith(f"moved by hand in MLflow: alias champion is 1, decided is {before['champion']}")
    restored = restore(store, client, "rides", "ann", "not meant")
    assert restored is not None
    assert own_history.aliases() == before | {"mine": "1"}
    assert statuses(own_history) == tags
    newest = store.decisions("rides", subject="alias")[-1]
    assert (newest.action, newest.actor, newest.why, newest.after) == ("restored", "ann", "not meant", _text(before))


def _text(aliases: dict[str, str]) -> str:
    return ", ".join(f"{name}={aliases[name]}" for name in sorted(aliases))
