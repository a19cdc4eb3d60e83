"""A task is cancelled by whichever process of the service runs it, whoever was told.

An order is a file in a folder that all processes share, named by the task. The process that has the task acts, and puts
its answer beside it; the one that was told reads that, and removes both.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.2
"""How soon a process sees an order."""
WAIT_SECONDS: Final = 2.0
"""How long an answer is waited for: a busy process takes its time."""
STALE_SECONDS: Final = 60.0
"""After so long nobody waits for an answer any more."""
_ORDER: Final = ".cancel"
_ANSWER: Final = ".answer"
_UNFINISHED: Final = ".new"


@dataclass(frozen=True)
class Found:
    """A task that was to be cancelled."""

    name: str
    trace_id: str | None
    state: str
    cancelled: bool
    """Not, if it had ended before."""


class Orders:
    """What the processes of the service ask of each other.

    Args:
        folder: where the orders lie.
        cancel: cancels a task of this process; `None` when it has none of this id.
        alone: whether there are no other processes; then there is nothing to look for.
    """

    def __init__(self, folder: Path, cancel: Callable[[str], Found | None], *, alone: bool) -> None:
        self._folder = folder
        self._cancel = cancel
        self._alone = alone
        self._looking: asyncio.Task[None] | None = None
        self._failed = False

    def start(self) -> None:
        """Begin to look for orders."""
        if not self._alone:
            self._looking = asyncio.get_running_loop().create_task(self._look_again())

    def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def cancel(self, task_id: str) -> Found | None:
        """Cancel a task, wherever it is; `None` when no process has it.

        Raises:
            OSError: the folder can't be written, so the other processes can't be asked.
        """
        found = self._cancel(task_id)
        if found is not None or self._alone:
            return found
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        order = self._folder / f"{task_id}.{uuid4().hex}{_ORDER}"
        answer = order.with_suffix(_ANSWER)
        order.touch(mode=0o600)
        try:
            return await _answer(answer)
        finally:
            order.unlink(missing_ok=True)
            answer.unlink(missing_ok=True)

    def look(self) -> None:
        """Do what others ask for, as far as this process can.

        Raises:
            OSError: the folder can't be read or written.
        """
        try:
            files = list(self._folder.iterdir())
        except FileNotFoundError:  # nobody has asked for anything yet
            return
        for path in files:
            if path.suffix == _ORDER:
                self._act(path)
            elif _age_seconds(path) > STALE_SECONDS:  # who asked was killed
                path.unlink(missing_ok=True)

    def _act(self, order: Path) -> None:
        if _age_seconds(order) > STALE_SECONDS:
            order.unlink(missing_ok=True)
            return
        found = self._cancel(order.name.partition(".")[0])
        if found is not None:
            beside = order.with_suffix(_UNFINISHED)
            beside.write_text(json.dumps(asdict(found)))
            beside.rename(order.with_suffix(_ANSWER))  # whole, or not there
            order.unlink(missing_ok=True)

    async def _look_again(self) -> None:
        while True:
            try:
                self.look()
                self._failed = False
            except Exception as error:  # noqa: BLE001  # the next look may fare better
                if not self._failed:
                    logger.warning("What other processes ask for can't be looked for yet: %s", error)
                self._failed = True
            await asyncio.sleep(LOOK_SECONDS)


async def _answer(path: Path) -> Found | None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if (found := _read(path)) is not None:
            return found
        await asyncio.sleep(LOOK_SECONDS / 4)
    return None


def _read(path: Path) -> Found | None:
    with suppress(FileNotFoundError):
        return Found(**json.loads(path.read_text()))
    return None


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
