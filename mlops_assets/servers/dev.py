"""`mlops-assets dev`: Dagster, MLflow, Evidently and the report pages as one, on this machine only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType

from mlops_assets.home import PROJECT, Home
from mlops_assets.servers.guard import allowed_hosts

HOST = "127.0.0.1"
READY_SECONDS = 120
MLFLOW_START = "/#/experiments?workflowType=machine_learning"
STOP_SECONDS = 20
SERVERS = "mlops_assets.servers"
MLFLOW_APP = "mlops-assets"


class PortTaken(RuntimeError):
    """Something else listens where a server should."""


class OutdatedInstallation(RuntimeError):
    """The package was installed before it had what a server needs."""


@dataclass(frozen=True)
class Server:
    """A program to run, and what a person finds at its address, on the page that `opens_at` names."""

    name: str
    port: int
    command: Sequence[str]
    shows: str
    opens_at: str = ""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


def servers(ports: Mapping[str, int]) -> list[Server]:
    """The programs of `dev`, by the ports for `dagster`, `mlflow`, `evidently` and `reports`."""
    home = Home.from_env()
    for folder in (home.reports, home.evidently, home.artifacts):
        folder.mkdir(parents=True, exist_ok=True)
    python = [sys.executable, "-m"]
    workspace = str(PROJECT / "workspace.yaml")
    hosts = ",".join(f"{name},{name}:*" for name in sorted(allowed_hosts()) if ":" not in name)
    # By MLflow's entry point `mlflow.app`: its own check of `Origin` admits every port of this machine.
    mlflow = ["mlflow", "server", "--app-name", MLFLOW_APP, "--allowed-hosts", hosts]
    mlflow += ["--backend-store-uri", home.tracking_uri, "--default-artifact-root", home.artifacts.as_uri()]
    mlflow += ["--workers", "1", *_listens(ports["mlflow"])]
    dagster = [f"{SERVERS}.dagster_ui", "--workspace", workspace, *_listens(ports["dagster"])]
    evidently = [f"{SERVERS}.evidently_ui", "--workspace", str(home.evidently), *_listens(ports["evidently"])]
    reports = [f"{SERVERS}.reports", "--folder", str(home.reports), *_listens(ports["reports"])]
    return [
        Server("Dagster", ports["dagster"], python + dagster, "lineage, partitions, checks, runs"),
        # Its bare address opens the pages for language models, where there is nothing to see.
        Server("MLflow", ports["mlflow"], python + mlflow, "experiments, trials, the model registry", MLFLOW_START),
        Server("Evidently", ports["evidently"], python + evidently, "drift panels over the periods"),
        Server("Reports", ports["reports"], python + reports, "Evidently's page of each period"),
    ]


def _listens(port: int) -> list[str]:
    return ["--host", HOST, "--port", str(port)]


def serve(ports: Mapping[str, int]) -> None:
    """Start all servers, say where they are, and stop them together on Ctrl-C or when one of them ends.

    Raises PortTaken or OutdatedInstallation before anything is started.
    """
    _check_installation()
    home = Home.from_env()
    home.prepare_dagster()
    wanted = servers(ports)
    for server in wanted:
        _check_free(server)
    _initialise_mlflow(home)
    environment = _environment(wanted)
    logs = home.root / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    running: list[subprocess.Popen[bytes]] = []
    # Both end us in the same way, also where a shell that started us in the background made us ignore Ctrl-C.
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for server in wanted:
            with (logs / f"{server.name.lower()}.log").open("wb") as log:
                running.append(
                    subprocess.Popen(
                        server.command,
                        env=environment,
                        cwd=PROJECT,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        preexec_fn=_default_signals,  # noqa: PLW1509 - no thread runs yet
                    )
                )
        print("Starting; the first time takes up to half a minute ...", flush=True)
        _wait_until_ready(wanted, running, logs)
        print("\nReady:", flush=True)
        for server in wanted:
            print(f"  {server.name:<10} {server.url + server.opens_at:<68} {server.shows}", flush=True)
        print(f"\nLogs are in {logs}. Ctrl-C stops everything.", flush=True)
        _watch(wanted, running, logs)
    except KeyboardInterrupt:
        print("\nStopping ...", flush=True)
    finally:
        _stop(running)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _check_installation() -> None:
    if MLFLOW_APP not in {point.name for point in entry_points(group="mlflow.app")}:
        raise OutdatedInstallation(
            f"the installation of mlops_assets names no entry point {MLFLOW_APP} of mlflow.app, which puts the guard "
            "before MLflow: it is older than the code. Run make install, or pip install -e ."
        )


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _default_signals() -> None:
    # A shell that starts us in the background has told us to ignore Ctrl-C; children would inherit that, and `dagster
    # dev` could never be stopped.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _check_free(server: Server) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, server.port))
        except OSError as error:
            raise PortTaken(
                f"port {server.port} is taken, so {server.name} can't use it; stop what listens there, or choose "
                f"another with --{server.name.lower()}-port"
            ) from error


def _initialise_mlflow(home: Home) -> None:
    from mlops_assets.training import tracking

    tracking.initialise(home.tracking_uri, home.artifacts)


def _environment(wanted: Sequence[Server]) -> dict[str, str]:
    """The servers' environment: links in metadata made from now on lead to these ports."""
    addresses = {f"MLOPS_{server.name.upper()}_URL": server.url for server in wanted}
    quiet = {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONUNBUFFERED": "1"}
    # Whoever opens the pages wants to see the platform act; MLOPS_SENSORS=off keeps it still.
    quiet["MLOPS_SENSORS"] = os.environ.get("MLOPS_SENSORS", "on")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, **addresses, **quiet, "PATH": path}


def _wait_until_ready(wanted: Sequence[Server], running: Sequence[subprocess.Popen[bytes]], logs: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    for server, process in zip(wanted, running, strict=True):
        while not _answers(server.url):
            if process.poll() is not None:
                raise RuntimeError(
                    f"{server.name} ended with status {process.returncode}; its log: {logs}/{server.name.lower()}.log"
                )
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"{server.name} does not answer at {server.url} after {READY_SECONDS} s; "
                    f"its log: {logs}/{server.name.lower()}.log"
                )
            time.sleep(0.3)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _watch(wanted: Sequence[Server], running: Sequence[subprocess.Popen[bytes]], logs: Path) -> None:
    while True:
        for server, process in zip(wanted, running, strict=True):
            if process.poll() is not None:
                raise RuntimeError(
                    f"{server.name} ended with status {process.returncode}; its log: {logs}/{server.name.lower()}.log"
                )
        time.sleep(0.5)


def _stop(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the servers with all that they started: politely, then for good."""
    for process in running:
        _signal_group(process.pid, signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    while any(_lives(process) for process in running) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in running:
        # A server may end before its children do; the group is gone only when they are.
        if _lives(process):
            _signal_group(process.pid, signal.SIGKILL)
        process.wait()


def _lives(process: subprocess.Popen[bytes]) -> bool:
    """Whether a server, or anything that it started, is still there."""
    return process.poll() is None or _signal_group(process.pid, 0)


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; False when nobody is in it any more."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
