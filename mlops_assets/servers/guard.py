"""The guard before every server: it answers only to the machine's own names, and only to the server's own pages.

Dagster, MLflow and Evidently have no login here. What protects them is that they listen on the loopback interface,
and that is no protection against the browser of the person who uses them: any web page may send requests to
`127.0.0.1`, and a name that resolves to it (DNS rebinding) makes the answers readable too. Browsers say who asks:
in `Host` (RFC 9110, section 7.2), `Origin` (RFC 6454) and the `Sec-Fetch-*` headers (W3C, Fetch Metadata Request
Headers). A program sends neither `Origin` nor `Sec-Fetch-*`, and is let through.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlops_assets.home import Addresses

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS_VARIABLE = "MLOPS_ALLOWED_HOSTS"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SAFE_METHODS = ("GET", "HEAD")
# Added where the server has not set its own: no guessing of types, no embedding, no reading by other origins.
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"SAMEORIGIN",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"same-origin",
}


def allowed_hosts() -> frozenset[str]:
    """The names that the servers answer to: this machine's loopback names, those of `MLOPS_ALLOWED_HOSTS`
    (separated by commas), and those in the addresses that links lead to (`MLOPS_DAGSTER_URL` and its like).
    """
    given = os.environ.get(HOSTS_VARIABLE, "").split(",")
    addresses = Addresses.from_env()
    linked = (addresses.dagster, addresses.mlflow, addresses.evidently, addresses.reports)
    names = (*LOOPBACK, *given, *(urlsplit(address).hostname or "" for address in linked))
    return frozenset(name.strip().lower() for name in names if name.strip())


class Guard:
    """An ASGI middleware that refuses requests from other web pages and for other hosts.

    A request is refused with status 403 (a WebSocket before its handshake) when

    - its `Host` is not among `hosts`; the port doesn't matter, as a tunnel may have another one;
    - it has an `Origin` that is not the server's own, whatever its method;
    - the browser says that another site's page sent it (`Sec-Fetch-Site`), unless it only opens a page: a link
      that somebody followed.

    Parameters
    ----------
    app
        The server to protect.
    hosts
        Names without ports, in lower case; by default `allowed_hosts()`.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None = None) -> None:
        self.app = app
        self.hosts = allowed_hosts() if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
        else:
            await _answer(send, 403, refusal)

    def _refusal(self, scope: Scope) -> str | None:
        """Why a request is refused, None when it is not."""
        headers = _headers(scope["headers"])
        hosts = headers.get("host", [])
        if len(hosts) != 1 or (_hostname(hosts[0]) or "") not in self.hosts:
            return (
                f"Refused: the Host of this request is none of {', '.join(sorted(self.hosts))}. If the server is meant "
                f"to be reached by another name, put that name into {HOSTS_VARIABLE} and start it again."
            )
        own = {f"{scheme}://{hosts[0].lower()}" for scheme in ("http", "https")}
        if any(origin.lower() not in own for origin in headers.get("origin", [])):
            return "Refused: the request comes from a page of another origin. Open this server's own page instead."
        if not _is_own_or_opens_a_page(scope, headers):
            return "Refused: the request comes from a page of another site. Open this server's own page instead."
        return None


def _is_own_or_opens_a_page(scope: Scope, headers: dict[str, list[str]]) -> bool:
    if set(headers.get("sec-fetch-site", [])) <= {"same-origin", "none"}:
        return True
    opens = headers.get("sec-fetch-mode") == ["navigate"] and headers.get("sec-fetch-dest") == ["document"]
    return scope["type"] == "http" and scope["method"] in SAFE_METHODS and opens


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in raw:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    return found


def _hostname(host: str) -> str | None:
    """The name in a `Host` header, without its port; None for what names no host."""
    try:
        return urlsplit(f"//{host}").hostname if not set(host) & set("/\\@?#") else None
    except ValueError:
        return None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", []))
            names = {bytes(name).lower() for name, _ in given}
            message = {**message, "headers": [*given, *((k, v) for k, v in HEADERS.items() if k not in names)]}
        await send(message)

    return sending


async def _answer(send: Send, status: int, text: str) -> None:
    body = f"{text}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        *HEADERS.items(),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
