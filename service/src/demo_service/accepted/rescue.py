"""What processes that are gone have accepted and not finished."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from demo_service.accepted.journal import COLUMNS, SUFFIX, Accepted, open_exclusively, remove

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY: Final = 0xFF  # the part of SQLite's codes that says what, the rest says how


@dataclass(frozen=True)
class Left:
    """The file of a process that is gone; its lock is ours until we `finish` or `release` it."""

    path: Path
    database: sqlite3.Connection
    tasks: list[Accepted]
    alive: float
    """When it was written last, in seconds since the epoch."""

    def finish(self) -> None:
        """Remove it: its tasks are in good hands."""
        remove(self.path)
        self.database.close()

    def release(self) -> None:
        """Leave it to whoever looks next."""
        self.database.close()


def claim_all(folder: Path, own: Path) -> list[Left]:
    """Take all files whose processes are gone; those that live keep theirs, and nobody gets one twice."""
    found = (_claim(path) for path in sorted(folder.glob(f"*{SUFFIX}")) if path != own)
    return [left for left in found if left is not None]


def _claim(path: Path) -> Left | None:
    database = None
    try:
        alive = max(one.stat().st_mtime for one in path.parent.glob(f"{path.name}*"))
        database = open_exclusively(path, "rw")
        rows = database.execute(f"SELECT {', '.join(COLUMNS)} FROM accepted").fetchall()  # noqa: S608  # ours
        tasks = [Accepted(*row) for row in rows]
        if path.exists():
            return Left(path, database, tasks, alive)
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):  # it ended before its first task
            remove(path)
        elif "locked" not in str(error) and path.exists():
            logger.warning("%s can't be read, and is tried again: %s", path, error)
    except sqlite3.DatabaseError as error:
        _set_aside(path, error)
    except (OSError, ValueError):  # another process was faster
        pass
    if database is not None:
        database.close()
    return None


def _set_aside(path: Path, error: sqlite3.DatabaseError) -> None:
    code = error.sqlite_errorcode & _PRIMARY
    if code not in _DAMAGED:
        logger.warning("%s can't be read, and is tried again: %s", path, error)
        return
    aside = path.with_suffix(".damaged")
    path.rename(aside)
    logger.error("The accepted tasks in %s can't be read (%s): it is kept as %s", path, error, aside.name)
