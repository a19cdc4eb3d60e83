"""What a slow task is waiting for."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from skywalking_background import _loop_lag, _meters, background_span, instrument, profiling
from starlette.testclient import TestClient

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def metered(segments: list[Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_meters, "enabled", True)
    _meters.begin_anew()
    yield
    _meters.begin_anew()
    _loop_lag.forget_all()


async def waits_for_a_lock(lock: asyncio.Lock) -> None:
    await lock.acquire()
    lock.release()


async def asks_another_task(lock: asyncio.Lock) -> None:
    await asyncio.create_task(waits_for_a_lock(lock))


def names(stack: tuple[str, ...]) -> list[str]:
    return [line.split(":")[1] for line in stack]


@pytest.mark.parametrize("work", [waits_for_a_lock, asks_another_task])
async def test_it_says_which_await_a_task_sits_in(work: Any) -> None:
    _loop_lag.watch()
    lock = asyncio.Lock()
    await lock.acquire()

    async def slow() -> None:
        with background_span("slow"):
            await work(lock)

    tasks = [asyncio.create_task(slow()) for _ in range(3)]
    profile = await asyncio.to_thread(profiling.sample, "slow", 0.4)
    lock.release()
    await asyncio.gather(*tasks)
    assert profile.tasks == 3
    assert profile.rounds >= 2
    (stack,) = profile.stacks
    assert names(stack)[-2:] == ["waits_for_a_lock", "Lock.acquire"]
    assert stack[-2].startswith("test_profiling.py:")
    ((where, times),) = profile.waits.items()
    assert where.startswith("locks.py:Lock.acquire:")
    assert times == profile.stacks[stack]
    assert profile.collapsed() == f"{';'.join(stack)} {times}"


def test_of_a_background_task_only_its_own_calls_are_shown() -> None:
    app = instrument(FastAPI())

    async def sleeps() -> None:
        await asyncio.sleep(1.5)

    @app.get("/")
    async def root(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(sleeps)
        return "ok"

    found: list[profiling.Profile] = []
    with TestClient(app) as client:
        thread = threading.Thread(target=lambda: found.append(profiling.sample("sleeps", 1.2)))
        thread.start()
        client.get("/")
        thread.join()
    (stack, *more) = found[0].stacks
    assert not more
    assert names(stack)[-1] == "sleep"
    assert "run_asgi" not in names(stack)
    assert not [line for line in stack if "_tasks.py:_trace" in line]


async def test_what_keeps_the_loop_busy_is_seen_while_it_does() -> None:
    _loop_lag.watch()

    def computes() -> None:
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            sum(range(1_000))

    async def busy() -> None:
        with background_span("busy"):
            computes()

    sampling = asyncio.create_task(asyncio.to_thread(profiling.sample, "busy", 0.5))
    await asyncio.sleep(0.05)
    await asyncio.create_task(busy())
    profile = await sampling
    assert any("computes" in line for stack in profile.stacks for line in stack)


def test_a_task_in_a_thread_of_its_own_is_seen_too() -> None:
    def works() -> None:
        with background_span("works"):
            time.sleep(0.6)

    thread = threading.Thread(target=works)
    thread.start()
    profile = profiling.sample("works", 0.3)
    thread.join()
    assert profile.tasks == 1
    assert all("test_a_task_in_a_thread" in stack[-1] for stack in profile.stacks)


def test_without_meters_nobody_knows_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_meters, "enabled", False)
    with pytest.raises(RuntimeError, match="SKYWALKING_BACKGROUND_METERS"):
        profiling.sample("slow", 0.1)


def test_of_what_does_not_run_there_is_nothing() -> None:
    profile = profiling.sample("nothing", 0.05)
    assert (profile.tasks, profile.collapsed()) == (0, "")
