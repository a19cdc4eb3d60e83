"""What the overview document claims, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Final

from oap_query import Metric, Points, endpoints, instances, is_request, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from oap_query import Oap, Segment

MINUTES: Final = 15
"""How far back the overview looks."""
TASKS: Final = 8
"""Curves of tasks, at most: more can't be told apart."""
RESPONSE, DURATION, SAVED, TOLERANCE = 100, 10_000, 9_900, 250
"""ms, the overview's claims; and how much longer a sleep may take on a busy machine."""
CAPACITY: Final = 1000
QUIET: Final = 10
"""% of a core that still counts as minimal."""


@dataclass(frozen=True)
class Trends:
    """Curves by name, for a chart each."""

    times: dict[str, Points]
    """ms"""
    loads: dict[str, Points]
    """per minute"""
    rates: dict[str, Points]
    """% that succeeded"""
    cpu: float | None
    """The most that one process of the service used in a minute, in % of a core."""


@dataclass(frozen=True)
class Claim:
    """A row of the overview's performance table."""

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
    ][:TASKS]  # fmt: skip
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


def claims(segments: Sequence[Segment], running: int, cpu: float | None) -> list[Claim]:
    """Hold the document's performance table against the segments of the last minutes.

    Args:
        segments: of the service's requests and tasks.
        running: how many tasks run now, which have no segment yet.
        cpu: % of a core, at most.
    """
    answers = sorted(item.duration for item in segments if item.name == "HTTP GET /test")
    sleeps = [item.duration for item in segments if item.name == "background_sleep_task" and not item.error]
    whole = [ms for ms in sleeps if ms >= DURATION - 1]
    most = max(most_at_once(segments), running)
    return [
        _response(answers),
        _duration(sleeps, whole),
        _saved(answers, whole),
        Claim("Concurrent capacity", "1000+ tasks", f"{most:,} at once at the peak", *_capacity(most)),
        Claim("Memory per task", "< 1 MB", "not from here", "“make report” measures it"),
        Claim(
            "CPU usage",
            "minimal (mostly sleeping)",
            "nothing reported yet" if cpu is None else f"{cpu:.0f} % of a core at most, requests included",
            *(
                ("holds", "good")
                if cpu is not None and cpu <= QUIET
                else ("“make report” measures the sleep alone", "")
            ),
        ),
    ]


def _response(answers: list[int]) -> Claim:
    if not answers:
        return Claim("Response time", f"< {RESPONSE} ms", "no request to /test", "send one on “Try it”")
    high = answers[min(len(answers) - 1, int(len(answers) * 0.99))]
    measured = f"median {median(answers):.0f} ms, 99 % within {high:,} ms, of {len(answers):,} answers"
    return Claim("Response time", f"< {RESPONSE} ms", measured, *_verdict(high < RESPONSE))


def _duration(sleeps: list[int], whole: list[int]) -> Claim:
    claim = f"{DURATION:,} ms"
    if not sleeps:
        return Claim("Background task duration", claim, "no task has ended", "send one on “Try it”")
    if not whole:
        return Claim(
            "Background task duration", claim, f"median {median(sleeps):,.0f} ms", "shorter tasks were asked for"
        )
    middle = median(whole)
    measured = f"median {middle:,.0f} ms, of {len(whole):,} tasks"
    return Claim("Background task duration", claim, measured, *_verdict(middle <= DURATION + TOLERANCE))


def _saved(answers: list[int], whole: list[int]) -> Claim:
    claim = f"{SAVED:,} ms"
    if not answers or not whole:
        return Claim("Time saved per request", claim, "no ten-second task has ended", "send one on “Try it”")
    saved = median(whole) - median(answers)
    return Claim("Time saved per request", claim, f"{saved:,.0f} ms, task less answer", *_verdict(saved >= SAVED))


def _capacity(most: int) -> tuple[str, str]:
    if most >= CAPACITY:
        return "holds", "good"
    return "not tried: send 1,000 at once on “Try it”", ""


def _verdict(holds: bool) -> tuple[str, str]:
    return ("holds", "good") if holds else ("does not hold", "bad")
