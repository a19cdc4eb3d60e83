"""The accepted tasks of this process, in an SQLite file that outlives it.

A thread writes them, many in one transaction. SQLite's own lock on the file, which is held for as long as the process
lives and ends with it, says whose it is: nothing that still runs is taken for lost. A torn file SQLite mends itself.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

logger = logging.getLogger(__name__)

SUFFIX: Final = ".accepted"
MAX_PENDING: Final = 50_000
"""Changes that wait for a disk that is full or slow; beyond them what is accepted is not kept, and counted."""
RETRY_SECONDS: Final = 5.0
"""How long it is from one try to write to the next, once one has failed."""
BATCH_SECONDS: Final = 0.05
"""How long changes are gathered where nobody waits for them."""
WAIT_SECONDS: Final = 2.0
"""How long an answer waits for the disk, at the most: a disk that hangs must not stop the service."""


class Level(StrEnum):
    """What an answer that says `accepted` promises."""

    OFF = "off"
    """Nothing: a process that is killed takes its tasks with it."""
    BATCH = "batch"
    """Written within 0.05 s after the answer: a kill in between loses the task."""
    WRITTEN = "written"
    """Written before the answer: no end of the process loses it. A loss of power may."""
    SYNCED = "synced"
    """On the disk before the answer: a loss of power does not lose it either."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A task that was accepted."""

    id: str
    name: str
    endpoint: str
    arguments: str
    """JSON, without secrets."""
    complete: bool
    """Whether all arguments are there, so that it can run again."""
    trace_id: str | None
    replay_of: str | None
    accepted_at: float
    """In seconds since the epoch."""
    run: int
    """1; more, if processes that ran it have ended before."""
    attempts: int = 0
    """That have begun."""


COLUMNS: Final = tuple(field.name for field in fields(Accepted))
TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS accepted (id TEXT PRIMARY KEY, name TEXT, endpoint TEXT, arguments TEXT, "
    "complete INTEGER, trace_id TEXT, replay_of TEXT, accepted_at REAL, run INTEGER, attempts INTEGER) WITHOUT ROWID"
)
_ADD: Final = "INSERT OR REPLACE INTO accepted VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ATTEMPT: Final = "UPDATE accepted SET attempts = ?, trace_id = ? WHERE id = ?"
_FORGET: Final = "DELETE FROM accepted WHERE id = ?"

Change = tuple[str, tuple[Any, ...]]


