"""What OAP has of the requests of a run: traces, tasks, and what was lost."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Final

from oap_query import Segment, segments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from oap_query import Oap

    from stack._locust import Request

SETTLE: Final = 20.0
"""s without a new segment after which the count is final."""
PAUSE: Final = 1.0
"""s between two looks at least; one that took long is followed by a longer pause, as OAP has work to do."""
FEW: Final = 100
"""Traces that are asked for one by one."""
SLICE: Final = 5.0
"""s whose segments are listed at once."""
TASK_SECONDS: Final = 10.0
"""How long a task of the service runs where nobody says otherwise."""


@dataclass(frozen=True)
class Found:
    """OAP's side of a run."""

    expected: int
    """Requests that were answered with a trace id."""
    traces: int
    """Of these, how many OAP knows."""
    complete: int
    """Of these, how many have the request's segment and one for each of its tasks."""
    lost: int
    """Segments that should be there and are not."""
    tasks: tuple[tuple[int, int], ...]
    """Start and end of every task that ran, in ms since the epoch."""
    incomplete: frozenset[str]
    """The ids of the traces that are not complete, or not there."""

    @property
    def peak(self) -> int:
        """How many tasks ran at the same time at most."""
        return peak(self.tasks)

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.complete == self.expected


def peak(tasks: Iterable[tuple[int, int]]) -> int:
    """Count the most intervals that share a moment."""
    # An end sorts before a start of the same ms: such two never ran side by side.
    changes = sorted((moment, change) for start, end in tasks for moment, change in ((start, 1), (end, -1)))
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


def judge(requests: Iterable[Request], rows: Iterable[Segment]) -> Found:
    """Hold what should be there against what is."""
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
    return Found(
        expected=len(wanted),
        traces=len(entries | tasks),
        complete=len(wanted) - len(incomplete),
        lost=sum(missing.values()),
        tasks=tuple(times),
        incomplete=incomplete,
    )


def wait(oap: Oap, service: str, requests: Sequence[Request], tell: Callable[[Found], object]) -> Found:
    """Look again and again until every trace is complete, or nothing new has come for `SETTLE` seconds.

    Raises:
        OapError: OAP does not answer.
    """
    last = max((request.end + _tasks_seconds(request) for request in requests), default=0.0)
    time.sleep(max(0.0, last - time.time()))
    seen: dict[str, Segment] = {}
    found, idle = judge(requests, ()), 0.0
    while not found.whole and idle < SETTLE:
        began = time.monotonic()
        for segment in _look(oap, service, [one for one in requests if one.trace_id in found.incomplete]):
            seen[segment.segment_id] = segment
        now = judge(requests, seen.values())
        tell(now)
        if not now.whole:
            time.sleep(max(PAUSE, time.monotonic() - began))
        idle = 0.0 if now.lost < found.lost else idle + time.monotonic() - began
        found = now
    return found


def _look(oap: Oap, service: str, requests: Sequence[Request]) -> Iterator[Segment]:
    """Ask for the segments of these requests: a few one by one, many by the time in which they began."""
    if len(requests) <= FEW:
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
        times = [datetime.fromtimestamp(moment, UTC) for moment in (start, start + SLICE)]
        yield from chain.from_iterable(segments(oap, *times, service=service))
        start += SLICE


def _tasks_seconds(request: Request) -> float:
    """How long the tasks of a request run at most: one after the other."""
    return request.tasks * (TASK_SECONDS if request.seconds is None else request.seconds)
