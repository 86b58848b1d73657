"""What a failed run leaves on the terminal: its reason, and nothing of the libraries below."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mlops_assets_tests import tiny_model


def test_a_failed_period_leaves_no_open_connection_to_the_end_of_the_process(home: Path, tmp_path: Path) -> None:
    """DuckDB's binding prints a page of "nanobind: leaked" lines for connections that outlive the interpreter."""
    tiny_model.write_rides(tmp_path / "data", ["2021-01"])
    command = [sys.executable, "-m", "mlops_assets_tests.rides_graph", "2021-01", "--failing-in", "profile"]
    environment = {**os.environ, "MLOPS_HOME": str(home), "MLOPS_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "nothing is made of ['1']" in done.stdout
    assert "nanobind" not in done.stderr
    assert "leaked" not in done.stderr
