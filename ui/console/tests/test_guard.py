from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse
from tracing_console import Settings
from tracing_console.guard import Guard

GUARDED = Guard(PlainTextResponse("in"), Settings(allowed_hosts="console").hosts)


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:8088", None, 200),
        ("localhost:8088", "http://localhost:8088", 200),
        ("[::1]:8088", "http://[::1]:8088", 200),
        ("console", "https://console", 200),
        ("LOCALHOST:8088", "http://localhost:8088", 200),
        ("rebound.example:8088", None, 403),
        ("127.0.0.1.rebound.example", None, 403),
        ("", None, 403),
        ("localhost:8088", "http://other.example", 403),
        ("localhost:8088", "http://localhost:9999", 403),
        ("localhost:8088", "null", 403),
        ("localhost:8088", "", 403),
    ],
)
async def test_only_the_consoles_own_pages_are_let_in(host: str, origin: str | None, status: int) -> None:
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(GUARDED), base_url="http://console") as client:
        response = await client.post("/", headers=headers)
    assert response.status_code == status
    assert ("default-src 'self'" in response.headers.get("Content-Security-Policy", "")) == (status == 200)


async def test_a_health_check_may_use_any_name() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(GUARDED), base_url="http://10.0.0.7") as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/health/")).status_code == 403
