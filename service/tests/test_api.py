"""The HTTP contract, without a server and without OAP."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from demo_service import app as app_module
from demo_service._settings import Settings
from skywalking import config
from skywalking.agent import agent
from skywalking_background import _agent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr(_agent, "start", lambda: None)
    monkeypatch.setattr(config, "agent_profile_active", False)
    monkeypatch.setattr(agent, "is_segment_queue_full", lambda: False)
    monkeypatch.setattr(agent, "archive_segment", lambda _segment: None)
    monkeypatch.setattr(app_module, "configure_logging", lambda: None)
    monkeypatch.setenv("SERVICE_TASK_SECONDS", "0")
    transport = httpx.ASGITransport(app_module.create_app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as found:
        yield found


@pytest.mark.parametrize(
    ("method", "path", "body", "answer"),
    [
        ("GET", "/test", None, "ok"),
        ("GET", "/test/blocking", None, "ok"),
        ("POST", "/action", None, {"status": "processing"}),
        ("POST", "/complex-action", None, {"status": "processing", "tasks": 3}),
        ("POST", "/complex-action?mode=sequential", None, {"status": "processing", "tasks": 3}),
        ("POST", "/process", {"id": "a-1", "more": [1, None]}, {"status": "accepted", "id": "a-1"}),
        ("POST", "/process", {"id": 7}, {"status": "accepted", "id": 7}),
        ("GET", "/health/live", None, {"status": "live"}),
        ("GET", "/health/ready", None, {"status": "ready"}),
    ],
)
async def test_an_endpoint_answers(
    client: httpx.AsyncClient, method: str, path: str, body: object, answer: object
) -> None:
    response = await client.request(method, path, json=body)
    assert (response.status_code, response.json()) == (200, answer)


async def test_the_task_logs_its_start_and_its_end(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await client.get("/test")
    assert [line for line in caplog.messages if "Background" in line] == [
        "Background task started",
        "Background task completed",
    ]


DEEP = b"[" * 30_000 + b"]" * 30_000


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 422, "body"),
        (b"{", 422, "JSON"),
        (b"[1]", 422, "body"),
        (b'"text"', 422, "body"),
        (b"{}", 422, "body.id"),
        (b'{"id": null}', 422, "body.id"),
        (b'{"id": true}', 422, "body.id"),
        (b'{"id": 1.5}', 422, "body.id"),
        (b'{"id": ""}', 422, "body.id"),
        (b'{"id": "a\\u0000b"}', 422, "printable"),
        (b'{"id": "\\ud800"}', 422, "body.id"),
        (b'{"id": "' + b"x" * 200 + b'"}', 422, "128"),
        (b'{"id": "\xff"}', 400, "parsing the body"),
        (b'{"id": 1, "x": ' + DEEP + b"}", 400, "parsing the body"),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_a_bad_body_is_a_problem_document(
    client: httpx.AsyncClient, content: bytes, status: int, words: str
) -> None:
    response = await client.post("/process", content=content, headers={"content-type": "application/json"})
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["status"]) == (status, status)
    assert response.headers["content-type"] == "application/problem+json"
    assert words in problem["detail"]
    assert problem["trace_id"] == response.headers["x-trace-id"]


async def test_a_huge_body_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/process", content=b"x" * 70_000)).status_code == 413


@pytest.mark.parametrize("duration", ["-1", "61", "nan", "inf", "soon"])
async def test_a_duration_has_bounds(client: httpx.AsyncClient, duration: str) -> None:
    response = await client.get("/test", params={"duration": duration})
    assert response.status_code == 422
    assert "query.duration" in response.json()["detail"]


async def test_an_unknown_path_is_a_problem_document(client: httpx.AsyncClient) -> None:
    response = await client.get("/nope")
    assert response.status_code == 404
    assert response.json()["title"] == "Not Found"


def test_settings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_PORT", "0")
    with pytest.raises(ValueError, match="port"):
        Settings()
