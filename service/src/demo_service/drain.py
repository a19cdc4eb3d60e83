"""A graceful end in two steps: first the tasks, then the server."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType

logger = logging.getLogger(__name__)

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def drain_first(drain: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """Hold SIGTERM and SIGINT back from the server until `drain()` is through; a second signal goes straight to it.

    uvicorn closes its port as soon as it sees the signal, and knows nothing of what the tasks were. Held back, it
    still answers: not ready, no new work, and how far the running tasks are.
    """
    if threading.current_thread() is not threading.main_thread():  # no signals here: an app in a test
        yield
        return
    delay = _DelayedSignals(drain)
    for number, handler in delay.handlers.items():
        if callable(handler):  # the server's own; without one there is nobody to hold it back from
            signal.signal(number, delay.catch)
    try:
        yield
    finally:
        for number, handler in delay.handlers.items():
            signal.signal(number, handler)


class _DelayedSignals:
    """The first signal starts the drain and reaches the server after it; the next ones reach it at once."""

    def __init__(self, drain: Callable[[], Awaitable[None]]) -> None:
        self.handlers = {number: signal.getsignal(number) for number in SIGNALS}
        self._drain = drain
        self._loop = asyncio.get_running_loop()
        self._draining: asyncio.Task[None] | None = None

    def catch(self, number: int, _frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._begin, number)

    def _begin(self, number: int) -> None:
        if self._draining:
            self._pass_on(number)
        else:
            self._draining = self._loop.create_task(self._drain_and_pass_on(number))

    async def _drain_and_pass_on(self, number: int) -> None:
        try:
            await self._drain()
        except Exception:  # the process must end all the same
            logger.exception("The drain failed")
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        handler = self.handlers[signal.Signals(number)]
        if callable(handler):
            handler(number, None)
