"""`make report`: what the product claims, measured on this machine, with a verdict for each claim."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import httpx
from oap_query import Oap, OapError
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from stack.load import Load, read_requests, start_locust
from stack.report.capacity import Step, measure
from stack.report.pages import Page, write
from stack.report.soak import soak
from stack.report.verdicts import judge_load, judge_soak
from stack.runtime import NativeRuntime, problem_of
from stack.terminal import new_console

if TYPE_CHECKING:
    from rich.console import Console

    from stack.report.verdicts import Verdict
    from stack.settings import Settings

STEPS: Final = (Step(1000, 10), Step(5000, 30), Step(10_000, 40), Step(20_000, 60))
ASLEEP: Final = Step(10_000, 60, fill_seconds=25)
QUICK_STEPS: Final = (Step(100, 4, hold_seconds=5), Step(300, 5, hold_seconds=5))
QUICK_ASLEEP: Final = Step(300, 9, fill_seconds=4)
SOAK_SECONDS: Final = 120.0
QUICK_SOAK_SECONDS: Final = 12.0


class _ProgressBar:
    """A live bar on a terminal; elsewhere a line for each step."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self.bar = self.progress.add_task("", total=total)

    def begin(self, text: str) -> None:
        """Begin a step."""
        self.update(text)
        if not self.console.is_terminal:
            self.console.print(text)

    def update(self, text: str) -> None:
        """Show what the step does now; on a terminal only."""
        self.progress.update(self.bar, description=text)

    def finish(self) -> None:
        """End a step."""
        self.progress.advance(self.bar)


def report(settings: Settings, *, quick: bool = False) -> int:
    """Measure, write `report.html` and `report.md`; 0 when every claim holds."""
    console = new_console()
    oap = Oap(settings.oap_url, timeout=60)
    steps, asleep = (QUICK_STEPS, QUICK_ASLEEP) if quick else (STEPS, ASLEEP)
    bar = _ProgressBar(console, len(steps) + 3)
    began = time.time()
    try:
        ready = httpx.get(f"{settings.service_url}/health/ready", timeout=5, trust_env=False)
        if not ready.is_success:
            console.print(f"[red]no report:[/] the service {escape(problem_of(ready))}")
            return 1
        version = oap.query("{ version }")["version"]
        with bar.progress:
            bar.begin("users who wait, and users who leave a task behind")
            blocking_ms, background_ms = _compare(settings, quick=quick)
            bar.finish()
            measured = []
            for step in (*steps, asleep):
                bar.begin(
                    f"{step.tasks:,} tasks of {step.task_seconds:g} s" + (", asleep" if step.fill_seconds else "")
                )
                _restart_service(settings)
                measured.append(measure(settings, oap, step, bar.update))
                bar.finish()
            bar.begin("tasks that fail")
            _restart_service(settings)
            failures = soak(settings, QUICK_SOAK_SECONDS if quick else SOAK_SECONDS)
            bar.finish()
    except (httpx.HTTPError, OapError, OSError, RuntimeError) as error:
        console.print(
            f"[red]no report:[/] {escape(str(error))}. `make status` shows what runs, `make up` starts the stack."
        )
        return 1
    *awake, sleeping = measured
    verdicts = [*judge_load(blocking_ms, background_ms, awake, sleeping), judge_soak(failures)]
    folder = settings.run_dir / "report"
    page = Page(verdicts, awake, sleeping, version, quick, time.time() - began, failures)
    write(folder, page)
    console.print(_table(verdicts))
    for name, fact in page.facts:
        console.print(f"{name}: {fact}")
    console.print(f"report: {escape(str(folder / 'report.html'))} and {escape(str(folder / 'report.md'))}")
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def _compare(settings: Settings, *, quick: bool) -> tuple[list[float], list[float]]:
    """Return the response times in ms of users who wait, and of users who leave a task behind."""
    name = "blocking-vs-background"
    load = Load(name, duration_seconds=6, task_seconds=2) if quick else Load(name)
    start_locust(settings, load, quiet=True).wait()
    answered = [request for request in read_requests(settings, load) if request.status]
    if not answered:
        raise RuntimeError(f"Locust got no answer: {load.folder(settings) / 'locust.log'} says why")
    waited = [request.ms for request in answered if not request.tasks]
    return waited, [request.ms for request in answered if request.tasks]


def _restart_service(settings: Settings) -> None:
    """Let the service have no memory of the step before. In containers it runs on, as its memory is not measured."""
    runtime = NativeRuntime(settings)
    if runtime.is_up:
        runtime.restart_quietly("service")


def _table(verdicts: list[Verdict]) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("", "claimed", "measured", "verdict"):
        table.add_column(title)
    for verdict in verdicts:
        word = "[green]holds[/]" if verdict.holds else "[red]does not hold[/]"
        table.add_row(verdict.name, verdict.claimed, verdict.measured, word)
    return table
