"""The background tasks: each stands for slow work that no user should wait for.

A retried or replayed task runs more than once: each is idempotent.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio import to_thread
from skywalking_background import carry

from demo_service.tasks.jobs import Retry, job

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

# Threads of their own: AnyIO's 40 serve endpoints and dependencies that are not coroutines, and those must not wait.
_THREADS: Final = anyio.CapacityLimiter(100)


def _log(event: str, task: str) -> None:
    logger.info("Background task %s: %s", event, task, extra={"task": task})


async def _sleep(task: str, seconds: float) -> None:
    _log("started", task)
    await asyncio.sleep(seconds)
    _log("completed", task)


@job()
async def background_sleep_task(seconds: float) -> None:
    """Sleep, in the place of real work."""
    await _sleep("background_sleep_task", seconds)


@job()
async def threaded_sleep_task(seconds: float) -> None:
    """The same sleep where it blocks, in a thread."""
    ended = threading.Event()

    def sleep_in_thread() -> None:
        _log("started", "threaded_sleep_task")
        if not ended.wait(seconds):
            _log("completed", "threaded_sleep_task")

    try:
        await to_thread.run_sync(carry(sleep_in_thread), abandon_on_cancel=True, limiter=_THREADS)
    finally:
        ended.set()  # a thread cannot be cancelled: it must be told


@job()
async def long_running_task(seconds: float) -> None:
    """Pattern 1, fire and forget."""
    await _sleep("long_running_task", seconds)


@job()
async def task1(seconds: float) -> None:
    """Pattern 2, the first of three."""
    await _sleep("task1", seconds)


@job()
async def task2(seconds: float) -> None:
    """Pattern 2, the second of three."""
    await _sleep("task2", seconds)


@job()
async def task3(seconds: float) -> None:
    """Pattern 2, the third of three."""
    await _sleep("task3", seconds)


@job(Retry(attempts=5))  # a client's data is worth more patience
async def process_data(data: Mapping[str, Any], seconds: float) -> None:
    """Pattern 3, a task with parameters; what is in the data stays out of the log."""
    logger.info("Processing %d fields", len(data), extra={"fields": len(data)})
    await _sleep("process_data", seconds)
