"""SkyWalking's events of tasks that run for long: begun, alive and ended under one id, on the instance they run on.

OAP takes the last message under an id for the whole event, so each carries all of it, and a lost one is made good by
the next. All of this happens in the reporter's thread.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from skywalking.protocol.event.Event_pb2 import Event, Source, Type

from skywalking_background._failures import DeliveryError, UnreachableError
from skywalking_background._faults import logger, note
from skywalking_background._internals import clean, config
from skywalking_background._limits import cut
from skywalking_background._running import Watch, outcome, task_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from skywalking_background._light_spans import TaskSpan
    from skywalking_background._rescue import Lost


NAME: Final = "BackgroundTask"
LAYER: Final = "GENERAL"
HEARTBEAT_SECONDS: Final = 30.0
"""Seconds between two messages about one event."""
LIMIT: Final = 1_000
"""Open events of one process: what a storage bears. Tasks beyond have their log line."""
_PERIOD: Final = 1.0  # seconds between two looks for tasks that are due
_RETRY: Final = 5.0  # seconds until an OAP that is away is asked again
_REFUSED_RETRY: Final = 300.0  # seconds likewise, of one that takes no events
_CHARS: Final = 200  # of a value: OAP keeps 2,000 of all of them
_WELL: Final = {"running", "ended", "succeeded"}


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """What SkyWalking shows of a task that runs, or has; times in ms since the epoch."""

    id: str
    service: str
    instance: str
    name: str
    """The task's."""
    task_id: str
    trace_id: str
    segment_id: str
    start: int
    alive: int
    """When that was last sure."""
    outcome: str = "running"
    end: int = 0

    def encode(self) -> bytes:
        """Write it as OAP reads it."""
        name = clean(cut(self.name, _CHARS))
        written: bytes = Event(
            uuid=self.id,
            source=Source(service=self.service, serviceInstance=self.instance),
            name=NAME,
            type=Type.Normal if self.outcome in _WELL else Type.Error,
            message=f"{name} {self._text()}",
            parameters={
                "task.name": name,
                "task.id": clean(cut(self.task_id, _CHARS)),
                "task.since": str(self.start),
                "task.alive": str(self.alive),
                "task.outcome": clean(cut(self.outcome, _CHARS)),
                "trace.id": self.trace_id,
                "segment.id": self.segment_id,
            },
            startTime=self._shown_start(),
            endTime=self.end,
            layer=LAYER,
        ).SerializeToString()
        return written

    def _shown_start(self) -> int:
        """Return the second of the start, and some ms that grow with each message.

        BanyanDB (under OAP 10.3 and later) keeps each message. It takes those of one id and second for one, and shows
        the one with the latest time; of those with the same time it shows any: that of the begin for minutes.
        """
        beats = int((self.alive - self.start) / 1000 / HEARTBEAT_SECONDS)
        return self.start - self.start % 1000 + (999 if self.end else min(max(beats, 0), 998))

    def _text(self) -> str:
        seconds = ((self.end or self.alive) - self.start) / 1000
        return f"{self.outcome} after {seconds:.1f} s" if self.end else f"runs for {seconds:.0f} s"


class _Batch:
    """Events that began together, and whose heartbeats are sent together."""

    def __init__(self) -> None:
        self.ids: dict[TaskSpan, str] = {}
        self.due = 0.0  # as of `time.monotonic()`: the next message
        self.tried = False
        self.begun = False


class RunningEvents:
    """The events of this process's tasks.

    Args:
        after: seconds that a task has run for when its event begins.
        send: delivers encoded events; raises a `DeliveryError`.
        on_begin: called with a segment's id and its event's, once OAP has that.
    """

    def __init__(
        self,
        after: float,
        send: Callable[[list[bytes]], object],
        on_begin: Callable[[str, str], object] | None = None,
    ) -> None:
        self.watch: Watch[_Batch] = Watch("events", self._gone)
        self._after = after
        self._send = send
        self._on_begin = on_begin
        self._batches: list[_Batch] = []
        self._ended: deque[TaskEvent] = deque(maxlen=2 * LIMIT)
        self._next_look = self._try_again = 0.0  # as of `time.monotonic()`
        self._refused = False

    def look(self) -> None:
        """Tell OAP what runs for long, and what of it has ended; called in each round, never raises."""
        try:
            now = time.monotonic()
            if now >= self._try_again and (self._ended or now >= self._next_look):
                self._look(now)
        except Exception:  # noqa: BLE001  # the reporter goes on
            note("reporting events")

    def lost(self, lost: Lost) -> None:
        """End the event of a task that another process has left."""
        task = lost.task
        if task.event:
            which = task.name, task.tags.get("task.id", task.segment_id), task.trace_id, task.segment_id
            event = TaskEvent(
                task.event, lost.service, lost.instance, *which, task.start, lost.end, "crashed", lost.end
            )
            self._ended.append(event)

    def _gone(self, span: TaskSpan, batch: _Batch, error: BaseException | None) -> None:
        event_id = batch.ids.pop(span, None)
        if event_id is not None and batch.tried:
            self._ended.append(_event(span, event_id, outcome(span, error), int(time.time() * 1000)))

    def _look(self, now: float) -> None:
        self._next_look = now + _PERIOD
        self._begin()
        due = [batch for batch in self._batches if now >= batch.due]
        running = [(batch, span, event_id) for batch in due for span, event_id in list(batch.ids.items())]
        events = [_event(span, event_id) for _, span, event_id in running]
        ended = [self._ended.popleft() for _ in range(len(self._ended))]
        if not (events or ended):
            return
        for batch in due:
            batch.tried = True  # from here on its ends are told: once too often does no harm
        try:
            self._send([event.encode() for event in (*events, *ended)])
        except DeliveryError as error:
            self._failed(error, ended, now)
            return
        self._refused = False
        for batch in due:
            batch.due = now + HEARTBEAT_SECONDS
        for event, (batch, _, _) in zip(events, running, strict=True):
            if not batch.begun and self._on_begin is not None:
                self._on_begin(event.segment_id, event.id)
        for batch in due:
            batch.begun = True

    def _begin(self) -> None:
        """Take in the tasks that run for long by now."""
        self._batches = [batch for batch in self._batches if batch.ids]
        batch = _Batch()
        room = LIMIT - len(self.watch.known)
        for span in self.watch.take(batch, (time.time() - self._after) * 1000, room):
            batch.ids[span] = span.place().segment_id
            if span not in self.watch.known:  # ended meanwhile, unseen
                batch.ids.pop(span, None)
        if batch.ids:
            self._batches.append(batch)

    def _failed(self, error: DeliveryError, ended: list[TaskEvent], now: float) -> None:
        """Try again: soon where OAP is away, which the reporter says; later where it takes no events."""
        self._ended.extendleft(reversed(ended))
        away = isinstance(error, UnreachableError)
        self._try_again = now + (_RETRY if away else _REFUSED_RETRY)
        if not away and not self._refused:
            self._refused = True
            text = "OAP takes no events (%s): tasks that run for long are in its log lines only; tried again in %d s"
            logger.warning(text, error, _REFUSED_RETRY)


def _event(span: TaskSpan, event_id: str, how: str = "running", end: int = 0) -> TaskEvent:
    place = span.place()
    return TaskEvent(
        event_id, config.agent_name, config.agent_instance_name, str(span.op), task_id(span, place.segment_id),
        place.trace_id, place.segment_id, span.start_time, end or int(time.time() * 1000), how, end,
    )  # fmt: skip
