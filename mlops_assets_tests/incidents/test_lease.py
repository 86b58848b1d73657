"""One holder of a model's lease at a time, and none for longer than it lives."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.incidents import lease
from mlops_assets.incidents.lease import Lease, LeaseHeld, LeaseLost, holder
from mlops_assets.incidents.store import Store

HOLD = (
    "import sys, time; from mlops_assets.incidents.store import Store; from mlops_assets.incidents.lease import Lease\n"
    "with Lease(Store(sys.argv[1]), 'taxi', what='run 1'): print('held', flush=True); time.sleep(60)"
)

# Each writes down when it enters and leaves, in one call, so the lines are in the order of what happened.
TAKE_TURNS = """
import os, random, sys, time
from mlops_assets.incidents import lease
from mlops_assets.incidents.store import Store
lease.POLL_SECONDS = 0.002  # so that both often see a free lease at the same time
store, log = Store(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for _ in range(int(sys.argv[3])):
    with lease.Lease(store, "taxi", ttl=30) as held:
        os.write(log, f"enter {os.getpid()} {held.token}\\n".encode())
        time.sleep(random.uniform(0, 0.02))
        held.check()
        os.write(log, f"leave {os.getpid()} {held.token}\\n".encode())
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def freeze_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease._Holding, "_beat", lambda self: None)


def elsewhere(store: Store) -> None:
    """Make the holder look like one on another machine, whose process we can't see."""
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE leases SET machine = 'another', host = 'elsewhere'")


def test_a_free_lease_is_taken_and_given_back(store: Store) -> None:
    with Lease(store, "taxi", what="run 1") as held:
        current = holder(store, "taxi")
        assert current is not None
        assert (current.what, current.pid, current.token, current.gone) == ("run 1", os.getpid(), held.token, None)
        assert holder(store, "bikes") is None
        held.check()
    assert holder(store, "taxi") is None


def test_leases_of_ended_runs_are_forgotten_after_a_while_and_held_ones_never(store: Store) -> None:
    with Lease(store, "run:1/1", ttl=1e6), Lease(store, "taxi"):
        with Lease(store, "run:2/1"):
            pass
        assert lease.forget_released(store, "run:", older_than=60) == 0
        with store.write() as connection:
            connection.exec_driver_sql("UPDATE leases SET heartbeat_at = '2020-01-01 00:00:00'")
        assert lease.forget_released(store, "run:", older_than=60) == 1
        assert [one.model for one in lease.holders(store, "run:")] == ["run:1/1"]


def test_tokens_only_grow(store: Store) -> None:
    tokens = []
    for _ in range(3):
        with Lease(store, "taxi") as held:
            tokens.append(held.token)
    assert tokens == sorted(set(tokens))


def test_the_same_thread_enters_again_and_only_the_last_exit_gives_it_back(sqlite: Store) -> None:
    outer = Lease(sqlite, "taxi")
    with outer, Lease(sqlite, "taxi", wait=0) as inner, outer:
        assert inner.token == outer.token
    assert holder(sqlite, "taxi") is None
    with outer:
        with outer:
            pass
        outer.check()
    with pytest.raises(LeaseLost, match="doesn't hold the lease of taxi"):
        outer.check()


def test_another_thread_waits_and_learns_who_holds_it(sqlite: Store) -> None:
    errors: list[BaseException] = []

    def intrude() -> None:
        try:
            with Lease(sqlite, "taxi", wait=0.3):
                pass
        except LeaseHeld as error:
            errors.append(error)

    with Lease(sqlite, "taxi", what="run 1a2b"):
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
    assert f"held by run 1a2b (process {os.getpid()} on" in str(errors[0])


def test_a_lease_that_another_was_faster_to_take_is_left_to_it(store: Store) -> None:
    with Lease(store, "taxi") as held:
        assert lease._take(store, "taxi", "late", 60.0) is None
        held.check()


def test_the_lease_is_given_back_when_the_work_fails(sqlite: Store) -> None:
    with pytest.raises(ZeroDivisionError), Lease(sqlite, "taxi"):
        1 / 0  # noqa: B018
    assert holder(sqlite, "taxi") is None


