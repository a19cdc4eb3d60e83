"""The background tasks: each stands for slow work that no user should wait for.

A retried or replayed task runs more than once: each is idempotent.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio import to_thread
from skywalking_background import carry
from tracing_claims import variants

from demo_service import ledger
from demo_service.logging import task_id
from demo_service.tasks import process_pool
from demo_service.tasks.jobs import Retry, job
from demo_service.tasks.work import Threads, Work, compute, do_in_loop, log

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

# Threads of their own: AnyIO's 40 serve endpoints and dependencies that are not coroutines, and those must not wait.
_THREADS: Final = anyio.CapacityLimiter(100)


@job()
async def background_sleep_task(seconds: float, work: str = Work.SLEEP) -> None:
    """Sleep, or compute, in the place of real work."""
    ledger.note("begun", variants.BACKGROUND_TASK.name, task_id.get())
    await do_in_loop("background_sleep_task", seconds, work)
    ledger.note("done", variants.BACKGROUND_TASK.name, task_id.get())


@job()
async def threaded_sleep_task(seconds: float, work: str = Work.SLEEP, threads: str = Threads.OWN) -> None:
    """The same where it blocks, in a thread: one of its own kind, or one of the forty that endpoints need too."""
    ended = threading.Event()

    def sleep_in_thread() -> None:
        ledger.note("begun", variants.THREADING.name, task_id.get())
        log("started", "threaded_sleep_task")
        if work == Work.CPU:
            compute(seconds)
        elif ended.wait(seconds):
            return
        log("completed", "threaded_sleep_task")

    limiter = _THREADS if threads == Threads.OWN else None
    try:
        await to_thread.run_sync(carry(sleep_in_thread), abandon_on_cancel=True, limiter=limiter)
    finally:
        ended.set()  # a thread cannot be cancelled: it must be told
    ledger.note("done", variants.THREADING.name, task_id.get())


@job(Retry(on=(OSError, process_pool.ProcessLostError)))
async def process_sleep_task(seconds: float, work: str = Work.SLEEP) -> None:
    """The same in a process of a pool."""
    await process_pool.run("process_sleep_task", seconds, work, task_id.get())
    ledger.note("done", variants.PROCESS.name, task_id.get())


@job()
async def long_running_task(seconds: float) -> None:
    """Pattern 1, fire and forget."""
    await do_in_loop("long_running_task", seconds)


@job()
async def task1(seconds: float) -> None:
    """Pattern 2, the first of three."""
    await do_in_loop("task1", seconds)


@job()
async def task2(seconds: float) -> None:
    """Pattern 2, the second of three."""
    await do_in_loop("task2", seconds)


@job()
async def task3(seconds: float) -> None:
    """Pattern 2, the third of three."""
    await do_in_loop("task3", seconds)


@job(Retry(attempts=5))  # a client's data is worth more patience
async def process_data(data: Mapping[str, Any], seconds: float) -> None:
    """Pattern 3, a task with parameters; what is in the data stays out of the log."""
    logger.info("Processing %d fields", len(data), extra={"fields": len(data)})
    await do_in_loop("process_data", seconds)
