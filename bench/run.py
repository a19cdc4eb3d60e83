"""`make bench`: what tracing costs a service whose requests leave background tasks behind.

Every round runs each variant once, in turn, each in fresh processes: what the machine does meanwhile hits all alike.
CPU seconds (of all threads) and memory are the service's own; sink and load generator are processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from driver import HERE, WARM_UP, Service, serve
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from stack.settings import exempt_loopback
from variants import VARIANTS

TASK_SECONDS = 10.0
PEERS = ("untraced", "agent", "ours", "fastapi", "contrib", "untraced+gc", "ours+gc")
"""What runs unless something else is asked for; what the library's own features cost says features.py."""
RATES = {1000: 500, 2000: 500, 10000: 1000}
"""Requests per second by the number of tasks: all of them are to run at the same time."""


@dataclass
class Result:
    """One run: CPU in s per 1,000 requests, times in ms, memory in KB per running task."""

    variant: str
    tasks: int
    cpu_answered: float
    cpu: float
    p50: float
    p99: float
    memory: float
    spans: float  # per request, its task included
    peak: int
    failed: int
    spans_made: int
    spans_arrived: int


def run(variant: str, tasks: int) -> Result:
    """Measure one variant once."""
    with serve(variant) as service:
        measured = _measure(service, tasks)
    spans = service.spans_made / (WARM_UP + tasks)
    counts = {"spans_made": service.spans_made, "spans_arrived": service.spans_arrived}
    return Result(variant, tasks, **measured, spans=spans, **counts)


def _measure(service: Service, tasks: int) -> dict[str, Any]:
    before, memory = service.cpu(), service.process.memory_info().rss
    loaded = service.load(TASK_SECONDS, tasks, RATES[tasks])
    answered = service.cpu()
    grown = service.process.memory_info().rss - memory
    while (now := service.stats())["running"]:
        grown = max(grown, service.process.memory_info().rss - memory)
        time.sleep(0.5)
    time.sleep(2)  # until the last batch is delivered
    after = service.cpu()
    times = sorted(loaded["times"])
    return {
        "cpu_answered": (answered - before) / tasks * 1000,
        "cpu": (after - before) / tasks * 1000,
        "p50": statistics.median(times),
        "p99": times[int(len(times) * 0.99)],
        "memory": grown / now["peak"] / 1024,
        "peak": now["peak"],
        "failed": loaded["failed"],
    }


def main() -> None:
    """Run all rounds, print the table, write the numbers and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=list(RATES), choices=list(RATES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", default=list(PEERS), choices=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=HERE.parent / ".run" / "bench")
    arguments = parser.parse_args()
    exempt_loopback()
    results: list[Result] = []
    console = Console(width=None if sys.stdout.isatty() else 160)
    with Progress(console=console) as progress:
        bar = progress.add_task("", total=len(arguments.tasks) * arguments.rounds * len(arguments.variants))
        for tasks in arguments.tasks:
            for number in range(arguments.rounds):
                for variant in arguments.variants:
                    progress.update(bar, description=f"{tasks:,} tasks, round {number + 1}: {variant}")
                    results.append(run(variant, tasks))
                    progress.advance(bar)
    for tasks in arguments.tasks:
        mine = [result for result in results if result.tasks == tasks]
        console.print(_table(tasks, arguments.variants, mine))
    console.print(_setups(arguments.variants))
    arguments.out.mkdir(parents=True, exist_ok=True)
    document = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "variants": {
            name: {
                "setup": VARIANTS[name].setup,
                "versions": {package: version(package) for package in VARIANTS[name].packages},
            }
            for name in arguments.variants
        },
        "results": [asdict(result) for result in results],
    }
    (arguments.out / "bench.json").write_text(json.dumps(document, indent=1))
    _draw(results, arguments.variants, arguments.out / "bench.png")
    console.print(f"numbers and picture: {arguments.out}")


def _table(tasks: int, variants: list[str], results: list[Result]) -> Table:
    table = Table(title=f"{tasks:,} tasks of {TASK_SECONDS:.0f} s, {RATES[tasks]}/s: medians (lowest to highest)")
    titles = ("spans", "CPU s per 1,000", "overhead", "of plugin's", "of OTel", "p50 ms", "p99 ms", "KB / task")
    table.add_column("")
    for title in (*titles, "arrived"):
        table.add_column(title, justify="right")
    cpu = {name: statistics.median(r.cpu for r in results if r.variant == name) for name in variants}
    for name in variants:
        mine = [result for result in results if result.variant == name]

        def spread(field: str, digits: int, mine: list[Result] = mine) -> str:
            values = sorted(getattr(result, field) for result in mine)
            if len(values) == 1:
                return f"{values[0]:.{digits}f}"
            return f"{statistics.median(values):.{digits}f} ({values[0]:.{digits}f} to {values[-1]:.{digits}f})"

        arrived, made = (sum(getattr(r, field) for r in mine) for field in ("spans_arrived", "spans_made"))
        figures = (spread("p50", 1), spread("p99", 1), spread("memory", 1), f"{arrived:,} of {made:,}")
        spans = f"{statistics.mean(result.spans for result in mine):.2f}"
        table.add_row(VARIANTS[name].label, spans, spread("cpu", 3), *ratios(name, cpu), *figures)
    return table


def ratios(name: str, cpu: dict[str, float]) -> tuple[str, str, str]:
    """Compare a variant's CPU with its baseline, with what the plugin adds, and with OpenTelemetry's total.

    OpenTelemetry's is that of the cheapest variant among those that were run; each of them makes a span for the task.
    """
    baseline = VARIANTS[name].baseline
    overhead = cpu[name] - cpu[baseline] if baseline in cpu and name != baseline else None
    plugin = cpu["agent"] - cpu["untraced"] if {"agent", "untraced"} <= cpu.keys() else None
    cheapest = min((cpu[other] for other in cpu if VARIANTS[other].opentelemetry), default=None)
    return (
        "" if overhead is None else f"{overhead:.3f}",
        "" if overhead is None or not plugin else f"{overhead / plugin:.2f}",
        "" if cheapest is None else f"{cpu[name] / cheapest:.2f}",
    )


def _setups(variants: list[str]) -> Table:
    table = Table("", "set-up", "versions", title="each as its own documentation sets it up", show_lines=True)
    for name in variants:
        variant = VARIANTS[name]
        versions = "\n".join(f"{package} {version(package)}" for package in variant.packages)
        table.add_row(variant.label, variant.setup, versions)
    return table


def _draw(results: list[Result], variants: list[str], path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415  # slow to import, and of no use in the rounds

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    panels = {"cpu": "CPU s per 1,000 requests", "p99": "p99 response time, ms", "memory": "KB per running task"}
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 4), layout="constrained")
    counts = sorted({result.tasks for result in results})
    for axis, (field, title) in zip(axes, panels.items(), strict=True):
        for place, variant in enumerate(variants):
            values = [
                [getattr(r, field) for r in results if (r.tasks, r.variant) == (count, variant)] for count in counts
            ]
            middles = [statistics.median(value) for value in values]
            errors = [
                [middle - min(value) for middle, value in zip(middles, values, strict=True)],
                [max(value) - middle for middle, value in zip(middles, values, strict=True)],
            ]
            width = 0.8 / len(variants)
            positions = [index + place * width for index in range(len(counts))]
            look = VARIANTS[variant]
            axis.bar(positions, middles, width, yerr=errors, label=look.label, color=look.color, capsize=2)
        axis.set_title(title)
        axis.set_xticks([index + 0.4 for index in range(len(counts))], [f"{count:,} tasks" for count in counts])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
