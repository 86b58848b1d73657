"""The report pages: `<model>/<period>.html` of the reports folder, and an index of them. Nothing else is served.

A report is drawn by Evidently's own scripts from values that somebody's data held. So the browser gets it in a sandbox:
its scripts run in an origin of their own, which may load nothing, send nothing and read nothing of other pages.

    python -m mlops_assets.servers.reports --folder REPORTS --port 8001
"""

from __future__ import annotations

import argparse
import os
import re
import stat
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; form-action 'none'"
)
INDEX_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"
_MODEL = re.compile(r"[a-z][a-z0-9_]*")
_PAGE = re.compile(r"[0-9][0-9-]*\.html")

_INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Drift reports</title>
<style>
 body {{ font: 16px/1.6 system-ui, sans-serif; color: #1f2937; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
 h1 {{ font-size: 1.4rem }} h2 {{ font-size: 1.1rem; margin-top: 1.5rem }} a {{ margin-right: .8rem }}
</style></head>
<body><h1>Drift reports</h1>
<p>Evidently's page of each period that was compared with its champion's training data, newest first.</p>
{sections}
</body></html>
"""
_NO_REPORT = "<p>There is no report yet. A period gets one when it is scored by a champion.</p>"
_NOT_FOUND = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>No such report</title></head>
<body style="font: 16px/1.6 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem">
<h1 style="font-size: 1.4rem">No such report</h1>
<p>A report has the address <code>/model/period.html</code>. <a href="/">Those there are</a></p></body></html>
"""


def application(folder: Path) -> Starlette:
    """The ASGI application over a folder of reports; the folder may be made later."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import HTMLResponse
    from starlette.routing import Route

    from mlops_assets.servers.guard import Guard

    def index(request: Request) -> Response:
        return HTMLResponse(_index(folder), headers={"Content-Security-Policy": INDEX_POLICY})

    def page(request: Request) -> Response:
        content = read_report(folder, request.path_params["model"], request.path_params["page"])
        if content is None:
            return not_found(request)
        return HTMLResponse(content, headers={"Content-Security-Policy": SANDBOX, "Cache-Control": "no-cache"})

    def not_found(request: Request, error: Exception | None = None) -> Response:
        return HTMLResponse(_NOT_FOUND, 404, headers={"Content-Security-Policy": INDEX_POLICY})

    return Starlette(
        routes=[Route("/", index), Route("/{model}/{page}", page)],
        middleware=[Middleware(Guard)],
        exception_handlers={404: not_found},
    )


def read_report(folder: Path, model: str, page: str) -> bytes | None:
    """The bytes of a report page; None when there is none by that name. No symbolic link is followed below `folder`."""
    if not (_MODEL.fullmatch(model) and _PAGE.fullmatch(page)):
        return None
    try:
        inside = os.open(folder / model, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        file = os.open(page, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=inside)
    except OSError:
        return None
    finally:
        os.close(inside)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        with open(file, "rb", closefd=False) as opened:
            return opened.read()
    finally:
        os.close(file)


def _index(folder: Path) -> str:
    sections = [
        f"<h2>{escape(model)}</h2>\n<p>"
        + "\n".join(f'<a href="/{escape(model)}/{escape(page)}">{escape(page[:-5])}</a>' for page in pages)
        + "</p>"
        for model, pages in _reports(folder)
    ]
    return _INDEX.format(sections="\n".join(sections) or _NO_REPORT)


def _reports(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The models that have reports, with the names of their pages, newest first."""
    if not folder.is_dir():
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if _MODEL.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            found = [page.name for page in os.scandir(entry.path) if page.is_file(follow_symlinks=False)]
            pages = sorted((name for name in found if _PAGE.fullmatch(name)), reverse=True)
            if pages:
                yield entry.name, pages


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a folder of reports."""
    import uvicorn

    parser = argparse.ArgumentParser(prog="mlops_assets.servers.reports", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    given = parser.parse_args(arguments)
    uvicorn.run(application(given.folder), host=given.host, port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
