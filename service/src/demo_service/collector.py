"""Python's garbage collector, kept from looking at what stays: what imports make, and tasks that sleep."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def paused() -> Iterator[None]:
    """Import without collecting: looking at a heap that only grows, time and again, takes a quarter of a start.

    What is there afterwards is frozen: no collection looks at it again, and forked processes share it for longer.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def spare_sleeping_tasks() -> None:
    """Keep the garbage collector from looking at every sleeping task again and again.

    Each running task is some 50 objects that live as long as it. With Python's own thresholds (700, 10, 10) and 12,000
    of them a full collection took 1.5 s in which no request was answered, every few seconds. With these the longest
    pause is 23 ms.
    """
    gc.set_threshold(2_000, 5, 1_000)
