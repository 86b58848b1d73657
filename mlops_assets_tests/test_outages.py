"""Ordinary outages: one line that says what to do, exit status 1, and another try where the error passes by itself."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from fsspec.implementations.memory import MemoryFileSystem

from mlops_assets.cli import main
from mlops_assets.incidents.store import Store, StoreUnavailable
from mlops_assets.lake.store import Lake
from mlops_assets.outages import RetriedFileSystem, explain, explained, retried, retry_seconds, transient

ROWS = pa.table({"n": [1]})


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


class PostgreSQL:
    """Debian's PostgreSQL on a free port of this machine, to be stopped and started."""

    def __init__(self, folder: Path) -> None:
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not programs:
            pytest.skip("no PostgreSQL: install Debian's postgresql")
        self._postgres, self._folder = programs[-1].with_name("postgres"), folder
        self._user = "postgres" if os.getuid() == 0 else None  # initdb refuses root
        folder.mkdir()
        if self._user:
            shutil.chown(folder, self._user)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"postgresql://mlops@127.0.0.1:{self.port}/postgres"
        self._log = (folder / "log").open("a")
        initdb = [programs[-1], "-D", folder / "data", "-A", "trust", "-U", "mlops", "--no-sync", "-E", "UTF8"]
        subprocess.run(initdb, timeout=60, check=True, **self._quietly())
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=16MB"]
        command = [self._postgres, "-D", self._folder / "data", "-k", self._folder, "-p", str(self.port), *options]
        self._process = subprocess.Popen(command, **self._quietly())

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=30)
            self._process = None

    def _quietly(self) -> dict[str, Any]:
        return {"user": self._user, "cwd": self._folder, "stdout": self._log, "stderr": self._log}


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="mlops-outage-"))
    folder.chmod(0o755)
    found = PostgreSQL(folder / "server")
    found.start()
    yield found
    found.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system can't be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_database_that_is_restarted_is_waited_for(server: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_RETRY_SECONDS", "60")
    store = Store(server.url)
    server.stop()
    later = threading.Timer(2.0, server.start)
    later.start()
    store.announce("data_outage", "rides", "2021-01", "no data", "none", "once")
    later.join()
    assert [alert.title for alert in store.alerts()] == ["no data"]


def test_a_database_that_is_down_is_one_line_and_exit_status_1(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_RETRY_SECONDS", "1")
    monkeypatch.setenv("MLOPS_STORE_URL", "postgresql://ann:geheim123@127.0.0.1:9/mlops")
    for arguments in (("incidents", "list"), ("status",), ("sql", "select 1")):
        Lake(home / "lake").write("rides", "features", "2021-01", ROWS)
        said = run(*arguments)
        if arguments == ("status",):
            assert said.exit_code == 0, "the lake alone answers this"
            assert "is not known: the incident store postgresql+psycopg://…@127.0.0.1:9/mlops" in said.output
            continue
        assert said.exit_code == 1
        assert said.output.count("\n") == 1
        assert said.output.startswith(
            "Error: the incident store postgresql+psycopg://…@127.0.0.1:9/mlops can't be opened"
        )
        assert "Start the database, or correct MLOPS_STORE_URL" in said.output


def test_a_database_that_refuses_for_good_is_not_waited_for(
    server: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_RETRY_SECONDS", "60")
    Store(server.url)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match='database "nowhere" does not exist'):
        Store(server.url.replace("/postgres", "/nowhere"))
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ('connection to server at "127.0.0.1", port 9 failed: Connection refused', True),
        ("FATAL:  the database system is starting up", True),
        ("FATAL:  sorry, too many clients already", True),
        ("terminating connection due to administrator command", True),
        ("server closed the connection unexpectedly", True),
        ('connection failed: FATAL:  password authentication failed for user "ann"', False),
        ('connection failed: FATAL:  database "nowhere" does not exist', False),
    ],
)
def test_what_passes_by_itself_is_told_from_what_does_not(text: str, passes: bool) -> None:
    import psycopg

    assert transient(psycopg.OperationalError(text)) is passes
    assert not transient(ValueError(text))


def test_an_error_of_a_database_names_every_address_that_it_may_come_from() -> None:
    import psycopg

    down = explain(psycopg.OperationalError("connection failed: connection to server at 127.0.0.1 failed: refused"))
    assert down is not None
    assert "does not answer" in down
    assert "Start it, or correct its address (MLOPS_STORE_URL, MLFLOW_TRACKING_URI, or dagster.yaml)" in down
    refused = explain(psycopg.OperationalError('connection failed: FATAL: role "nobody" does not exist'))
    assert refused is not None
    assert "refuses" in refused
    assert "Start it" not in refused


