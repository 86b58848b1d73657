"""Programs that a test starts, and that are gone when it ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from mlops_assets_tests.conftest import MLOPS_VARIABLES


def free_ports(count: int) -> list[int]:
    """Loopback ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def start(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A program in a session of its own, its output added to `log`; `end` it.

    Of the platform's variables it has those of `environment` only: a fixture may be made before a test's own home is,
    and MLflow leaves its address in this process's environment.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in MLOPS_VARIABLES}
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env={**inherited, **environment},
            cwd=log.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_default_signals,  # noqa: PLW1509 - it only sets two signals
        )


@contextlib.contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a session of its own, its output in `log`. On leaving, all processes of that session are ended."""
    log.unlink(missing_ok=True)
    process = start(command, environment, log)
    try:
        yield process
    finally:
        end(process)


def _default_signals() -> None:
    # A suite that was started in the background ignores Ctrl-C, and its children would inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end(process: subprocess.Popen[bytes], patience: float = 15) -> None:
    """Interrupt the program, then kill what is left of its session."""
    session = process.pid
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(session, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    for pid in members(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def members(session: int) -> list[int]:
    """The living processes of a session (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold blanks; behind it: state, parent, process group, session.
            state, _, _, owner, *_ = stat.read_text().rpartition(")")[2].split()
            if int(owner) == session and state != "Z":
                found.append(int(stat.parent.name))
    return found


def wait_for(condition: Callable[[], bool], seconds: float, what: str, log: Path | None = None) -> None:
    """Wait until the condition holds; fail with what was waited for, and the end of the log."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            tail = "" if log is None else f"; the end of its log:\n{log.read_text()[-3000:]}"
            raise AssertionError(f"waited {seconds:g} s for {what}, in vain{tail}")
        time.sleep(0.3)