def test_a_killed_holder_is_succeeded_at_once(store: Store, url: str) -> None:
    process = start(HOLD, url)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(LeaseHeld, match="held by run 1"), Lease(store, "taxi", wait=0):
        pass
    os.kill(process.pid, signal.SIGKILL)  # not waited for: a zombie is dead, too
    began = time.monotonic()
    with Lease(store, "taxi", wait=30) as held:
        assert held.token == 2
    assert time.monotonic() - began < 10  # far below the time to live
    process.communicate()


def test_a_process_number_that_is_used_again_is_not_the_holder(sqlite: Store) -> None:
    with Lease(sqlite, "taxi"):
        with sqlite.write() as connection:
            connection.exec_driver_sql("UPDATE leases SET started = '1'")
        current = holder(sqlite, "taxi")
        assert current is not None
        assert current.gone == "its process is dead"


def test_a_silent_holder_is_succeeded_and_learns_it(sqlite: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as frozen:
        freeze_heartbeat(frozen)
        slow = Lease(sqlite, "taxi", what="slow", ttl=0.4)
        slow.__enter__()
        elsewhere(sqlite)
        slow.check()
        tokens: list[int] = []

        def succeed() -> None:
            with Lease(sqlite, "taxi", what="next", wait=10) as successor:
                tokens.append(successor.token)
                with pytest.raises(LeaseLost, match=r"held by next.*write nothing more"):
                    check_slow()
                slow_holding.release()
                successor.check()  # giving back what one doesn't have takes nothing from the successor

        slow_holding = slow._holding()
        check_slow = slow_holding.check
        thread = threading.Thread(target=succeed)
        thread.start()
        thread.join()
        assert tokens == [slow.token + 1]
        slow.__exit__(None, None, None)
    assert holder(sqlite, "taxi") is None


def test_a_holder_doubts_itself_when_its_heartbeat_stopped(sqlite: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze_heartbeat(monkeypatch)
    with Lease(sqlite, "taxi", ttl=0.1) as held:
        time.sleep(0.2)
        with pytest.raises(LeaseLost, match="its heartbeat stopped"):
            held.check()


def test_a_living_holder_outlives_its_time_to_live(sqlite: Store) -> None:
    with Lease(sqlite, "taxi", ttl=2) as held:
        elsewhere(sqlite)
        time.sleep(3)
        held.check()
        current = holder(sqlite, "taxi")
        assert current is not None
        assert current.gone is None


def test_never_two_holders(url: str, tmp_path: Path) -> None:
    """Three processes take turns while others are killed at random moments of theirs."""
    store, log, chance = Store(url), tmp_path / "log", random.Random(7)
    steady = [start(TAKE_TURNS, url, log, 15) for _ in range(2)]
    victims = []
    for _ in range(2):
        victims.append(victim := start(TAKE_TURNS, url, log, 10_000))
        time.sleep(chance.uniform(1.0, 2.0))
        victim.kill()
    outputs = [process.communicate(timeout=60) for process in steady + victims]
    assert [process.returncode for process in steady] == [0, 0], outputs
    inside: tuple[str, int] | None = None
    token = 0
    killed = {str(victim.pid) for victim in victims}
    for event, pid, number in (line.split() for line in log.read_text().splitlines()):
        if event == "enter":
            assert inside is None or inside[0] in killed, f"{pid} entered while {inside} was inside"
            assert int(number) > token
            inside, token = (pid, int(number)), int(number)
        else:
            assert inside == (pid, int(number))
            inside = None
    assert token >= 30
    with Lease(store, "taxi", wait=5):
        pass


def test_a_failing_store_costs_a_heartbeat_not_the_thread(sqlite: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlalchemy as sa

    write, failures = Store.write, iter([True])

    def fails_once(self: Store) -> Any:
        if threading.current_thread() is not threading.main_thread() and next(failures, False):
            raise sa.exc.OperationalError("UPDATE", {}, OSError("database is locked"))
        return write(self)

    monkeypatch.setattr(Store, "write", fails_once)
    with Lease(sqlite, "taxi", ttl=1.5) as held:
        first = holder(sqlite, "taxi")
        time.sleep(1.2)
        held.check()
        later = holder(sqlite, "taxi")
        assert first is not None
        assert later is not None
        assert later.heartbeat_at > first.heartbeat_at
