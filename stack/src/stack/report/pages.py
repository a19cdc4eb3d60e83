"""The report as `report.md` and as one self-contained `report.html`, with pictures."""

from __future__ import annotations

import io
import math
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from stack._soak import draw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes

    from stack._capacity import Measured
    from stack._report import Claim
    from stack._soak import Soak

PACKAGES: Final = ("fastapi", "starlette", "uvicorn", "apache-skywalking", "skywalking-background", "locust")
QUIET: Final = 20.0
"""Percent of a core that others may use before the report warns of it."""
METHOD: Final = """Locust, the service (one uvicorn process), OAP and its H2 storage share this machine. Requests come
at random moments of a steady rate. The number of running tasks is that rate times a task's length (Little's law); it
is counted in OAP, from the start and the end of every task's span. Response times are Locust's, those of the seconds in
which the number of tasks stands still. The service is a fresh process at each step. Memory per task is what its
resident memory has grown by since before the load, divided by the running tasks. CPU is in percent of one core. A trace
is complete when OAP has the request's segment and one for each of its tasks; each request's trace was looked for.
In the last load a third of the tasks fail, once or for good; memory is compared from its second quarter to its last."""
STYLE: Final = """body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{border-bottom:1px solid #ddd;padding:.35rem .8rem;text-align:left}
td.yes{color:#176639;font-weight:600}td.no{color:#a4161a;font-weight:600}svg{max-width:100%;height:auto}
.steps{overflow-x:auto}.steps td,.steps th{padding:.35rem .5rem}.steps td{white-space:nowrap}"""


@dataclass(frozen=True)
class Page:
    """What is to be told; `seconds` is how long it took to find out."""

    claims: Sequence[Claim]
    steps: Sequence[Measured]
    asleep: Measured
    oap_version: str
    quick: bool
    seconds: float
    failures: Soak | None = None

    @property
    def title(self) -> str:
        """The headline, with a warning where the numbers are for a check only."""
        return "What the overview claims, measured" + (" (quick: only a check of the report itself)" * self.quick)

    @property
    def facts(self) -> Iterator[tuple[str, str]]:
        """When and where it was measured."""
        yield "when", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {self.seconds / 60:.1f} minutes"
        memory = psutil.virtual_memory().total / 2**30
        yield "machine", f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GB, {platform.platform()}"
        if (others := max(step.others_cpu for step in (*self.steps, self.asleep))) > QUIET:
            yield (
                "take care",
                f"other processes used up to {others:.0f} % of a core meanwhile: measure on a quiet machine",
            )
        yield "versions", f"Python {platform.python_version()}, OAP {self.oap_version}, " + ", ".join(_versions())

    @property
    def rows(self) -> Iterator[tuple[str, ...]]:
        """The steps, one a row, below their titles."""
        yield (
            *("running tasks", "requests/s", "requests", "failed", "median ms", "p99 ms", "slowest ms"),
            *("KB per task", "service CPU", "OAP CPU", "Locust CPU", "CPU of others", "complete traces"),
        )
        for step in (*self.steps, self.asleep):
            load = step.step.load
            yield (
                f"{step.found.peak:,}" + (" asleep" if step.step.fill else ""),
                f"{load.rate:,.0f}",
                f"{step.requests:,}",
                f"{step.failed:,}",
                *(f"{value:,.1f}" for value in (step.p50, step.p99, step.worst)),
                _known(step.kilobytes_per_task, ""),
                *(_known(value, " %") for value in (step.service_cpu, step.oap_cpu, step.locust_cpu, step.others_cpu)),
                f"{step.found.complete:,} of {step.found.expected:,}",
            )