def test_work_is_tried_again_while_the_error_passes_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_RETRY_SECONDS", "3")
    tries: list[float] = []

    def work(error: Exception, until: int) -> str:
        tries.append(time.monotonic())
        if len(tries) < until:
            raise error
        return "done"

    assert retried(lambda: work(ConnectionRefusedError("refused"), 3), "the server") == "done"
    assert len(tries) == 3
    tries.clear()
    with pytest.raises(PermissionError):
        retried(lambda: work(PermissionError("no"), 3), "the server")
    assert len(tries) == 1
    tries.clear()
    with pytest.raises(ConnectionResetError):
        retried(lambda: work(ConnectionResetError("reset"), 99), "the server")
    assert 2 <= len(tries) <= 4
    monkeypatch.setenv("MLOPS_RETRY_SECONDS", "-1")
    with pytest.raises(ValueError, match="expected a number of seconds"):
        retry_seconds()


def test_an_object_store_that_fails_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Flaky(MemoryFileSystem):
        failures = 0

        def size(self, path: str) -> int:
            if Flaky.failures:
                Flaky.failures -= 1
                raise ConnectionResetError("connection reset by peer")
            return int(super().size(path))

    lake = Lake("memory://flaky/lake")
    monkeypatch.setattr(lake, "_fs", RetriedFileSystem(Flaky(), "the lake"))
    lake.write("rides", "features", "2021-01", ROWS)
    Flaky.failures = 2
    assert lake.partition("rides", "features", "2021-01").rows == 1
    assert Flaky.failures == 0


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(small_disk: Path) -> None:
    said = run("simulate", "ed_admission", "--rows", "60000", "--months", "6", "--to", str(small_disk))
    assert said.exit_code == 1
    (line,) = [line for line in said.output.splitlines() if line.startswith("Error: ")]
    assert "the disk is full" in line
    assert "Free some space, then run the command again" in line
    assert not list(small_disk.rglob("*.tmp"))


def _fill(folder: Path) -> None:
    with (folder / "filling").open("wb", buffering=0) as file:
        while True:
            file.write(os.urandom(4096))


def _fill_by_alerts(store: Store) -> None:
    for number in range(1000):
        store.announce("data_outage", "rides", "2021-01", "x" * 4000, "", str(number))


def test_a_store_and_a_lake_on_a_full_disk_say_so(small_disk: Path) -> None:
    lake = Lake(small_disk / "lake")
    lake.write("rides", "features", "2021-01", ROWS)
    store = Store(f"sqlite:///{small_disk / 'store.db'}")
    with pytest.raises(OSError, match="No space left"):
        _fill(small_disk)
    with pytest.raises(Exception, match=r"full|space|I/O") as raised:
        _fill_by_alerts(store)
    assert "disk is full" in (explain(raised.value) or "")
    many = pa.table({"n": os.urandom(100_000).hex().split("a")})
    with pytest.raises(OSError, match="space") as written, explained():
        lake.write("rides", "features", "2021-02", many)
    assert any("the disk is full" in note for note in written.value.__notes__), "it stands in the run's log, too"
    assert lake.periods("rides", "features") == ["2021-01"]


AS_NOBODY = """
import os, sys
from mlops_assets.cli import main
main(["status"], standalone_mode=False)  # imports what it needs, as root
os.environ["MLOPS_HOME"] = sys.argv[1]
os.setuid(65534)
main(["status"])
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_home_that_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    done = subprocess.run([sys.executable, "-c", AS_NOBODY, closed], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "permission denied" in done.stderr
    assert str(closed) in done.stderr


@pytest.mark.parametrize(("package", "url"), [("gcsfs", "gs://bucket/lake"), ("adlfs", "abfs://bucket/lake")])
def test_a_package_that_only_some_addresses_need_is_named_with_its_command(
    package: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    monkeypatch.setenv("MLOPS_LAKE_URL", url)
    said = run("status")
    assert said.exit_code == 1
    assert f"the package {package} is not installed, which this address needs: pip install '{package}'" in said.output


def test_an_mlflow_server_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlops_assets.training import tracking

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Exception, match="127") as raised:
        tracking.client("http://127.0.0.1:9").get_experiment_by_name("x")
    assert "the MLflow server does not answer" in (explain(raised.value) or "")
    assert "correct MLFLOW_TRACKING_URI" in (explain(raised.value) or "")


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = run("dev", "--dagster-port", str(port))
    assert said.exit_code == 1
    assert said.output.splitlines()[-1].startswith(f"Error: port {port} is taken")
    assert "--dagster-port" in said.output
    assert "Traceback" not in said.output
