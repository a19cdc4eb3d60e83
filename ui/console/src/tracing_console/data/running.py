"""Which tasks run now, in all services that use the library, from their start reports in OAP."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from oap_query import OapAwayError, OapError, arrived, instances, is_silent, long_tasks, refreshed, started

from tracing_console.data.log import warn_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from oap_query import Oap, Started

REFRESH_SECONDS: Final = 2.0
"""Between two refreshes, at least."""
REST: Final = 3
"""After a refresh OAP is left alone for so many times as long as the refresh took."""
FIRST_MINUTES: Final = 15
"""How far back the first refresh reads start reports."""
FIRST_HOURS: Final = 24
"""How far back it reads events, which only long tasks have."""
LATE_SECONDS: Final = 60
"""From a start report's time until OAP returns it, at most."""
MAX_READ: Final = 5000
"""Start reports, or events, that one refresh reads."""
MAX_CHECKED: Final = 400
"""Tasks that one refresh looks up: have they ended? Those looked up longest ago come first."""
MAX_LOST: Final = 500
EVENT_SECONDS: Final = 60
"""A task that has run for so long may have an event."""
SILENT_SECONDS: Final = 90
"""A process reports its long tasks every 30 s. After so long without it is gone, or OAP can't be reached from it."""
INSTANCE_MINUTES: Final = 3
"""A process that OAP has not heard from for so long is gone."""
INSTANCE_SECONDS: Final = 10.0
"""Between two queries for a service's instances."""

Key = tuple[str, str]
"""A task's trace and id."""


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that has started, and whose end OAP does not know."""

    task: Started
    lost: bool = False
    """Whether nothing was heard of its process for some time: how the task ended may never be known."""

    @property
    def key(self) -> Key:
        """What identifies it."""
        return self.task.trace_id, self.task.task_id


class RunningTasks:
    """The tasks that run, as far as OAP knows; read once for all open pages."""

    def __init__(self, oap: Oap) -> None:
        self.limited = False
        """Whether there were too many reports to read all."""
        self._oap = oap
        self._lock = asyncio.Lock()
        self._next = 0.0
        self._read_to: datetime | None = None
        self._tasks: dict[Key, RunningTask] = {}
        self._earlier: set[Key] = set()  # of the first refresh, and not looked up yet: most have ended
        self._looked_up: dict[Key, float] = {}
        self._ended: dict[Key, float] = {}
        self._instances: dict[str, tuple[float, frozenset[str]]] = {}

    def all(self) -> list[RunningTask]:
        """Return the tasks, the oldest first."""
        known = [item for key, item in self._tasks.items() if key not in self._earlier]
        return sorted(known, key=lambda item: item.task.start)

    @property
    def unknown(self) -> int:
        """How many tasks were reported before the first refresh, and may have ended since: not looked up yet."""
        return len(self._earlier)

    async def refresh(self, has_segment: Callable[[str, str], bool]) -> None:
        """Read what has started and what has ended.

        Args:
            has_segment: says whether a segment, by its id and its name, is known to have arrived.

        Raises:
            OapError: OAP does not answer.
        """
        async with self._lock:
            began = time.monotonic()
            if began < self._next:
                return
            for key, item in list(self._tasks.items()):
                if has_segment(item.task.segment_id, item.task.name):
                    self._end(key, began)
            await asyncio.to_thread(self._refresh, datetime.now(UTC))
            took = time.monotonic() - began
            self._next = time.monotonic() + max(REFRESH_SECONDS, REST * took)

    def states(self, tasks: Iterable[Started]) -> list[RunningTask]:
        """Return these tasks of one trace with what is known of their processes; asks OAP.

        Raises:
            OapError: OAP does not answer.
        """
        now = datetime.now(UTC)
        return [self._with_state(task, now) for task in refreshed(self._oap, list(tasks)) if not task.ended]

    def _refresh(self, now: datetime) -> None:
        first = self._read_to is None
        since = now - timedelta(minutes=FIRST_MINUTES) if self._read_to is None else self._read_to
        try:
            self.limited = self._add(started(self._oap, since))
        except OapAwayError:
            raise
        except OapError as error:
            warn_once(f"start reports are not found, as OAP refuses to search for the log tag task.state: {error}")
        if first:
            self.limited |= self._add(long_tasks(self._oap, now - timedelta(hours=FIRST_HOURS)), stop=False)
            self._earlier = set(self._tasks)
        self._read_to = now - timedelta(seconds=LATE_SECONDS)
        self._look_up(now)
        self._prune(now)

    def _add(self, pages: Iterable[list[Started]], *, stop: bool = True) -> bool:
        """Add what is new, and `stop` at a page that has nothing new. Return whether there was too much to read."""
        count = 0
        for page in pages:
            new = 0
            for task in page:
                item = RunningTask(task)
                if item.key not in self._tasks and item.key not in self._ended and not task.ended:
                    self._tasks[item.key] = item
                    new += 1
            count += len(page)
            if stop and not new:
                return False
            if count >= MAX_READ:
                return True
        return False

    def _look_up(self, now: datetime) -> None:
        """Find out which tasks have ended, and whether the processes of the others are alive."""
        moment = time.monotonic()
        oldest = sorted(self._tasks, key=lambda key: self._looked_up.get(key, 0.0))[:MAX_CHECKED]
        tasks = [self._tasks[key].task for key in oldest]
        over = arrived(self._oap, tasks)
        open_tasks = [task for task in tasks if task.segment_id not in over]
        long = [task for task in open_tasks if now.timestamp() * 1000 - task.start > EVENT_SECONDS * 1000]
        events = {(task.trace_id, task.task_id): task for task in refreshed(self._oap, long)}
        for key, task in zip(oldest, tasks, strict=True):
            self._looked_up[key] = moment
            self._earlier.discard(key)
            latest = events.get(key, task)
            if task.segment_id in over or latest.ended:
                self._end(key, moment)
            else:
                self._tasks[key] = self._with_state(latest, now)

    def _with_state(self, task: Started, now: datetime) -> RunningTask:
        """Say of a task whether its process is lost. A new process may be unknown to OAP for some time."""
        unheard_seconds = now.timestamp() - task.alive / 1000
        gone = unheard_seconds > SILENT_SECONDS and task.instance not in self._alive(task.service)
        return RunningTask(task, gone or is_silent(task, now, SILENT_SECONDS))

    def _alive(self, service: str) -> frozenset[str]:
        moment = time.monotonic()
        known = self._instances.get(service)
        if known is None or moment - known[0] > INSTANCE_SECONDS:
            since = datetime.now(UTC) - timedelta(minutes=INSTANCE_MINUTES)
            known = self._instances[service] = (moment, frozenset(instances(self._oap, service, since)))
        return known[1]

    def _end(self, key: Key, moment: float) -> None:
        self._tasks.pop(key, None)
        self._earlier.discard(key)
        self._looked_up.pop(key, None)
        self._ended[key] = moment

    def _prune(self, now: datetime) -> None:
        """Forget what is of no use: ended tasks whose report is no longer read, and the oldest of the lost ones."""
        forgotten = time.monotonic() - FIRST_MINUTES * 60
        self._ended = {key: moment for key, moment in self._ended.items() if moment > forgotten}
        oldest = (now - timedelta(hours=FIRST_HOURS)).timestamp() * 1000
        lost = [key for key, item in self._tasks.items() if item.lost]
        lost.sort(key=lambda key: self._tasks[key].task.start, reverse=True)
        for number, key in enumerate(lost):
            if number >= MAX_LOST or self._tasks[key].task.start < oldest:
                self._end(key, time.monotonic())
