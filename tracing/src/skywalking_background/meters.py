"""What a task runner knows and this library can't see: retries, dead letters, crashes, and what waits for its turn.

What begins, runs and ends is counted by itself, for each background task and `background_span`. All of it is sent to
OAP every 20 s (`SW_AGENT_METER_REPORTER_PERIOD`); `SKYWALKING_BACKGROUND_METERS=false` switches it off. A task's name
is that of its span.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from skywalking_background import _meters
from skywalking_background._faults import note
from skywalking_background._internals import open_spans
from skywalking_background._names import task_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["count", "waited", "watch_queue"]


def count(what: Literal["retried", "dead", "crashed"], task: str, times: int = 1) -> None:
    """Count what became of a task: one more attempt, a dead letter, the end of its process. Never raises.

    Args:
        what: `retried` for each attempt after the first, `dead` when it failed for good, `crashed` when it was found
            unfinished after its process had ended.
        task: the task's name.
        times: how often.
    """
    try:
        _meters.count(what, task_name(task), times)
    except Exception:  # noqa: BLE001  # the task goes on
        note("metering a task")


def waited(milliseconds: float) -> None:
    """Say that the task that this code runs in had to wait so long for its turn, and begins only now. Never raises.

    Without it the wait is what passed from the end of the task's request until the task was called, and its run time
    begins there. Only the first call counts.
    """
    try:
        spans = open_spans()
        if spans and _meters.enabled:
            _meters.waited(spans[0], round(milliseconds), int(time.time() * 1000))
    except Exception:  # noqa: BLE001  # as above
        note("metering a task")


def watch_queue(read: Callable[[], Mapping[str, int]]) -> None:
    """Report how many tasks of each name wait for their turn.

    Args:
        read: returns that number by the task's name. It is called in a thread of this library's, before each report. An
            object whose method it is may go: then nobody is asked any more.
    """
    _meters.watch_queue(read)
