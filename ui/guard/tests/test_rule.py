"""Who is let in, and who is not."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from request_guard import AsgiGuard, Rule, WsgiGuard, names

RULE = Rule(names("console, Stack.example:8088"), "ALLOWED_HOSTS", re.compile("/page"), re.compile("/health"))
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
IMAGE = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
FRAME = {**LINK, "sec-fetch-dest": "iframe"}


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("127.0.0.1:8088", None, True),
        ("localhost:8088", "http://localhost:8088", True),
        ("[::1]:8088", "http://[::1]:8088", True),
        ("console", "https://console", True),
        ("stack.example", None, True),
        ("LOCALHOST:8088", "http://localhost:8088", True),
        ("rebound.example:8088", None, False),
        ("127.0.0.1.rebound.example", None, False),
        ("", None, False),
        ("localhost:8088", "http://other.example", False),
        ("localhost:8088", "http://localhost:9999", False),
        ("localhost:8088", "http://[::1", False),
        ("localhost:8088", "null", False),
        ("localhost:8088", "", False),
    ],
)
def test_only_own_names_and_the_own_origin_are_let_in(host: str, origin: str | None, *, allowed: bool) -> None:
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    assert (RULE.objection("POST", "/", headers) is None) is allowed


@pytest.mark.parametrize(
    ("method", "path", "fetch", "allowed"),
    [
        ("GET", "/order", {}, True),  # a program
        ("GET", "/order", {"sec-fetch-site": "none"}, True),  # a typed address
        ("GET", "/order", {"sec-fetch-site": "same-origin"}, True),
        ("GET", "/page", LINK, True),
        ("GET", "/page", {**LINK, "sec-fetch-site": "same-site"}, True),
        ("GET", "/order", LINK, False),
        ("POST", "/page", LINK, False),
        ("GET", "/page", IMAGE, False),
        ("GET", "/page", FRAME, False),
        ("GET", "/order", IMAGE, False),
    ],
)
def test_other_sites_may_link_to_pages_and_nothing_else(
    method: str, path: str, fetch: dict[str, str], *, allowed: bool
) -> None:
    assert (RULE.objection(method, path, {"host": "localhost", **fetch}) is None) is allowed


def test_a_health_check_may_use_any_name() -> None:
    assert RULE.objection("GET", "/health", {"host": "10.0.0.7"}) is None
    assert RULE.objection("GET", "/health/", {"host": "10.0.0.7"}) is not None


def in_wsgi(_environ: dict[str, Any], start: Any) -> list[bytes]:
    start("200 OK", [])
    return [b"in"]


async def in_asgi(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


class InThread(httpx.AsyncBaseTransport):
    """A WSGI app for an asynchronous client."""

    def __init__(self, app: WsgiGuard) -> None:
        self.transport = httpx.WSGITransport(app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        answer = self.transport.handle_request(request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.read())


@pytest.mark.parametrize(("origin", "status"), [("http://localhost", 200), ("http://other.example", 403)])
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
async def test_both_middlewares_ask_the_rule_and_mark_the_answer(kind: str, origin: str, status: int) -> None:
    transport = httpx.ASGITransport(AsgiGuard(in_asgi, RULE)) if kind == "asgi" else InThread(WsgiGuard(in_wsgi, RULE))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.post("/order", headers={"Origin": origin})
    assert response.status_code == status
    assert ("other sites" in response.text) == (status == 403)
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]


async def test_a_websocket_from_another_site_is_closed() -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"origin", b"http://other.example")]
    await AsgiGuard(in_asgi, RULE)({"type": "websocket", "path": "/", "headers": headers}, receive, send)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]
