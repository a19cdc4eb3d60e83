"""How the stack behaves with so many tasks running: one load, measured while their number stands still."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import psutil

from stack import _found, _locust
from stack._locust import Load, percentile
from stack._meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable

    from oap_query import Oap

    from stack._found import Found
    from stack._meter import Sample
    from stack._settings import Settings

SETTLE: Final = 3.0
"""s of peace before a load, in which the memory and CPU at rest are seen."""
NEAR: Final = 0.95
"""The share of the wanted tasks that must have run at the same time."""


@dataclass(frozen=True)
class Step:
    """Requests at such a rate that, after `task_seconds`, so many tasks run: as many begin as end (Little's law)."""

    tasks: int
    task_seconds: float
    hold: float = 20.0
    """s that the number of running tasks stands still: only then response times and CPU are measured."""
    fill: float | None = None
    """s in which all tasks are started, before the load ends and they only sleep; by default the load goes on."""

    @property
    def load(self) -> Load:
        """The load that does it."""
        seconds = self.fill or self.task_seconds
        return Load(
            "parallel",
            users=100,
            rate=self.tasks / seconds,
            duration=self.fill or self.task_seconds + self.hold,
            task_seconds=self.task_seconds,
            results=f"report-{self.tasks}" + ("-asleep" if self.fill else ""),
        )


@dataclass(frozen=True)
class Measured:
    """What a step has shown; times in ms, CPU in percent of one core, memory in MB; not a number where unknown."""

    step: Step
    requests: int
    failed: int
    p50: float
    p99: float
    worst: float
    found: Found
    service_cpu: float
    oap_cpu: float
    locust_cpu: float
    others_cpu: float
    """What processes that are no part of this have used: they, and not the service, may be what is measured."""
    memory_before: float
    memory: float
    times: list[tuple[float, float]] = field(repr=False)
    """Of each request: s since the load began, ms that the answer took."""
    samples: dict[str, list[Sample]] = field(repr=False)
    began: float = 0.0

    @property
    def kilobytes_per_task(self) -> float:
        """What the service grew by, for each running task."""
        return (self.memory - self.memory_before) * 1024 / self.found.peak if self.found.peak else float("nan")

    @property
    def holds(self) -> bool:
        """Whether that many tasks did run, every request was answered, and every trace is complete."""
        return not self.failed and self.found.whole and self.found.peak >= NEAR * self.step.tasks


def measure(settings: Settings, oap: Oap, step: Step, tell: Callable[[str], object]) -> Measured:
    """Run a step.

    Raises:
        OapError: OAP does not answer.
        RuntimeError: Locust did not run.
    """
    began = time.time()
    with Meter(settings) as meter:
        time.sleep(SETTLE)
        psutil.cpu_percent()
        loaded, used = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
        code = _locust.start(settings, step.load, quiet=True).wait()
        machine = psutil.cpu_percent() * (psutil.cpu_count() or 1)
        over, use = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
        requests = _locust.requests(settings, step.load)
        if not requests:
            log = step.load.folder(settings) / "locust.log"
            raise RuntimeError(f"Locust sent no request (exit code {code}): {log} says why")
        first, last = requests[0].start, requests[-1].start
        tell(f"{step.tasks:,} tasks: waiting for the last of them and their traces")
        found = _found.wait(
            oap,
            settings.service_name,
            requests,
            lambda found: tell(f"{step.tasks:,} tasks: {found.complete:,} of {found.expected:,} traces complete"),
        )
    locust = (use.ru_utime + use.ru_stime - used.ru_utime - used.ru_stime) / (over - loaded) * 100
    ours = locust + meter.cpu("service", loaded, over) + meter.cpu("oap", loaded, over)
    window = (last + 2, first + step.task_seconds - 1) if step.fill else (first + step.task_seconds, last)
    counted = [request.ms for request in requests if step.fill or request.start >= window[0]]
    return Measured(
        step,
        len(requests),
        sum(bool(request.error) for request in requests),
        percentile(counted, 0.5),
        percentile(counted, 0.99),
        max(counted, default=float("nan")),
        found,
        meter.cpu("service", *window),
        meter.cpu("oap", *window),
        locust,
        machine - ours,
        meter.memory("service", began, first),
        meter.memory("service", *window),
        [(request.start - first, request.ms) for request in requests],
        meter.samples,
        first,
    )