class Journal:
    """Keeps what is accepted until it is forgotten. Nothing here raises: a task goes on without, and the log says so.

    Args:
        folder: where the files of all processes lie that may look after each other's tasks.
        level: what an answer promises.
    """

    def __init__(self, folder: Path, level: Level) -> None:
        self.path = folder / f"{uuid4().hex}{SUFFIX}"
        self._level = level
        self._changes: deque[Change] = deque()
        self._made = self._written = 0  # changes
        self._waiting: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._something = threading.Condition()
        self._closing = self._urgent = False
        self._thread: threading.Thread | None = None
        self._database: sqlite3.Connection | None = None
        self._try_again = 0.0  # as of `time.monotonic()`
        self._failures = 0
        self.lost = 0
        """Changes for which there was no room."""

    def add(self, tasks: Iterable[Accepted]) -> None:
        """Keep tasks that are accepted now."""
        for task in tasks:
            self._put(_ADD, astuple(task))

    def begin(self, task_id: str, attempt: int, trace_id: str | None) -> None:
        """Note that an attempt begins."""
        self._put(_ATTEMPT, (attempt, trace_id, task_id))

    def forget(self, task_id: str) -> None:
        """Forget a task that has ended; of one that is a dead letter, when that is stored."""
        self._put(_FORGET, (task_id,))

    async def kept(self) -> None:
        """Wait until all that was accepted so far is kept as well as an answer promises."""
        if self._level is Level.BATCH:
            return
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        with self._something:
            if self._written >= self._made or self._failures:
                return
            self._waiting.append((self._made, loop, done))
            self._urgent = True
            self._something.notify()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await done
        except TimeoutError:
            logger.warning("The disk takes longer than %.0f s: what is accepted is not kept yet", WAIT_SECONDS)

    def close(self) -> None:
        """Write what is left; a file without tasks is removed."""
        with self._something:
            self._closing = True
            self._something.notify()
        if self._thread is not None:
            self._thread.join(WAIT_SECONDS)

    def _put(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._something:
            if len(self._changes) >= MAX_PENDING:
                self.lost += 1
                return
            self._changes.append((statement, values))
            self._made += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="accepted-tasks", daemon=True)
                self._thread.start()
            elif len(self._changes) == 1:
                self._something.notify()

    # What the thread does.

    def _run(self) -> None:
        while True:
            with self._something:
                self._something.wait_for(lambda: self._changes or self._closing)
                if not (self._closing or self._urgent):
                    self._something.wait_for(lambda: self._closing or self._urgent, BATCH_SECONDS)
                closing, self._urgent = self._closing, False
                changes = list(self._changes)
            if closing or time.monotonic() >= self._try_again:
                self._write(changes)
            else:
                time.sleep(BATCH_SECONDS)
            if closing:
                self._end()
                return

    def _write(self, changes: list[Change]) -> None:
        error: Exception | None = None
        try:
            self._transact(changes)
        except Exception as failure:  # noqa: BLE001  # whatever it is, the thread goes on
            error = failure
        with self._something:
            if error is None:
                for _ in changes:
                    self._changes.popleft()
                self._written += len(changes)
            ready = [one for one in self._waiting if error is not None or one[0] <= self._written]
            self._waiting = [one for one in self._waiting if one not in ready]
        for _, loop, done in ready:  # where it can't be written, too: the service goes on without
            with suppress(RuntimeError):  # its loop has ended, and nobody waits any more
                loop.call_soon_threadsafe(_finish, done)
        self._say(error)

    def _transact(self, changes: list[Change]) -> None:
        database = self._open()
        # What begins and ends between two looks is written by nobody.
        over = {values[0] for statement, values in changes if statement is _FORGET}
        new = {values[0] for statement, values in changes if statement is _ADD} & over
        database.execute("BEGIN IMMEDIATE")
        try:
            for statement, values in changes:
                if values[-1 if statement is _ATTEMPT else 0] not in new:
                    database.execute(statement, values)
            database.execute("COMMIT")
        except sqlite3.Error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            database = open_exclusively(self.path)
            try:
                database.execute(f"PRAGMA synchronous = {'FULL' if self._level is Level.SYNCED else 'NORMAL'}")
                database.execute(TABLE)
            except sqlite3.Error:
                database.close()
                raise
            self._database = database
        return self._database

    def _say(self, error: Exception | None) -> None:
        if error is None:
            if self._failures:
                logger.warning("Accepted tasks are kept again; %d changes were lost meanwhile", self.lost)
                self._failures = 0
            return
        self._try_again = time.monotonic() + RETRY_SECONDS
        self._failures += 1
        if str(self._failures).rstrip("0") == "1":
            text = "Accepted tasks are not kept (number %d), a killed process would lose them: %s: %s"
            logger.warning(text, self._failures, self.path, error)

    def _end(self) -> None:
        if self._database is None:
            return
        try:
            empty = self._database.execute("SELECT count(*) FROM accepted").fetchone() == (0,)
            self._database.close()
            if empty:
                remove(self.path)
        except (sqlite3.Error, OSError) as error:
            logger.warning("The file of accepted tasks can't be deleted: %s", error)


def open_exclusively(path: Path, mode: str = "rwc") -> sqlite3.Connection:
    """Open a file and keep its lock; with the mode `rw` only if it is there.

    Raises:
        sqlite3.Error: a process that lives has it, or it is damaged.
    """
    url = f"{path.absolute().as_uri()}?mode={mode}"
    database = sqlite3.connect(url, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN EXCLUSIVE")  # from here on
        database.execute("COMMIT")
    except sqlite3.Error:
        database.close()
        raise
    return database


def remove(path: Path) -> None:
    """Remove a file of SQLite's, and what belongs to it."""
    for companion in ("-wal", "-shm", "-journal", ""):
        path.with_name(path.name + companion).unlink(missing_ok=True)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
