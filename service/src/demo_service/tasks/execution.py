"""One task from its acceptance to its end: its attempts, and what is told of them."""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from skywalking_background import background_span, tag

from demo_service._dead_letters import letter_of
from demo_service._logging import task_id
from demo_service._redaction import describe
from demo_service._registry import State, Task
from demo_service._release import release

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from demo_service._faults import Fault
    from demo_service._jobs import Job
    from demo_service._runner import Runner

logger = logging.getLogger(__name__)


def attempt_name(number: int) -> str:
    """Name an attempt's span. There are as many names as a policy has attempts, and a child span is no endpoint."""
    return f"attempt {number}"


class Interrupted(Exception):  # noqa: N818  # not the task's fault
    """The task was not finished when it had to be."""


class Work:
    """A task that was accepted. Call it once to run it; `abandon` it when nobody will."""

    __slots__ = (
        "__qualname__",
        "_arguments",
        "_fault",
        "_interruption",
        "_job",
        "_request",
        "_runner",
        "_where",
        "error",
        "task",
    )

    def __init__(self, runner: Runner, job: Job, arguments: Mapping[str, Any], fault: Fault | None, task: Task) -> None:
        self.__qualname__ = job.name  # what its span is named after
        self.task = task
        self.error: BaseException | None = None
        self._runner = runner
        self._job = job
        self._arguments = arguments
        self._fault = fault
        self._request = copy_context()  # whose trace it belongs to
        self._where: TracebackType | None = None
        self._interruption: asyncio.Timeout | None = None

    async def __call__(self) -> None:
        """Run the task to its end.

        Raises:
            Exception: what it failed with for good, redacted; it is a dead letter by then.
        """
        if self.task.finished:  # interrupted before it could start
            return
        token = task_id.set(self.task.id)
        tag("task.id", self.task.id)
        if self.task.replay_of:
            tag("replay.of", self.task.replay_of)
        try:
            async with asyncio.timeout(None) as self._interruption, self._runner.slots:
                await self._attempt_all()
        except BaseException as error:
            if not self._interruption or not self._interruption.expired():
                if error is self.error:
                    error.with_traceback(self._where)  # without the frames of the retries
                self._where = None
                tag("task.outcome", self._die(error))
                raise
            interrupted = Interrupted(f"the service ended before the task did, in attempt {self.task.attempts}")
            tag("task.outcome", self._die(interrupted))
            raise interrupted from error  # the cause shows where it was
        else:
            self.task.error = None
            self._runner.end(self, State.SUCCEEDED)
            tag("task.outcome", "succeeded")
        finally:
            if self.task.attempts > 1:
                tag("task.attempts", self.task.attempts)
            task_id.reset(token)

    def interrupt(self) -> None:
        """Have it end now, whatever it is waiting for."""
        if self._interruption is None:
            self.abandon("the service ended before the task began")
        elif not self._interruption.expired():
            self._interruption.reschedule(0)

    def forget(self) -> None:
        """Let go of the error that it ended with, once everybody who must know has been told."""
        release(self.error)
        self.error = self._where = None

    def abandon(
        self, reason: str = "a task before it in the same request failed, or the request was cut short"
    ) -> None:
        """Make it a dead letter unless it has begun: what was accepted must not vanish."""
        if self._interruption is None and not self.task.finished:
            self._request.run(self._abandon, Interrupted(f"never started: {reason}"))

    def _abandon(self, error: Interrupted) -> None:
        task_id.set(self.task.id)
        outcome = self._die(error)
        tags = {"task.id": self.task.id, "task.outcome": outcome}
        with background_span(self._job.name, tags=tags) as span:
            span.record_error(error)

    async def _attempt_all(self) -> None:
        retry = self._job.retry
        began = time.time()
        try:
            await self._attempt(1)
        except retry.on as error:
            if retry.attempts == 1:
                raise
            # Only now it is known that there are attempts to tell apart: a task that simply works is one span.
            with background_span(attempt_name(1), tags={"task.attempt": 1}, began=began) as span:
                span.record_error(error)
            self.forget()  # it would stay for as long as the wait does
        else:
            return
        for number in range(2, retry.attempts + 1):
            failed = time.monotonic()
            await asyncio.sleep(retry.wait(number - 1))
            waited = round((time.monotonic() - failed) * 1000)
            try:
                tags = {"task.attempt": number, "task.wait_ms": waited}
                with background_span(attempt_name(number), tags=tags):
                    await self._attempt(number)
            except retry.on:
                if number == retry.attempts:
                    raise
                self.forget()
            else:
                return

    async def _attempt(self, number: int) -> None:
        task, settings = self.task, self._runner.settings
        if number == 1:
            task.started = time.monotonic()
            tag("task.queue_delay_ms", round(task.queue_delay or 0))
        task.attempts = number
        self._runner.registry.move(task, State.RUNNING)
        try:
            async with asyncio.timeout(settings.attempt_seconds) as limit:
                if self._fault:
                    await self._fault.strike(number)
                await self._job.run(**self._arguments)
        except Exception as error:
            failure: Exception = error
            if limit.expired():
                failure = TimeoutError(f"the attempt took longer than {settings.attempt_seconds:g} s")
                failure.__context__ = error
            failure = self._runner.redactor.error(failure, self._arguments)
            self.error, self._where = failure, failure.__traceback__
            task.error = describe(failure)
            self._runner.registry.move(task, State.FAILED)
            logger.warning(
                "Attempt %d of %d of %s failed: %s",
                number,
                self._job.retry.attempts,
                task.name,
                task.error,
                extra={"attempt": number},
            )
            if failure is error:
                raise
            raise failure  # noqa: B904  # `from` would show the context that a redacted error hides

    def _die(self, error: BaseException) -> str:
        # Whatever is no `Exception` (cancellation) came from outside, as an interruption does.
        interrupted = isinstance(error, Interrupted) or not isinstance(error, Exception)
        task, runner = self.task, self._runner
        self.error, task.error = error, describe(error)
        outcome = "interrupted" if interrupted else "dead"
        logger.error(
            "Background task %s is a dead letter after %d attempts: %s",
            task.name,
            task.attempts,
            task.error,
            exc_info=None if interrupted else error,  # where it was is in the letter and on the span
            extra={"outcome": outcome, "endpoint": task.endpoint, "attempts": task.attempts},
        )
        arguments, complete = runner.redactor.kept(self._arguments, runner.settings.max_argument_bytes)
        letter = letter_of(task, arguments, error, complete=complete, interrupted=interrupted)
        runner.end(self, State.DEAD)
        runner.bury(letter)
        return outcome
