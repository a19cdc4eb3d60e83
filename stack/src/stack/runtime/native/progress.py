"""Whether a part that does not answer yet makes progress: its log grows, or it uses the CPU."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import psutil

from stack.terminal import last_lines

if TYPE_CHECKING:
    from pathlib import Path

CPU_STEP_SECONDS: Final = 1.0
"""CPU time that counts as progress: a process that only waits uses less while it is given time."""


class Progress:
    """The progress of one start of a part.

    Args:
        log: where its output goes; what is in there already belongs to earlier starts.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._first_byte = self._size_bytes = _size_bytes(log)
        self._cpu_seconds = 0.0
        self._pid = 0
        self._since = time.monotonic()

    def idle_seconds(self, pid: int) -> float:
        """Look at the part's process (0: it has none) and return for how long there was no progress."""
        size, cpu = _size_bytes(self._log), _cpu_seconds(pid)
        if size != self._size_bytes or pid != self._pid or cpu >= self._cpu_seconds + CPU_STEP_SECONDS:
            if size < self._first_byte:  # rotated
                self._first_byte = 0
            self._size_bytes, self._cpu_seconds, self._pid = size, cpu, pid
            self._since = time.monotonic()
        return time.monotonic() - self._since

    def last_lines(self) -> str:
        """Return the last lines that were written since the start; an empty text when there are none."""
        rotated = _size_bytes(self._log) < self._first_byte
        return last_lines(self._log, start_byte=0 if rotated else self._first_byte)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children."""
    used = 0.0
    try:
        for one in (process := psutil.Process(pid), *process.children(recursive=True)) if pid else ():
            times = one.cpu_times()
            used += times.user + times.system
    except psutil.Error:  # it has just ended
        pass
    return used
