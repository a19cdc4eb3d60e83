"""How late the event loops of this process come to what is due: what every request in them waits at the least.

The reporter's thread knocks at each loop, four times a second, and the loop notes when it heard. Nothing is left in a
loop for longer than that, and one that is closed is forgotten.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

_loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
_asked: WeakKeyDictionary[asyncio.AbstractEventLoop, float] = WeakKeyDictionary()
"""When each loop was knocked at that has not answered yet, in seconds of `time.monotonic()`."""
_worst: float | None = None
"""The longest delay that was heard of since the last report, in seconds; its loop may have ended since."""


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
        if not loop.is_running():
            _asked.pop(loop, None)  # between two runs nothing in it is late
            continue
        if loop in _asked:
            continue
        _asked[loop] = time.monotonic()
        try:
            loop.call_soon_threadsafe(_answered, loop)
        except RuntimeError:  # closed
            _loops.discard(loop)


def _answered(loop: asyncio.AbstractEventLoop) -> None:
    if asked := _asked.pop(loop, None):
        _keep(time.monotonic() - asked)


def _keep(seconds: float) -> None:
    global _worst  # noqa: PLW0603  # of all loops
    _worst = max(_worst or 0.0, seconds)


def take() -> int | None:
    """Return the longest delay in ms since the last call, one that still lasts included; `None` without a loop."""
    global _worst  # noqa: PLW0603  # of all loops
    now = time.monotonic()
    late = [now - _asked.get(loop, now) for loop in list(_loops) if loop.is_running()]
    if _worst is not None:
        late.append(_worst)
        _worst = None
    return round(max(late) * 1000) if late else None


def put_back(milliseconds: int) -> None:
    """Take in again what could not be reported: it is part of what `take` returns next."""
    _keep(milliseconds / 1000)


def forget_all() -> None:
    """Begin anew in a forked process: the loops of its parent do not run here."""
    global _loops, _asked, _worst  # their lock-free copies could be half changed
    _loops, _asked, _worst = WeakSet(), WeakKeyDictionary(), None
