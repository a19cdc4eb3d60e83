"""What is counted of background tasks: plain numbers on their path, taken by the reporter's thread now and then.

Counts are of the time since they were last taken, and OAP adds them up: nothing is lost of a process that is new or of
a task's first run, which a running total would need two reports for.
"""

from __future__ import annotations

import os
import threading
import time
from inspect import ismethod
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakMethod

from skywalking_background._faults import is_order, logger, note, safe_text
from skywalking_background._internals import clean
from skywalking_background._names import task_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from skywalking_background._internals import Span


NAMES_MAX: Final = 100
"""Task names that are counted apart; OAP keeps a row a minute of each, for every meter."""
NAME_CHARS: Final = 150
"""What OAP keeps of an endpoint's name."""
OTHER: Final = "other"
IDLE_SECONDS: Final = 600.0
"""How long the zeros of a task that does not run any more are reported: alarms look back for some minutes."""
COUNTED: Final = ("started", "succeeded", "failed", "cancelled", "retried", "dead", "crashed")

_WANTED: Final = os.environ.get("SKYWALKING_BACKGROUND_METERS", "").strip().lower() not in {"false", "0", "no", "off"}
enabled = _WANTED

_lock = threading.RLock()  # reentrant, as a signal's handler may open a span while its thread is in here
_tasks: Final[dict[str, TaskMeter]] = {}
_queues: Final[list[Callable[[], Callable[[], Mapping[str, int]] | None]]] = []


def switch(*, on: bool) -> None:
    """Meter tasks, unless `SKYWALKING_BACKGROUND_METERS` says `false`, `0`, `no` or `off`; or leave it."""
    global enabled  # noqa: PLW0603  # one switch per process
    enabled = on and _WANTED


class Tally:
    """What happened to the tasks of one name between two reports; times in ms."""

    __slots__ = (*COUNTED, "delays", "peak", "run_times")

    def __init__(self, peak: int = 0) -> None:
        self.started = self.succeeded = self.failed = self.cancelled = self.retried = self.dead = self.crashed = 0
        self.peak = peak
        self.run_times: dict[int, int] = {}
        self.delays: dict[int, int] = {}

    def add(self, other: Tally) -> None:
        """Take in what another one counted."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.peak = max(self.peak, other.peak)
        for mine, others in ((self.run_times, other.run_times), (self.delays, other.delays)):
            for value, times in others.items():
                mine[value] = mine.get(value, 0) + times


class TaskMeter:
    """The tasks of one name in this process."""

    __slots__ = ("active", "name", "running", "tally")

    def __init__(self, name: str) -> None:
        self.name = name
        self.tally = Tally()
        self.running: dict[int, Span] = {}
        """The spans of those that run, the first to begin first."""
        self.active = time.monotonic()

    def take(self) -> Tally:
        """Return what was counted, and begin anew."""
        with _lock:
            taken, self.tally = self.tally, Tally(len(self.running))
        return taken

    def put_back(self, tally: Tally) -> None:
        """Take in again what could not be reported."""
        with _lock:
            self.tally.add(tally)


def _add(histogram: dict[int, int], milliseconds: int) -> None:
    value = rounded(milliseconds)
    histogram[value] = histogram.get(value, 0) + 1


def rounded(milliseconds: int) -> int:
    """Round a time to two digits: at most 5 % off, and at most 90 values for each power of ten."""
    if milliseconds < 100:  # noqa: PLR2004
        return max(milliseconds, 0)
    unit: int = 10 ** (len(str(milliseconds)) - 2)
    return (milliseconds + unit // 2) // unit * unit


def meter(name: str) -> TaskMeter:
    """Return the meter of a task's name; past `NAMES_MAX` of them that of all others."""
    try:
        return _tasks[name]
    except (KeyError, TypeError):  # a new one, or none that can be a key
        with _lock:
            return _make(clean(safe_text(name)[:NAME_CHARS])[:NAME_CHARS])


def _make(name: str) -> TaskMeter:
    if name not in _tasks and len(_tasks) >= NAMES_MAX:
        if OTHER not in _tasks:
            text = "%d task names are metered; %r and all further ones are counted as %r: name tasks by their kind"
            logger.warning(text, NAMES_MAX, name, OTHER)
        name = OTHER
    return _tasks.setdefault(name, TaskMeter(name))


