"""`make report`: what the overview claims, measured on this machine, with a verdict for each line."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx
from oap_query import Oap, OapError
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from stack import _locust, _page
from stack._capacity import Measured, Step, measure
from stack._console import new_console
from stack._locust import Load, percentile
from stack._soak import MOST, Soak, soak
from stack._start import start
from stack._supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from stack._settings import Settings

STEPS: Final = (Step(1000, 10), Step(5000, 30), Step(10_000, 40), Step(20_000, 60))
ASLEEP: Final = Step(10_000, 60, fill=25)
QUICK_STEPS: Final = (Step(100, 4, hold=5), Step(300, 5, hold=5))
QUICK_ASLEEP: Final = Step(300, 9, fill=4)
SOAK: Final = 120.0
"""s for which tasks fail."""
QUICK_SOAK: Final = 12.0

TASK: Final = 10_000.0
"""ms that a task sleeps by default."""
AT_ONCE: Final = 100.0
"""ms within which a request must be answered."""
AIMS: Final = {1000: 25.0, 10_000: 100.0}
"""Our own aims, beyond the overview's: p99 in ms by the number of running tasks."""


@dataclass(frozen=True)
class Claim:
    """A line of the overview's table, and what is true of it."""

    name: str
    claimed: str
    measured: str
    holds: bool


