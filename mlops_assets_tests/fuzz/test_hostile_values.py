"""Hostile names and values on every surface: terminal, SQL, MLflow, alerts, and the pages in Chromium."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from click.testing import CliRunner

from mlops_assets.cli import main
from mlops_assets.home import Home
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake, identifier
from mlops_assets.monitored_model.backfill import backfill
from mlops_assets.training import tracking
from mlops_assets_tests.conftest import MLOPS_VARIABLES
from mlops_assets_tests.end_to_end.deployment import deployed
from mlops_assets_tests.end_to_end.processes import free_ports, running, wait_for
from mlops_assets_tests.fuzz import hostile

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.fuzz
LOCATION = "mlops_assets"
WORKSPACE = f"load_from:\n  - python_file:\n      relative_path: project.py\n      location_name: {LOCATION}\n"
PROJECT = "from mlops_assets_tests.fuzz.hostile import definitions\n\ndefs = definitions()\n"


@dataclass(frozen=True)
class Made:
    """The hostile model's five months on a home."""

    root: Path
    home: Home
    data: Path
    outcomes: dict[str, str]

    @property
    def lake(self) -> Lake:
        return Lake(self.home.root / "lake")

    @property
    def store(self) -> Store:
        return Store(f"sqlite:///{self.home.root / 'store.db'}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    root = tmp_path_factory.mktemp("hostile")
    home, data = Home(root / "home"), root / "data"
    hostile.write_rides(data)
    (root / "project.py").write_text(PROJECT)
    (root / "workspace.yaml").write_text(WORKSPACE)
    with pytest.MonkeyPatch.context() as patch:
        for variable in MLOPS_VARIABLES:
            patch.delenv(variable, raising=False)
        patch.setenv("MLOPS_HOME", str(home.root))
        patch.setenv("MLOPS_DATA_DIR", str(data))
        patch.setenv("MLOPS_ALERT_URLS", (root / "alerts.jsonl").as_uri())
        home.prepare_dagster()
        with dg.DagsterInstance.get() as instance:
            results = list(backfill(hostile.definitions(), "rides", hostile.MONTHS, instance=instance))
        yield Made(root, home, data, {result.period: result.outcome for result in results})


@pytest.fixture
def command(made: Made, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("MLOPS_HOME", str(made.home.root))
    monkeypatch.setenv("MLOPS_DATA_DIR", str(made.data))
    return CliRunner()


def on_a_terminal(arguments: Sequence[str], home: Home) -> str:
    """What a command writes to a terminal without colours."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlops_assets.cli", *arguments],
        env={**os.environ, "MLOPS_HOME": str(home.root), "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = bytearray()
    with contextlib.suppress(OSError):  # Linux says EIO when the other end is closed
        while found := os.read(ours, 65_536):
            written += found
    os.close(ours)
    assert process.wait() in (0, 1), written.decode(errors="replace")
    return written.decode().replace("\r\n", "\n")


def unsafe(text: str) -> set[str]:
    """The characters of a text that a terminal acts upon, or that a reader can't see."""
    return {c for c in text if c not in "\n\t" and unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"}}


def test_the_months_are_made_and_the_change_is_found(made: Made) -> None:
    assert made.outcomes == {**dict.fromkeys(hostile.MONTHS, "success"), hostile.TURNED: "withheld"}
    (incident,) = made.store.incidents(kind="drift")
    assert incident.period == hostile.TURNED
    assert any(reason.get("column") == hostile.ZONE for reason in incident.reasons)


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("status", "rides"),
        ("incidents", "list", "--all"),
        ("incidents", "show", "1"),
        ("champion", "history", "rides"),
        ("log",),
        ("sql", "select * from rides.drift"),
        ("sql", "select * from rides.features limit 20"),
        ("sql", "select * from rides.nothing"),
        ("status", "\x1b[31m[/]"),
    ],
)
def test_nothing_reaches_the_terminal_raw(made: Made, arguments: tuple[str, ...]) -> None:
    written = on_a_terminal(arguments, made.home)
    assert written.strip()
    assert "Traceback" not in written
    assert unsafe(written) == set()


def test_piped_csv_and_json_hold_the_values_exactly(command: CliRunner) -> None:
    query = f"select distinct {identifier(hostile.ZONE)} as zone from rides.features order by zone"
    rows = list(csv.reader(io.StringIO(command.invoke(main, ["sql", query]).output)))
    assert {zone for (zone,) in rows[1:]} == {*hostile.VALUES, *hostile.NEW_VALUES}
    (line,) = [
        line
        for line in json.loads(command.invoke(main, ["status", "--json"]).output)
        if line["period"] == hostile.TURNED
    ]
    assert line["verdict"] == "severe"


def test_alerts_hold_nothing_that_acts(made: Made) -> None:
    sent = [json.loads(line) for line in (made.root / "alerts.jsonl").read_text().splitlines()]
    assert any(hostile.TURNED in alert["title"] for alert in sent)
    for alert in sent:
        assert unsafe(alert["title"] + alert["body"]) == set()


def test_every_column_has_its_metric_in_mlflow(made: Made) -> None:
    client = tracking.client(made.home.tracking_uri)
    experiment = client.get_experiment_by_name("rides")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    (report,) = [run for run in found if run.info.run_name == f"drift_report {hostile.TURNED}"]
    assert len([name for name in report.data.metrics if name.startswith("psi/")]) >= len(hostile.spec().columns)


@pytest.mark.browser
def test_no_page_runs_what_the_data_hold(made: Made, page: Page, tmp_path: Path) -> None:
    dialogs: list[str] = []
    outside: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: outside.append(request.url) if "192.0.2.1" in request.url else None)

    def look(address: str, text: str) -> None:
        page.goto(address)
        page.get_by_text(text).first.wait_for(timeout=60_000)
        page.wait_for_timeout(1500)
        assert "owned" not in page.title(), address

    with deployed(made.root / "workspace.yaml", made.home, made.data, tmp_path / "dagster.log") as dagster:
        look(f"{dagster.url}/assets/rides/drift_report?view=partitions&partition={hostile.TURNED}", "severe")
        for entry in ("report", "reasons", "what_changed"):
            row = page.locator("tr").filter(has=page.get_by_text(entry, exact=True))
            if row.get_by_text(re.compile(r"\[Show")).count():
                row.get_by_text(re.compile(r"\[Show")).first.click()
                page.wait_for_timeout(1000)
                assert "owned" not in page.title(), entry
                page.keyboard.press("Escape")
        look(f"{dagster.url}/assets/rides/drift_report?view=checks&checkDetail=drift_within_limits", "drift_within")
        look(f"{dagster.url}/assets/rides/features?view=partitions&partition={hostile.TURNED}", "preview")

    ports = dict(zip(("evidently", "reports", "mlflow"), free_ports(3), strict=True))
    python = [sys.executable, "-m"]
    evidently = ["mlops_assets.servers.evidently_ui", "--workspace", str(made.home.evidently)]
    reports = ["mlops_assets.servers.reports", "--folder", str(made.home.reports)]
    mlflow = ["mlflow", "server", "--app-name", "mlops-assets", "--workers", "1"]
    mlflow += ["--backend-store-uri", made.home.tracking_uri]
    with (
        running([*python, *evidently, "--port", str(ports["evidently"])], {}, tmp_path / "evidently.log"),
        running([*python, *reports, "--port", str(ports["reports"])], {}, tmp_path / "reports.log"),
        running([*python, *mlflow, "--port", str(ports["mlflow"])], {}, tmp_path / "mlflow.log"),
    ):
        for name, port in ports.items():
            wait_for(lambda port=port: _answers(port), 120, name, tmp_path / f"{name}.log")  # type: ignore[misc]
        look(f"http://127.0.0.1:{ports['reports']}/rides/{hostile.TURNED}.html", "severe")
        look(f"http://127.0.0.1:{ports['evidently']}/", "rides")
        (project,) = [path.name for path in made.home.evidently.iterdir() if path.is_dir()]
        look(f"http://127.0.0.1:{ports['evidently']}/projects/{project}", "drifted columns")
        (run,) = [path.stem for path in (made.home.evidently / project / "snapshots").iterdir() if _is_of(path)]
        look(f"http://127.0.0.1:{ports['evidently']}/projects/{project}/reports/{run}", "severe")
        client = tracking.client(made.home.tracking_uri)
        experiment = client.get_experiment_by_name("rides")
        assert experiment is not None
        (found,) = client.search_runs(
            [experiment.experiment_id], f"attributes.run_name = 'drift_report {hostile.TURNED}'"
        )
        address = (
            f"http://127.0.0.1:{ports['mlflow']}/#/experiments/{experiment.experiment_id}/runs/{found.info.run_id}"
        )
        look(address, "psi/")
    assert dialogs == []
    assert outside == []


def _is_of(snapshot: Path) -> bool:
    return f"rides {hostile.TURNED}" in snapshot.read_text("utf-8")


def _answers(port: int) -> bool:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
