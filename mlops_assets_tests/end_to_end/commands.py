"""Commands of `mlops-assets` on the tiny model, each in a process of its own that a test may kill at any point.

Processes are forked from a server that has imported everything, so that a kill hits the work and not the imports.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

import click

import mlops_assets.definitions
from mlops_assets.cli import main
from mlops_assets_tests import rides_graph

# Imported by the server once; it must start no thread.
PRELOADED = (
    *("mlops_assets_tests.end_to_end.commands", "mlops_assets.monitored_model.backfill", "mlflow.sklearn"),
    *("sklearn.linear_model", "sklearn.pipeline", "pandera", "optuna", "evidently.presets", "dagster_mlflow"),
)


@dataclass(frozen=True)
class Ended:
    """How a command ended: `status` is its exit status, None when it was killed."""

    status: int | None
    output: str


def context() -> ForkServerContext:
    """The context that commands are started in."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(PRELOADED))
    return found


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    *,
    kill_after: float | None = None,
) -> Ended:
    """Run a command to its end, or kill it -9 after that many seconds."""
    log.write_text("")
    process = context().Process(target=_work, args=(list(arguments), dict(environment), str(log)))
    process.start()
    process.join(kill_after)
    killed = process.is_alive()
    if killed and process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return Ended(None if killed else process.exitcode, log.read_text(errors="replace"))


def _work(arguments: list[str], environment: dict[str, str], log: str) -> None:
    os.environ.update(environment)
    with open(log, "w", buffering=1) as output:  # noqa: PTH123
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.stdout = sys.stderr = output
        mlops_assets.definitions.defs = rides_graph.definitions  # type: ignore[assignment]
        status = 0
        try:
            main(arguments, standalone_mode=False)
        except click.ClickException as error:
            error.show(output)
            status = error.exit_code
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        except BaseException:  # noqa: BLE001 - the process ends here, and its log says why
            traceback.print_exc(file=output)
            status = 70
        output.flush()
        os._exit(status)