class _Told:
    """Progress: a live bar on a terminal, a line for each news elsewhere."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self.bar = self.progress.add_task("", total=total)

    def begin(self, text: str) -> None:
        """Say what is done now."""
        self.update(text)
        if not self.console.is_terminal:
            self.console.print(text)

    def update(self, text: str) -> None:
        """Say how far that is."""
        self.progress.update(self.bar, description=text)

    def done(self) -> None:
        """One more is behind us."""
        self.progress.advance(self.bar)


def report(settings: Settings, *, quick: bool = False) -> int:
    """Measure, write `report.html` and `report.md`; 0 when every claim holds."""
    console = new_console()
    oap = Oap(settings.oap_url, timeout=60)
    steps, asleep = (QUICK_STEPS, QUICK_ASLEEP) if quick else (STEPS, ASLEEP)
    told = _Told(console, len(steps) + 3)
    began = time.time()
    try:
        httpx.get(f"{settings.service_url}/health/ready", timeout=5, trust_env=False).raise_for_status()
        version = oap.query("{ version }")["version"]
        with told.progress:
            told.begin("waiting users against background tasks")
            blocking, background = _compare(settings, quick=quick)
            told.done()
            measured = []
            for step in (*steps, asleep):
                told.begin(f"{step.tasks:,} tasks of {step.task_seconds:g} s" + (", asleep" if step.fill else ""))
                _fresh(settings, console)
                measured.append(measure(settings, oap, step, told.update))
                told.done()
            told.begin("tasks that fail")
            _fresh(settings, console)
            failures = soak(settings, QUICK_SOAK if quick else SOAK)
            told.done()
    except (httpx.HTTPError, OapError, OSError, RuntimeError) as error:
        console.print(f"[red]no report:[/] {escape(str(error))}. `make status` tells what is up, `make up` starts it.")
        return 1
    *awake, sleeping = measured
    claims = [*_claims(blocking, background, awake, sleeping), _flat(failures)]
    folder = settings.run_dir / "report"
    page = _page.Page(claims, awake, sleeping, version, quick, time.time() - began, failures)
    _page.write(folder, page)
    console.print(_table(claims))
    for name, fact in page.facts:
        console.print(f"{name}: {fact}")
    console.print(f"report: {escape(str(folder / 'report.html'))} and {escape(str(folder / 'report.md'))}")
    return 0 if all(claim.holds for claim in claims) else 1


def _compare(settings: Settings, *, quick: bool) -> tuple[list[float], list[float]]:
    """Return the response times (ms) of users who wait, and of users who leave a task behind."""
    load = Load("blocking-vs-background", duration=6, task_seconds=2) if quick else Load("blocking-vs-background")
    _locust.start(settings, load, quiet=True).wait()
    answered = [request for request in _locust.requests(settings, load) if request.status]
    if not answered:
        raise RuntimeError(f"Locust got no answer: {load.folder(settings) / 'locust.log'} says why")
    waited = [request.ms for request in answered if not request.tasks]
    return waited, [request.ms for request in answered if request.tasks]


def _fresh(settings: Settings, console: Console) -> None:
    """Restart the service, so that its memory is not that of the step before; only where we started it."""
    from stack._native import find  # noqa: PLC0415  # a runtime of several

    supervisor = Supervisor(settings.run_dir)
    if supervisor.process is None:
        return
    supervisor.rpc.stopProcess("service")
    console.quiet = not console.is_terminal
    try:
        up = start(console, supervisor, settings, [find(settings, "service")])
    finally:
        console.quiet = False
    if not up:
        raise RuntimeError("the service does not start again")


def _claims(blocking: list[float], background: list[float], steps: list[Measured], asleep: Measured) -> Iterator[Claim]:
    first = steps[0]
    tasks = [float(end - begin) for begin, end in first.found.tasks]
    wanted = first.step.task_seconds * 1000
    yield Claim(
        "Response time",
        "< 100 ms",
        f"median {first.p50:.1f} ms, p99 {first.p99:.1f} ms, {first.found.peak:,} tasks running",
        first.p99 < AT_ONCE,
    )
    yield Claim(
        "Background task duration",
        f"{wanted:,.0f} ms" + ("" if wanted == TASK else " (shortened)"),
        f"median {percentile(tasks, 0.5):,.0f} ms, p99 {percentile(tasks, 0.99):,.0f} ms",
        wanted <= percentile(tasks, 0.5) <= wanted + AT_ONCE,
    )
    waited, spared = percentile(blocking, 0.5), percentile(blocking, 0.5) - percentile(background, 0.5)
    yield Claim(
        "Time saved per request",
        "9,900 ms" if waited >= TASK else f"{waited - AT_ONCE:,.0f} ms (shortened)",
        f"{spared:,.0f} ms (median {waited:,.0f} ms waiting, {percentile(background, 0.5):.1f} ms not)",
        spared >= waited - AT_ONCE,
    )
    holding = [step.found.peak for step in steps if step.holds]
    yield Claim(
        "Concurrent capacity",
        "1000+ tasks" if steps[-1].step.tasks >= 1000 else f"{steps[-1].step.tasks}+ tasks (shortened)",  # noqa: PLR2004
        f"{max(holding, default=0):,} tasks at once, every request answered, every trace complete",
        max(holding, default=0) >= 0.95 * min(1000, steps[-1].step.tasks),
    )
    most = max((step.kilobytes_per_task for step in (*steps, asleep)), default=math.nan)
    yield Claim(
        "Memory per task",
        "< 1 MB",
        f"{asleep.kilobytes_per_task:.1f} KB with {asleep.found.peak:,} tasks (at most {most:.1f} KB in any step)",
        most < 1024,  # noqa: PLR2004  # KB
    )
    yield Claim(
        "CPU usage while tasks sleep",
        "minimal",
        f"{asleep.service_cpu:.1f} % of one core with {asleep.found.peak:,} tasks asleep",
        asleep.service_cpu < 10,  # noqa: PLR2004  # percent; what we take "minimal" for
    )
    for step in steps:
        if aim := AIMS.get(step.step.tasks):
            name = f"Our aim: p99 with {step.step.tasks:,} running tasks"
            yield Claim(name, f"< {aim:.0f} ms", f"{step.p99:.1f} ms", step.p99 < aim)
    sent, complete = (sum(getattr(s.found, name) for s in (*steps, asleep)) for name in ("expected", "complete"))
    yield Claim("Our aim: every trace complete in OAP", f"{sent:,}", f"{complete:,}", sent == complete)


def _flat(failures: Soak) -> Claim:
    return Claim(
        "Our aim: failures leave no memory behind",
        f"< {MOST:g} MB",
        f"{failures.growth:+.1f} MB while {failures.requests:,} requests were answered in {failures.seconds:g} s",
        failures.holds,
    )


def _table(claims: list[Claim]) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("", "claimed", "measured", "verdict"):
        table.add_column(title)
    for claim in claims:
        verdict = "[green]holds[/]" if claim.holds else "[red]does not hold[/]"
        table.add_row(claim.name, claim.claimed, claim.measured, verdict)
    return table
