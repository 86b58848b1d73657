"""What every test relies on: a home of its own, and no traffic beyond this machine."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before any library reads them: tests run in parallel on few cores, and none may phone home.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["DO_NOT_TRACK"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "true"

# Once for all folders: each import of the fixture elsewhere would start a browser of its own, and the second one fails.
pytest_plugins = ["mlops_assets_tests.end_to_end.browser"]

MLOPS_VARIABLES = (
    "MLOPS_HOME",
    "MLOPS_DATA_DIR",
    "MLOPS_LAKE_URL",
    "MLOPS_STORE_URL",
    "MLOPS_ALERT_URLS",
    "MLOPS_SENSORS",
    "MLOPS_SENSOR_SECONDS",
    "MLOPS_ALLOWED_HOSTS",
    "MLFLOW_TRACKING_URI",
    "DAGSTER_HOME",
)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start from a clean environment, before fixtures of any scope are made: libraries write these two into it."""
    for variable in ("MLFLOW_TRACKING_URI", "DAGSTER_HOME"):
        os.environ.pop(variable, None)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh MLOPS_HOME for each test, whatever the environment says."""
    for variable in MLOPS_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    root = tmp_path / "home"
    monkeypatch.setenv("MLOPS_HOME", str(root))
    return root


@pytest.fixture(autouse=True, scope="session")
def only_loopback() -> Iterator[None]:
    """A test that reaches for another machine fails instead of depending on it."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(str(address[0])):
            raise OSError(f"tests use no network beyond this machine, but something connects to {address[0]}")
        connect(self, address)

    socket.socket.connect = guarded  # type: ignore[method-assign]
    yield
    socket.socket.connect = connect  # type: ignore[method-assign]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
