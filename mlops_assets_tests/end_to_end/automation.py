"""A deployment that works by itself: a code server and a daemon over a home, files that arrive, people who are told.

Both are programs of their own, as in production, so that a test can kill each of them.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from mlops_assets.home import Home
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.gates import period_gate
from mlops_assets.monitored_model.reconciling import IN_PROGRESS, difference, is_whole
from mlops_assets.monitored_model.sensors import platform_sensors
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets_tests import rides_graph, tiny_model
from mlops_assets_tests.end_to_end.processes import end, free_ports, members, start, wait_for

if TYPE_CHECKING:
    from mlops_assets.monitored_model.backfill import PeriodRunResult

PROJECT = Path(__file__).parents[2]
SENSOR_SECONDS = 2
# The location's name must be that of workspace.yaml, which runs of the command line are linked to.
WORKSPACE = """
load_from:
  - grpc_server:
      host: 127.0.0.1
      port: {port}
      location_name: mlops_assets
"""
DEFINITIONS = """
import json
from pathlib import Path

from mlops_assets_tests.end_to_end import automation

defs = automation.definitions(json.loads(Path(__file__).with_name("changes.json").read_text()))
"""
# Months that are long over are no outage here: their files arrive when the test says so.
PATIENT = {"grace": 10_000}
COMPARED = (
    "raw_rides",
    "features",
    "predictions",
    "champion",
    "drift_report",
    "fallback_predictions",
    "served_predictions",
    "performance",
)


def declared(changes: dict[str, Any] | None = None) -> ModelSpec:
    """The tiny model with top-level changes."""
    return tiny_model.spec(**PATIENT, **(changes or {}))


def definitions(changes: dict[str, Any] | None = None) -> dg.Definitions:
    """What the code server serves: the tiny model with all sensors."""
    return rides_graph.definitions(declared(changes), tiny_model.SQL, dg.Definitions(sensors=platform_sensors()))


def backfilled(root: Path, data: Path, periods: Sequence[str]) -> list[PeriodRunResult]:
    """The periods without a daemon, on the home `root/home`."""
    home = Home(root / "home")
    with _in_home(home, data) as instance:
        return rides_graph.run(definitions(), periods, instance)


@contextlib.contextmanager
def _in_home(home: Home, data: Path) -> Iterator[dg.DagsterInstance]:
    """The home's instance, and an environment that names this home and nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("MLOPS_LAKE_URL", "MLOPS_STORE_URL", "MLOPS_ALERT_URLS", "MLFLOW_TRACKING_URI"):
            # Set first, so that what a library sets meanwhile is undone.
            patch.setenv(variable, "")
            patch.delenv(variable)
        patch.setenv("MLOPS_HOME", str(home.root))
        patch.setenv("MLOPS_DATA_DIR", str(data))
        patch.setenv("DAGSTER_HOME", str(home.root / "dagster"))
        home.prepare_dagster()
        with instance_of(home) as instance:
            yield instance


def instance_of(home: Home) -> dg.DagsterInstance:
    """The instance of a home, whatever this process' own is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home.root / "dagster"))
        return dg.DagsterInstance.get()


@dataclass
class Inbox:
    """What has arrived at the people's end, in order."""

    url: str
    messages: list[dict[str, Any]] = field(default_factory=list)

    def titles(self) -> list[str]:
        return [message["title"] for message in self.messages]

    def numbers(self) -> list[str]:
        """The alerts' own numbers, the last line of each."""
        return [message["message"].splitlines()[-1] for message in self.messages]


