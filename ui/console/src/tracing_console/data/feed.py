"""What the timeline draws: the segments of the last minutes, read once for all open pages."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from oap_query import OapAwayError, OapError, Segment, failed, segments

from tracing_console.data.log import warn_once
from tracing_console.data.service import ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oap_query import Oap

    from tracing_console.data.running import RunningTasks
    from tracing_console.data.service import Service

KEEP_SECONDS: Final = 15 * 60
"""How far back the timeline goes."""
MAX_SEGMENTS: Final = 30_000
"""Of more than that, the newest are kept."""
REFRESH_SECONDS: Final = 1.0
"""Between two queries to OAP, however many pages are open."""
ARRIVAL_SECONDS: Final = 10
"""From a segment's end until OAP returns it, at most: it waits in the agent's queue and for OAP's flush."""
CATCH_UP_MINUTES: Final = 4
"""The first refresh reads the last minute, each later one so many more until all of `KEEP_SECONDS` is read: one query a
minute, since a database is slow at paging through a long time."""
LINGER_SECONDS: Final = 15
"""How long a task that has ended is still drawn as running while its segment has not arrived."""

CRASHED_SECONDS: Final = 5.0
"""Between two queries for the tasks of crashed processes."""

FAILED, RECOVERED, CRASHED = 1, 2, 4
"""A row's flags: its work failed; an attempt failed, but its work succeeded in the end; its process was killed."""


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
class _Listed:
    """A task that the service listed as running."""

    trace_id: str
    name: str
    start: int
    seen: float


_Window = tuple[datetime, datetime | None, int]
"""In which time to look for segments (`None` is now), and from which duration on, in ms."""


def _window(now: datetime, from_seconds: float, to_seconds: float, min_duration_ms: int = 0) -> _Window:
    """Return the time between so many seconds ago and so many more seconds ago."""
    return now - timedelta(seconds=to_seconds), now - timedelta(seconds=from_seconds), min_duration_ms


