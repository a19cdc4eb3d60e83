"""At the start and now and then: what processes that are gone have accepted becomes dead letters, or runs again."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from typing import TYPE_CHECKING, Final

from demo_service.accepted import claim_all
from demo_service.dead_letters import StoreUnavailableError
from demo_service.tasks.jobs import JOBS
from demo_service.tasks.letters import letter_of_crashed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from demo_service.accepted import Accepted, Left
    from demo_service.dead_letters import DeadLetter
    from demo_service.dead_letters.store import DeadLetters
    from demo_service.tasks.jobs import Job
    from demo_service.tasks.room import Room

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
"""How long it is from one look to the next: another process of the service may be killed at any time."""


class Recovery:
    """Looks after the accepted tasks of processes that are gone.

    Args:
        folder: where the files of accepted tasks lie.
        own: this process's.
        room: runs what may run again.
        letters: keeps the others.
        on_crashed: called with each letter.
    """

    def __init__(
        self, folder: Path, own: Path, room: Room, letters: DeadLetters, on_crashed: Callable[[DeadLetter], object]
    ) -> None:
        self._folder = folder
        self._own = own
        self._room = room
        self._letters = letters
        self._on_crashed = on_crashed
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._looking = asyncio.get_running_loop().create_task(self._look_again(), context=Context())

    def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look_again(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # the service goes on, and the next look may fare better
                logger.exception("Tasks of processes that have ended can't be recovered yet")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Take the files of processes that are gone, one after the other."""
        for left in await asyncio.to_thread(claim_all, self._folder, self._own):
            try:
                await self._take_over(left)
            except BaseException as error:
                left.release()
                if not isinstance(error, StoreUnavailableError):  # which has its line
                    raise
            else:
                await asyncio.to_thread(left.finish)

    async def _take_over(self, left: Left) -> None:
        again = [(task, job) for task in left.tasks if (job := _job_that_runs_again(task)) is not None]
        ids = {task.id for task, _ in again}
        letters = [letter_of_crashed(task) for task in left.tasks if task.id not in ids]
        await self._letters.add(letters)
        executions = self._room.run_again(again)
        await self._room.kept()
        for execution in executions:
            self._room.run_apart(execution)
        for letter in letters:
            self._on_crashed(letter)
        if left.tasks:
            logger.warning(
                "%d accepted tasks ended with their process: %d are dead letters, %d run again",
                len(left.tasks),
                len(letters),
                len(executions),
                extra={"dead": len(letters), "again": len(executions)},
            )


def _job_that_runs_again(task: Accepted) -> Job | None:
    job = JOBS.get(task.name)
    return job if job is not None and task.complete and task.run < job.runs else None
