"""How the stack behaves with so many tasks running: one load, measured while their number stands still."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import psutil

from stack.load import Load, Meter, percentile, read_requests, start_locust, wait_for_traces

if TYPE_CHECKING:
    from collections.abc import Callable

    from oap_query import Oap

    from stack.load import Sample, TraceCount
    from stack.settings import Settings

REST_SECONDS: Final = 3.0
"""Memory and CPU at rest are measured for so long before a load."""
REACHED_SHARE: Final = 0.95
"""The share of the wanted tasks that must have run at the same time."""


@dataclass(frozen=True)
class Step:
    """Requests at such a rate that, after `task_seconds`, so many tasks run: as many begin as end (Little's law)."""

    tasks: int
    task_seconds: float
    hold_seconds: float = 20.0
    """For so long the number of running tasks is constant: only then response times and CPU are measured."""
    fill_seconds: float | None = None
    """All tasks are started within this time, then the load ends and they only sleep; by default the load goes on."""

    @property
    def load(self) -> Load:
        """The load that starts these tasks."""
        seconds = self.fill_seconds or self.task_seconds
        return Load(
            "parallel",
            users=100,
            rate=self.tasks / seconds,
            duration_seconds=self.fill_seconds or self.task_seconds + self.hold_seconds,
            task_seconds=self.task_seconds,
            results=f"report-{self.tasks}" + ("-asleep" if self.fill_seconds else ""),
        )


@dataclass(frozen=True)
class Measured:
    """The result of a step; NaN where a value is unknown."""

    step: Step
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    found: TraceCount
    service_cpu_percent: float
    """Of one core, as all others."""
    oap_cpu_percent: float
    locust_cpu_percent: float
    others_cpu_percent: float
    """Used by processes that do not belong to this stack: a high value makes the measurement worthless."""
    memory_before_mb: float
    memory_mb: float
    times: list[tuple[float, float]] = field(repr=False)
    """Of each request: seconds since the load began, response time in ms."""
    samples: dict[str, list[Sample]] = field(repr=False)
    began: float = 0.0

    @property
    def kb_per_task(self) -> float:
        """By how much the service has grown for each running task."""
        return (self.memory_mb - self.memory_before_mb) * 1024 / self.found.peak if self.found.peak else float("nan")

    @property
    def holds(self) -> bool:
        """Whether so many tasks ran at once, every request was answered, and every trace is complete."""
        return not self.failed and self.found.is_complete and self.found.peak >= REACHED_SHARE * self.step.tasks


def measure(settings: Settings, oap: Oap, step: Step, report: Callable[[str], object]) -> Measured:
    """Run a step, and say by `report` how far it is.

    Raises:
        OapError: OAP does not answer.
        RuntimeError: Locust sent no request.
    """
    began = time.time()
    with Meter(settings) as meter:
        time.sleep(REST_SECONDS)
        psutil.cpu_percent()
        loaded, used = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
        code = start_locust(settings, step.load, quiet=True).wait()
        machine = psutil.cpu_percent() * (psutil.cpu_count() or 1)
        over, use = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
        requests = read_requests(settings, step.load)
        if not requests:
            log = step.load.folder(settings) / "locust.log"
            raise RuntimeError(f"Locust sent no request (exit code {code}): {log} says why")
        first, last = requests[0].start, requests[-1].start
        report(f"{step.tasks:,} tasks: waiting for the last of them and their traces")
        found = wait_for_traces(
            oap,
            settings.service_name,
            requests,
            lambda found: report(f"{step.tasks:,} tasks: {found.complete:,} of {found.expected:,} traces complete"),
        )
    locust = (use.ru_utime + use.ru_stime - used.ru_utime - used.ru_stime) / (over - loaded) * 100
    ours = locust + meter.cpu_percent("service", loaded, over) + meter.cpu_percent("oap", loaded, over)
    window = (last + 2, first + step.task_seconds - 1) if step.fill_seconds else (first + step.task_seconds, last)
    counted = [request.ms for request in requests if step.fill_seconds or request.start >= window[0]]
    return Measured(
        step,
        len(requests),
        sum(bool(request.error) for request in requests),
        percentile(counted, 0.5),
        percentile(counted, 0.99),
        max(counted, default=float("nan")),
        found,
        meter.cpu_percent("service", *window),
        meter.cpu_percent("oap", *window),
        locust,
        machine - ours,
        meter.memory_mb("service", began, first),
        meter.memory_mb("service", *window),
        [(request.start - first, request.ms) for request in requests],
        meter.samples,
        first,
    )
