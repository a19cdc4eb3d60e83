"""Whether a part that does not answer yet gets on: its log grows, or it works."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from pathlib import Path

WORK: Final = 1.0
"""CPU s that count as progress: what only waits uses less in all the time that it is given."""


class Progress:
    """How one start of a part gets on.

    Args:
        log: where its output goes; what is in there already is of earlier starts.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._first = self._size = _size(log)
        self._cpu = 0.0
        self._pid = 0
        self._since = time.monotonic()

    def idle_seconds(self, pid: int) -> float:
        """Look at the part, whose process has this id (0 for none), and return for how long (s) it has not got on."""
        size, cpu = _size(self._log), _cpu(pid)
        if size != self._size or pid != self._pid or cpu >= self._cpu + WORK:
            if size < self._first:  # rotated
                self._first = 0
            self._size, self._cpu, self._pid = size, cpu, pid
            self._since = time.monotonic()
        return time.monotonic() - self._since

    def last_lines(self, lines: int) -> str:
        """Return the last lines that were written since; nothing when there are none."""
        size = _size(self._log)
        return tail(self._log, lines, self._first if size >= self._first else 0)


def tail(path: Path, lines: int, start: int = 0) -> str:
    """Return the last lines of a text file, from the byte `start` on; nothing when there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _cpu(pid: int) -> float:
    """Return the CPU s of a process and its children."""
    used = 0.0
    try:
        for one in (process := psutil.Process(pid), *process.children(recursive=True)) if pid else ():
            times = one.cpu_times()
            used += times.user + times.system
    except psutil.Error:  # it has just ended
        pass
    return used
