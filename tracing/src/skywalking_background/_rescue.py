"""What a process that is gone has left open is closed: as failed spans in their old traces, when it was last alive.

Each process looks at its start and now and then whether there is a journal in the folder that nobody holds the lock of.
It takes the lock, hands the open tasks to the reporter a few at a time, and removes the file when OAP has them. Should
it die before, the next one does the same again: under the same segment ids, of which OAP keeps one.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from skywalking_background import _meters, _records
from skywalking_background._encoding import encode_segment_of
from skywalking_background._faults import note
from skywalking_background._internals import Component, Kind, Layer, Log, LogItem, Segment, config
from skywalking_background._journal import SUFFIX, UNFINISHED
from skywalking_background._life_events import event
from skywalking_background._light_spans import LostSpan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from skywalking_background._lane import Lane

logger = logging.getLogger("skywalking_background")

SCAN_SECONDS: Final = 5.0
"""Seconds between two looks into the folder."""
CHUNK: Final = 500
"""Segments that are handed over at once; the next ones follow when OAP has these."""
_STALE_SECONDS: Final = 60.0
_DAMAGED: Final = ".damaged"


@dataclass(slots=True)
class Left:
    """The file of a process that is gone, locked by us."""

    path: Path
    file: int
    service: str
    instance: str
    pid: int
    alive: float
    """When the process lived for sure, in seconds since the epoch."""
    tasks: list[_records.Task]
    damaged: int


@dataclass(slots=True)
class Lost:
    """A task that has ended with its process."""

    task: _records.Task
    service: str
    instance: str
    end: int
    """In ms since the epoch."""
    message: str


class Rescue:
    """Closes what others have left open.

    Args:
        folder: where the journals lie.
        own: the path of this process's own.
        lane: takes the segments.
        on_lost: told of each task that is closed.
    """

    def __init__(
        self, folder: Path, own: Path, lane: Lane, on_lost: Callable[[Lost], object] = lambda _lost: None
    ) -> None:
        self.folder = folder
        self.own = own
        self.lane = lane
        self.on_lost = on_lost
        self._left: deque[Left] = deque()
        self._goal: int | None = None  # what the lane has settled when it is through with what it got
        self._next_scan = 0.0  # as of `time.monotonic()`

    def step(self) -> None:
        """Do what is to be done now; called a few times a second, never raises."""
        try:
            if not self._left and time.monotonic() >= self._next_scan:
                self._next_scan = time.monotonic() + SCAN_SECONDS
                self._scan()
            if self._left:
                self._hand_over()
        except Exception:  # noqa: BLE001  # tried again at the next look
            note("closing what other processes have left")

    def finds(self) -> bool:
        """Say whether there is a journal whose process is gone; takes none of them."""
        return any(_is_left(path) for path in self.folder.glob(f"*{SUFFIX}") if path != self.own)

    def forget(self) -> None:
        """In a forked process: the files are the parent's."""
        while self._left:
            os.close(self._left.popleft().file)

    def _scan(self) -> None:
        others = [path for path in sorted(self.folder.glob(f"*{SUFFIX}")) if path != self.own]
        if others and not os.access(self.folder, os.W_OK):
            message = f"{self.folder} can't be written: what can't be removed would be closed at each start"
            raise PermissionError(message)
        self._left.extend(left for path in others if (left := _claim(path)) is not None)
        for path in self.folder.glob(f"*{UNFINISHED}"):
            _remove_stale(path)
        if not self._left:
            return
        count, damaged = sum(len(left.tasks) for left in self._left), sum(left.damaged for left in self._left)
        whose = ", ".join(f"{left.pid} ({left.instance}, last alive {_clock(left.alive)})" for left in self._left)
        logger.warning(
            "%d tasks ended with their processes, each of which is closed as crashed in its trace: %s%s",
            count,
            whose[:1_000],
            f"; {damaged} lines of their journals can't be read" if damaged else "",
        )
        event("CrashFound", f"{count} tasks ended with their processes: {whose}", failed=True)

    def _hand_over(self) -> None:
        """Give the lane some more of the first file's tasks, or let the file go when OAP has all of them."""
        if self._goal is not None:
            if not self.lane.has_settled(self._goal):
                return
            self._goal = None
        left = self._left[0]
        if not left.tasks:
            left.path.unlink(missing_ok=True)
            os.close(self._left.popleft().file)
            return
        room = min(CHUNK, self.lane.limit // 2 - self.lane.counts.queued)
        if room <= 0:
            return
        tasks, left.tasks = left.tasks[:room], left.tasks[room:]
        for task in tasks:
            try:
                self._close(left, task)
            except Exception:  # noqa: BLE001  # the others are closed
                note("closing a task that another process has left")
        self._goal = self.lane.settled + self.lane.counts.queued

    def _close(self, left: Left, task: _records.Task) -> None:
        end = max(task.start, int(left.alive * 1000))
        message = f"process {left.pid} ({left.instance}) was gone before this ended; last alive {_clock(left.alive)}"
        span = LostSpan(task.name, task.start, end, {**task.tags, "task.outcome": "crashed"})
        kind, layer, component, span.peer = task.sort
        span.kind, span.layer, span.component = Kind[kind], Layer(layer), Component(component)
        if task.parent is not None:
            span.refs.append(task.parent)
        items = [LogItem("event", "error"), LogItem("error.kind", "Crashed"), LogItem("message", message)]
        span.logs.append(Log(timestamp=end / 1000, items=items))
        self.lane.put(encode_segment_of(left.service, left.instance, _LostSegment(task, span)))
        _meters.count("crashed", task.name, 1)
        self.on_lost(Lost(task, left.service, left.instance, end, message))


class _LostSegment(Segment):  # type: ignore[misc]  # the agent has no types
    is_size_limited = False
    timestamp = 0

    def __init__(self, task: _records.Task, span: LostSpan) -> None:
        self.segment_id = task.segment_id
        self.related_traces = [task.trace_id]
        self.spans = [span]


def _is_left(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # another process was faster, or it is not ours
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # its process lives, or somebody else is at it
        return False
    else:
        return True
    finally:
        os.close(file)


def _claim(path: Path) -> Left | None:
    """Take a file whose process is gone; `None` when it lives, or has left nothing to do."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # another process was faster
        return None
    left = None
    try:
        left = _lock_and_read(path, file)
    except BlockingIOError:  # its process lives, or somebody else is at it
        pass
    except Exception:  # noqa: BLE001  # the other files are looked at
        note("reading what another process has left")
    if left is None:
        os.close(file)
    return left


def _lock_and_read(path: Path, file: int) -> Left | None:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    status = os.fstat(file)
    if not status.st_nlink or path.stat().st_ino != status.st_ino:  # rewritten, or removed, since it was opened
        return None
    with os.fdopen(os.dup(file), "rb") as reader:
        contents = _records.read(reader.read())
    header = contents.header
    if header is None:
        logger.warning("the journal %s can't be read, it is kept as %s", path, path.with_suffix(_DAMAGED).name)
        path.rename(path.with_suffix(_DAMAGED))
        return None
    if header["service"] != config.agent_name:
        return None
    tasks = list(contents.tasks.values())
    if not tasks and not contents.damaged:
        path.unlink(missing_ok=True)
        return None
    instance, pid = str(header["instance"]), int(header["pid"])
    return Left(path, file, str(header["service"]), instance, pid, status.st_mtime, tasks, contents.damaged)


def _remove_stale(path: Path) -> None:
    """Remove what a process did not finish to write, if that was long ago."""
    try:
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
