"""What the timeline draws: the segments of the last minutes, asked for once for all pages that look at them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from oap_query import OapError, Segment, failed, segments

from tracing_console._service import ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oap_query import Oap

    from tracing_console._service import Service

KEEP: Final = 15 * 60
"""s back from now."""
MOST: Final = 30_000
"""Segments kept; of more, the newest."""
PAUSE: Final = 1.0
"""s between two questions to OAP, however many pages are open."""
SLACK: Final = 10
"""s from a segment's end until OAP can show it, at most: the agent's queue and OAP's flush lie in between."""
CATCH_UP: Final = 4
"""Minutes read with each look after the first one, which reads the last minute, until all of `KEEP` is read. A minute
at a time, as a database pages through a long time slowly."""
LINGER: Final = 15
"""s that a task which runs no longer is drawn until its segment arrives."""

ERROR, RECOVERED = 1, 2


@dataclass(frozen=True, slots=True)
class Row:
    """A segment as it is sent to the page."""

    number: int
    segment: Segment
    name: int
    """Index into the feed's names."""
    trace: int
    flags: int


@dataclass(slots=True)
class _Open:
    """A task that the service says is running: its segment is reported when it ends."""

    trace_id: str
    name: str
    start: int
    seen: float


_Window = tuple[datetime, datetime | None, int]


def _window(now: datetime, near: float, far: float, least: int = 0) -> _Window:
    return now - timedelta(seconds=far), now - timedelta(seconds=near), least


