"""The report as `report.md` and as one self-contained `report.html`, with pictures."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
from jinja2 import Environment, PackageLoader

from stack.load import draw_memory
from stack.report.pictures import draw_report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stack.report.capacity import Measured
    from stack.report.soak import Soak
    from stack.report.verdicts import Verdict

PACKAGES: Final = ("fastapi", "starlette", "uvicorn", "apache-skywalking", "skywalking-background", "locust")
OTHERS_CPU_LIMIT_PERCENT: Final = 20.0
"""The report warns when other processes use more than this share of a core."""
METHOD: Final = """Locust, the service (one uvicorn process), OAP and its H2 storage share this machine. Requests come
at random moments of a steady rate. The number of running tasks is that rate times a task's length (Little's law); it
is counted in OAP, from the start and the end of every task's span. Response times are Locust's, those of the seconds in
which the number of tasks stands still. The service is a fresh process at each step. Memory per task is what its
resident memory has grown by since before the load, divided by the running tasks. CPU is in percent of one core. A trace
is complete when OAP has the request's segment and one for each of its tasks; each request's trace was looked for.
In the last load a third of the tasks fail, once or for good; memory is compared from its second quarter to its last."""


@dataclass(frozen=True)
class Page:
    """The content of the report; `seconds` is how long the measurements took."""

    verdicts: Sequence[Verdict]
    steps: Sequence[Measured]
    asleep: Measured
    oap_version: str
    quick: bool
    seconds: float
    failures: Soak | None = None

    @property
    def title(self) -> str:
        """The headline, with a warning where the numbers are for a check only."""
        return "What the product claims, measured" + (" (quick: only a check of the report itself)" * self.quick)

    @property
    def facts(self) -> Iterator[tuple[str, str]]:
        """When and where it was measured."""
        yield "when", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {self.seconds / 60:.1f} minutes"
        memory = psutil.virtual_memory().total / 2**30
        yield "machine", f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GB, {platform.platform()}"
        if (others := max(step.others_cpu_percent for step in (*self.steps, self.asleep))) > OTHERS_CPU_LIMIT_PERCENT:
            yield (
                "warning",
                f"other processes used up to {others:.0f} % of a core: measure on a quiet machine",
            )
        yield "versions", f"Python {platform.python_version()}, OAP {self.oap_version}, " + ", ".join(_versions())

    @property
    def rows(self) -> Iterator[tuple[str, ...]]:
        """A row of titles, then one row for each step."""
        yield (
            *("running tasks", "requests/s", "requests", "failed", "median ms", "p99 ms", "slowest ms"),
            *("KB per task", "service CPU", "OAP CPU", "Locust CPU", "CPU of others", "complete traces"),
        )
        for step in (*self.steps, self.asleep):
            load = step.step.load
            cpus = (
                step.service_cpu_percent,
                step.oap_cpu_percent,
                step.locust_cpu_percent,
                step.others_cpu_percent,
            )
            yield (
                f"{step.found.peak:,}" + (" asleep" if step.step.fill_seconds else ""),
                f"{load.rate:,.0f}",
                f"{step.requests:,}",
                f"{step.failed:,}",
                *(f"{value:,.1f}" for value in (step.p50_ms, step.p99_ms, step.worst_ms)),
                _known(step.kb_per_task, ""),
                *(_known(value, " %") for value in cpus),
                f"{step.found.complete:,} of {step.found.expected:,}",
            )


def write(folder: Path, page: Page) -> None:
    """Write both forms and the pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"report.svg": draw_report(page.steps, page.asleep)}
    if page.failures:
        pictures["failures.svg"] = draw_memory(page.failures.samples, "Memory while tasks are retried and die")
    for name, picture in pictures.items():
        (folder / name).write_text(picture)
    (folder / "report.md").write_text(_markdown(page))
    svgs = [picture[picture.index("<svg") :] for picture in pictures.values()]
    template = Environment(loader=PackageLoader("stack.report"), autoescape=True).get_template("report.html.j2")
    (folder / "report.html").write_text(template.render(page=page, rows=list(page.rows), pictures=svgs, method=METHOD))


def _markdown(page: Page) -> str:
    verdicts = [("", "claimed", "measured", "verdict")]
    verdicts += [
        (one.name, one.claimed, one.measured, "holds" if one.holds else "**does not hold**") for one in page.verdicts
    ]
    facts = "\n".join(f"- {name}: {value}" for name, value in page.facts)
    steps = _rows_as_markdown(list(page.rows))
    blocks = (f"# {page.title}", _rows_as_markdown(verdicts), facts, "## Step by step", steps)
    pictures = ["![Response time, memory and CPU](report.svg)"]
    pictures += ["![Memory while tasks are retried and die](failures.svg)"] if page.failures else []
    return "\n\n".join((*blocks, *pictures, "## Method", METHOD)) + "\n"


def _rows_as_markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join((lines[0], "|---" * len(rows[0]) + "|", *lines[1:]))


def _known(value: float, unit: str) -> str:
    return "not measured" if math.isnan(value) else f"{value:,.1f}{unit}"


def _versions() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
