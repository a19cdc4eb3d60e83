"""Jobs that are paused: what is accepted for one waits until it is resumed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.5
"""How soon a process notices what another one was told."""


class Gates:
    """One for each job. A paused one has a file in a folder: for all processes of the service, and after a restart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._closed: dict[str, asyncio.Event] = {}
        self._looking: asyncio.Task[None] | None = None
        self._unreadable = False

    @property
    def paused(self) -> set[str]:
        """The names of the jobs that are paused."""
        return set(self._closed)

    def start(self) -> None:
        """Begin to look for what other processes pause and resume."""
        self.look()
        self._looking = asyncio.get_running_loop().create_task(self._look_again())

    def stop(self) -> None:
        """Let everything through, and look no more."""
        if self._looking is not None:
            self._looking.cancel()
        for name in list(self._closed):
            self._closed.pop(name).set()

    def pause(self, name: str) -> None:
        """Let none of the job's tasks begin; those that run go on.

        Raises:
            OSError: the folder can't be written.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / name).touch()
        self.look()

    def resume(self, name: str) -> None:
        """Let them begin.

        Raises:
            OSError: the folder can't be written.
        """
        (self._folder / name).unlink(missing_ok=True)
        self.look()

    async def opened(self, name: str) -> None:
        """Wait until the job is not paused."""
        while (closed := self._closed.get(name)) is not None:
            await closed.wait()

    def look(self) -> None:
        """Read the folder."""
        try:
            wanted = {path.name for path in self._folder.iterdir()}
            self._unreadable = False
        except (FileNotFoundError, NotADirectoryError):
            wanted = set()
        except OSError as error:
            if not self._unreadable:
                logger.warning("The list of paused jobs can't be read; the one read before stays in force: %s", error)
            self._unreadable = True
            return
        for name in wanted - self._closed.keys():
            self._closed[name] = asyncio.Event()
        for name in self._closed.keys() - wanted:
            self._closed.pop(name).set()

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()
