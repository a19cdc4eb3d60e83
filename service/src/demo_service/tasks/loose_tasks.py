"""`asyncio.create_task` by itself, as it is often written: nobody waits for it, retries it or counts it."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from skywalking_background import background_span
from tracing_claims import variants

from demo_service import ledger
from demo_service.logging import task_id
from demo_service.tasks.room import Refused
from demo_service.tasks.work import do_in_loop


class LooseTasks:
    """Refers to the tasks, as the event loop itself does not; and has a limit, as memory has."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, seconds: float, work: str) -> str:
        """Start one; return its id.

        Raises:
            Refused: there are too many.
        """
        if len(self._tasks) >= self._limit:
            raise Refused(f"{self._limit} tasks run already: nothing was accepted, try again in 5 s")
        work_id = uuid4().hex
        task = asyncio.create_task(_create_task_sleep(work_id, seconds, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return work_id

    async def close(self) -> None:
        """Cancel them: what the end of the event loop does, but while their spans can still be sent."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _create_task_sleep(work_id: str, seconds: float, work: str) -> None:
    task_id.set(work_id)
    with background_span(variants.CREATE_TASK.span, tags={"task.id": work_id}):
        ledger.note("begun", variants.CREATE_TASK.name, work_id)
        await do_in_loop(variants.CREATE_TASK.span, seconds, work)
        ledger.note("done", variants.CREATE_TASK.name, work_id)
