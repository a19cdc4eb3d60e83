"""CPU time and memory of the stack's processes while something else is going on."""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import psutil

from stack.runtime import NativeRuntime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from stack.settings import Settings

LOOK_SECONDS: Final = 0.5
"""Time between two samples."""


@contextmanager
def again_and_again(look: Callable[[], object], seconds: float = LOOK_SECONDS) -> Iterator[None]:
    """Look every so many seconds, in a thread, until the block ends."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(seconds):
            look()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Sample(NamedTuple):
    """A part at one moment: seconds since the epoch, CPU time since its start, resident memory."""

    time: float
    cpu_seconds: float
    memory_mb: float


class Meter:
    """Samples parts of the native stack in a thread of its own. It can't see containers.

    Args:
        settings: of the running stack.
        parts: the names of the parts.
    """

    def __init__(self, settings: Settings, parts: tuple[str, ...] = ("service", "oap")) -> None:
        self.samples: dict[str, list[Sample]] = {part: [] for part in parts}
        self._runtime = NativeRuntime(settings)
        self._sampling = again_and_again(self._look)

    def __enter__(self) -> Self:
        self._sampling.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sampling.__exit__(kind, error, trace)

    def cpu_percent(self, part: str, start: float, end: float) -> float:
        """Return the share of one core that a part used between two moments, in percent; NaN if unknown."""
        seen = [sample for sample in self.samples[part] if start <= sample.time <= end]
        if not seen or seen[-1].time == seen[0].time:
            return float("nan")
        # A part that was restarted begins at 0 again.
        used = sum(max(0.0, after.cpu_seconds - before.cpu_seconds) for before, after in itertools.pairwise(seen))
        return used / (seen[-1].time - seen[0].time) * 100

    def memory_mb(self, part: str, start: float, end: float) -> float:
        """Return the most memory that a part had between two moments, in MB; NaN if unknown."""
        return max(
            (sample.memory_mb for sample in self.samples[part] if start <= sample.time <= end), default=float("nan")
        )

    def _look(self) -> None:
        pids = self._runtime.pids()
        for part, samples in self.samples.items():
            if sample := _sample(pids.get(part, 0)):
                samples.append(sample)


def _sample(pid: int) -> Sample | None:
    cpu = memory = 0.0
    try:
        process = psutil.Process(pid) if pid else None
        if process is None:
            return None
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess), one.oneshot():
                times = one.cpu_times()
                cpu += times.user + times.system
                memory += one.memory_info().rss / 2**20
    except psutil.Error:
        return None
    return Sample(time.time(), cpu, memory)
