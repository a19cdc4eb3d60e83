"""CPU time and memory of the stack's processes while something else is going on."""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import psutil

from stack._supervisor import Supervisor

if TYPE_CHECKING:
    from types import TracebackType

    from stack._settings import Settings

INTERVAL: Final = 0.5
"""s between two looks."""


class Sample(NamedTuple):
    """One look at a part: s since the epoch, CPU s used since its start, resident memory in MB."""

    time: float
    cpu: float
    memory: float


class Meter:
    """Looks at parts of the natively running stack in a thread of its own; knows nothing of containers.

    Args:
        settings: of the running stack.
        parts: the names of the parts to look at.
    """

    def __init__(self, settings: Settings, parts: tuple[str, ...] = ("service", "oap")) -> None:
        self.samples: dict[str, list[Sample]] = {part: [] for part in parts}
        self._supervisor = Supervisor(settings.run_dir)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def cpu(self, part: str, start: float, end: float) -> float:
        """Return the share of one core that a part used between two moments, in percent; not a number if unknown."""
        seen = [sample for sample in self.samples[part] if start <= sample.time <= end]
        if not seen or seen[-1].time == seen[0].time:
            return float("nan")
        # A part that was restarted begins at 0 again.
        used = sum(max(0.0, after.cpu - before.cpu) for before, after in itertools.pairwise(seen))
        return used / (seen[-1].time - seen[0].time) * 100

    def memory(self, part: str, start: float, end: float) -> float:
        """Return the most memory that a part had between two moments, in MB; not a number if unknown."""
        return max(
            (sample.memory for sample in self.samples[part] if start <= sample.time <= end), default=float("nan")
        )

    def _run(self) -> None:
        while not self._over.wait(INTERVAL):
            for part, samples in self.samples.items():
                if sample := _look(self._supervisor.info(part).get("pid", 0)):
                    samples.append(sample)


def _look(pid: int) -> Sample | None:
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
