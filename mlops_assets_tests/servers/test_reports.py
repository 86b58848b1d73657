"""The report pages: served in a sandbox, and nothing but them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvicorn
from starlette.testclient import TestClient

from mlops_assets.drift.evidently_page import write_page
from mlops_assets.servers.reports import SANDBOX, application
from mlops_assets_tests.drift.test_evidently_text import HOSTILE, hostile_frame
from mlops_assets_tests.end_to_end.processes import free_ports, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    reports = tmp_path / "reports"
    (reports / "taxi").mkdir(parents=True)
    (reports / "taxi" / "2021-04.html").write_text("<p>April</p>")
    return reports


@pytest.fixture
def client(folder: Path) -> TestClient:
    return TestClient(application(folder), base_url="http://127.0.0.1:8001")


def test_a_report_is_served_in_a_sandbox(client: TestClient) -> None:
    found = client.get("/taxi/2021-04.html")
    assert found.text == "<p>April</p>"
    assert found.headers["content-security-policy"] == SANDBOX
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-type"] == "text/html; charset=utf-8"


def test_the_index_links_to_the_reports_and_shows_nothing_else(client: TestClient, folder: Path) -> None:
    (folder / "taxi" / "2021-05.html").write_text("May")
    (folder / "taxi" / "secret.txt").write_text("x")
    (folder / "<script>").mkdir()
    (folder / "<script>" / "2021-01.html").write_text("x")
    index = client.get("/").text
    assert index.index("/taxi/2021-05.html") < index.index("/taxi/2021-04.html")
    assert "secret" not in index
    assert "<script" not in index


def test_without_reports_the_index_says_when_there_will_be_one(tmp_path: Path) -> None:
    found = TestClient(application(tmp_path / "none"), base_url="http://127.0.0.1").get("/")
    assert "There is no report yet" in found.text


@pytest.mark.parametrize(
    "path",
    [
        *("/taxi", "/taxi/", "/taxi/2021-06.html", "/taxi/secret.txt", "/taxi/.2021-04.html", "/other/2021-04.html"),
        *("/..%2Fsecret/2021-04.html", "/taxi/..%2F..%2Fsecret", "//etc/passwd", "/%00/x.html"),
    ],
)
def test_anything_else_is_not_found(client: TestClient, folder: Path, path: str) -> None:
    (folder.parent / "secret").write_text("x")
    (folder / "taxi" / "secret.txt").write_text("x")
    found = client.get(path)
    assert found.status_code == 404
    assert "No such report" in found.text


def test_links_folders_and_pipes_are_not_followed(client: TestClient, folder: Path) -> None:
    secret = folder.parent / "secret.html"
    secret.write_text("secret")
    (folder / "taxi" / "2021-01.html").symlink_to(secret)
    (folder / "linked").symlink_to(folder / "taxi")
    (folder / "taxi" / "2021-02.html").mkdir()
    os.mkfifo(folder / "taxi" / "2021-03.html")
    for path in ("/taxi/2021-01.html", "/linked/2021-04.html", "/taxi/2021-02.html", "/taxi/2021-03.html"):
        assert client.get(path).status_code == 404, path


def test_nothing_but_reading_is_answered(client: TestClient) -> None:
    assert client.post("/taxi/2021-04.html").status_code == 405
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 403


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The reports over HTTP; yields their address."""
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(application(folder), port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started, 20, "the reports")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.browser
def test_a_report_of_hostile_data_is_drawn_whole_and_runs_nothing_of_it(page: Page, tmp_path: Path) -> None:
    reference, kinds = hostile_frame(seed=1)
    current, _ = hostile_frame(seed=2)
    current[HOSTILE[0]] += 50.0
    write_page(
        reference,
        current,
        kinds,
        model="taxi",
        period="2021-04",
        timestamp=datetime(2021, 4, 1),
        html=tmp_path / "taxi" / "2021-04.html",
        title=f"severe {HOSTILE[0]}",
        notes=HOSTILE,
    )
    asked: list[str] = []
    dialogs: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    with served(tmp_path) as address:
        page.goto(f"{address}/taxi/2021-04.html")
        page.get_by_text("severe").first.wait_for(timeout=30_000)
        # The first hostile column's row, with the drawings of both distributions.
        page.get_by_text("document.title='owned'").first.wait_for(timeout=30_000)
        page.wait_for_function("document.querySelectorAll('svg').length > 5", timeout=30_000)
        assert page.title() == "taxi 2021-04: data drift"
        assert page.evaluate("self.origin") == "null", "the page has an origin of its own"
        assert page.evaluate("try { localStorage.length; 'open' } catch (error) { 'closed' }") == "closed"
    assert dialogs == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [f"{address}/taxi/2021-04.html"]
