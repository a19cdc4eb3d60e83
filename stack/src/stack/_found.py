"""What OAP has of the requests of a run: traces, tasks, and what was lost."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Final

from oap_query import segments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from oap_query import Oap, Segment

    from stack._locust import Request

SETTLE: Final = 20.0
"""s without a new segment after which the count is final."""
PAUSE: Final = 1.0
"""s between two looks at least; one that took long is followed by a longer pause, as OAP has work to do."""
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
    for segment in {segment.segment_id: segment for segment in rows if segment.trace_id in wanted}.values():
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
    if not requests:
        return judge((), ())
    began = datetime.fromtimestamp(requests[0].start - 1, UTC)
    last = max(request.end + _tasks_seconds(request) for request in requests)
    time.sleep(max(0.0, last - time.time()))
    found, changed = judge(requests, ()), time.monotonic()
    while not found.whole and time.monotonic() - changed < SETTLE:
        looked = time.monotonic()
        now = judge(requests, chain.from_iterable(segments(oap, began, service=service)))
        if now.lost < found.lost:
            found, changed = now, time.monotonic()
        tell(found)
        if not found.whole:
            time.sleep(max(PAUSE, time.monotonic() - looked))
    return found


def _tasks_seconds(request: Request) -> float:
    """How long the tasks of a request run at most: one after the other."""
    return request.tasks * (TASK_SECONDS if request.seconds is None else request.seconds)
