"""The Python process itself: what fills the tab *PVM* of an instance in SkyWalking's UI.

The agent's own meters of these names are not used. Its share of the memory is a fraction, which OAP rounds up to 1 %.
Its time of collections is that of the last one, of which OAP takes the increase. Its number of collections is how many
objects were ever collected. And its threads are also those of the children, which are instances of their own, for which
it looks through all processes of the machine.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from typing import Any, Final

import psutil

_GENERATIONS: Final = 3
_MINUTE: Final = 60.0

_gc_began = 0.0
_gc_seconds = 0.0


class _Runtime:
    """What is read of this process."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only takes the time
        psutil.cpu_percent()
        self._collections = deque([(time.monotonic(), _collected())])
        """When it was read, in seconds of `time.monotonic()`, and how many collections there had been."""

    def read(self) -> dict[str, float]:
        now, collected = time.monotonic(), _collected()
        while len(self._collections) > 1 and self._collections[1][0] <= now - _MINUTE:
            self._collections.popleft()
        before = self._collections[0][1]
        self._collections.append((now, collected))
        memory = psutil.virtual_memory()
        return {
            "instance_pvm_total_cpu_utilization": psutil.cpu_percent(),
            "instance_pvm_process_cpu_utilization": self._process.cpu_percent(),
            "instance_pvm_total_mem_utilization": memory.percent,
            "instance_pvm_process_mem_utilization": self._process.memory_info().rss / memory.total * 100,
            "instance_pvm_thread_active_count": self._process.num_threads(),
            "instance_pvm_gc_time": _gc_seconds * 1000,
            **{f"instance_pvm_gc_g{number}": collected[number] - before[number] for number in range(_GENERATIONS)},
        }


_runtime: _Runtime | None = None


def begin() -> None:
    """Meter this process from now on."""
    global _runtime  # noqa: PLW0603  # it is about the process
    if _note_collection not in gc.callbacks:
        gc.callbacks.append(_note_collection)
    _runtime = _Runtime()


def forget() -> None:
    """Meter nothing until the next `begin`: in a forked process, or where somebody else does."""
    global _runtime  # noqa: PLW0603  # as above
    _runtime = None


def _note_collection(phase: str, _info: dict[str, Any]) -> None:
    global _gc_began, _gc_seconds  # noqa: PLW0603  # as above
    if phase == "start":
        _gc_began = time.perf_counter()
    elif _gc_began:
        _gc_seconds += time.perf_counter() - _gc_began


def _collected() -> list[int]:
    return [generation["collections"] for generation in gc.get_stats()]


def read() -> dict[str, float]:
    """Read every meter of this process: shares in percent, times in ms, collections of the last minute."""
    return {} if _runtime is None else _runtime.read()
