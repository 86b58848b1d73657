"""The pictures of the README, taken in headless Chromium from a running `mlops-assets dev`.

Run again when pages have changed, with the demo's state:

    make demo && make dev                    # leave it running
    .venv/bin/python -m docs.screenshots     # in another terminal; writes docs/images/*.png

The addresses come from the same variables as the links on the pages (MLOPS_DAGSTER_URL, MLOPS_MLFLOW_URL); by default
the ports of `make dev`. Needs Chromium on the path, or in the environment variable CHROMIUM.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.home import Addresses
from mlops_assets_tests.end_to_end.browser import FLAGS, chromium_path

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

IMAGES = Path(__file__).resolve().parent / "images"
MODEL = "green_taxi"
LOCATION = "mlops_assets"
PERIOD = "2022-12"
WIDTH = 1400
VIEW = (WIDTH, 950)
LINEAGE = (1000, 1720)  # narrow and tall, because the graph stands upright
MOST_BYTES = 300_000
COLOURS = (256, 128, 64)
PATIENCE = 30_000  # milliseconds


def main() -> None:
    from playwright.sync_api import sync_playwright

    program = chromium_path()
    if program is None:
        sys.exit("There is no Chromium on the path; install one, or set CHROMIUM to its path.")
    addresses = Addresses.from_env()
    shots: dict[str, tuple[tuple[int, int], Callable[[Page, Addresses], None]]] = {
        "lineage": (LINEAGE, lineage),
        "drift_report": (VIEW, drift_report),
        "drift_by_day": (VIEW, drift_by_day),
        "checks": (VIEW, checks),
        "mlflow_runs": (VIEW, mlflow_runs),
    }
    wanted = sys.argv[1:] or list(shots)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS), headless=True)
        for name in wanted:
            (width, height), visit = shots[name]
            context = browser.new_context(
                viewport={"width": width, "height": height}, locale="en-GB", timezone_id="UTC"
            )
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            visit(page, addresses)
            save(page, IMAGES / f"{name}.png")
            context.close()
        browser.close()


def lineage(page: Page, addresses: Addresses) -> None:
    """The whole graph, from top to bottom."""
    page.goto(f"{addresses.dagster}/locations/{LOCATION}/asset-groups/{MODEL}/lineage")
    page.get_by_text("raw_trips", exact=True).first.wait_for()
    page.get_by_text("Hide navigation").click()
    page.wait_for_timeout(2_000)
    # The graph's settings: a button without a name, second of the three in the corner.
    page.mouse.click(LINEAGE[0] - 27, LINEAGE[1] - 108)
    page.get_by_text("Change graph to vertical orientation").click()
    # The page remembers, and fits the graph to its new direction when it is loaded again.
    page.reload()
    page.get_by_text("raw_trips", exact=True).first.wait_for()
    page.wait_for_timeout(5_000)


def drift_report(page: Page, addresses: Addresses) -> None:
    """The verdict with its reasons, and every column's figures."""
    partition(page, addresses, "drift_report")
    entry(page, "report").click()
    page.get_by_role("dialog").locator("table").wait_for()
    page.wait_for_timeout(1_000)


def drift_by_day(page: Page, addresses: Addresses) -> None:
    """The heat map of columns and days."""
    partition(page, addresses, "drift_report")
    entry(page, "drift_by_day").click()
    page.get_by_role("dialog").locator("img").wait_for()
    page.wait_for_timeout(1_000)


def checks(page: Page, addresses: Addresses) -> None:
    """The drift check over the months, and why the one of the period failed."""
    page.goto(f"{addresses.dagster}/assets/{MODEL}/drift_report?view=checks&checkDetail=drift_within_limits")
    # The check's own tabs, which come after the asset's.
    page.get_by_text("Execution history").wait_for()
    page.get_by_text("Partitions", exact=True).last.click()
    page.get_by_text(PERIOD, exact=True).first.click()
    page.get_by_text("Verdict severe").first.wait_for()
    page.wait_for_timeout(1_000)


def mlflow_runs(page: Page, addresses: Addresses) -> None:
    """The period's run with its trials, drift report and performance below it."""
    found = page.request.get(
        f"{addresses.mlflow}/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": MODEL}
    ).json()
    experiment = found["experiment"]["experiment_id"]
    page.goto(f"{addresses.mlflow}/#/experiments/{experiment}/runs?workflowType=machine_learning")
    run = page.get_by_text(f"{MODEL} {PERIOD}", exact=True).first
    run.wait_for()
    page.mouse.click(WIDTH - 36, 36)  # the assistant's cross
    page.wait_for_timeout(2_000)
    box = run.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] - 32, box["y"] + box["height"] / 2)  # the plus sign before the name
    page.get_by_text(f"drift_report {PERIOD}").first.wait_for()
    page.wait_for_timeout(1_000)


def partition(page: Page, addresses: Addresses, asset: str) -> None:
    page.goto(f"{addresses.dagster}/assets/{MODEL}/{asset}?view=partitions&partition={PERIOD}")
    page.get_by_text("dagster/row_count", exact=True).first.wait_for()


def entry(page: Page, name: str) -> Locator:
    """The link that opens a metadata entry too long for its line."""
    row = page.locator("tr").filter(has=page.get_by_text(name, exact=True))
    return row.get_by_text(re.compile(r"\[Show"))


def save(page: Page, path: Path) -> None:
    """Write what the page shows as a PNG with as many colours as `MOST_BYTES` allows."""
    from PIL import Image

    page.evaluate("document.fonts.ready.then(() => true)")
    # What lies behind a dialog is no part of the picture.
    dialog = page.get_by_role("dialog")
    shown = dialog.screenshot(animations="disabled") if dialog.count() else page.screenshot(animations="disabled")
    shot = Image.open(io.BytesIO(shown)).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    for colours in COLOURS:
        shot.quantize(colours).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
            return
    sys.exit(
        f"{path} has {path.stat().st_size:,} bytes even with {COLOURS[-1]} colours; at most {MOST_BYTES:,} are meant"
    )


if __name__ == "__main__":
    main()