@contextlib.contextmanager
def inbox() -> Iterator[Inbox]:
    """An HTTP server that takes Apprise's `json://` messages."""
    found = Inbox("")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.messages.append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"json://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Deployment:
    """A code server and a daemon that work by themselves; `started` are all programs ever started, alive or not."""

    root: Path
    data: Path
    inbox: Inbox
    port: int
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    code_server: subprocess.Popen[bytes] | None = None
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Home:
        return Home(self.root / "home")

    @property
    def lake(self) -> Lake:
        return Lake(str(self.home.root / "lake"))

    @property
    def store(self) -> Store:
        return Store(f"sqlite:///{self.home.root / 'store.db'}")

    @property
    def log(self) -> Path:
        return self.root / "daemon.log"

    def instance(self) -> dg.DagsterInstance:
        return instance_of(self.home)

    def declare(self, **changes: Any) -> None:
        """Change the model's declaration; the code server reads it when it starts."""
        (self.root / "changes.json").write_text(json.dumps(changes))

    def start_code_server(self) -> None:
        command = ["api", "grpc", "-f", str(self.root / "project.py"), "-d", str(self.root)]
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        self.code_server = self._start("dagster", [*command, *address], "code_server.log")

    def start_daemon(self) -> None:
        self.daemon = self._start("dagster._daemon", ["run", "-w", str(self.root / "workspace.yaml")], "daemon.log")

    def _start(self, module: str, arguments: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        environment = {
            "MLOPS_HOME": str(self.home.root),
            "MLOPS_DATA_DIR": str(self.data),
            "DAGSTER_HOME": str(self.home.root / "dagster"),
            "MLOPS_SENSORS": "on",
            "MLOPS_SENSOR_SECONDS": str(SENSOR_SECONDS),
            "MLOPS_ALERT_URLS": self.inbox.url,
            "PYTHONPATH": str(PROJECT),
        }
        process = start([sys.executable, "-m", module, *arguments], environment, self.root / log)
        self.started.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes] | None) -> None:
        """kill -9 of this very process; what it started lives on."""
        assert process is not None
        process.kill()
        process.wait()

    def run_processes(self) -> list[int]:
        """The processes that work on a run, of whichever code server."""
        found = []
        for process in self.started:
            for pid in members(process.pid):
                with contextlib.suppress(OSError):
                    if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        found.append(pid)
        return found

    def arrive(self, period: str, source: Path | None = None, **arguments: Any) -> None:
        """Put a month's file in the data folder, whole, as a careful upload does."""
        hidden = self.data.parent / "upload"
        if source is None:
            tiny_model.write_rides(hidden, [period], **arguments)
            source = hidden / "rides" / f"{period}.parquet"
        temporary = self.data / "rides" / f"{period}.tmp"
        shutil.copyfile(source, temporary)
        os.replace(temporary, self.data / "rides" / f"{period}.parquet")  # noqa: PTH105 - the atomic step

    def changes(self) -> dict[str, Any]:
        return json.loads((self.root / "changes.json").read_text())

    def report_again(self, period: str) -> None:
        """Materialize `drift_report` alone, as declared now; nothing else is asked for."""
        job = definitions(self.changes()).resolve_implicit_global_asset_job_def()
        with _in_home(self.home, self.data) as instance:
            job.execute_in_process(
                asset_selection=[dg.AssetKey(["rides", "drift_report"])], partition_key=period, instance=instance
            )

    def is_settled(self, period: str) -> bool:
        """Whether a period is whole, is served as its gate says, and nothing is under way or waits to be sent."""
        spec, lake, store = declared(self.changes()), self.lake, self.store
        if period not in lake.periods(spec.name, "raw_rides") or not is_whole(spec, lake, period):
            return False
        for known in lake.periods(spec.name, "drift_report"):
            if difference(spec, lake, known, period_gate(spec, lake, store, known)) is not None:
                return False
        with self.instance() as instance:
            if instance.get_runs_count(dg.RunsFilter(statuses=IN_PROGRESS)):
                return False
        return all(alert.state != "waiting" for alert in store.alerts())

    def wait_until_settled(self, period: str, seconds: float = 120) -> None:
        wait_for(lambda: self.is_settled(period), seconds, f"{period} to be settled", self.log)


@contextlib.contextmanager
def deployment(history: Path, root: Path) -> Iterator[Deployment]:
    """A working deployment over a copy of a history (`home` and `data`); all its processes are gone at the end."""
    shutil.copytree(history / "home", root / "home", symlinks=True)
    shutil.copytree(history / "data", root / "data")
    (port,) = free_ports(1)
    (root / "project.py").write_text(DEFINITIONS)
    (root / "workspace.yaml").write_text(WORKSPACE.format(port=port))
    with inbox() as received:
        found = Deployment(root, root / "data", received, port)
        found.declare()
        try:
            found.start_code_server()
            found.start_daemon()
            yield found
        finally:
            for process in reversed(found.started):
                end(process, patience=5)


def state(root: Path) -> dict[str, Any]:
    """All that must not depend on how the periods came to be made: contents by table and period, incidents, alerts."""
    lake, store = Lake(str(root / "home" / "lake")), Store(f"sqlite:///{root / 'home' / 'store.db'}")
    contents = {
        table: {period: lake.partition("rides", table, period).digest for period in lake.periods("rides", table)}
        for table in COMPARED
    }
    decisions = {
        period: {
            name: lake.partition("rides", "served_predictions", period).facts.get(name)
            for name in ("gate", "decision_id", "source")
        }
        for period in lake.periods("rides", "served_predictions")
    }
    verdicts = {
        period: lake.partition("rides", "drift_report", period).facts.get("verdict")
        for period in lake.periods("rides", "drift_report")
    }
    incidents = [
        (found.period, found.kind, found.verdict, found.state, found.resolved_why) for found in store.incidents()
    ]
    alerts = sorted(
        (alert.kind, alert.period, alert.title) for alert in store.alerts() if alert.kind != "infrastructure_failure"
    )
    return {
        "contents": contents,
        "decisions": decisions,
        "verdicts": verdicts,
        "incidents": sorted(incidents),
        "alerts": alerts,
    }


def of_kills(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """The incidents of a `state` that a killed run has opened: which there are depends on who notices it first."""
    return [incident for incident in found["incidents"] if incident[1:3] == ("period_failed", "killed")]


def without_kills(found: dict[str, Any]) -> dict[str, Any]:
    """A `state` without the incidents that killed runs have opened, and without the alerts about them."""
    titles = {f"rides {period}: period failed killed" for period, *_ in of_kills(found)}
    titles |= {f"rides {period}: period_failed incident resolved" for period, *_ in of_kills(found)}
    incidents = [incident for incident in found["incidents"] if incident not in of_kills(found)]
    alerts = [alert for alert in found["alerts"] if alert[2] not in titles]
    return found | {"incidents": incidents, "alerts": alerts}


def interrupt(pid: int) -> bool:
    """kill -9 of a process; whether it was still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