class Feed:
    """Segments, numbered in the order of their arrival, so that a page can ask for those it does not have yet."""

    def __init__(self, oap: Oap, service: Service, names: Sequence[str], running: RunningTasks) -> None:
        self.epoch = token_hex(4)
        self.limited = False
        self._oap, self._service, self._services = oap, service, names
        self._lock = asyncio.Lock()
        self._refreshed = self._refreshed_at = self._crashed_read = 0.0
        self._rows: dict[str, Row] = {}
        self.running = running
        self._listed: dict[tuple[str, str], _Listed] = {}
        self._unread: list[_Window] = []
        self.running_count: int | None = None
        """How many tasks run now: as the service counts them, or else as many as SkyWalking knows."""
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
            if time.monotonic() - self._refreshed < REFRESH_SECONDS and not self._unread:
                return
            now = datetime.now(UTC)
            found, failed_segments = await asyncio.to_thread(self._fetch, now)
            self._refreshed, self._refreshed_at = time.monotonic(), now.timestamp()
            for service, segment in found:
                self._add(service, segment, failed_segments)
            self._prune(now.timestamp() * 1000)
            await self.running.refresh(self.has_segment)
            await self._read_listed()

    def trace_id(self, number: int) -> str | None:
        """Return the id of a trace by its number here."""
        return self._trace_ids.get(number)

    def has_segment(self, segment_id: str, name: str) -> bool:
        """Say whether a segment of that id and name has arrived."""
        row = self._rows.get(segment_id)
        return row is not None and row.segment.name == name

    def rows(self, after: int = 0) -> list[Row]:
        """Return the segments that arrived after the one of that number."""
        return [row for row in self._rows.values() if row.number > after]

    def data(self, epoch: str, after: int) -> dict[str, Any]:
        """Return what is new to a page that has the segments up to number `after` of `epoch`; times in ms."""
        rows = self.rows(after if epoch == self.epoch else 0)
        running = [
            [start, self._name(service, name, request=False), self._trace(trace_id), f"{trace_id} {task_id}"]
            for (trace_id, task_id), (start, service, name) in self._open().items()
        ]
        base = min((row.segment.start for row in rows), default=0)
        return {
            "epoch": self.epoch,
            "after": self._count,
            "now": int(time.time() * 1000),
            "keep": KEEP_SECONDS * 1000,
            "limited": self.limited,
            "more": bool(self._unread),
            "running": self.running_count,
            "names": [[*key] for key in self._names],
            "base": base,
            "start": [row.segment.start - base for row in rows],
            "duration": [row.segment.duration for row in rows],
            "name": [row.name for row in rows],
            "trace": [row.trace for row in rows],
            "flags": [row.flags for row in rows],
            "open": running,
        }

    def _fetch(self, now: datetime) -> tuple[list[tuple[str, Segment]], dict[str, str]]:
        """Query OAP; return the new segments, each with its service, and the outcomes of those whose work failed."""
        unread = self._unread
        try:
            windows = self._windows(now)
            found = {
                item.segment_id: (item.service or service, item)
                for service in self._services
                for start, end, min_duration_ms in windows
                for page in segments(self._oap, start, end, service=service, least=min_duration_ms)
                for item in page
                if item.segment_id not in self._rows
            } | self._fetch_crashed(now)
            with_errors = sorted({item.trace_id for _, item in found.values() if item.error and not item.request})
            failed_segments = failed(self._oap, with_errors)
        except OapError:
            self._unread = unread
            raise
        return sorted(found.values(), key=lambda pair: pair[1].start), failed_segments

    def _fetch_crashed(self, now: datetime) -> dict[str, tuple[str, Segment]]:
        """Query the segments of tasks whose process was killed: they arrive late, at the next start of a process."""
        moment = time.monotonic()
        if moment - self._crashed_read < CRASHED_SECONDS:
            return {}
        self._crashed_read = moment
        start = now - timedelta(seconds=KEEP_SECONDS)
        try:
            return {
                item.segment_id: (item.service or service, item)
                for service in self._services
                for page in segments(self._oap, start, service=service, tag=("task.outcome", "crashed"))
                for item in page
                if item.segment_id not in self._rows
            }
        except OapAwayError:
            raise
        except OapError as error:
            warn_once(f"crashed tasks are not found, as OAP refuses to search for the tag task.outcome: {error}")
            return {}

    def _windows(self, now: datetime) -> list[_Window]:
        """Return the times in which new segments may have started, each with the shortest duration they can have.

        OAP finds segments by their start, but they arrive after their end. A segment that started long ago and arrived
        after the last refresh must have lasted long, so for earlier times only longer segments are queried.
        """
        since = now.timestamp() - self._refreshed_at
        if since > KEEP_SECONDS:
            self._unread = [_window(now, minute * 60, (minute + 1) * 60) for minute in range(1, KEEP_SECONDS // 60)]
            return [(now - timedelta(seconds=60), None, 0)]
        arrival = ARRIVAL_SECONDS + since
        windows: list[_Window] = [(now - timedelta(seconds=2 * arrival), None, 0), *self._next_unread()]
        near = 2 * arrival
        while near < KEEP_SECONDS:
            far = min(3 * near, KEEP_SECONDS)
            windows.append(_window(now, near, far, int((near - arrival) * 1000)))
            near = far
        return windows

    def _next_unread(self) -> list[_Window]:
        """Take the next minutes before the first refresh, the newest first, so that a page need not wait for all."""
        windows, self._unread = self._unread[:CATCH_UP_MINUTES], self._unread[CATCH_UP_MINUTES:]
        return windows

    def _add(self, service: str, segment: Segment, failed_segments: dict[str, str]) -> None:
        if segment.segment_id in self._rows:
            return
        self._count += 1
        flags = 0
        if segment.error:
            outcome = failed_segments.get(segment.segment_id)
            flags = CRASHED if outcome == "crashed" else FAILED if outcome or segment.request else RECOVERED
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
        oldest = now - KEEP_SECONDS * 1000
        kept = {key: row for key, row in self._rows.items() if row.segment.end >= oldest}
        self.limited = len(kept) >= MAX_SEGMENTS
        if self.limited:
            newest = sorted(kept.items(), key=lambda item: item[1].segment.start)[-MAX_SEGMENTS:]
            kept = dict(sorted(newest, key=lambda item: item[1].number))
        if len(self._traces) > len(kept) + MAX_SEGMENTS:
            drawn = {row.segment.trace_id for row in kept.values()}
            self._traces = {trace_id: number for trace_id, number in self._traces.items() if trace_id in drawn}
            self._trace_ids = {number: trace_id for trace_id, number in self._traces.items()}
        self._rows = kept

    def _open(self) -> dict[tuple[str, str], tuple[int, str, str]]:
        """Return the tasks that run, by trace and id: start in ms, service, name. Two sources: SkyWalking, the service.

        SkyWalking knows those of all services, from about 2 s after their start. The service lists its own at once.
        """
        listed = {key: (item.start, self._services[0], item.name) for key, item in self._listed.items()}
        reported = {
            item.key: (item.task.start, item.task.service, item.task.name)
            for item in self.running.all()
            if not item.lost
            and item.task.service in self._services
            and not self.has_segment(item.task.segment_id, item.task.name)
        }
        return listed | reported

    async def _read_listed(self) -> None:
        """Ask the service what runs now. Without its answer SkyWalking's start reports must do."""
        try:
            answer = await self._service.tasks("running")
        except ServiceError:
            answer = None
        now = time.monotonic()
        for task in answer["tasks"] if answer else ():
            if task["trace_id"] is not None:
                accepted = datetime.fromisoformat(task["accepted_at"]).timestamp() * 1000
                start = int(accepted + (task["queue_delay_ms"] or 0))
                self._listed[task["trace_id"], task["id"]] = _Listed(task["trace_id"], task["name"], start, now)
        arrived = {(row.segment.trace_id, row.segment.name) for row in self._rows.values()} if self._listed else set()
        self._listed = {
            key: item
            for key, item in self._listed.items()
            if item.seen == now or (now - item.seen < LINGER_SECONDS and (item.trace_id, item.name) not in arrived)
        }
        self.running_count = (len(self._open()) or None) if answer is None else answer["running"]
