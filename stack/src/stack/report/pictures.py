"""The picture of the report."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from tracing_claims import RESPONSE_LIMIT_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from stack.report.capacity import Measured


def draw_report(steps: Sequence[Measured], asleep: Measured) -> str:
    """Draw response times, memory and CPU as an SVG."""
    import matplotlib as mpl  # noqa: PLC0415  # slow to import, and of no use while measuring

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, ((times, course), (memory, cpu)) = plt.subplots(2, 2, figsize=(12, 7.5), layout="constrained")
    tasks = [step.found.peak for step in steps]
    times.plot(tasks, [step.p50_ms for step in steps], marker="o", label="median")
    times.plot(tasks, [step.p99_ms for step in steps], marker="o", label="p99")
    claimed = f"claimed: < {RESPONSE_LIMIT_MS} ms"
    times.axhline(RESPONSE_LIMIT_MS, color="grey", linestyle="--", label=claimed)
    _label(times, "Response time by running tasks", "running tasks", "ms")
    times.set_yscale("log")
    last = steps[-1]
    course.plot(*zip(*last.times, strict=True), ".", markersize=1.5, alpha=0.5, label="each request", rasterized=True)
    course.set_yscale("log")
    _label(course, f"Response time on the way to {last.found.peak:,} tasks", "s since the load began", "ms")
    memory.plot(tasks, [step.memory_mb for step in steps], marker="o", label="with the tasks")
    memory.plot(tasks, [step.memory_before_mb for step in steps], marker="o", label="before")
    _label(memory, "Memory of the service", "running tasks", "MB")
    for part, samples in asleep.samples.items():
        pairs = list(zip(samples[:-2], samples[2:], strict=True))
        used = [(b.cpu_seconds - a.cpu_seconds) / (b.time - a.time) * 100 for a, b in pairs]
        cpu.plot([b.time - asleep.began for _, b in pairs], used, label=part)
    step = asleep.step
    cpu.axvspan(step.fill_seconds or 0, step.task_seconds, color="grey", alpha=0.15, label="tasks sleep")
    _label(cpu, f"CPU: {asleep.found.peak:,} tasks start, sleep and end", "s", "% of one core")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=200)
    plt.close(figure)
    return buffer.getvalue()


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.legend()
