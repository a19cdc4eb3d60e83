"""`make compare`: what each way to run the work costs, and what it gives."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final

import psutil

from stack.compare.rig import Rig
from stack.compare.traces import look_for
from stack.load import again_and_again, send

if TYPE_CHECKING:
    from oap_query import Oap
    from tracing_claims.variants import Variant

    from stack.compare.brokers import Kind
    from stack.settings import Settings

LOOK_SECONDS: Final = 0.2
WARM_UP: Final = 20
LONG_SECONDS: Final = 40.0
"""How long the work takes whose memory is looked at."""
SETTLE_SECONDS: Final = 10.0
TRACE_SECONDS: Final = 40.0


@dataclass(frozen=True)
class Plan:
    """How much is sent."""

    rounds: int = 2
    paced: int = 60
    """Requests with work of 0.1 s, `rate` a second: a load that none of them is at its limit with."""
    rate: float = 10.0
    burst: int = 300
    """Requests with work of 0 s, as fast as 20 clients go."""
    waiting: int = 1_500
    """Requests whose work waits: for the memory of each, and for how many of them run at once."""


QUICK: Final = Plan(rounds=1, paced=20, rate=10.0, burst=60, waiting=100)
PACED_SECONDS: Final = 0.1


@dataclass(frozen=True)
class Pace:
    """One round of one variant."""

    p50_ms: float
    p99_ms: float
    delay_p50_ms: float
    """Between the answer and the begin of the work."""
    delay_p99_ms: float
    throughput_0s: float
    cpu_ms: float
    """CPU of all processes, the broker's too, for each piece of work of the first kind."""
    complete: float
    """The share of traces in which the work has its span; NaN where OAP was not asked."""


@dataclass(frozen=True)
class Cost:
    """What a variant needs before, and while, anything waits, and where its limits are."""

    processes: int
    memory_mb: float
    start_seconds: float
    waiting_kb: float
    """Memory of all processes, the broker's too, for each piece of work that runs or waits."""
    at_once: int
    """The most work that ran at the same time."""
    offered: int
    """Of so many pieces: as many at once means that no limit was found."""


@dataclass(frozen=True)
class Found:
    """All of it, for one variant."""

    pace: Pace
    """The medians of its rounds."""
    cost: Cost
    throughput_1s: float
    """Work of 1 s that ends in a second when there is always more of it."""


def pace(rig: Rig, variant: Variant, plan: Plan, oap: Oap | None) -> Pace:
    """Measure one round.

    Raises:
        RigError, OapError: something does not answer.
    """
    asyncio.run(send(rig.url + variant.path, WARM_UP, seconds=0, at_once=5))
    rig.wait_until_idle(variant, 30)
    rig.forget()
    cpu = _Cpu(rig)
    with again_and_again(cpu.look, LOOK_SECONDS):
        sent = asyncio.run(send(rig.url + variant.path, plan.paced, seconds=PACED_SECONDS, rate=plan.rate))
        rig.wait_until_idle(variant, 30)
    cpu_seconds = cpu.used()
    times = rig.times(variant)
    milliseconds = [one.milliseconds for one in sent if one.succeeded]
    # Where the client waits for the work, it is written down as accepted after it.
    delays = [max(0.0, begun - times.accepted[one]) for one, begun in times.begun.items() if one in times.accepted]
    complete = math.nan
    if oap is not None:
        traces = [one.trace_id for one in sent if one.succeeded]
        complete = look_for(oap, variant, traces, expected=len(traces), seconds=TRACE_SECONDS).complete / len(traces)
    rig.forget()
    began = time.time()
    asyncio.run(send(rig.url + variant.path, plan.burst, seconds=0, at_once=20))
    rig.wait_until_idle(variant, 60)
    burst = rig.times(variant).done
    return Pace(
        median(milliseconds),
        _p99(milliseconds),
        median(delays),
        _p99(delays),
        len(burst) / (max(burst.values()) / 1000 - began),
        cpu_seconds / plan.paced * 1000,
        complete,
    )


def cost(settings: Settings, kind: Kind, variant: Variant, plan: Plan) -> Cost:
    """Start what a variant needs, let more work wait in it than it does at once, and end it.

    Raises:
        RigError: it does not come up.
    """
    parts = ("service", variant.process) if variant.broker else ("service",)
    began = time.monotonic()
    with Rig(settings, kind, parts=parts, broker=variant.broker, folder="cost") as rig:
        seconds = time.monotonic() - began
        asyncio.run(send(rig.url + variant.path, WARM_UP, seconds=0, at_once=5))
        rig.wait_until_idle(variant, 30)
        before = _memory_mb(rig)
        processes = sum(len(family) for family in rig.processes().values())
        rig.forget()
        peak, at_once = asyncio.run(_peak(rig, variant, plan.waiting))
        # Where the client waits for the work, nothing is accepted yet.
        waiting = len(rig.count(variant).accepted) or plan.waiting
        return Cost(processes, before, seconds, max(0.0, peak - before) * 1024 / waiting, at_once, plan.waiting)


async def _peak(rig: Rig, variant: Variant, count: int) -> tuple[float, int]:
    """Let so many pieces of work run or wait, which end long after that.

    Returns:
        The most memory meanwhile (MB), and how many of them run at once.
    """
    at_once = count if variant.name == "blocking" else 50
    sending = asyncio.create_task(send(rig.url + variant.path, count, seconds=LONG_SECONDS, at_once=at_once))
    deadline, peak = time.monotonic() + LONG_SECONDS / 2, 0.0
    while not sending.done() and time.monotonic() < deadline:
        await asyncio.sleep(LOOK_SECONDS)
        peak = max(peak, _memory_mb(rig))
    running = await _settled(rig, variant)
    peak = max(peak, _memory_mb(rig))
    sending.cancel()
    with suppress(asyncio.CancelledError):
        await sending
    return peak, running


async def _settled(rig: Rig, variant: Variant) -> int:
    """Return how much work has begun when no more of it begins; none of it has ended by then."""
    deadline, before = time.monotonic() + SETTLE_SECONDS, -1
    while (found := len(rig.count(variant).begun)) != before and time.monotonic() < deadline:
        before = found
        await asyncio.sleep(1)
    return found


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]


def _memory_mb(rig: Rig) -> float:
    total = 0.0
    for family in rig.processes().values():
        for one in family:
            with suppress(psutil.Error):
                total += one.memory_info().rss / 2**20
    return total


class _Cpu:
    """CPU time of all processes of a rig since now."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.before = self._look()
        self.now: dict[int, float] = {}

    def used(self) -> float:
        """Return the seconds that they have used; a process that has ended meanwhile up to when it was last seen."""
        self.look()
        return sum(used - self.before.get(pid, 0.0) for pid, used in self.now.items())

    def look(self) -> None:
        """See what they have used by now: one that ends takes it along."""
        self.now.update(self._look())

    def _look(self) -> dict[int, float]:
        seen = {}
        for family in self.rig.processes().values():
            for one in family:
                with suppress(psutil.Error):
                    times = one.cpu_times()
                    seen[one.pid] = times.user + times.system
        return seen
