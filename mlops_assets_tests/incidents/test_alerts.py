"""Every alert reaches every endpoint once, whatever the other endpoints and deliverers do."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from mlops_assets.incidents import alerts
from mlops_assets.incidents.alerts import CLAIM_SECONDS, Delivered, deliver, urls_from_env
from mlops_assets.incidents.store import Store

HOUR = timedelta(hours=1)


class Endpoint:
    """An HTTP server that writes down the titles it is sent, and answers with the status that a test wants."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.bodies: list[str] = []
        self.status = 200
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if endpoint.status == 200:
                    endpoint.titles.append(message["title"])
                    endpoint.bodies.append(message["message"])
                self.send_response(endpoint.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://ada:secret@127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    yield server
    server.close()


@pytest.fixture
def another() -> Iterator[Endpoint]:
    server = Endpoint()
    yield server
    server.close()


@pytest.fixture
def dead() -> str:
    """Nothing listens there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"json://127.0.0.1:{probe.getsockname()[1]}"


def announce(store: Store, *titles: str) -> None:
    for title in titles:
        store.announce("champion_promoted", "taxi", "2022-12", title, "because", key=title)


def states(store: Store) -> list[str]:
    return [alert.state for alert in store.alerts()]


def test_an_alert_is_sent_once(store: Store, endpoint: Endpoint) -> None:
    announce(store, "one", "two")
    assert deliver(store, [endpoint.url]) == Delivered(sent=2, failed=0, waiting=0)
    assert deliver(store, [endpoint.url]) == Delivered(0, 0, 0)
    assert endpoint.titles == ["one", "two"]
    assert endpoint.bodies[0] == "because\nAlert 1"
    assert states(store) == ["sent", "sent"]


def test_a_dead_endpoint_neither_stops_nor_repeats_the_others(store: Store, endpoint: Endpoint, dead: str) -> None:
    announce(store, "one", "two")
    now = datetime.now(UTC)
    assert deliver(store, [dead, endpoint.url], now=now) == Delivered(sent=2, failed=1, waiting=2)
    assert deliver(store, [dead, endpoint.url], now=now + HOUR) == Delivered(sent=0, failed=1, waiting=2)
    assert endpoint.titles == ["one", "two"]
    assert states(store) == ["waiting", "waiting"]


def test_an_endpoint_that_recovers_gets_all_it_missed(store: Store, endpoint: Endpoint) -> None:
    announce(store, "one", "two", "three")
    now = datetime.now(UTC)
    endpoint.status = 500
    for _ in range(3):
        deliver(store, [endpoint.url], now=now)
        now += HOUR
    endpoint.status = 200
    assert deliver(store, [endpoint.url], now=now) == Delivered(sent=3, failed=0, waiting=0)
    assert Counter(endpoint.titles) == Counter(["one", "two", "three"])


def test_retries_back_off_exponentially_up_to_an_hour(sqlite: Store, dead: str) -> None:
    announce(sqlite, "one")
    now, waits = datetime.now(UTC), []
    for _ in range(9):
        deliver(sqlite, [dead], now=now)
        with sqlite.read() as connection:
            due = connection.execute(sqlite._t.alert_deliveries.select()).one().next_at
        waits.append(round((due - now).total_seconds()))
        assert deliver(sqlite, [dead], now=due - timedelta(seconds=1)).failed == 0
        now = due
    assert waits == pytest.approx([30, 60, 120, 240, 480, 960, 1920, 3600, 3600], abs=5)


def test_an_alert_that_is_always_refused_does_not_hold_up_the_next(sqlite: Store, endpoint: Endpoint) -> None:
    announce(sqlite, "refused")
    now = datetime.now(UTC)
    endpoint.status = 400
    deliver(sqlite, [endpoint.url], now=now)
    announce(sqlite, "fine")
    endpoint.status = 200
    deliver(sqlite, [endpoint.url], now=now + HOUR, limit=1)
    assert endpoint.titles == ["fine"]


def test_the_outcome_is_written_down_without_secrets(sqlite: Store, endpoint: Endpoint) -> None:
    announce(sqlite, "one")
    now = datetime.now(UTC)
    endpoint.status = 503
    deliver(sqlite, [endpoint.url], now=now)
    (row,) = sqlite.as_arrow("alerts").to_pylist()
    assert (row["state"], row["attempts"], row["sent_at"]) == ("waiting", 1, None)
    assert "503" in row["error"]
    assert "secret" not in str(row)
    assert f"127.0.0.1:{endpoint.server.server_port}" in row["endpoint"]
    endpoint.status = 200
    deliver(sqlite, [endpoint.url], now=now + HOUR)
    (row,) = sqlite.as_arrow("alerts").to_pylist()
    assert (row["state"], row["attempts"], row["error"]) == ("sent", 2, None)
    assert row["sent_at"] is not None


def test_without_endpoints_alerts_are_logged_and_not_sent_later(sqlite: Store, endpoint: Endpoint) -> None:
    announce(sqlite, "early")
    assert deliver(sqlite, []) == Delivered(0, 0, 0)
    assert states(sqlite) == ["not configured"]
    announce(sqlite, "late")
    deliver(sqlite, [endpoint.url])
    assert endpoint.titles == ["late"]


def test_correcting_a_url_sends_what_waited_for_the_wrong_one(sqlite: Store, endpoint: Endpoint, dead: str) -> None:
    announce(sqlite, "one")
    deliver(sqlite, [dead])
    assert deliver(sqlite, [endpoint.url]) == Delivered(sent=1, failed=0, waiting=0)
    assert states(sqlite) == ["sent"]


def test_a_url_that_apprise_does_not_know_waits_and_says_so(sqlite: Store, endpoint: Endpoint) -> None:
    announce(sqlite, "one")
    assert deliver(sqlite, ["nosuch://token", endpoint.url]) == Delivered(sent=1, failed=1, waiting=1)
    rows = {row["endpoint"]: row["error"] for row in sqlite.as_arrow("alerts").to_pylist()}
    assert rows["nosuch://…"] == "Apprise doesn't understand this URL, see its list of services"


def test_an_endpoint_that_never_answers_is_left_after_a_while(
    sqlite: Store, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "TIMEOUT_SECONDS", 1.0)
    announce(sqlite, "one", "two")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        urls = [f"json://127.0.0.1:{silent.getsockname()[1]}", endpoint.url]
        assert deliver(sqlite, urls) == Delivered(sent=2, failed=1, waiting=2)
        assert time.monotonic() - began < 8
    assert endpoint.titles == ["one", "two"]


def test_a_file_gets_a_line_of_json_per_alert(sqlite: Store, tmp_path: Path) -> None:
    path = tmp_path / "Some Folder" / "Alerts.jsonl"
    announce(sqlite, "Überraschung", "two")
    assert deliver(sqlite, [f"file://{str(path).replace(' ', '%20')}"]).sent == 2
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["title"] for line in lines] == ["Überraschung", "two"]
    assert lines[0]["type"] == "success"


def test_a_file_that_can_not_be_written_is_a_dead_endpoint(sqlite: Store, tmp_path: Path) -> None:
    announce(sqlite, "one")
    assert deliver(sqlite, [f"file://{tmp_path}"]) == Delivered(sent=0, failed=1, waiting=1)


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("", []),
        (" json://a , file:///b ", ["json://a", "file:///b"]),
        ("json://a,json://b", ["json://a", "json://b"]),
        ("json://a\njson://b", ["json://a", "json://b"]),
        ("mailto://me@x?to=a,b jsons://c", ["mailto://me@x?to=a,b", "jsons://c"]),
    ],
)
def test_urls_are_separated_by_spaces_or_commas(monkeypatch: pytest.MonkeyPatch, text: str, urls: list[str]) -> None:
    monkeypatch.setenv("MLOPS_ALERT_URLS", text)
    assert urls_from_env() == urls


def test_several_deliverers_send_each_alert_once(store: Store, url: str, endpoint: Endpoint) -> None:
    titles = [f"alert {number}" for number in range(20)]
    announce(store, *titles)
    program = (
        "import sys; from mlops_assets.incidents.store import Store\n"
        "from mlops_assets.incidents.alerts import deliver\n"
        "store = Store(sys.argv[1]); print('ready', flush=True); sys.stdin.readline(); deliver(store, [sys.argv[2]])"
    )
    command = [sys.executable, "-c", program, url, endpoint.url]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    errors = [process.communicate("\n", timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert Counter(endpoint.titles) == Counter(titles)


def test_what_a_killed_deliverer_had_claimed_is_sent_after_a_while(sqlite: Store, endpoint: Endpoint) -> None:
    announce(sqlite, "one")
    program = (
        "import sys, time; from mlops_assets.incidents import alerts; from mlops_assets.incidents.store import Store\n"
        "def hangs(*_): print('claimed', flush=True); time.sleep(60)\n"
        "alerts._send = hangs; alerts.deliver(Store(sys.argv[1]), [sys.argv[2]])"
    )
    url = f"sqlite:///{sqlite.path}"
    process = subprocess.Popen([sys.executable, "-c", program, url, endpoint.url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    now = datetime.now(UTC)
    assert deliver(sqlite, [endpoint.url], now=now) == Delivered(sent=0, failed=0, waiting=1)
    assert deliver(sqlite, [endpoint.url], now=now + timedelta(seconds=CLAIM_SECONDS + 1)).sent == 1
    assert endpoint.titles == ["one"]


ENDPOINTS = ["json://first", "json://second"]
_keys = (f"key {number}" for number in itertools.count())


class Outbox(RuleBasedStateMachine):
    """Endpoints fail and recover, time passes, the same is announced again: nothing is lost and nothing sent twice."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.store = Store(f"sqlite:///{Path(self.folder.name) / 'incidents.db'}")
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(alerts, "_send", self._send)
        self.now = datetime.now(UTC)
        self.announced: list[str] = []
        self.down: set[str] = set()
        self.received: dict[str, list[str]] = {"first": [], "second": []}

    def _send(self, endpoint: Any, alert: Any) -> str | None:
        name = endpoint.service.host
        if name in self.down:
            return "down"
        self.received[name].append(alert["title"])
        return None

    @rule()
    def announce(self) -> None:
        self.announced.append(next(_keys))
        announce(self.store, self.announced[-1])

    @precondition(lambda self: self.announced)
    @rule(data=st.data())
    def announce_again(self, data: st.DataObject) -> None:
        announce(self.store, data.draw(st.sampled_from(self.announced)))

    @rule(name=st.sampled_from(["first", "second"]))
    def fail_or_recover(self, name: str) -> None:
        self.down ^= {name}

    @rule(limit=st.integers(1, 3), minutes=st.integers(0, 90))
    def deliver(self, limit: int, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        deliver(self.store, ENDPOINTS, now=self.now, limit=limit)

    @invariant()
    def nothing_comes_twice(self) -> None:
        for titles in self.received.values():
            assert len(titles) == len(set(titles))
            assert set(titles) <= set(self.announced)

    def teardown(self) -> None:
        self.down.clear()
        last = deliver(self.store, ENDPOINTS, now=self.now + 2 * HOUR)
        self.patch.undo()
        assert last.waiting == 0
        assert all(set(titles) == set(self.announced) for titles in self.received.values())
        assert states(self.store) == ["sent"] * len(self.announced)
        self.folder.cleanup()


def test_the_outbox_loses_nothing_and_sends_nothing_twice() -> None:
    run_state_machine_as_test(Outbox, settings=settings(max_examples=15, stateful_step_count=10, deadline=None))
