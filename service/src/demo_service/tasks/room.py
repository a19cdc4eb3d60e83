"""All tasks of this process: how many may run and wait, and what becomes of them when it ends.

What runs them stays FastAPI's `BackgroundTasks` and `ParallelTasks`: an `Execution` is what is given to them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from skywalking_background import current_trace_id, meters

from demo_service.dead_letters import Redactor
from demo_service.tasks.execution import Execution, Shared
from demo_service.tasks.registry import Registry, State, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from demo_service.dead_letters import DeadLetter
    from demo_service.settings import Settings
    from demo_service.tasks.faults import Fault
    from demo_service.tasks.jobs import Job

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS: Final = 5
"""When a refused client may ask again."""
INTERRUPTED_SECONDS: Final = 5.0
"""How long interrupted tasks may take to end, before the process does."""


class Refused(Exception):  # noqa: N818  # the client did nothing wrong
    """No task was accepted; the client may ask again."""

    def __init__(self, detail: str, retry_after_seconds: int = RETRY_AFTER_SECONDS) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class Room:
    """Accepts tasks while there is room, and waits for them at the end."""

    def __init__(self, settings: Settings, bury: Callable[[DeadLetter], None]) -> None:
        self.registry = Registry(settings.kept_tasks)
        self.draining = False
        self._limit = settings.max_running + settings.max_queued
        self._drain_seconds = settings.drain_seconds
        self._bury = bury
        self._unfinished: set[Execution] = set()
        self._idle = asyncio.Event()
        self._shared = Shared(
            slots=asyncio.Semaphore(settings.max_running),
            registry=self.registry,
            redactor=Redactor(settings.redact),
            attempt_seconds=settings.attempt_seconds,
            max_argument_bytes=settings.max_argument_bytes,
            on_end=self._end,
        )
        meters.watch_queue(self._queued)

    def _queued(self) -> Counter[str]:
        """Count the tasks that were accepted and have not begun, by name; called in another thread."""
        executions = self._unfinished.copy()  # in one step
        return Counter(one.task.name for one in executions if one.task.state is State.ACCEPTED)

    def accept(
        self,
        jobs: tuple[Job, ...],
        arguments: Mapping[str, Any],
        *,
        endpoint: str,
        fault: Fault | None = None,
        replay_of: str | None = None,
    ) -> list[Execution]:
        """Accept a task for each job, all with the same arguments, or none of them.

        Raises:
            Refused: there is no room for so many, or the service is about to end.
        """
        self.refuse_when_draining()
        if len(self._unfinished) + len(jobs) > self._limit:
            message = f"{self._limit} tasks run or wait already: nothing was accepted"
            raise Refused(f"{message}, try again in {RETRY_AFTER_SECONDS} s")
        trace_id = current_trace_id()
        accepted = []
        for job in jobs:
            task = Task(uuid4().hex, job.name, endpoint, trace_id, replay_of)
            self.registry.add(task)
            accepted.append(Execution(task, job, arguments, fault=fault, shared=self._shared))
        self._unfinished.update(accepted)
        return accepted

    def refuse_when_draining(self) -> None:
        """Turn new work away once the end has begun.

        Raises:
            Refused: it has.
        """
        if self.draining:
            raise Refused("the service is about to end: try again in a while", self._drain_seconds)

    async def drain(self) -> None:
        """Take no more work, give what runs `drain_seconds` to end, and make the rest dead letters."""
        self.draining = True
        at_first = len(self._unfinished)
        logger.info("Draining: %d tasks get up to %d s", at_first, self._drain_seconds)
        await self._wait_until_idle(self._drain_seconds)
        interrupted = len(self._unfinished)
        await self.close()
        logger.info("Drained: %d tasks ended, %d were interrupted", at_first - interrupted, interrupted)

    async def close(self) -> None:
        """End every task that is left, as interrupted; then none is."""
        self.draining = True
        for execution in list(self._unfinished):
            execution.interrupt()
        await self._wait_until_idle(INTERRUPTED_SECONDS)

    def _end(self, execution: Execution, letter: DeadLetter | None) -> None:
        """Free the place of a task that is through."""
        self._unfinished.discard(execution)
        if not self._unfinished:
            self._idle.set()
        if letter is not None:
            self._bury(letter)

    async def _wait_until_idle(self, seconds: float) -> None:
        if not self._unfinished:
            return
        self._idle.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass
