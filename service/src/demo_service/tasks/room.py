"""Which tasks are accepted or refused, how many run at once, and what becomes of them when the process ends.

What runs them stays FastAPI's `BackgroundTasks` and `ParallelTasks`: a `Work` is what is given to them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from fastapi import HTTPException
from skywalking_background import current_trace_id

from demo_service._redaction import Redactor
from demo_service._registry import Registry, State, Task
from demo_service._work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from demo_service._dead_letters import DeadLetter
    from demo_service._faults import Fault
    from demo_service._jobs import Job
    from demo_service._settings import Settings

logger = logging.getLogger(__name__)

RETRY_AFTER: Final = 5
"""s after which a refused client may ask again."""
PATIENCE: Final = 5.0
"""s that interrupted tasks get to end, before the process does."""


class Refused(HTTPException):
    """503: no task was accepted; the client may ask again."""

    def __init__(self, detail: str, retry_after: int = RETRY_AFTER) -> None:
        super().__init__(503, detail, {"Retry-After": str(retry_after)})


class Runner:
    """All tasks of this process: how many may run and wait, and what becomes of them when it ends."""

    def __init__(self, settings: Settings, bury: Callable[[DeadLetter], None]) -> None:
        self.settings = settings
        self.registry = Registry(settings.kept_tasks)
        self.redactor = Redactor(settings.redact)
        self.slots = asyncio.Semaphore(settings.max_running)
        self.bury = bury
        self.draining = False
        self._unfinished: set[Work] = set()
        self._idle = asyncio.Event()

    def accept(
        self,
        jobs: tuple[Job, ...],
        arguments: Mapping[str, Any],
        *,
        endpoint: str,
        fault: Fault | None = None,
        replay_of: str | None = None,
    ) -> list[Work]:
        """Accept a task for each job, all with the same arguments, or none of them.

        Raises:
            Refused: there is no room for so many, or the service is about to end.
        """
        self.refuse_when_draining()
        limit = self.settings.max_running + self.settings.max_queued
        if len(self._unfinished) + len(jobs) > limit:
            raise Refused(f"{limit} tasks run or wait already: nothing was accepted, try again in {RETRY_AFTER} s")
        trace_id = current_trace_id()
        accepted = []
        for job in jobs:
            task = Task(uuid4().hex, job.name, endpoint, trace_id, replay_of)
            self.registry.add(task)
            work = Work(self, job, arguments, fault, task)
            self._unfinished.add(work)
            accepted.append(work)
        return accepted

    def refuse_when_draining(self) -> None:
        """Turn new work away once the end has begun.

        Raises:
            Refused: it has.
        """
        if self.draining:
            raise Refused("the service is about to end: try again in a while", self.settings.drain_seconds)

    def end(self, work: Work, state: State) -> None:
        """Note that a task is through, and free what it held."""
        self.registry.move(work.task, state)
        self._unfinished.discard(work)
        if not self._unfinished:
            self._idle.set()

    async def drain(self) -> None:
        """Take no more work, give what runs `drain_seconds` to end, and make the rest dead letters."""
        self.draining = True
        at_first = len(self._unfinished)
        logger.info("Draining: %d tasks get up to %d s", at_first, self.settings.drain_seconds)
        await self._wait_until_idle(self.settings.drain_seconds)
        interrupted = len(self._unfinished)
        await self.close()
        logger.info("Drained: %d tasks ended, %d were interrupted", at_first - interrupted, interrupted)

    async def close(self) -> None:
        """End every task that is left, as interrupted; then none is."""
        self.draining = True
        for work in list(self._unfinished):
            work.interrupt()
        await self._wait_until_idle(PATIENCE)

    async def _wait_until_idle(self, seconds: float) -> None:
        if not self._unfinished:
            return
        self._idle.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass
