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

active = False
"""Whether the agent leaves it to this module."""

_process: psutil.Process | None = None
_gc_began = 0.0
_gc_seconds = 0.0
_collections: Final[deque[tuple[float, list[int]]]] = deque()
"""When a report was made, in seconds of `time.monotonic()`, and how many collections there had been."""


def begin() -> None:
    """Meter this process from now on."""
    global active, _process  # noqa: PLW0603  # it is about the process
    active = True
    _process = psutil.Process()
    _process.cpu_percent()  # the first call only takes the time
    psutil.cpu_percent()
    _collections.clear()
    _collections.append((time.monotonic(), _collected()))
    if _note_collection not in gc.callbacks:
        gc.callbacks.append(_note_collection)


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
    if _process is None or not active:
        return {}
    now, collected = time.monotonic(), _collected()
    while len(_collections) > 1 and _collections[1][0] <= now - _MINUTE:
        _collections.popleft()
    before = _collections[0][1]
    _collections.append((now, collected))
    memory = psutil.virtual_memory()
    return {
        "instance_pvm_total_cpu_utilization": psutil.cpu_percent(),
        "instance_pvm_process_cpu_utilization": _process.cpu_percent(),
        "instance_pvm_total_mem_utilization": memory.percent,
        "instance_pvm_process_mem_utilization": _process.memory_info().rss / memory.total * 100,
        "instance_pvm_thread_active_count": _process.num_threads(),
        "instance_pvm_gc_time": _gc_seconds * 1000,
        **{f"instance_pvm_gc_g{number}": collected[number] - before[number] for number in range(_GENERATIONS)},
    }
