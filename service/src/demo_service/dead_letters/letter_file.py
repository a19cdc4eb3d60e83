"""The SQLite file of the dead letters: what can happen to a file while it is in use."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

NAME: Final = "dead-letters.db"
MIN_FREE_BYTES: Final = 1024 * 1024
"""How much the disk must have left."""
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY: Final = 0xFF  # the part of SQLite's codes that says what, the rest says how


class LetterFile:
    """Knows whether the file is still the one that was opened, and moves a damaged one aside."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._opened: tuple[int, int] | None = None

    @property
    def url(self) -> str:
        """Where it is, as SQLAlchemy says it."""
        return f"sqlite+aiosqlite:///{self.path}"

    def prepare(self) -> None:
        """Make its folder."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def opened(self) -> None:
        """Note which file it is now."""
        self._opened = self._identity()

    def is_gone(self) -> bool:
        """Say whether the file that was opened has been deleted or replaced: what is written to it would vanish."""
        if self._opened is None or self._identity() == self._opened:
            return False
        logger.error("%s was deleted while in use: the dead letters in it are lost; a new one is made", self.path)
        self._opened = None
        return True

    def move_aside(self, error: Exception) -> bool:
        """Move the file out of the way if the error says that it is damaged; say whether a new one can be made.

        Raises:
            OSError: it can't be moved.
        """
        original = error.orig if isinstance(error, DBAPIError) else None
        code = getattr(original, "sqlite_errorcode", None)
        if code is None or code & _PRIMARY not in _DAMAGED:
            return False
        if self._opened not in {None, self._identity()}:  # another process has been faster
            self._opened = None
            return True
        for earlier in self.path.parent.glob(f"{NAME}.broken-*"):  # disks don't fill
            earlier.unlink()
        aside = self.path.with_name(f"{NAME}.broken-{time.strftime('%Y%m%dT%H%M%S')}")
        self.path.rename(aside)
        for companion in ("-journal", "-wal", "-shm"):  # of the damaged file: they would damage the new one
            self.path.with_name(NAME + companion).unlink(missing_ok=True)
        self._opened = None
        logger.error(
            "The dead letters' file was damaged (%s) and is now %s: its letters can't be read, and a new one is made",
            original,
            aside,
        )
        return True

    def trouble(self) -> str | None:
        """Say why nothing more could be written, as far as the disk knows."""
        try:
            disk = os.statvfs(self.path.parent)
        except OSError:
            return None  # the write itself will tell
        free = disk.f_bavail * disk.f_frsize
        return f"the disk of {self.path.parent} has {free:,} bytes left" if free < MIN_FREE_BYTES else None

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino
