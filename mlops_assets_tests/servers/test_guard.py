"""Which requests reach a server: a program's and the server's own page's, no other web page's."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from mlops_assets.servers.guard import Guard, allowed_hosts

OWN = "http://127.0.0.1:3000"
SOCKET = "ws://127.0.0.1:3000/ws"
CROSS_SITE_IMAGE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
FOLLOWED_LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
OTHER_PORT = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
FRAMED = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("changed" if request.method == "POST" else "read")


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("open")
    await socket.close()


METHODS = ["GET", "POST", "PUT", "DELETE", "OPTIONS"]
APP = Starlette(routes=[Route("/{path:path}", answer, methods=METHODS), WebSocketRoute("/ws", echo)])


@pytest.fixture
def client() -> TestClient:
    return TestClient(Guard(APP), base_url=OWN)


def test_a_program_and_the_servers_own_page_are_let_through(client: TestClient) -> None:
    assert client.post("/graphql").text == "changed"
    assert client.post("/graphql", headers={"Origin": OWN, "Sec-Fetch-Site": "same-origin"}).text == "changed"
    assert client.get("/", headers={"Sec-Fetch-Site": "none"}).text == "read"
    assert client.get("/", headers=FOLLOWED_LINK).text == "read"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "GET"])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:8001", "http://localhost:3000", "http://127.0.0.1", ""]
)
def test_a_request_of_another_origin_is_refused_whatever_its_method(
    client: TestClient, method: str, origin: str
) -> None:
    refused = client.request(method, "/graphql", headers={"Origin": origin, "Content-Type": "text/plain"})
    assert refused.status_code == 403
    assert "another origin" in refused.text


@pytest.mark.parametrize("headers", [CROSS_SITE_IMAGE, OTHER_PORT, FRAMED], ids=["image", "other port", "frame"])
def test_what_another_sites_page_embeds_is_refused_by_get_too(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/graphql?query=mutation", headers=headers).status_code == 403


def test_a_link_may_open_a_page_but_not_post(client: TestClient) -> None:
    assert client.post("/", headers=FOLLOWED_LINK).status_code == 403


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:3000", "127.0.0.1.evil.example", "localhost@evil.example", "[::1", ""),
        *("evil.example#@127.0.0.1", "127.0.0.1/evil", "10.0.0.1:3000", "0.0.0.0:3000"),
    ],
)
def test_a_name_that_is_not_the_machines_own_is_refused(client: TestClient, host: str) -> None:
    refused = client.get("/", headers={"Host": host})
    assert refused.status_code == 403
    assert "MLOPS_ALLOWED_HOSTS" in refused.text


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "localhost:13000", "[::1]:3000", "LOCALHOST"])
def test_the_loopback_names_are_answered_at_any_port(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_two_host_headers_are_refused(client: TestClient) -> None:
    twice = [("Host", "127.0.0.1:3000"), ("Host", "evil.example")]
    assert client.get("/", headers=twice).status_code == 403


def test_names_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_ALLOWED_HOSTS", "ml.example.org, Other.example.org")
    monkeypatch.setenv("MLOPS_DAGSTER_URL", "https://dagster.example.org/x")
    assert {"ml.example.org", "other.example.org", "dagster.example.org", "localhost"} <= allowed_hosts()
    client = TestClient(Guard(APP), base_url="https://ml.example.org")
    assert client.post("/", headers={"Origin": "https://ml.example.org"}).status_code == 200


def test_a_websocket_is_opened_by_its_own_page_only(client: TestClient) -> None:
    with client.websocket_connect(SOCKET, headers={"Origin": OWN}) as socket:
        assert socket.receive_text() == "open"
    with client.websocket_connect(SOCKET) as socket:
        assert socket.receive_text() == "open"
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}):
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(SOCKET, headers=headers):
            pass


def test_answers_can_not_be_guessed_framed_or_read_elsewhere(client: TestClient) -> None:
    headers = client.get("/").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["cross-origin-resource-policy"] == "same-origin"