def begin(span: Span, name: str) -> None:
    """Note that a task begins, whose span this is; its end is `end`."""
    if not enabled:
        return
    try:
        task = span.meter = meter(name)
        with _lock:
            running, tally = task.running, task.tally
            running[id(span)] = span
            tally.started += 1
            tally.peak = max(tally.peak, len(running))
    except Exception:  # noqa: BLE001  # the task goes on
        note("metering a task")


def end(span: Span, error: BaseException | None) -> None:
    """Note that a task has ended, and with which error."""
    task: TaskMeter | None = getattr(span, "meter", None)
    if task is None:
        return
    span.meter = None
    try:
        now = span.end_time or int(time.time() * 1000)
        began = getattr(span, "ran_from", 0) or span.start_time
        since = getattr(span, "queued_since", 0)
        with _lock:
            task.running.pop(id(span), None)
            tally = task.tally
            if error is not None and is_order(error):
                tally.cancelled += 1
            elif error is not None or span.error_occurred:
                tally.failed += 1
            else:
                tally.succeeded += 1
            _add(tally.run_times, now - began)
            if since:
                _add(tally.delays, began - since)
    except Exception:  # noqa: BLE001  # the work is done
        note("metering a task")


def queued_since(span: Span | None, outer: object) -> None:
    """Note that a task has waited since the request ended that it comes from, unless it says something else."""
    if span is not None and (ended := getattr(outer, "ended", 0)) and getattr(span, "meter", None) is not None:
        span.queued_since = ended


def waited(span: Span, milliseconds: int, now: int) -> None:
    """Note that a task has waited so long until now, and begins to run."""
    task: TaskMeter | None = getattr(span, "meter", None)
    if task is not None and not getattr(span, "ran_from", 0):
        span.queued_since, span.ran_from = 0, now
        with _lock:
            _add(task.tally.delays, milliseconds)


def count(what: str, name: str, times: int) -> None:
    """Add to one of the `COUNTED` of a task's name."""
    if enabled:
        task = meter(name)
        with _lock:
            setattr(task.tally, what, getattr(task.tally, what) + times)


def watch_queue(read: Callable[[], Mapping[str, int]]) -> None:
    """Have `read` asked, in the reporter's thread, how many tasks of each name wait."""
    _queues.append(WeakMethod(read) if ismethod(read) else lambda: read)


def queued() -> dict[str, int]:
    """Ask how many tasks of each name wait for their turn."""
    found: dict[str, int] = {}
    for reference in list(_queues):
        if (read := reference()) is None:
            _queues.remove(reference)
            continue
        try:
            for name, number in read().items():
                task = meter(task_name(name)).name
                found[task] = found.get(task, 0) + number
        except Exception:  # noqa: BLE001  # the user's function, not the reporter's business
            note("asking for the queue's length")
    return found


Taken = tuple[TaskMeter, Tally, Any]
"""What was counted of one name, and the span of the task that runs longest."""


def running(name: str, most: int) -> list[Span]:
    """Return the spans of the tasks of one name that run, the first to begin first."""
    found = _tasks.get(name)
    if found is None:
        return []
    with _lock:
        return list(islice(found.running.values(), most))


def anything() -> bool:
    """Say whether something was counted since it was last taken."""
    return any(getattr(task.tally, name) for task in list(_tasks.values()) for name in COUNTED)


def take_all() -> Iterator[Taken]:
    """Take what was counted of each name, with the span of the task that runs longest; not of names long idle."""
    now = time.monotonic()
    for task in list(_tasks.values()):
        with _lock:
            tally = task.take()
            oldest = next(iter(task.running.values()), None)
        if oldest is not None or any(getattr(tally, name) for name in COUNTED):
            task.active = now
        elif now - task.active > IDLE_SECONDS:
            continue
        yield task, tally, oldest


def begin_anew() -> None:
    """Forget, in a forked process, what its parent runs and has counted."""
    global _lock  # noqa: PLW0603  # another thread of the parent may have held it
    _lock = threading.RLock()
    _tasks.clear()
