"""`mlops-assets dev` as a person runs it: four servers that answer, one Ctrl-C that ends them all."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest

from mlops_assets.servers import dev
from mlops_assets_tests.end_to_end.processes import free_ports, members, running, wait_for

SERVERS = ("dagster", "mlflow", "evidently", "reports")
DELETE_RUN = 'mutation { deleteRun(runId: "00000000-0000-0000-0000-000000000000") { __typename } }'


def command(ports: dict[str, int]) -> list[str]:
    options = [text for name, port in ports.items() for text in (f"--{name}-port", str(port))]
    return [str(Path(sys.executable).with_name("mlops-assets")), "dev", *options]


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
            return page.status == 200
    except urllib.error.HTTPError:
        raise
    except OSError:
        return False


def children_of(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(pid) for pid in listed]


def status(port: int, method: str = "GET", path: str = "/", body: bytes = b"", **headers: str) -> int:
    """The status that a server answers a request with, whatever headers it has."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body or None, {name.replace("_", "-"): text for name, text in headers.items()})
        return connection.getresponse().status
    finally:
        connection.close()


# What each server would do for any web page without the guard.
WRITES = {
    "dagster": ("POST", f"/graphql?query={quote(DELETE_RUN)}"),
    "mlflow": ("POST", "/api/2.0/mlflow/experiments/create"),
    "evidently": ("DELETE", "/api/projects/00000000-0000-0000-0000-000000000000"),
    "reports": ("POST", "/rides/2021-04.html"),
}


def check_guarded(name: str, port: int) -> None:
    method, path = WRITES[name]
    json = {"Content_Type": "application/json"}
    own = status(port, method, path, b"{}", Origin=f"http://127.0.0.1:{port}", **json)
    assert own not in (403, 500), f"{name} refuses its own page: {own}"
    for origin in ("https://evil.example", "null", "http://localhost:1234", f"http://localhost:{port}"):
        assert status(port, method, path, b"{}", Origin=origin, **json) == 403, f"{name} admits {origin}"
        assert status(port, method, path, b"{}", Origin=origin, Content_Type="text/plain") == 403
    assert status(port, method, path, b"{}", Host="evil.example", **json) == 403, f"{name} answers to any name"
    assert status(port, Host=f"evil.example:{port}") == 403
    assert status(port, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="image") == 403


def check_dagster_changes_nothing_by_get(port: int) -> None:
    assert status(port, path=f"/graphql?query={quote(DELETE_RUN)}") == 405
    assert status(port, path=f"/graphql?query={quote('{ version }')}") == 200
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec_WebSocket_Protocol": "graphql-ws",
    }
    assert status(port, path="/graphql", **handshake, Origin="https://evil.example") == 403
    assert status(port, path="/graphql", **handshake, Origin=f"http://127.0.0.1:{port}") == 101


def test_dev_starts_four_servers_and_ctrl_c_ends_them_all(home: Path, tmp_path: Path) -> None:
    ports = dict(zip(SERVERS, free_ports(4), strict=True))
    page = home / "reports" / "rides" / "2021-04.html"
    page.parent.mkdir(parents=True)
    page.write_text("the report of April")
    log = tmp_path / "dev.log"
    with running(command(ports), {"MLOPS_HOME": str(home)}, log) as process:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return "Ready:" in log.read_text()

        wait_for(ready, 150, "`mlops-assets dev`", log)
        servers = children_of(process.pid)
        # Each server has a session of its own, and ends with all that it started.
        assert len(servers) == len(SERVERS)
        try:
            assert all(answers(port) for port in ports.values())
            with urllib.request.urlopen(f"http://127.0.0.1:{ports['reports']}/rides/2021-04.html") as found:
                assert found.read() == b"the report of April"
            for name, port in ports.items():
                assert f"http://127.0.0.1:{port}" in log.read_text(), f"{name}'s address is not shown"
                check_guarded(name, port)
            check_dagster_changes_nothing_by_get(ports["dagster"])
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(40) == 0
            assert {pid: members(pid) for pid in servers if members(pid)} == {}
            assert not any(answers(port) for port in ports.values())
        finally:
            for server in servers:
                for pid in members(server):
                    os.kill(pid, signal.SIGKILL)


def test_a_taken_port_is_named_before_anything_starts(home: Path, tmp_path: Path) -> None:
    ports = dict(zip(SERVERS, free_ports(4), strict=True))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports["mlflow"]))
        taken.listen()
        environment = {**os.environ, "MLOPS_HOME": str(home)}
        ended = subprocess.run(
            command(ports), env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.returncode == 1
    assert f"port {ports['mlflow']} is taken, so MLflow can't use it" in ended.stderr
    assert "--mlflow-port" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not any(answers(port) for port in ports.values())


def test_an_installation_without_the_guard_s_entry_point_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dev, "entry_points", lambda group: [])
    with pytest.raises(dev.OutdatedInstallation, match="Run make install"):
        dev.serve(dict(zip(SERVERS, free_ports(4), strict=True)))
