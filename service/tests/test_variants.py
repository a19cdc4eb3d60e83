"""The table of variants, their endpoints, and the ledger, without a broker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING

import pytest
from demo_service import ledger
from demo_service.dead_letters.store import DeadLetters
from demo_service.queues.broker import MAX_DELIVERIES
from demo_service.queues.consumer import Consumer
from demo_service.settings import Settings
from demo_service.tasks import Interrupted, process_pool
from tracing_claims.variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from skywalking.trace.span import Span

    from conftest import NewService, Service

    Spans = Callable[[str], list[Span]]

HERE = [variant for variant in VARIANTS if not variant.broker]
ELSEWHERE = [variant for variant in VARIANTS if variant.broker]


@pytest.fixture(autouse=True)
def no_pool() -> Iterator[None]:
    yield
    process_pool.close()
    ledger.keep(None, "service")


async def until_done(folder: Path, variant: str) -> ledger.Count:
    for _ in range(600):
        found = ledger.read(folder).get(variant, ledger.Count())
        if found.accepted and not found.lost:
            break
        await asyncio.sleep(0.05)
    return found


async def test_each_variant_has_its_endpoint(service: Service) -> None:
    paths = (await service.get("/openapi.json")).json()["paths"]
    assert {path for path in paths if path.startswith("/test")} == {variant.path for variant in VARIANTS}


@pytest.mark.parametrize("variant", HERE, ids=lambda variant: variant.name)
@pytest.mark.parametrize("work", ["sleep", "cpu"])
async def test_the_work_is_accepted_and_done(
    new_service: NewService, tmp_path: Path, spans: Spans, variant: object, work: str
) -> None:
    assert variant in VARIANTS
    folder = tmp_path / "ledger"
    service = await new_service(ledger_dir=folder)
    answer = await service.get(f"{variant.path}?duration=0.05&work={work}")  # type: ignore[attr-defined]
    assert (answer.status_code, answer.json()) == (200, "ok")
    found = await until_done(folder, variant.name)  # type: ignore[attr-defined]
    assert (len(found.accepted), found.done, found.done_twice) == (1, found.accepted, set())
    (span,) = spans(variant.span)  # type: ignore[attr-defined]
    assert not span.error_occurred


@pytest.mark.parametrize("variant", ELSEWHERE, ids=lambda variant: variant.name)
async def test_without_a_broker_it_says_so(service: Service, variant: object) -> None:
    answer = await service.get(variant.path)  # type: ignore[attr-defined]
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert "set BROKER_URL" in answer.json()["detail"]


@pytest.mark.parametrize("query", ["work=rest", "work=cpu&duration=6", "work=", "works=cpu"])
async def test_work_has_bounds(service: Service, query: str) -> None:
    for variant in VARIANTS:
        assert (await service.get(f"{variant.path}?{query}")).status_code == 422


async def test_a_process_of_the_pool_that_is_killed_is_replaced(new_service: NewService, tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    service = await new_service(ledger_dir=folder)
    asking = asyncio.create_task(service.get("/test/process?duration=1"))
    for _ in range(600):
        executor = process_pool._pool.executor
        if executor is not None and executor._processes:
            break
        await asyncio.sleep(0.05)
    assert executor is not None
    for pid in list(executor._processes):
        os.kill(pid, signal.SIGKILL)
    await asking
    assert (await until_done(folder, "process")).lost == set()
    (task,) = await service.tasks()
    assert (task["state"], task["attempts"]) == ("succeeded", 2)


async def test_what_nobody_waits_for_is_cancelled_at_the_end(
    new_service: NewService, tmp_path: Path, spans: Spans
) -> None:
    folder = tmp_path / "ledger"
    service = await new_service(ledger_dir=folder)
    await service.get("/test/create-task?duration=50")
    await asyncio.sleep(0.05)  # it has begun
    await service.app.state.loose_tasks.close()
    assert len(ledger.read(folder)["create-task"].lost) == 1
    (span,) = spans("create_task_sleep")
    assert span.error_occurred


def test_the_ledger_counts(tmp_path: Path) -> None:
    (tmp_path / "service-1.jsonl").write_text(
        "".join(
            f'{{"event": "{event}", "variant": "celery", "id": "{work_id}", "at_ms": 0}}\n'
            for event, work_id in (("accepted", "a"), ("accepted", "b"), ("accepted", "c"), ("accepted", "d"))
        )
    )
    (tmp_path / "worker-2.jsonl").write_text('{"event": "done", "variant": "celery", "id": "a", "at_ms": 1}\n' * 2)
    (tmp_path / "worker-3.jsonl").write_text('{"event": "dead", "variant": "celery", "id": "b", "at_ms": 1}\n')
    (tmp_path / "worker-4.jsonl").write_text('{"event": "done", "variant": "celery", "id": "c", "at_ms": 1}\n')
    found = ledger.read(tmp_path)["celery"]
    assert (found.done, found.done_twice, found.dead, found.lost) == ({"a", "c"}, {"a"}, {"b"}, {"d"})


@pytest.mark.parametrize("url", ["http://broker", "redis:6379", "sqs://"])
def test_another_broker_is_refused_without_showing_its_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("BROKER_URL", f"{url}/s3cret")
    with pytest.raises(ValueError, match="BROKER_URL must begin with one of redis://") as error:
        Settings()
    assert "s3cret" not in str(error.value)


def test_no_broker_is_written_as_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_URL", "")
    assert Settings().broker_url is None


async def test_a_message_whose_process_died_too_often_is_a_dead_letter(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    consumer = Consumer(settings)
    body = {"id": "0" * 32, "seconds": 0, "work": "sleep", "fault": "exit"}
    with pytest.raises(Interrupted, match="died in each of 5 deliveries"):
        await consumer.work(body, MAX_DELIVERIES + 1)
    await consumer.close()
    letters = DeadLetters(settings)
    (letter,), total = await letters.read(10)
    await letters.close()
    assert (total, letter.name, letter.reason, letter.attempts) == (1, "queue_sleep", "interrupted", 0)
    assert json.loads(letter.arguments) == {"seconds": 0, "work": "sleep"}  # a replay does not fail on purpose
