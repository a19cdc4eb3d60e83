"""One task from its acceptance to its end: its attempts, and one method for each way in which it can end."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skywalking_background import background_span, current_trace_id, meters, tag

from demo_service.dead_letters import describe
from demo_service.logging import task_id
from demo_service.tasks.faults import BOARD
from demo_service.tasks.letters import letter_of
from demo_service.tasks.registry import State
from demo_service.tasks.release import release
from demo_service.tasks.work import log_failed_attempt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from demo_service.accepted import Journal
    from demo_service.dead_letters import DeadLetter, Redactor
    from demo_service.tasks.faults import Fault
    from demo_service.tasks.gates import Gates
    from demo_service.tasks.jobs import Job
    from demo_service.tasks.registry import Registry, Task

logger = logging.getLogger(__name__)


def attempt_name(number: int) -> str:
    """Name an attempt's span. There are as many names as a policy has attempts, and a child span is no endpoint."""
    return f"attempt {number}"


class Interrupted(Exception):  # noqa: N818  # not the task's fault
    """The task was not finished when it had to be."""


class Cancelled(Exception):  # noqa: N818  # what somebody wanted
    """Somebody has asked for the task's end."""


@dataclass(frozen=True)
class Shared:
    """What all executions of a process have in common."""

    slots: asyncio.Semaphore
    """One for each task that may run at the same time."""
    registry: Registry
    redactor: Redactor
    attempt_seconds: float
    max_argument_bytes: int
    gates: Gates
    """Which jobs are paused."""
    journal: Journal | None
    """Where attempts are noted, for the case that this process is killed."""
    on_end: Callable[[Execution, DeadLetter | None], None]
    """Called when an execution has ended, with its letter if it failed for good."""


