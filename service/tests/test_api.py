"""The HTTP contract, without a server and without OAP."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from demo_service.settings import Settings

if TYPE_CHECKING:
    import httpx

    from conftest import Service


@pytest.fixture
def client(service: Service) -> Service:
    return service


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
        "Background task started: background_sleep_task",
        "Background task completed: background_sleep_task",
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
        (b'{"id": "\xff\xfe"}', 400, "parsing the body"),
        (b'{"id": ' + b"9" * 30 + b"}", 422, "body.id"),
        (b'{"id": ' + b"9" * 5_000 + b"}", 400, "parsing the body"),
        (b'{"id": -9223372036854775809}', 422, "body.id"),
        (b'{"id": 1e400}', 422, "body.id"),
        (b'{"id": 1, "x": 9223372036854775808}', 422, "64 bits"),
        (b'{"id": 1, "x": NaN}', 422, "NaN"),
        (b'{"id": 1, "x": [{"y": 1e999}]}', 422, "infinity"),
        (b'{"id": 1, "x": "a\\u0000"}', 422, "NUL"),
        (b'{"id": 1, "a\\u0000": 1}', 422, "NUL"),
        (b'{"id": 1, "x": "\\udfff"}', 422, "surrogate"),
        (b'{"id": 1, "\\ud800": 1}', 422, "unicode"),
        (b'{"id": 1, "x": ' + b"[" * 32 + b"]" * 32 + b"}", 422, "deep"),
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
    response = await client.post("/process", content=b"x" * 70_000)
    assert (response.status_code, response.json()["status"]) == (413, 413)


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Host": "localhost:8000"}, True),
        ({"Host": "rebound.example:8000"}, False),
        ({"Origin": "http://service"}, True),
        ({"Origin": "http://other.example"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, False),
    ],
)
async def test_tasks_are_started_for_nobody_elses_pages(
    client: Service, headers: dict[str, str], *, allowed: bool
) -> None:
    response = await client.get("/test", headers=headers)
    assert response.status_code == (200 if allowed else 403)
    assert len(await client.tasks()) == allowed
    assert response.headers["X-Trace-Id"]
    if not allowed:
        problem = response.json()
        assert (problem["status"], problem["trace_id"]) == (403, response.headers["X-Trace-Id"])


@pytest.mark.parametrize("body", [{"id": 2**63 - 1}, {"id": -(2**63)}, {"id": "ÿ", "x": ["😀", {"y": None}] * 9}])
async def test_an_unusual_body_is_fine(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    response = await client.post("/process", json=body)
    assert (response.status_code, response.json()["id"]) == (200, body["id"])


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/test?durration=2", "query.durration"),
        ("/test?%00=2", "query"),
        ("/complex-action?mode=sideways", "query.mode"),
        ("/tasks?state=gone", "query.state"),
        ("/tasks?limit=0", "query.limit"),
        ("/tasks?limit=99999999999999999999999", "query.limit"),
        ("/tasks/%00", "path.task_id"),
        ("/tasks/%ff%fe", "path.task_id"),
        ("/dead-letters/" + "f" * 33, "path.task_id"),
    ],
)
async def test_a_bad_parameter_is_named(client: httpx.AsyncClient, path: str, where: str) -> None:
    method = "POST" if "action" in path else "DELETE" if "letters" in path else "GET"
    response = await client.request(method, path)
    assert response.status_code == 422
    assert where in response.json()["detail"]


async def test_a_parameter_that_there_is_not_is_refused_by_every_endpoint(client: Service) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    asked = [(method, path.replace("{task_id}", "0" * 32)) for path, methods in paths.items() for method in methods]
    assert len(asked) >= 13
    for method, path in asked:
        body = {"id": 1} if path == "/process" else None
        response = await client.request(method, f"{path}?limt=5", json=body)
        assert (response.status_code, "query.limt" in response.json()["detail"]) == (422, True), path


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
