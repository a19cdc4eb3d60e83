"""All tasks of this process: how many may run and wait, and what becomes of them when it ends.

What runs them stays FastAPI's `BackgroundTasks` and `ParallelTasks`: an `Execution` is what is given to them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from skywalking_background import current_trace_id, event, meters

from demo_service.accepted import Accepted
from demo_service.dead_letters import Redactor
from demo_service.tasks.execution import Execution, Shared
from demo_service.tasks.gates import Gates
from demo_service.tasks.orders import Found, Orders
from demo_service.tasks.registry import Registry, State, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from demo_service.accepted import Journal
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

    def __init__(self, settings: Settings, bury: Callable[[DeadLetter], None], journal: Journal | None = None) -> None:
        self.registry = Registry(settings.kept_tasks)
        self.draining = False
        self._limit = settings.max_running + settings.max_queued
        self._drain_seconds = settings.drain_seconds
        self._bury = bury
        self._journal = journal
        self._unfinished: dict[str, Execution] = {}
        self._apart: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self.gates = Gates(settings.data_dir.absolute() / "paused")
        self.orders = Orders(settings.data_dir.absolute() / "orders", self.cancel, alone=settings.workers == 1)
        self._shared = Shared(
            slots=asyncio.Semaphore(settings.max_running),
            registry=self.registry,
            redactor=Redactor(settings.redact),
            attempt_seconds=settings.attempt_seconds,
            max_argument_bytes=settings.max_argument_bytes,
            gates=self.gates,
            journal=journal,
            on_end=self._end,
        )
        meters.watch_queue(self._queued)

    def _queued(self) -> Counter[str]:
        """Count the tasks that were accepted and have not begun, by name; called in another thread."""
        executions = self._unfinished.copy()  # in one step
        return Counter(one.task.name for one in executions.values() if one.task.state is State.ACCEPTED)

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
        self._take_in(accepted, arguments)
        return accepted

    def run_again(self, tasks: Iterable[tuple[Accepted, Job]]) -> list[Execution]:
        """Run tasks that processes which are gone have accepted: under their own ids, each in a trace of its own.

        There is always room for them: they were accepted.
        """
        found = []
        for accepted, job in tasks:
            task = Task(accepted.id, job.name, accepted.endpoint, None, accepted.trace_id)
            task.run = accepted.run + 1
            self.registry.add(task)
            arguments = json.loads(accepted.arguments)
            execution = Context().run(Execution, task, job, arguments, fault=None, shared=self._shared)
            self._take_in([execution], arguments)
            found.append(execution)
        return found

    def accept_apart(
        self, job: Job, arguments: Mapping[str, Any], *, endpoint: str, replay_of: str | None = None
    ) -> Execution:
        """Accept a task of no request, whose trace is its own.

        Raises:
            Refused: there is no room, or the service is about to end.
        """
        (execution,) = Context().run(self.accept, (job,), arguments, endpoint=endpoint, replay_of=replay_of)
        return execution

    def run_apart(self, execution: Execution) -> None:
        """Run a task of no request, in a trace of its own."""
        running = asyncio.get_running_loop().create_task(_contained(execution), context=Context())
        self._apart.add(running)
        running.add_done_callback(self._apart.discard)

    def cancel(self, task_id: str) -> Found | None:
        """End a task of this process; `None` when there is none of this id."""
        task, execution = self.registry.get(task_id), self._unfinished.get(task_id)
        if task is None:
            return None
        if execution is not None:
            execution.cancel()
        return Found(task.name, task.trace_id, task.state, execution is not None)

    async def kept(self) -> None:
        """Wait until what was accepted is kept as well as an answer promises."""
        if self._journal is not None:
            await self._journal.kept()

    def _take_in(self, executions: list[Execution], arguments: Mapping[str, Any]) -> None:
        self._unfinished.update((execution.task.id, execution) for execution in executions)
        if self._journal is not None:
            text, complete = self._shared.redactor.kept(arguments, self._shared.max_argument_bytes)
            self._journal.add(
                Accepted(
                    task.id, task.name, task.endpoint, text, complete, task.trace_id, task.replay_of, task.accepted_at,
                    task.run,
                )
                for task in (execution.task for execution in executions)
            )  # fmt: skip

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
        began = time.monotonic()
        await self._wait_until_idle(self._drain_seconds)
        interrupted = len(self._unfinished)
        await self.close()
        logger.info("Drained: %d tasks ended, %d were interrupted", at_first - interrupted, interrupted)
        message = f"{at_first - interrupted} tasks ended, {interrupted} were interrupted"
        event("Drain", message, failed=interrupted > 0, seconds=time.monotonic() - began)

    async def close(self) -> None:
        """End every task that is left, as interrupted; then none is."""
        self.draining = True
        self.gates.stop()
        self.orders.stop()
        for execution in list(self._unfinished.values()):
            execution.interrupt()
        await self._wait_until_idle(INTERRUPTED_SECONDS)

    def _end(self, execution: Execution, letter: DeadLetter | None) -> None:
        """Free the place of a task that is through."""
        self._unfinished.pop(execution.task.id, None)
        if not self._unfinished:
            self._idle.set()
        if letter is not None:
            self._bury(letter)  # the journal forgets it when the letter is stored
        elif self._journal is not None:
            self._journal.forget(execution.task.id)

    async def _wait_until_idle(self, seconds: float) -> None:
        if not self._unfinished:
            return
        self._idle.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass


async def _contained(execution: Execution) -> None:
    """Run a task that nobody waits for: what it failed with is in the log, on its span and in its letter."""
    with suppress(Exception):
        await execution()
    execution.forget_error()