class Execution:
    """A task that was accepted. Call it once to run it, or `abandon` it."""

    __slots__ = (
        "_apart",
        "_arguments",
        "_begun",
        "_cancelled",
        "_fault",
        "_has_slot",
        "_interruption",
        "_job",
        "_must_end",
        "_request",
        "_shared",
        "_traceback",
        "error",
        "retries_apart",
        "task",
    )

    def __init__(
        self, task: Task, job: Job, arguments: Mapping[str, Any], *, fault: Fault | None, shared: Shared
    ) -> None:
        self.task = task
        self.error: BaseException | None = None
        self.retries_apart = True
        """Whether the call returns after a failed first attempt, and the retries go on in an asyncio task of their own.

        A task that waits for its retry in its request keeps that in memory: 29 KB instead of 6.
        """
        self._job = job
        self._arguments = arguments
        self._fault = fault
        self._shared = shared
        self._request: Context | None = copy_context()  # whose trace it belongs to
        self._begun = self._has_slot = self._must_end = self._cancelled = False
        self._apart: asyncio.Task[None] | None = None
        self._traceback: TracebackType | None = None
        self._interruption: asyncio.Timeout | None = None

    @property
    def func(self) -> Callable[..., Awaitable[None]]:
        """The job's function, as a `BackgroundTask` has it: FastAPI looks for it."""
        return self._job.run

    async def __call__(self) -> None:
        """Run the task: to its end, or until its retries go on apart.

        Raises:
            Exception: what it failed with for good, redacted; it is a dead letter by then.
            Interrupted: it had to end before it was through; it is a dead letter too.
        """
        if self.task.finished:  # interrupted before it could start
            return
        self._begun, self._request = True, None
        token = task_id.set(self.task.id)
        tags = {"task.id": self.task.id}
        if self.task.replay_of:
            tags["replay.of"] = self.task.replay_of
        if self._fault and self._fault.origin == BOARD:  # nobody has asked for it with the request
            tags["fault.from"] = BOARD
        if self.task.run > 1:
            tags["task.run"] = str(self.task.run)
        try:
            with background_span(self._job.name, tags=tags) as span:
                self.task.trace_id = self.task.trace_id or current_trace_id()
                with suppress(Cancelled):  # the tasks beside it go on
                    await self._until_end(self._run(span))
        finally:
            task_id.reset(token)

    async def apart(self) -> None:
        """Wait for the retries that run apart, if they do."""
        if self._apart is not None:
            await asyncio.wait([self._apart])

    def cancel(self) -> None:
        """Have it end now, as somebody has asked for it."""
        self._cancelled = True
        if self._begun:
            self._end_soon()
        elif self._request is not None:
            self._request.run(self._end_unstarted, Cancelled("cancelled before it began"))

    def interrupt(self) -> None:
        """Have it end now, whatever it is waiting for."""
        if not self._begun:
            self.abandon("the service ended before the task began")
        else:
            self._end_soon()

    def _end_soon(self) -> None:
        self._must_end = True
        if self._interruption is not None and not self._interruption.expired():
            self._interruption.reschedule(0)

    def abandon(
        self, reason: str = "a task before it in the same request failed, or the request was cut short"
    ) -> None:
        """Make it a dead letter unless it has begun: what was accepted must not vanish."""
        if self._request is not None and not self.task.finished:
            self._request.run(self._end_unstarted, Interrupted(f"never started: {reason}"))

    def forget_error(self) -> None:
        """Free the error that it ended with, once everybody who needs it has had it."""
        release(self.error)
        self.error = self._traceback = None

    def _end_succeeded(self) -> None:
        self.task.error = None
        self._end(State.SUCCEEDED, None)
        tag("task.outcome", "succeeded")

    def _end_failed(self, error: Exception) -> None:
        self._bury(error, "dead", error)
        tag("task.outcome", "dead")

    def _end_interrupted(self, error: BaseException) -> None:
        self._bury(error, "interrupted", None)  # where it was is in the letter and on the span
        tag("task.outcome", "interrupted")

    def _end_cancelled(self) -> None:
        logger.warning("Background task %s was cancelled in attempt %d", self.task.name, self.task.attempts)
        self._end(State.CANCELLED, None)
        tag("task.outcome", "cancelled")

    def _end_unstarted(self, error: Interrupted | Cancelled) -> None:
        task_id.set(self.task.id)
        with background_span(self._job.name, tags={"task.id": self.task.id}) as span:
            if isinstance(error, Cancelled):
                self._end_cancelled()
            else:
                tag("task.outcome", "interrupted")
                self._bury(error, "interrupted", None)
                span.record_error(error)

    def _bury(self, error: BaseException, outcome: str, shown: BaseException | None) -> None:
        """Make it a dead letter; the log line shows where the error was if it is asked to."""
        task, shared = self.task, self._shared
        self.error, task.error = error, describe(error)
        logger.error(
            "Background task %s is a dead letter after %d attempts: %s",
            task.name,
            task.attempts,
            task.error,
            exc_info=shown,
            extra={"outcome": outcome, "endpoint": task.endpoint, "attempts": task.attempts},
        )
        arguments = shared.redactor.kept(self._arguments, shared.max_argument_bytes)
        letter = letter_of(task, arguments, error, interrupted=outcome == "interrupted")
        self._end(State.DEAD, letter)
        meters.count("dead", task.name)

    def _end(self, state: State, letter: DeadLetter | None) -> None:
        self._shared.registry.move(self.task, state)
        if self._has_slot:
            self._shared.slots.release()
        self._shared.on_end(self, letter)

    async def _until_end(self, run: Awaitable[bool]) -> None:
        """Run the task, or a part of it that says whether it was the last one, and end it."""
        limit = asyncio.timeout(0 if self._must_end else None)
        try:
            async with limit:
                self._interruption = limit
                ended = await run
        except BaseException as error:
            if limit.expired() and self._cancelled:
                self._end_cancelled()
                raise Cancelled from None
            if limit.expired():
                interrupted = Interrupted(f"the service ended before the task did, in attempt {self.task.attempts}")
                self._end_interrupted(interrupted)
                raise interrupted from error  # the cause shows where it was
            if isinstance(error, Exception):
                if error is self.error:
                    error.with_traceback(self._traceback)  # without the frames of the retries
                self._end_failed(error)
            else:  # cancelled: that came from outside, as an interruption does
                self._end_interrupted(error)
            raise
        else:
            if ended:
                self._end_succeeded()
        finally:
            self._interruption = self._traceback = None
            if self.task.attempts > 1:
                tag("task.attempts", self.task.attempts)

    async def _run(self, span: background_span) -> bool:
        await self._shared.gates.opened(self._job.name)
        await self._shared.slots.acquire()
        self._has_slot = True
        retry = self._job.retry
        began = time.time()
        try:
            await self._attempt(1)
        except retry.on as error:
            if retry.attempts == 1:
                raise
            # Only now it is known that there are attempts to tell apart: a task that simply works is one span.
            with background_span(attempt_name(1), tags={"task.attempt": 1}, began=began) as first:
                first.record_error(error)
            self.forget_error()  # it would stay for as long as the wait does
        else:
            return True
        if not self.retries_apart:
            return await self._retry()
        self._apart = asyncio.get_running_loop().create_task(self._retry_apart(span.hand_over()), context=Context())
        return False

    async def _retry_apart(self, span: background_span) -> None:
        task_id.set(self.task.id)
        try:
            with span:
                await self._until_end(self._retry())
        except Exception:  # noqa: BLE001, S110  # it is in the log, on the span and in the dead letter
            pass
        self._apart = None
        self.forget_error()

    async def _retry(self) -> bool:
        retry = self._job.retry
        for number in range(2, retry.attempts + 1):
            failed_at = time.monotonic()
            await asyncio.sleep(retry.wait_seconds(number - 1))
            waited_ms = round((time.monotonic() - failed_at) * 1000)
            try:
                tags = {"task.attempt": number, "task.wait_ms": waited_ms}
                with background_span(attempt_name(number), tags=tags):
                    await self._attempt(number)
            except retry.on:
                if number == retry.attempts:
                    raise
                self.forget_error()
            else:
                break
        return True

    async def _attempt(self, number: int) -> None:
        task, shared = self.task, self._shared
        if number == 1:
            task.started = time.monotonic()
            tag("task.queue_delay_ms", round(task.queue_delay_ms or 0))
            meters.waited(task.queue_delay_ms or 0)
        else:
            meters.count("retried", task.name)
        task.attempts = number
        if shared.journal is not None:
            shared.journal.begin(task.id, number, task.trace_id)
        shared.registry.move(task, State.RUNNING)
        try:
            async with asyncio.timeout(shared.attempt_seconds) as limit:
                if self._fault:
                    await self._fault.strike(number)
                await self._job.run(**self._arguments)
        except Exception as error:
            failure: Exception = error
            if limit.expired():
                failure = TimeoutError(f"the attempt took longer than {shared.attempt_seconds:g} s")
                failure.__context__ = error
            failure = shared.redactor.error(failure, self._arguments)
            self.error, self._traceback = failure, failure.__traceback__
            task.error = describe(failure)
            shared.registry.move(task, State.FAILED)
            log_failed_attempt(number, self._job.retry.attempts, task.name, task.error)
            if failure is error:
                raise
            raise failure  # noqa: B904  # `from` would show the context that a redacted error hides
