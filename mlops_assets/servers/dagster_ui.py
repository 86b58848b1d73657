"""Dagster's webserver and daemon over one workspace, the webserver behind the guard.

What `dagster dev` does, with a webserver of ours: `dagster dev` starts the stock one, which runs any GraphQL
mutation that a web page sends, by GET too.

    python -m mlops_assets.servers.dagster_ui --workspace workspace.yaml --port 3000
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import yaml
from dagster_webserver.webserver import DagsterWebserver
from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from mlops_assets.servers.guard import Guard

if TYPE_CHECKING:
    import uvicorn
    from starlette.requests import Request
    from starlette.responses import Response

LOG_LEVEL = "warning"
# What `dagster-webserver` itself takes by default: milliseconds, seconds and connections.
STATEMENT_TIMEOUT, POOL_RECYCLE, POOL_OVERFLOW = 15_000, 3_600, 20
DAEMON_SECONDS = 20


class GuardedWebserver(DagsterWebserver[Any, Any]):
    """Dagster's webserver, which other web pages can't use and which changes nothing by GET."""

    def build_middleware(self) -> list[Middleware]:
        return [Middleware(Guard), *super().build_middleware()]

    async def graphql_http_endpoint(self, request: Request) -> Response:
        """Answer a GraphQL request; only queries by GET, because a link or an image makes a browser send one."""
        if request.method != "POST" and _changes_something(request.query_params.get("query", "")):
            return PlainTextResponse("Refused: send mutations by POST.\n", status_code=405, headers={"Allow": "POST"})
        return await super().graphql_http_endpoint(request)


def _changes_something(query: str) -> bool:
    """Whether a GraphQL document has an operation other than a query. What can't be parsed has none."""
    try:
        document = parse(query)
    except GraphQLError:
        return False
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    return any(node.operation is not OperationType.QUERY for node in operations)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a workspace until the process is interrupted, or the daemon ends."""
    import uvicorn

    parser = argparse.ArgumentParser(prog="mlops_assets.servers.dagster_ui", description=__doc__)
    parser.add_argument("--workspace", "-w", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    given = parser.parse_args(arguments)
    os.environ["DAGSTER_IS_DEV_CLI"] = "1"
    with ExitStack() as stack:
        instance = stack.enter_context(dg.DagsterInstance.get())
        instance.optimize_for_webserver(STATEMENT_TIMEOUT, POOL_RECYCLE, POOL_OVERFLOW)
        workspace = stack.enter_context(_code_servers(instance, given.workspace))
        daemon = stack.enter_context(_daemon(instance, workspace))
        app = stack.enter_context(_webserver(instance, workspace))
        config = uvicorn.Config(app, host=given.host, port=given.port, log_level=LOG_LEVEL)
        server = uvicorn.Server(config)
        threading.Thread(target=_stop_with, args=(daemon, server), daemon=True).start()
        server.run()
        if not server.started:
            sys.exit(f"the webserver could not listen on {given.host}:{given.port}")
        ended = daemon.poll()
    if ended:
        sys.exit(f"Dagster's daemon ended with status {ended}")


@contextmanager
def _code_servers(instance: dg.DagsterInstance, workspace: Path) -> Iterator[Path]:
    """A workspace file that leads to one code server for each code location, shared by webserver and daemon."""
    from dagster._cli.proxy_server_manager import ProxyServerManager
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    target = WorkspaceFileTarget(paths=[str(workspace)])
    with (
        ProxyServerManager(instance, target, code_server_log_level=LOG_LEVEL) as manager,
        tempfile.TemporaryDirectory(prefix="mlops_assets_") as folder,
    ):
        served = Path(folder) / "workspace.yaml"
        served.write_text(yaml.safe_dump({"load_from": manager.get_code_server_specs()}))
        yield served


@contextmanager
def _daemon(instance: dg.DagsterInstance, workspace: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Dagster's daemon (sensors, schedules, run queue, backfills) as a process of its own."""
    command = [sys.executable, "-m", "dagster._daemon", "run", "--workspace", str(workspace), "--log-level", LOG_LEVEL]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(DAEMON_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _webserver(instance: dg.DagsterInstance, workspace: Path) -> Iterator[Any]:
    """The guarded webserver's ASGI application over a workspace file."""
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    target = WorkspaceFileTarget(paths=[str(workspace)])
    with WorkspaceProcessContext(
        instance, version=dg.__version__, workspace_load_target=target, code_server_log_level=LOG_LEVEL
    ) as context:
        yield GuardedWebserver(context).create_asgi_app()


def _stop_with(daemon: subprocess.Popen[bytes], server: uvicorn.Server) -> None:
    daemon.wait()
    server.should_exit = True


if __name__ == "__main__":
    main()
