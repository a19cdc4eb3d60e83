"""The journal: which tasks run in this process, in a file that outlives it.

A task that still runs at the next look, a quarter of a second at most after its begin, is written down; when it ends,
that is too, before its segment leaves. Shorter ones cost nothing. Who finds the file after this process is gone knows
what to close (`_rescue`). The kernel's lock on the file says that the process still lives, and frees it when not.

Whatever goes wrong here (a full disk, a folder that can't be written) is noted and tried again; the tasks go on.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from skywalking_background import _records
from skywalking_background._faults import logger, note
from skywalking_background._ids import new_id
from skywalking_background._internals import config
from skywalking_background._limits import JOURNAL_BYTES, JOURNAL_FSYNC_SECONDS
from skywalking_background._running import Watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from skywalking_background._light_spans import TaskSpan

INTERVAL: Final = 0.25  # seconds between two looks: so much of what began last is not in the file yet
RETRY: Final = 5.0  # seconds until a file that can't be written, or is full, is tried again
COMPACT_BYTES: Final = 4_000_000  # from this size on a file is rewritten when half of it is over
WRITE_WAIT_SECONDS: Final = 1.0  # how long the delivery waits for a disk that hangs
SUFFIX: Final = ".journal"
UNFINISHED: Final = ".new"


class _Batch:
    """The tasks that one look found, and whether they stand in the file."""

    __slots__ = ("spans", "written")

    def __init__(self) -> None:
        self.spans: list[TaskSpan] = []
        self.written = False


class Journal:
    """The file of this process, and the thread that writes it.

    Args:
        folder: where the files of all processes lie that may close each other's tasks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / f"{new_id()}{SUFFIX}"
        self.watch: Watch[_Batch] = Watch("the journal", self._gone, self._moved)
        self.on_round: Callable[[], object] = bool
        """Called in the thread after each look; it never raises."""
        self._writing = threading.Lock()
        self._unwritten: list[_Batch] = []
        self._lines: deque[bytes] = deque()  # what else is to be written
        self._file = -1
        self._size = self._compact_at = 0
        self.missed = 0  # tasks for which there was no room
        self._torn = False  # the file ends within a line
        self._dirty = False  # something is not with the disk yet
        self._synced = self._try_again = self._roomier_at = 0.0  # as of `time.monotonic()`
        self._thread: threading.Thread | None = None

    # What others call.

    def start(self) -> None:
        """Start the thread, once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="skywalking-background-journal", daemon=True)
            self._thread.start()

    def before_delivery(self) -> None:
        """Write down what has ended, before its segment can be anywhere: so nothing is closed that has closed itself.

        Not for long: a disk that hangs is no reason to deliver nothing.
        """
        if self._lines and self._writing.acquire(timeout=WRITE_WAIT_SECONDS):
            try:
                self._write()
            except Exception:  # noqa: BLE001  # the delivery goes on
                note("writing the journal")
            finally:
                self._writing.release()

    def note_event(self, segment_id: str, event_id: str) -> None:
        """Write down that a task's event was begun, for it is to be ended too."""
        self._lines.append(_records.event(segment_id, event_id))

    def close(self) -> None:
        """Write what is left; a file without open tasks is removed. For the end of the process."""
        if not self._writing.acquire(timeout=WRITE_WAIT_SECONDS):
            return
        try:
            self._write()
            if self._file >= 0 and not (self.watch.known or self._lines):
                self.path.unlink(missing_ok=True)
                self._let_go()
        except Exception:  # noqa: BLE001
            note("closing the journal")
        finally:
            self._writing.release()

    def forget(self) -> None:
        """In a forked process: let go of the parent's file, whose lock is to end with the parent."""
        self._let_go()

    # What a task's end calls.

    def _gone(self, span: TaskSpan, batch: _Batch, _error: BaseException | None) -> None:
        if batch.written:
            self._lines.append(_records.ended(span.place().segment_id))

    def _moved(self, old: str, new: str) -> None:
        if self._file >= 0:
            self._lines.append(_records.moved(old, new))

    # What the thread does.

    def _run(self) -> None:
        while True:
            self.look()
            time.sleep(INTERVAL)

    def look(self) -> None:
        """Write what has begun and ended since the last look, and that this process lives."""
        try:
            with self._writing:
                batch = _Batch()
                batch.spans = self.watch.take(batch)
                if batch.spans:
                    self._unwritten.append(batch)
                self._write()
                self._live()
            self._sync()
        except Exception:  # noqa: BLE001  # the tasks go on, and the next look may find a better disk
            note("writing the journal")
        self.on_round()

    def _write(self) -> None:
        if not (self._unwritten or self._lines) or time.monotonic() < self._try_again:
            return
        try:
            self._make_room()
            self._write_all()
        except OSError:
            self._try_again = time.monotonic() + RETRY
            note("writing the journal")

    def _write_all(self) -> None:
        count = len(self._lines)
        data = b"".join([self._lines[number] for number in range(count)])
        batches, self._unwritten = self._unwritten, []
        if self._size >= JOURNAL_BYTES:
            self._miss(sum(len(batch.spans) for batch in batches))
            batches = []
        for batch in batches:
            batch.written = True  # from here on its ends are written: one too many does no harm
            open_spans = [span for span in batch.spans if span in self.watch.known]
            data += b"".join([_records.describe(span).line() for span in open_spans])
        try:
            self._append(data)
        except OSError:
            for batch in batches:
                batch.written = False
            self._unwritten = batches
            raise
        for batch in batches:
            batch.spans = []
        for _ in range(count):
            self._lines.popleft()

    def _miss(self, count: int) -> None:
        if count and not self.missed:
            text = "%s has reached its limit of %d bytes: new tasks are not written to it until others end"
            logger.warning(text, self.path, self._size)
        self.missed += count

    def _live(self) -> None:
        """Say that this process lives, by the file's time. One that somebody has removed is written again."""
        if self._file < 0:
            return
        os.utime(self._file)
        if not os.fstat(self._file).st_nlink:
            self._let_go()
            again = _Batch()
            again.spans = list(self.watch.known)
            self._unwritten = [again]

    def _append(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            self._torn = self._torn or written > 0
            if written:
                os.ftruncate(self._file, self._size)
                self._torn = False
            raise
        self._torn = False
        self._size += len(data)
        self._dirty = True

    def _make_room(self) -> None:
        """Open the file, or rewrite it when most of it is over."""
        if self._file < 0:
            self._replace([])
        elif self._size >= self._compact_at or (self._size >= JOURNAL_BYTES and time.monotonic() >= self._roomier_at):
            self._roomier_at = time.monotonic() + RETRY
            try:
                self._replace(self._open_tasks())
            except OSError:
                self._compact_at = 2 * self._size
                note("rewriting the journal")

    def _open_tasks(self) -> list[_records.Task]:
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            return list(_records.read(file.read()).tasks.values())

    def _replace(self, tasks: list[_records.Task]) -> None:
        """Begin a file with these tasks, which takes the place of the old one at once; it is locked before it is seen.

        Nothing of it stays when that fails.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(UNFINISHED)
        beside.unlink(missing_ok=True)
        file = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = _records.header(config.agent_name, config.agent_instance_name, os.getpid())
            data += b"".join([task.line() for task in tasks])
            while data:
                data = data[os.write(file, data) :]
            if tasks:
                os.fsync(file)
            beside.rename(self.path)
        except OSError:
            beside.unlink(missing_ok=True)
            os.close(file)
            raise
        self._let_go()
        self._file, self._size, self._torn, self._dirty = file, os.fstat(file).st_size, False, True
        self._compact_at = max(COMPACT_BYTES, 2 * self._size)

    def _sync(self) -> None:
        """Have what was written reach the disk: for a loss of power, as the end of a process takes nothing away."""
        now = time.monotonic()
        if JOURNAL_FSYNC_SECONDS is None or not self._dirty or now < self._synced + JOURNAL_FSYNC_SECONDS:
            return
        self._synced = now
        self._dirty = False
        if self._file >= 0:
            os.fsync(self._file)

    def _let_go(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