def write(folder: Path, page: Page) -> None:
    """Write both forms and the picture into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = _draw(page)
    (folder / "report.svg").write_text(picture)
    pictures = [picture]
    if page.failures:
        pictures.append(draw(page.failures.samples, "Memory while tasks are retried and die"))
        (folder / "failures.svg").write_text(pictures[-1])
    (folder / "report.md").write_text(_markdown(page))
    (folder / "report.html").write_text(_html(page, "\n".join(one[one.index("<svg") :] for one in pictures)))


def _markdown(page: Page) -> str:
    claims = [("", "claimed", "measured", "verdict")]
    claims += [(c.name, c.claimed, c.measured, "holds" if c.holds else "**does not hold**") for c in page.claims]
    facts = "\n".join(f"- {name}: {value}" for name, value in page.facts)
    steps = _rows_as_markdown(list(page.rows))
    blocks = (f"# {page.title}", _rows_as_markdown(claims), facts, "## Step by step", steps)
    pictures = ["![Response time, memory and CPU](report.svg)"]
    pictures += ["![Memory while tasks are retried and die](failures.svg)"] if page.failures else []
    return "\n\n".join((*blocks, *pictures, "## Method", METHOD)) + "\n"


def _rows_as_markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join((lines[0], "|---" * len(rows[0]) + "|", *lines[1:]))


def _html(page: Page, picture: str) -> str:
    def line(cells: Sequence[str], tag: str = "td") -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    claims = [line(("", "claimed", "measured", "verdict"), "th")]
    for claim in page.claims:
        verdict = '<td class="yes">holds</td>' if claim.holds else '<td class="no">does not hold</td>'
        row = line((claim.name, claim.claimed, claim.measured))
        claims.append(row.removesuffix("</tr>") + verdict + "</tr>")
    titles, *rows = page.rows
    return "\n".join(
        (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(page.title)}</title>',
            f"<style>{STYLE}</style><h1>{escape(page.title)}</h1>",
            f"<table>{''.join(claims)}</table>",
            f"<table>{''.join(line(fact) for fact in page.facts)}</table>",
            "<h2>Step by step</h2>",
            f"<div class=steps><table>{line(titles, 'th')}{''.join(map(line, rows))}</table></div>",
            picture,
            f"<h2>Method</h2><p>{escape(METHOD)}</p></html>\n",
        )
    )


def _draw(page: Page) -> str:
    import matplotlib as mpl  # noqa: PLC0415  # slow to import, and of no use while measuring

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, ((times, course), (memory, cpu)) = plt.subplots(2, 2, figsize=(12, 7.5), layout="constrained")
    tasks = [step.found.peak for step in page.steps]
    times.plot(tasks, [step.p50 for step in page.steps], marker="o", label="median")
    times.plot(tasks, [step.p99 for step in page.steps], marker="o", label="p99")
    times.axhline(100, color="grey", linestyle="--", label="claimed: < 100 ms")
    _label(times, "Response time by running tasks", "running tasks", "ms")
    times.set_yscale("log")
    last = page.steps[-1]
    course.plot(*zip(*last.times, strict=True), ".", markersize=1.5, alpha=0.5, label="each request", rasterized=True)
    course.set_yscale("log")
    _label(course, f"Response time on the way to {last.found.peak:,} tasks", "s since the load began", "ms")
    memory.plot(tasks, [step.memory for step in page.steps], marker="o", label="with the tasks")
    memory.plot(tasks, [step.memory_before for step in page.steps], marker="o", label="before")
    _label(memory, "Memory of the service", "running tasks", "MB")
    for part, samples in page.asleep.samples.items():
        pairs = list(zip(samples[:-2], samples[2:], strict=True))
        used = [(b.cpu - a.cpu) / (b.time - a.time) * 100 for a, b in pairs]
        cpu.plot([b.time - page.asleep.began for _, b in pairs], used, label=part)
    step = page.asleep.step
    cpu.axvspan(step.fill or 0, step.task_seconds, color="grey", alpha=0.15, label="tasks sleep")
    _label(cpu, f"CPU: {page.asleep.found.peak:,} tasks start, sleep and end", "s", "% of one core")
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
