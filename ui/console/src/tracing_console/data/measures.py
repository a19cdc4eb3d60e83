"""The stack's claims, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Final

from oap_query import Metric, Points, endpoints, instances, is_request, read
from tracing_claims import (
    CONCURRENT_TASKS,
    MEMORY_PER_TASK_LIMIT_KB,
    RESPONSE_LIMIT_MS,
    SAVED_MS,
    SLEEPING_CPU_LIMIT_PERCENT,
    TASK_MS,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from oap_query import Oap, Segment

MINUTES: Final = 15
"""How far back is measured."""
MAX_CURVES: Final = 8
"""Of tasks in one chart: more can't be told apart."""
TOLERANCE_MS: Final = 250
"""How much longer a sleep may take on a busy machine."""


@dataclass(frozen=True)
class Trends:
    """Curves by name, for a chart each."""

    times: dict[str, Points]
    """ms"""
    loads: dict[str, Points]
    """per minute"""
    rates: dict[str, Points]
    """% that succeeded"""
    cpu_percent: float | None
    """The most that one process of the service used in a minute, of a core."""


@dataclass(frozen=True)
class Claim:
    """One claim beside its measurement."""

    metric: str
    claimed: str
    measured: str
    verdict: str
    tone: str = ""


def trends(oap: Oap, services: Sequence[str]) -> Trends:
    """Read the metrics of the services: the first one's requests, and the tasks of all.

    Raises:
        OapError: OAP does not answer.
    """
    start = datetime.now(UTC) - timedelta(minutes=MINUTES)
    main = services[0]
    tasks = [
        (service, name) for service in services for name in endpoints(oap, service) if not is_request(name)
    ][:MAX_CURVES]  # fmt: skip
    requests = ["service_percentile{p='50'}", "service_percentile{p='99'}", "service_cpm", "service_sla"]
    processes = [
        Metric("meter_instance_pvm_process_cpu_utilization", main, instance=name)
        for name in instances(oap, main, start)
    ]
    wanted = [Metric(expression, main) for expression in requests]
    for metric in ("endpoint_resp_time", "endpoint_cpm", "endpoint_sla"):
        wanted += [Metric(metric, service, name) for service, name in tasks]
    found = read(oap, [*wanted, *processes], start)
    names, n, rest = [name for _, name in tasks], len(tasks), found[len(requests) :]
    middle, high, load, rate = found[: len(requests)]
    cpu = [value for points in rest[3 * n :] for value in points.values()]
    return Trends(
        {"answers, median": middle, "answers, 99 %": high, **dict(zip(names, rest[:n], strict=True))},
        {"requests": load, **dict(zip(names, rest[n : 2 * n], strict=True))},
        {"requests": _percent(rate), **dict(zip(names, map(_percent, rest[2 * n : 3 * n]), strict=True))},
        max(cpu, default=None),
    )


def _percent(points: Points) -> Points:
    return {moment: value / 100 for moment, value in points.items()}


def most_at_once(segments: Iterable[Segment]) -> int:
    """Count the most background tasks that ran at any one moment."""
    steps = sorted(
        step for segment in segments if not segment.request for step in ((segment.start, 1), (segment.end, -1))
    )
    running = most = 0
    for _, step in steps:
        running += step
        most = max(most, running)
    return most


def claims(segments: Sequence[Segment], running: int, cpu_percent: float | None) -> list[Claim]:
    """Compare each claim with the segments of the last minutes.

    Args:
        segments: of the service's requests and tasks.
        running: how many tasks run now, which have no segment yet.
        cpu_percent: the most that one process used, of a core.
    """
    answers = sorted(item.duration for item in segments if item.name == "HTTP GET /test")
    sleeps = [item.duration for item in segments if item.name == "background_sleep_task" and not item.error]
    full_length = [ms for ms in sleeps if ms >= TASK_MS - 1]
    most = max(most_at_once(segments), running)
    return [
        _response(answers),
        _duration(sleeps, full_length),
        _saved(answers, full_length),
        Claim("Concurrent capacity", f"{CONCURRENT_TASKS:,}+ tasks", f"{most:,} at once at the peak", *_capacity(most)),
        Claim(
            "Memory per task",
            f"< {MEMORY_PER_TASK_LIMIT_KB // 1024} MB",
            "not measured here",
            "“make report” measures it",
        ),
        _cpu(cpu_percent),
    ]


def _response(answers: list[int]) -> Claim:
    if not answers:
        return Claim("Response time", f"< {RESPONSE_LIMIT_MS} ms", "no request to /test yet", "send one on “Try it”")
    high = answers[min(len(answers) - 1, int(len(answers) * 0.99))]
    measured = f"median {median(answers):.0f} ms, 99 % within {high:,} ms, of {len(answers):,} answers"
    return Claim("Response time", f"< {RESPONSE_LIMIT_MS} ms", measured, *_verdict(high < RESPONSE_LIMIT_MS))


def _duration(sleeps: list[int], full_length: list[int]) -> Claim:
    claim = f"{TASK_MS:,} ms"
    if not sleeps:
        return Claim("Background task duration", claim, "no task has ended yet", "send one on “Try it”")
    if not full_length:
        return Claim(
            "Background task duration", claim, f"median {median(sleeps):,.0f} ms", "only shorter tasks were requested"
        )
    middle = median(full_length)
    measured = f"median {middle:,.0f} ms, of {len(full_length):,} tasks"
    return Claim("Background task duration", claim, measured, *_verdict(middle <= TASK_MS + TOLERANCE_MS))


def _saved(answers: list[int], full_length: list[int]) -> Claim:
    claim = f"{SAVED_MS:,} ms"
    if not answers or not full_length:
        return Claim("Time saved per request", claim, "no ten-second task has ended yet", "send one on “Try it”")
    saved = median(full_length) - median(answers)
    return Claim(
        "Time saved per request",
        claim,
        f"{saved:,.0f} ms: the task’s time less the answer’s",
        *_verdict(saved >= SAVED_MS),
    )


def _capacity(most: int) -> tuple[str, str]:
    if most >= CONCURRENT_TASKS:
        return "holds", "good"
    return "not tried yet: send 1,000 at once on “Try it”", ""


def _cpu(percent: float | None) -> Claim:
    if percent is None:
        return Claim("CPU usage", "minimal (mostly sleeping)", "nothing reported yet", "“make report” measures it")
    measured = f"{percent:.0f} % of a core at most, requests included"
    if percent <= SLEEPING_CPU_LIMIT_PERCENT:
        return Claim("CPU usage", "minimal (mostly sleeping)", measured, "holds", "good")
    return Claim("CPU usage", "minimal (mostly sleeping)", measured, "“make report” measures tasks alone")


def _verdict(holds: bool) -> tuple[str, str]:
    return ("holds", "good") if holds else ("does not hold", "bad")
