"""The claims of `docs/claims.md`, and whether the measurements confirm them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracing_claims import (
    AIM_MEMORY_GROWTH_MB,
    AIM_P99_MS,
    CONCURRENT_TASKS,
    MEMORY_PER_TASK_LIMIT_KB,
    RESPONSE_LIMIT_MS,
    SAVED_MS,
    SLEEPING_CPU_LIMIT_PERCENT,
    TASK_MS,
)

from stack.load import percentile
from stack.report.capacity import REACHED_SHARE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stack.report.capacity import Measured
    from stack.report.soak import Soak


@dataclass(frozen=True)
class Verdict:
    """A claim, what was measured, and whether the claim holds."""

    name: str
    claimed: str
    measured: str
    holds: bool


def judge_load(
    blocking_ms: list[float], background_ms: list[float], steps: Sequence[Measured], asleep: Measured
) -> Iterator[Verdict]:
    """Judge the claims about requests and their tasks.

    Args:
        blocking_ms: response times of users who wait for the work.
        background_ms: response times of users who leave a task behind.
        steps: measurements with rising numbers of running tasks.
        asleep: a measurement while all tasks only sleep.
    """
    first = steps[0]
    tasks_ms = [float(end - begin) for begin, end in first.found.tasks]
    wanted_ms = first.step.task_seconds * 1000
    yield Verdict(
        "Response time",
        f"< {RESPONSE_LIMIT_MS} ms",
        f"median {first.p50_ms:.1f} ms, p99 {first.p99_ms:.1f} ms, {first.found.peak:,} tasks running",
        first.p99_ms < RESPONSE_LIMIT_MS,
    )
    yield Verdict(
        "Background task duration",
        f"{wanted_ms:,.0f} ms" + ("" if wanted_ms == TASK_MS else " (shortened)"),
        f"median {percentile(tasks_ms, 0.5):,.0f} ms, p99 {percentile(tasks_ms, 0.99):,.0f} ms",
        wanted_ms <= percentile(tasks_ms, 0.5) <= wanted_ms + RESPONSE_LIMIT_MS,
    )
    waited_ms, saved_ms = percentile(blocking_ms, 0.5), percentile(blocking_ms, 0.5) - percentile(background_ms, 0.5)
    yield Verdict(
        "Time saved per request",
        f"{SAVED_MS:,} ms" if waited_ms >= TASK_MS else f"{waited_ms - RESPONSE_LIMIT_MS:,.0f} ms (shortened)",
        f"{saved_ms:,.0f} ms (median {waited_ms:,.0f} ms waiting, {percentile(background_ms, 0.5):.1f} ms not)",
        saved_ms >= waited_ms - RESPONSE_LIMIT_MS,
    )
    most_wanted = steps[-1].step.tasks
    holding = [step.found.peak for step in steps if step.holds]
    yield Verdict(
        "Concurrent capacity",
        f"{CONCURRENT_TASKS}+ tasks" if most_wanted >= CONCURRENT_TASKS else f"{most_wanted}+ tasks (shortened)",
        f"{max(holding, default=0):,} tasks at once, every request answered, every trace complete",
        max(holding, default=0) >= REACHED_SHARE * min(CONCURRENT_TASKS, most_wanted),
    )
    most_kb = max((step.kb_per_task for step in (*steps, asleep)), default=math.nan)
    yield Verdict(
        "Memory per task",
        "< 1 MB",
        f"{asleep.kb_per_task:.1f} KB with {asleep.found.peak:,} tasks (at most {most_kb:.1f} KB in any step)",
        most_kb < MEMORY_PER_TASK_LIMIT_KB,
    )
    yield Verdict(
        "CPU usage while tasks sleep",
        f"minimal (< {SLEEPING_CPU_LIMIT_PERCENT} %)",
        f"{asleep.service_cpu_percent:.1f} % of one core with {asleep.found.peak:,} tasks asleep",
        asleep.service_cpu_percent < SLEEPING_CPU_LIMIT_PERCENT,
    )
    for step in steps:
        if aim := AIM_P99_MS.get(step.step.tasks):
            name = f"Our aim: p99 with {step.step.tasks:,} running tasks"
            yield Verdict(name, f"< {aim} ms", f"{step.p99_ms:.1f} ms", step.p99_ms < aim)
    sent, complete = (sum(getattr(s.found, name) for s in (*steps, asleep)) for name in ("expected", "complete"))
    yield Verdict("Our aim: every trace complete in OAP", f"{sent:,}", f"{complete:,}", sent == complete)


def judge_soak(failures: Soak) -> Verdict:
    """Judge whether failing tasks leave memory behind."""
    return Verdict(
        "Our aim: failures leave no memory behind",
        f"< {AIM_MEMORY_GROWTH_MB} MB",
        f"{failures.growth_mb:+.1f} MB while {failures.requests:,} requests were answered in {failures.seconds:g} s",
        failures.holds,
    )
