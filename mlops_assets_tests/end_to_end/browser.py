"""Headless Chromium for the tests that look at pages: a fixture, and a screenshot.

Playwright's Python package brings its own driver, but no browser: the one of the system is used, so that
nothing is downloaded. Without one the tests that ask for it are skipped and say how to get it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

FLAGS = (
    "--no-sandbox",  # containers have no user namespaces
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
)

LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def chromium_path() -> str | None:
    """Chromium of the environment variable CHROMIUM, or the first of `NAMES` on the path."""
    given = os.environ.get("CHROMIUM")
    return shutil.which(given) if given else next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A headless browser for the session. Skips when there is no Chromium or no Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="No Playwright: run make install")
    path = chromium_path()
    if path is None:
        wanted = os.environ.get("CHROMIUM")
        pytest.skip(
            f"CHROMIUM={wanted} is no program."
            if wanted
            else f"No Chromium: install one ({', '.join(NAMES)}) or set CHROMIUM to its path."
        )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS), headless=True)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """An empty page of its own session, which reaches files and this machine only."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1000}, locale="en-GB", timezone_id="UTC")
    context.route("**/*", _only_local)
    try:
        yield context.new_page()
    finally:
        context.close()


def _only_local(route: Route) -> None:
    address = urlsplit(route.request.url)
    if address.scheme in {"http", "https", "ws", "wss"} and address.hostname not in LOOPBACK:
        route.abort()
    else:
        route.continue_()


def screenshot(page: Page, path: Path, *, full_page: bool = True) -> Path:
    """Save what the page shows as PNG, once its fonts are there and nothing moves; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.evaluate("document.fonts.ready.then(() => true)")
    page.screenshot(path=path, full_page=full_page, animations="disabled")
    return path
