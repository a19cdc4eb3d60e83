"""Orders to the stack's runner: the console starts what `make` would, and only what its own pages offer."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from tracing_console.data.log import logger

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from pathlib import Path


class OrderError(Exception):
    """The order was not given; the message says why, as a sentence."""


class Orders:
    """One order at a time, as each measures.

    Args:
        run_dir: the run folder of the stack; without it (in a container) no order can be given.
    """

    def __init__(self, run_dir: Path | None) -> None:
        self.run_dir = run_dir
        self._words: tuple[str, ...] = ()
        self._process: Process | None = None
        self._waiting: asyncio.Task[None] | None = None

    @property
    def possible(self) -> bool:
        """Whether there is a stack here to give orders to."""
        return self.run_dir is not None

    @property
    def running(self) -> str:
        """The order that is carried out; empty without any."""
        return " ".join(self._words)

    async def give(self, *words: str) -> None:
        """Run a command of the runner, such as `incident sequential`. The words are our tables', never a reader's.

        Raises:
            OrderError: it can't be, or another one runs.
        """
        if self.run_dir is None:
            raise OrderError("This console can't start anything: type the command.")
        if self._words:
            raise OrderError(f"“{self.running}” still runs. Wait for its end.")
        self._words = words
        log = self.run_dir / "log" / "order.log"
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                # In a session of its own: it goes on when the console is restarted, and `make down` ends it.
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "stack", *words,
                    env={**os.environ, "RUN_DIR": str(self.run_dir)}, stdin=asyncio.subprocess.DEVNULL,
                    stdout=output, stderr=output, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            self._words = ()
            raise OrderError(f"It could not be started: {error}.") from error
        logger.warning("order: %s (its output is in %s)", self.running, log)
        self._waiting = asyncio.create_task(self._wait(self._process))

    def end(self) -> None:
        """Have the order's process end all that it has started, and then itself."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.terminate()

    async def _wait(self, process: Process) -> None:
        code = await process.wait()
        logger.info("order: %s ended with %d", self.running, code)
        self._words, self._process = (), None