class Feed:
    """Segments in the order of their arrival, each with a number, so that a page can ask for what is new to it."""

    def __init__(self, oap: Oap, service: Service, names: Sequence[str]) -> None:
        self.epoch = token_hex(4)
        self.limited = False
        self._oap, self._service, self._services = oap, service, names
        self._lock = asyncio.Lock()
        self._asked = self._asked_wall = 0.0
        self._rows: dict[str, Row] = {}
        self._open: dict[str, _Open] = {}
        self._unread: list[_Window] = []
        self.running: int | None = None
        """How many tasks run now, by the service's own word; `None` where it has none."""
        self._names: dict[tuple[str, str, bool], int] = {}
        self._traces: dict[str, int] = {}
        self._trace_ids: dict[int, str] = {}
        self._count = self._last_trace = 0

    async def refresh(self) -> None:
        """Fetch what is new.

        Raises:
            OapError: OAP does not answer.
        """
        async with self._lock:
            if time.monotonic() - self._asked < PAUSE and not self._unread:
                return
            now = datetime.now(UTC)
            found, whole = await asyncio.to_thread(self._fetch, now)
            self._asked, self._asked_wall = time.monotonic(), now.timestamp()
            for service, segment in found:
                self._add(service, segment, whole)
            self._prune(now.timestamp() * 1000)
            await self._look_at_running()

    def trace_id(self, number: int) -> str | None:
        """Return the id of a trace by its number here."""
        return self._trace_ids.get(number)

    def rows(self, after: int = 0) -> list[Row]:
        """Return the segments that arrived after the one of that number."""
        return [row for row in self._rows.values() if row.number > after]

    def data(self, epoch: str, after: int) -> dict[str, Any]:
        """Return what a page lacks that has seen the segments up to number `after` of `epoch`; times in ms."""
        rows = self.rows(after if epoch == self.epoch else 0)
        running = [
            [item.start, self._name(self._services[0], item.name, request=False), self._trace(item.trace_id)]
            for item in self._open.values()
        ]
        base = min((row.segment.start for row in rows), default=0)
        return {
            "epoch": self.epoch,
            "after": self._count,
            "now": int(time.time() * 1000),
            "keep": KEEP * 1000,
            "limited": self.limited,
            "more": bool(self._unread),
            "running": self.running,
            "names": [[*key] for key in self._names],
            "base": base,
            "start": [row.segment.start - base for row in rows],
            "duration": [row.segment.duration for row in rows],
            "name": [row.name for row in rows],
            "trace": [row.trace for row in rows],
            "flags": [row.flags for row in rows],
            "open": running,
        }

    def _fetch(self, now: datetime) -> tuple[list[tuple[str, Segment]], set[str]]:
        """Ask OAP; return the new segments, each with its service, and which of them failed as a whole."""
        unread = self._unread
        try:
            windows = self._windows(now)
            found = {
                item.segment_id: (item.service or service, item)
                for service in self._services
                for start, end, least in windows
                for page in segments(self._oap, start, end, service=service, least=least)
                for item in page
                if item.segment_id not in self._rows
            }
            doubtful = sorted({item.trace_id for _, item in found.values() if item.error and not item.request})
            whole = failed(self._oap, doubtful)
        except OapError:
            self._unread = unread
            raise
        return sorted(found.values(), key=lambda pair: pair[1].start), whole

    def _windows(self, now: datetime) -> list[_Window]:
        """Return the times in which new segments may have started, each with their least duration in ms.

        OAP finds segments by their start, but they arrive at their end. What arrived since the last look and started
        long ago must have lasted long, so the further back, the fewer segments are asked for again.
        """
        since = now.timestamp() - self._asked_wall
        if since > KEEP:
            self._unread = [_window(now, minute * 60, (minute + 1) * 60) for minute in range(1, KEEP // 60)]
            return [(now - timedelta(seconds=60), None, 0)]
        slack = SLACK + since
        windows: list[_Window] = [(now - timedelta(seconds=2 * slack), None, 0), *self._next_unread()]
        near = 2 * slack
        while near < KEEP:
            far = min(3 * near, KEEP)
            windows.append(_window(now, near, far, int((near - slack) * 1000)))
            near = far
        return windows

    def _next_unread(self) -> list[_Window]:
        """Take the next minutes of the time before the first look, the newest first: a page need not wait for all."""
        windows, self._unread = self._unread[:CATCH_UP], self._unread[CATCH_UP:]
        return windows

    def _add(self, service: str, segment: Segment, whole: set[str]) -> None:
        if segment.segment_id in self._rows:
            return
        self._count += 1
        flags = 0 if not segment.error else ERROR if segment.request or segment.segment_id in whole else RECOVERED
        name = self._name(service, segment.name, request=segment.request)
        self._rows[segment.segment_id] = Row(self._count, segment, name, self._trace(segment.trace_id), flags)

    def _name(self, service: str, name: str, *, request: bool) -> int:
        return self._names.setdefault((name, service, request), len(self._names))

    def _trace(self, trace_id: str) -> int:
        number = self._traces.get(trace_id)
        if number is None:
            self._last_trace += 1
            number = self._traces[trace_id] = self._last_trace
            self._trace_ids[number] = trace_id
        return number

    def _prune(self, now: float) -> None:
        oldest = now - KEEP * 1000
        kept = {key: row for key, row in self._rows.items() if row.segment.end >= oldest}
        self.limited = len(kept) >= MOST
        if self.limited:
            newest = sorted(kept.items(), key=lambda item: item[1].segment.start)[-MOST:]
            kept = dict(sorted(newest, key=lambda item: item[1].number))
        if len(self._traces) > len(kept) + MOST:
            drawn = {row.segment.trace_id for row in kept.values()}
            self._traces = {trace_id: number for trace_id, number in self._traces.items() if trace_id in drawn}
            self._trace_ids = {number: trace_id for trace_id, number in self._traces.items()}
        self._rows = kept

    async def _look_at_running(self) -> None:
        """Ask the service what runs now; its absence takes nothing from the picture but that."""
        try:
            answer = await self._service.tasks("running")
        except ServiceError:
            answer = None
        self.running = None if answer is None else answer["running"]
        now = time.monotonic()
        for task in answer["tasks"] if answer else ():
            if task["trace_id"] is not None:
                accepted = datetime.fromisoformat(task["accepted_at"]).timestamp() * 1000
                start = int(accepted + (task["queue_delay_ms"] or 0))
                self._open[task["id"]] = _Open(task["trace_id"], task["name"], start, now)
        reported = {(row.segment.trace_id, row.segment.name) for row in self._rows.values()} if self._open else set()
        self._open = {
            key: item
            for key, item in self._open.items()
            if now - item.seen < LINGER and (item.trace_id, item.name) not in reported
        }
