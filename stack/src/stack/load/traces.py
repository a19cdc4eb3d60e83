"""Counting what OAP has of the requests of a run: traces, tasks, and lost segments."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Final

from oap_query import Segment, segments
from tracing_claims import TASK_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from oap_query import Oap

    from stack.load.locust import Request

SETTLED_SECONDS: Final = 20.0
"""The count is final after so long without a new segment."""
QUERY_PAUSE_SECONDS: Final = 1.0
"""Shortest time between two queries; a slow query is followed by a longer pause, as OAP is busy."""
SINGLE_QUERIES: Final = 100
"""Up to so many traces are asked for one by one."""
SLICE_SECONDS: Final = 5.0
"""Segments are listed in slices of time of this length."""
TASK_SECONDS: Final = TASK_MS / 1000
"""How long a task of the service runs by default."""


@dataclass(frozen=True)
class TraceCount:
    """What OAP has of a run."""

    expected: int
    """How many requests were answered with a trace id."""
    traces: int
    """How many of their traces OAP has, complete or not."""
    complete: int
    """How many of these have the request's segment and one for each of its tasks."""
    lost: int
    """How many segments are missing."""
    tasks: tuple[tuple[int, int], ...]
    """Start and end of every task that ran, in ms since the epoch."""
    incomplete: frozenset[str]
    """The ids of the traces that are incomplete or missing."""

    @property
    def peak(self) -> int:
        """How many tasks ran at the same time at most."""
        return most_at_once(self.tasks)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing."""
        return self.complete == self.expected


def most_at_once(tasks: Iterable[tuple[int, int]]) -> int:
    """Count the most intervals that share a moment."""
    # An end sorts before a start of the same ms: such two never ran side by side.
    changes = sorted((moment, change) for start, end in tasks for moment, change in ((start, 1), (end, -1)))
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


def count_traces(requests: Iterable[Request], rows: Iterable[Segment]) -> TraceCount:
    """Compare the segments that the requests must have left with those that OAP has."""
    wanted = {request.trace_id: request.tasks for request in requests if request.trace_id}
    entries: Counter[str] = Counter()
    tasks: Counter[str] = Counter()
    times: list[tuple[int, int]] = []
    # By its id: a list that grows while it is read page by page shows some rows twice.
    for segment in {row.segment_id: row for row in rows if row.trace_id in wanted}.values():
        if segment.request:
            entries[segment.trace_id] += 1
        else:
            tasks[segment.trace_id] += 1
            times.append((segment.start, segment.end))
    missing = {trace: (entries[trace] < 1) + max(0, count - tasks[trace]) for trace, count in wanted.items()}
    incomplete = frozenset(trace for trace, count in missing.items() if count)
    return TraceCount(
        expected=len(wanted),
        traces=len(entries | tasks),
        complete=len(wanted) - len(incomplete),
        lost=sum(missing.values()),
        tasks=tuple(times),
        incomplete=incomplete,
    )


def wait_for_traces(
    oap: Oap, service: str, requests: Sequence[Request], report: Callable[[TraceCount], object]
) -> TraceCount:
    """Ask OAP until every trace is complete, or nothing new has come for `SETTLED_SECONDS`.

    Raises:
        OapError: OAP does not answer.
    """
    last = max((request.end + _tasks_seconds(request) for request in requests), default=0.0)
    time.sleep(max(0.0, last - time.time()))
    seen: dict[str, Segment] = {}
    found, idle = count_traces(requests, ()), 0.0
    while not found.is_complete and idle < SETTLED_SECONDS:
        began = time.monotonic()
        for segment in _segments_of(oap, service, [one for one in requests if one.trace_id in found.incomplete]):
            seen[segment.segment_id] = segment
        now = count_traces(requests, seen.values())
        report(now)
        if not now.is_complete:
            time.sleep(max(QUERY_PAUSE_SECONDS, time.monotonic() - began))
        idle = 0.0 if now.lost < found.lost else idle + time.monotonic() - began
        found = now
    return found


def _segments_of(oap: Oap, service: str, requests: Sequence[Request]) -> Iterator[Segment]:
    """Ask for the segments of these requests: a few one by one, many by the time in which they began."""
    if len(requests) <= SINGLE_QUERIES:
        for request in requests:
            for span in oap.trace(request.trace_id):
                if span.span_id == 0:
                    ids, is_request = (span.trace_id, span.segment_id), span.kind == "Entry"
                    yield Segment(*ids, span.name, span.start, span.duration, span.error, is_request)
        return
    # Slice by slice: each page of a long list costs OAP as much as all pages before it.
    start = min(request.start for request in requests) - 1
    end = max(request.end + _tasks_seconds(request) for request in requests)
    while start < end:
        times = [datetime.fromtimestamp(moment, UTC) for moment in (start, start + SLICE_SECONDS)]
        yield from chain.from_iterable(segments(oap, *times, service=service))
        start += SLICE_SECONDS


def _tasks_seconds(request: Request) -> float:
    """Return how long the tasks of a request run at most: one after the other."""
    return request.tasks * (TASK_SECONDS if request.task_seconds is None else request.task_seconds)
