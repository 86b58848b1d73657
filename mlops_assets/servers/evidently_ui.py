"""Evidently's UI over a workspace, behind the guard.

python -m mlops_assets.servers.evidently_ui --workspace FOLDER --port 8000
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve Evidently's UI."""
    parser = argparse.ArgumentParser(prog="mlops_assets.servers.evidently_ui", description=__doc__)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args(arguments)
    os.environ["DO_NOT_TRACK"] = "1"  # read when Evidently is imported
    import uvicorn
    from evidently.ui.service.app import create_app, get_config

    from mlops_assets.servers.guard import Guard

    config = get_config(host=given.host, port=given.port, workspace=str(given.workspace))
    uvicorn.run(Guard(create_app(config)), host=given.host, port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
