"""Work that still runs, reported to OAP by a log line in its trace.

A trace has a span when it has ended: a task of an hour would be invisible for an hour. All of this happens in the
reporter's thread, in its rounds; the request and the task have no part in it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from skywalking_background._encoding import encode_line
from skywalking_background._faults import note, safe_text
from skywalking_background._limits import cut
from skywalking_background._running import Watch, task_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from skywalking_background._light_spans import TaskSpan

_CHARS: Final = 500


class StartReports:
    """Looks for tasks that have run for long enough to be reported.

    Args:
        after: seconds.
        put: queues an encoded log line.
    """

    def __init__(self, after: float, put: Callable[[bytes], object]) -> None:
        self.watch: Watch[None] = Watch("start reports")
        self._after = after
        self._put = put

    def look(self) -> None:
        """Tell OAP what runs by now; called in each round, never raises."""
        try:
            now = int(time.time() * 1000)
            for span in self.watch.take(None, now - self._after * 1000):
                try:
                    self._put(start_line(span, now))
                except Exception:  # noqa: BLE001  # the other tasks have theirs
                    note("reporting what runs")
        except Exception:  # noqa: BLE001  # the reporter goes on
            note("reporting what runs")


def start_line(span: TaskSpan, now: int) -> bytes:
    """Write the log line of a task that runs, as of now (ms since the epoch)."""
    place = span.place()
    name, number = cut(safe_text(span.op), _CHARS), cut(task_id(span, place.segment_id), _CHARS)
    same = ("level", "INFO"), ("logger", "skywalking_background"), ("task.state", "started"), ("task.name", name)
    own = ("task.id", number), ("task.since", str(span.start_time)), ("segment.id", place.segment_id)
    text = f"task started: {name} ({number}), running since {_moment(span.start_time)}"
    where = place.trace_id, place.segment_id, span.sid
    return encode_line(place.endpoint, text, where, same=same, own=own, milliseconds=now)


def _moment(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """Write a second since the epoch as text: the tasks of one look began in a few of them."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").removesuffix("+00:00")
