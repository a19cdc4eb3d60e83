"""Alarms that OAP sends: kept in memory, with their ends, and sent to people by Apprise.

OAP from 10.4 on reports when an alarm is over. An older one only falls silent: a rule repeats itself every second
minute while it is true (`silence-period: 1` in oap/config/alarm-settings.yml): what is not repeated for long is over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field
from skywalking_background import untraced

from demo_service.notifications import Recipients, send

if TYPE_CHECKING:
    from collections.abc import Iterable

    from demo_service.settings import Settings

logger = logging.getLogger(__name__)

KEPT: Final = 500
"""How many alarms are kept; the oldest are forgotten first."""
LOOK_SECONDS: Final = 5.0
"""Time between two looks for alarms that are over."""
LINES: Final = 20
"""How many alarms a notification describes one by one."""


class Tag(BaseModel):
    """A tag of a rule."""

    key: str
    value: str


class Message(BaseModel):
    """An alarm as OAP sends it; what it has beside this is not needed."""

    model_config = ConfigDict(extra="ignore")

    ruleName: str = Field(max_length=200)  # noqa: N815  # OAP's own names
    scope: str = Field("", max_length=100)
    name: str = Field("", max_length=1_000)
    alarmMessage: str = Field("", max_length=4_000)  # noqa: N815
    startTime: int = Field(ge=0, lt=2**53)  # noqa: N815
    recoveryTime: int | None = Field(None, ge=0, lt=2**53)  # noqa: N815
    tags: list[Tag] | None = Field(None, max_length=100)


@dataclass
class Alarm:
    """An alarm of one rule about one thing; times in seconds since the epoch."""

    rule: str
    name: str
    scope: str
    message: str
    level: str
    started: float
    repeated: float
    recovered: float | None = None


class Alarms:
    """The alarms of this process, and the people who are notified."""

    def __init__(self, settings: Settings) -> None:
        self._recipients = Recipients(settings.notify_urls)
        self._quiet_seconds = settings.alarm_quiet_seconds
        self._alarms: deque[Alarm] = deque(maxlen=KEPT)
        self._news: list[Alarm] = []
        self._work: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def newest(self) -> list[Alarm]:
        """Return the alarms, the last to begin first."""
        return list(reversed(self._alarms))

    def take(self, messages: Iterable[Message]) -> None:
        """Take in what OAP sends: that alarms began, go on, or are over."""
        now = time.time()
        for message in messages:
            found = self._open(message)
            if message.recoveryTime:
                if found is not None:
                    self._end(found, message.recoveryTime / 1000)
            elif found is not None:
                found.repeated = now
            else:
                alarm = Alarm(
                    rule=message.ruleName,
                    name=message.name,
                    scope=message.scope,
                    message=message.alarmMessage,
                    level=next((tag.value for tag in message.tags or () if tag.key == "level"), ""),
                    started=message.startTime / 1000,
                    repeated=now,
                )
                logger.warning("Alarm: %s", alarm.message)
                self._alarms.append(alarm)
                self._news.append(alarm)
        self._changed.set()
        if self._work is None or self._work.done():
            self._work = asyncio.get_running_loop().create_task(self._watch(), context=Context())

    async def close(self) -> None:
        """Send what still waits."""
        if self._work is not None:
            self._work.cancel()
            with suppress(asyncio.CancelledError):
                await self._work
            await self._notify()

    def _open(self, message: Message) -> Alarm | None:
        for alarm in reversed(self._alarms):
            if (alarm.rule, alarm.name) == (message.ruleName, message.name):
                return None if alarm.recovered else alarm
        return None

    def _end(self, alarm: Alarm, when: float) -> None:
        alarm.recovered = when
        logger.info("Alarm is over: %s", alarm.message)
        self._news.append(alarm)

    async def _watch(self) -> None:
        """Send the news, and end what has fallen silent, until nothing is open."""
        while self._news or any(alarm.recovered is None for alarm in self._alarms):
            await self._notify()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            now = time.time()
            for alarm in self._alarms:
                if alarm.recovered is None and now - alarm.repeated > self._quiet_seconds:
                    self._end(alarm, alarm.repeated)

    async def _notify(self) -> None:
        news, self._news = self._news, []
        if not (news and self._recipients):
            return
        lines = [f"{'recovered' if one.recovered else one.level.lower() or 'alarm'}: {one.message}" for one in news]
        if len(lines) > LINES:
            lines = [*lines[:LINES], f"and {len(lines) - LINES} more"]
        over = all(one.recovered for one in news)
        title = f"{len(news)} alarms" if len(news) > 1 else "An alarm is over" if over else "An alarm"
        with untraced():
            await send("alarms", partial(self._recipients.notify, title, lines, "success" if over else "warning"))
