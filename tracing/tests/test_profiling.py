"""What a slow task is waiting for."""

from __future__ import annotations

import asyncio
import threading
import time
import types
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


@types.coroutine
def goes_through_a_generator(lock: asyncio.Lock) -> Any:
    yield from waits_for_a_lock(lock)  # type: ignore[misc]


def names(stack: tuple[str, ...]) -> list[str]:
    return [line.split(":")[1] for line in stack]


@pytest.mark.parametrize("work", [waits_for_a_lock, asks_another_task, goes_through_a_generator])
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
    above = [] if work is waits_for_a_lock else [work.__name__]
    assert names(stack)[1:] == [*above, "waits_for_a_lock", "Lock.acquire"]
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
    assert [name.rpartition(".")[2] for name in names(stack)] == ["sleeps", "sleep"]


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
    for stack in profile.stacks:
        assert names(stack)[0] == "Thread._bootstrap"
        assert names(stack)[-1].endswith("<locals>.works")


def test_without_meters_nobody_knows_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_meters, "enabled", False)
    with pytest.raises(RuntimeError, match=r"^tasks are found by their meters, .* or start\(\) is missing$"):
        profiling.sample("slow", 0.1)


@pytest.mark.parametrize(
    ("arguments", "sleeps"),
    [({"seconds": 0.9, "per_second": 4}, [0.25, 0.25, 0.25, 0.15]), ({"seconds": 1.0, "per_second": 4}, [0.25] * 4)],
)
def test_it_looks_so_often_for_so_long(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, float], sleeps: list[float]
) -> None:
    slept: list[float] = []
    clock = types.SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
    monkeypatch.setattr(profiling, "time", clock)
    assert profiling.sample("slow", **arguments).rounds == len(sleeps)
    assert slept == pytest.approx(sleeps)
    slept.clear()
    profiling.sample("slow")
    assert slept[0] == 0.05
    assert sum(slept) == pytest.approx(5.0)


async def test_so_many_tasks_are_looked_at_and_so_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "TASKS_MAX", 2)
    monkeypatch.setattr(profiling, "DEPTH_MAX", 5)
    _loop_lag.watch()

    async def deep(levels: int) -> None:
        await (deep(levels - 1) if levels else asyncio.sleep(10))

    async def slow() -> None:
        with background_span("slow"):
            await deep(10)

    tasks = [asyncio.create_task(slow()) for _ in range(3)]
    await asyncio.sleep(0)
    profile = await asyncio.to_thread(profiling.sample, "slow", 0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert profile.tasks == 2
    assert [len(stack) for stack in profile.stacks] == [5]


def test_of_what_does_not_run_there_is_nothing() -> None:
    profile = profiling.sample("nothing", 0.05)
    assert (profile.tasks, profile.collapsed()) == (0, "")
