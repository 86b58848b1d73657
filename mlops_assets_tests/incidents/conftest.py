"""A fresh incident store for each test: in SQLite, and in PostgreSQL where a server is given or can be started."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.incidents.store import Store

BOTH = ["sqlite", "postgresql"]


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store of this test's own may be made; nothing is there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store' / 'incidents.db'}"
    return _new_database(request.getfixturevalue("postgresql"))


@pytest.fixture
def store(url: str) -> Store:
    return Store(url)


@pytest.fixture
def sqlite(tmp_path: Path) -> Store:
    """For what doesn't depend on the database."""
    return Store(f"sqlite:///{tmp_path / 'incidents.db'}")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL server: `MLOPS_TEST_POSTGRES_URL`, or Debian's, started for this session."""
    if given := os.environ.get("MLOPS_TEST_POSTGRES_URL"):
        yield given
        return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("no PostgreSQL: set MLOPS_TEST_POSTGRES_URL, or install Debian's postgresql")
    user = "postgres" if os.getuid() == 0 else None  # initdb refuses root
    folder = Path(tempfile.mkdtemp(prefix="mlops-postgresql-"))
    if user:
        shutil.chown(folder, user)
    data, log = folder / "data", folder / "log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"postgresql://mlops@127.0.0.1:{port}/postgres"
    with log.open("a") as output:
        quietly: Any = {"user": user, "cwd": folder, "stdout": output, "stderr": output}
        initdb: list[Any] = [programs[-1], "-D", data, "-A", "trust", "-U", "mlops", "--no-sync", "-E", "UTF8"]
        if subprocess.run(initdb, timeout=60, check=False, **quietly).returncode:
            pytest.skip(f"PostgreSQL's initdb fails: {log.read_text()[-500:]}")
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=16MB"]
        postgres = programs[-1].with_name("postgres")
        server = subprocess.Popen([postgres, "-D", data, "-k", folder, "-p", str(port), *options], **quietly)
    try:
        if not _answers(server, url):
            pytest.skip(f"PostgreSQL doesn't start: {log.read_text()[-500:]}")
        yield url
    finally:
        server.send_signal(signal.SIGQUIT)  # PostgreSQL's "immediate shutdown"
        server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(server: subprocess.Popen[bytes], url: str) -> bool:
    import psycopg

    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return True
    return False


def _new_database(server: str) -> str:
    import psycopg
    from sqlalchemy import make_url

    name = f"mlops_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return make_url(server).set(database=name).render_as_string(hide_password=False)
