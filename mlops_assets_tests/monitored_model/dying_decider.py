"""A process that decides a period's champion and is killed, or paused, right before one of its writes.

It is started by `multiprocessing`'s fork server, which has loaded the heavy libraries once.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.sklearn  # noqa: F401  loaded once, in the server
from mlflow import MlflowClient

from mlops_assets.incidents import lease
from mlops_assets.incidents.lease import LeaseLost
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.steps import champion
from mlops_assets_tests import tiny_model

LOST = 3  # exit status of a process that has learned that its lease was taken over
WRITES: list[tuple[Any, str]] = [
    (Lake, "write"),
    (Store, "record"),
    (Store, "announce"),
    (MlflowClient, "set_registered_model_alias"),
    (MlflowClient, "delete_registered_model_alias"),
    (MlflowClient, "set_model_version_tag"),
]


def decide_and_die(home: Path, data: Path, period: str, before_write: int) -> None:
    """Decide a period; be killed before the write of this number. With fewer writes the process ends well."""
    done = 0

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(write)
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal done
            done += 1
            if done == before_write:
                os.kill(os.getpid(), signal.SIGKILL)
            return write(*arguments, **named)

        return call

    for owner, name in WRITES:
        setattr(owner, name, counted(getattr(owner, name)))
    _decide(home, data, period)


def decide_and_pause(home: Path, data: Path, period: str, before: str) -> None:
    """Decide a period; stop before the decision, before its line in the log, or before the aliases are written."""
    # Stopped in the middle of a heartbeat, the process would keep SQLite's lock.
    lease._Holding._beat = lambda self: None  # type: ignore[method-assign]
    places = {"decision": (champion, "_as_ordered"), "log": (Lake, "write"), "aliases": (Store, "announce")}
    owner, name = places[before]
    known = getattr(owner, name)

    def paused(*arguments: Any, **named: Any) -> Any:
        found = known(*arguments, **named)
        os.kill(os.getpid(), signal.SIGSTOP)
        return found

    setattr(owner, name, paused)
    try:
        _decide(home, data, period)
    except LeaseLost:
        sys.exit(LOST)


def no_client() -> MlflowClient:
    """For what must not ask MLflow."""
    raise AssertionError("MLflow is asked, although the log says that the decision is finished")


def _decide(home: Path, data: Path, period: str) -> None:
    os.environ["MLOPS_HOME"] = str(home)
    with tiny_model.workbench(home, data) as bench:
        champion.make(bench, period)
