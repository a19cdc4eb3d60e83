"""The same request twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from demo_service.http import Idempotency

if TYPE_CHECKING:
    from conftest import NewService, Service

KEY = {"Idempotency-Key": "k-1"}


async def test_the_same_id_is_processed_once(service: Service) -> None:
    first = await service.post("/process", json={"id": 1, "a": 1, "b": 2})
    again = await service.post("/process", json={"b": 2, "a": 1, "id": 1})
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert len(await service.tasks()) == 1
    await service.post("/process", json={"id": "1", "a": 1, "b": 2})  # a text is another id
    assert len(await service.tasks()) == 2


@pytest.mark.parametrize("path", ["/action", "/complex-action", "/complex-action?mode=sequential"])
async def test_the_same_key_starts_tasks_once(service: Service, path: str) -> None:
    answers = [await service.post(path, headers=KEY) for _ in range(2)]
    tasks = len(await service.tasks())
    assert answers[0].json() == answers[1].json()
    assert tasks == answers[0].json().get("tasks", 1)
    await service.post(path)  # without a key: as often as one likes
    assert len(await service.tasks()) == 2 * tasks


async def test_twenty_at_once_run_once(service: Service) -> None:
    answers = await asyncio.gather(*(service.post("/process", json={"id": "x"}) for _ in range(20)))
    assert {answer.text for answer in answers} == {'{"status":"accepted","id":"x"}'}
    assert len(await service.tasks()) == 1


async def test_the_same_key_is_independent_between_endpoints(service: Service) -> None:
    await service.post("/action", headers=KEY)
    await service.post("/complex-action", headers=KEY)
    assert len(await service.tasks()) == 4


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"url": "/process", "json": {"id": 1}}, {"url": "/process", "json": {"id": 1, "x": 1}}),
        ({"url": "/action", "headers": KEY}, {"url": "/action", "headers": KEY, "content": b"x"}),
        ({"url": "/action", "headers": KEY}, {"url": "/action?duration=0.01", "headers": KEY}),
    ],
)
async def test_the_same_key_for_something_else_is_refused(
    service: Service, first: dict[str, object], second: dict[str, object]
) -> None:
    assert (await service.post(**first)).status_code == 200  # type: ignore[arg-type]
    answer = await service.post(**second)  # type: ignore[arg-type]
    assert answer.status_code == 422
    assert "new key" in answer.json()["detail"]
    assert len(await service.tasks()) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "ä", "\x7f"])
async def test_a_key_has_bounds(service: Service, key: str) -> None:
    answer = await service.post("/action", headers={b"Idempotency-Key": key.encode()})
    assert answer.status_code == 422
    assert "Idempotency-Key" in answer.json()["detail"]


async def test_a_refused_request_may_come_again_with_its_key(new_service: NewService) -> None:
    service = await new_service(max_running=1, max_queued=0)
    running = asyncio.create_task(service.get("/test?duration=0.2"))
    await asyncio.sleep(0.1)
    assert (await service.post("/action", headers=KEY)).status_code == 503
    await running
    assert (await service.post("/action", headers=KEY)).status_code == 200


async def test_a_replay_with_a_key_answers_twice_and_runs_once(service: Service) -> None:
    await service.get("/test", headers={"X-Fault": "error"})
    (letter,) = await service.letters()
    path = f"/dead-letters/{letter['id']}/replay"
    answers = await asyncio.gather(*(service.post(path, headers=KEY) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1
    assert len(await service.tasks()) == 2


async def test_keys_expire(new_service: NewService) -> None:
    service = await new_service(idempotency_seconds=0.05)
    await service.post("/action", headers=KEY)
    await asyncio.sleep(0.1)
    await service.post("/action", headers=KEY)
    assert len(await service.tasks()) == 2


async def test_the_oldest_key_is_forgotten_first() -> None:
    ran: list[str] = []
    keys: Idempotency[None] = Idempotency(60, limit=2)
    for key in "abcbca":

        async def start(key: str = key) -> None:
            ran.append(key)

        await keys.once(key, "", start)
    assert ran == ["a", "b", "c", "a"]
