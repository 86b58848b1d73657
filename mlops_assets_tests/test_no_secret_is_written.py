"""A secret in an address gets into nothing that a period's run writes: lake, event log, stores, alerts, terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_assets_tests import tiny_model

SECRET = "Zq7hunterS3cret"

PROGRAM = """
import sys
from mlops_assets_tests import rides_graph, tiny_model
import mlops_assets.definitions
source = tiny_model.SPEC["source"] | {source!r}
mlops_assets.definitions.defs = lambda: rides_graph.definitions(tiny_model.spec(source=source))
from mlops_assets.cli import main
main({arguments!r})
"""


def _run(source: dict[str, str], home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(source=source, arguments=list(arguments))
    known = {name: value for name, value in os.environ.items() if not name.startswith(("MLOPS_", "DAGSTER_HOME"))}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**known, "MLOPS_HOME": str(home), "MLOPS_DATA_DIR": str(home.parent / "data"), **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def _written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _assert_not_told(done: subprocess.CompletedProcess[str], home: Path) -> None:
    assert SECRET not in done.stdout
    assert SECRET not in done.stderr
    told = [name for name, content in _written(home).items() if SECRET.encode() in content or SECRET in name]
    assert not told


def test_a_secret_in_the_address_of_a_file_that_can_not_be_fetched_is_told_nowhere(home: Path) -> None:
    source = {"url": f"http://ann:{SECRET}@127.0.0.1:9/{{period}}.parquet?sig={SECRET}"}
    alerts = f"{(home.parent / 'alerts.jsonl').as_uri()} json://ann:{SECRET}@127.0.0.1:9/{SECRET}"
    done = _run(source, home, "backfill", "rides", "2021-01", MLOPS_ALERT_URLS=alerts)
    assert done.returncode == 0, done.stderr
    _assert_not_told(done, home)
    assert "127.0.0.1:9/2021-01.parquet?…" in (home.parent / "alerts.jsonl").read_text()
    assert SECRET not in (home.parent / "alerts.jsonl").read_text()
    shown = _run(source, home, "sql", "select * from monitoring.alerts")
    assert "127.0.0.1:9" in shown.stdout
    assert SECRET not in shown.stdout + _run(source, home, "incidents", "show", "1").stdout


def test_a_secret_in_a_path_that_is_a_url_is_told_nowhere(home: Path, tmp_path: Path) -> None:
    tiny_model.write_rides(tmp_path, ["2021-01"])
    path = f"file://{tmp_path}/rides/{{period}}.parquet?token={SECRET}"
    # Two periods: one that is there under this very name, one that is missing.
    (tmp_path / "rides" / "2021-01.parquet").rename(tmp_path / "rides" / f"2021-01.parquet?token={SECRET}")
    done = _run({"path": path, "format": "parquet"}, home, "backfill", "rides", "2021-01..2021-02")
    assert done.returncode == 0, done.stderr + done.stdout
    _assert_not_told(done, home)
    status = _run({"path": path, "format": "parquet"}, home, "status", "--json")
    assert '"rows": 600' in status.stdout, "the first period was read, through the address with its secret"
    assert SECRET not in status.stdout


@pytest.mark.parametrize(
    "variables",
    [
        {"MLOPS_STORE_URL": f"postgresql://ann:{SECRET}@127.0.0.1:9/mlops"},
        {"MLFLOW_TRACKING_URI": f"http://ann:{SECRET}@127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
    ],
)
def test_the_password_of_a_store_that_does_not_answer_is_told_nowhere(variables: dict[str, str], home: Path) -> None:
    tiny_model.write_rides(home.parent / "data", ["2021-01"])
    done = _run({}, home, "backfill", "rides", "2021-01", **variables)
    assert done.returncode == 1
    assert "127.0.0.1" in done.stdout + done.stderr
    _assert_not_told(done, home)
