"""Work in processes of its own, so that no measurement sees another's imports, caches or memory.

A *worker* is a generator function of this package. It runs in a fresh Python with a fresh MLOPS_HOME; each `next()`
makes it go on to its next `yield` and gives back what it yielded (JSON), so two workers can be run in turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

PROJECT = Path(__file__).resolve().parent.parent
OWN_VARIABLES = ("MLOPS_HOME", "MLOPS_DATA_DIR", "MLOPS_LAKE_URL", "MLFLOW_TRACKING_URI", "DAGSTER_HOME")
QUIET = {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "DAGSTER_DISABLE_TELEMETRY": "true"}


class WorkerFailed(RuntimeError):
    """A worker or command ended with an error."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a process that keeps everything below `home`, whatever ours says."""
    inherited = {name: value for name, value in os.environ.items() if name not in OWN_VARIABLES}
    return {**inherited, **QUIET, "MLOPS_HOME": str(home), **more}


def command(arguments: Sequence[str], home: Path) -> float:
    """Run a command to its end; wall seconds of the whole process. Raises WorkerFailed."""
    started = time.perf_counter()
    done = subprocess.run(arguments, env=environment(home), cwd=PROJECT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise WorkerFailed(f"{' '.join(arguments)} ended with status {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return seconds


def script(name: str) -> str:
    """A console script beside this Python."""
    return str(Path(sys.executable).with_name(name))


class Worker(Iterator[Any]):
    """A generator function `module:function(**arguments)` of this package, in a process of its own."""

    def __init__(self, function: str, home: Path, arguments: Mapping[str, Any], data_dir: Path | None) -> None:
        more = {} if data_dir is None else {"MLOPS_DATA_DIR": str(data_dir)}
        self._log = (home.parent / f"{home.name}.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.process", function, json.dumps(arguments)],
            env=environment(home, **more),
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._function = function

    def __next__(self) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the worker has ended; what it wrote last says how
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise WorkerFailed(f"{self._function} ended before it was done:\n{self._log.read()[-4000:]}")
        answer = json.loads(line)
        if answer == "done":
            raise StopIteration
        return answer["yielded"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(20)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def worker(function: str, home: Path, *, data_dir: Path | None = None, **arguments: Any) -> Worker:
    """Start a worker; use it in a `with` block."""
    home.mkdir(parents=True, exist_ok=True)
    return Worker(function, home, arguments, data_dir)


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Resident memory of this process: MB at the start of the block, and its peak until the end (Linux).

    Gives a dict that is filled with `before` and `peak` when the block is left.
    """
    found: dict[str, float] = {}
    Path("/proc/self/clear_refs").write_text("5")  # makes the peak start again from what is resident now
    found["before"] = _status("VmRSS")
    yield found
    found["peak"] = _status("VmHWM")


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise WorkerFailed(f"/proc/self/status has no {name}; memory is measured on Linux only")


def _serve(function: str, arguments: str) -> None:
    """The worker's side: a line on stdin asks for the next value, stdout carries nothing but answers."""
    from importlib import import_module

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    module, _, name = function.partition(":")
    values = getattr(import_module(module), name)(**json.loads(arguments))
    for _ in sys.stdin:
        try:
            answer: Any = {"yielded": next(values)}
        except StopIteration:
            answer = "done"
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if answer == "done":
            break


if __name__ == "__main__":
    _serve(*sys.argv[1:])
