"""How late the event loops of this process come to what is due: what every request in them waits at the least.

The reporter's thread knocks at each loop, four times a second, and the loop notes when it heard. Nothing is left in a
loop for longer than that, and one that is closed is forgotten.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final
from weakref import WeakSet

_loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
_probes: Final[dict[int, _Probe]] = {}


class _Probe:
    """What is known of one loop; times in seconds of `time.monotonic()`."""

    __slots__ = ("asked", "worst")

    def __init__(self) -> None:
        self.asked = 0.0
        self.worst = 0.0

    def answer(self) -> None:
        self.worst = max(self.worst, time.monotonic() - self.asked)
        self.asked = 0.0


def watch() -> None:
    """Watch the loop that this code runs in, if there is one."""
    loop = asyncio._get_running_loop()  # noqa: SLF001  # documented for event loops: does not raise without one
    if loop is not None:
        _loops.add(loop)


def tasks() -> dict[int, asyncio.Task[Any]]:
    """Return the tasks of all loops by their `id`; from any thread."""
    return {id(task): task for loop in list(_loops) for task in asyncio.all_tasks(loop)}


def probe() -> None:
    """Knock at each loop that has answered the last time; from another thread."""
    for loop in list(_loops):
        one = _probes.setdefault(id(loop), _Probe())
        if one.asked:
            continue
        one.asked = time.monotonic()
        try:
            loop.call_soon_threadsafe(one.answer)
        except RuntimeError:  # closed
            _loops.discard(loop)
            _probes.pop(id(loop), None)


def take() -> int | None:
    """Return the longest delay in ms since the last call, one that still lasts included; `None` without a loop."""
    now = time.monotonic()
    alive = {id(loop): loop for loop in list(_loops) if loop.is_running()}
    for key in set(_probes) - set(alive):
        del _probes[key]
    worst = [max(one.worst, now - one.asked if one.asked else 0.0) for one in _probes.values()]
    for one in _probes.values():
        one.worst = 0.0
    return round(max(worst) * 1000) if worst else None


def forget_all() -> None:
    """Begin anew in a forked process: the loops of its parent do not run here."""
    global _loops  # noqa: PLW0603  # its lock-free copy could be half changed
    _loops = WeakSet()
    _probes.clear()
