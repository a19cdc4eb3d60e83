"""Notifications about dead letters: one message for many, and no task waits for them."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Final

from skywalking_background import carry

from demo_service.notifications import Recipients, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo_service.dead_letters.letter import DeadLetter
    from demo_service.settings import Settings

LATEST: Final = 5
"""How many letters a message describes one by one."""


class _Batch:
    """The contents of one message: how many letters of each kind, and the latest of them."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.latest: deque[DeadLetter] = deque(maxlen=LATEST)

    def add(self, letter: DeadLetter) -> None:
        self.kinds[f"{letter.name}: {letter.error_type}"] += 1
        self.latest.append(letter)


class Notifier:
    """Sends notifications by Apprise, at most one message in `notify_seconds`."""

    def __init__(self, settings: Settings, trace_url: Callable[[str | None], str | None]) -> None:
        self._recipients = Recipients(settings.notify_urls)
        self._seconds = settings.notify_seconds
        self._trace_url = trace_url
        self._waiting = _Batch()
        self._notify_in_trace = self._notify
        self._sender: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def put(self, letter: DeadLetter) -> None:
        """Notify of a letter: at once, or together with others when `notify_seconds` have passed."""
        if not self._recipients:
            return
        if not self._waiting.kinds:
            # The message becomes part of the trace of the first task that it describes.
            self._notify_in_trace = carry(self._notify, name="notify")
        self._waiting.add(letter)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.get_running_loop().create_task(self._send(), context=Context())

    async def close(self) -> None:
        """Send what still waits."""
        self._closing.set()
        if self._sender is not None:
            await self._sender

    async def _send(self) -> None:
        while self._waiting.kinds:
            batch, self._waiting = self._waiting, _Batch()
            await send("dead letters", partial(self._notify_in_trace, batch))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._closing.wait()

    def _notify(self, batch: _Batch) -> bool:
        """Send one message; runs in a thread."""
        count = batch.kinds.total()
        if count == 1:
            title = f"{batch.latest[0].name} is a dead letter"
            lines = []
        else:
            title = f"{count} background tasks are dead letters"
            lines = [*(f"{times}x {kind}" for kind, times in batch.kinds.most_common()), "The latest:"]
        for letter in batch.latest:
            lines.append(f"{letter.died_at} {letter.name} {letter.id}: {letter.error_type}: {letter.error_message}")
            if url := self._trace_url(letter.trace_id):
                lines.append(url)
        return self._recipients.notify(title, lines, "failure")
