"""`make load`: a scenario without Locust's web page, then what OAP says of it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from oap_query import Oap, OapError
from rich.markup import escape
from rich.table import Table

from stack.load.chaos import Chaos
from stack.load.locust import check_scenario, percentile, read_requests, scenarios, start_locust
from stack.load.memory import draw_memory, growth_mb
from stack.load.meter import Meter
from stack.load.traces import wait_for_traces
from stack.terminal import new_console

if TYPE_CHECKING:
    from rich.console import Console

    from stack.document import Found
    from stack.load.locust import Load, Request
    from stack.load.traces import TraceCount
    from stack.settings import Settings

NEWS_SECONDS: Final = 10.0
"""Time between two lines about the same wait, where there is no terminal."""
NOT_RUN: Final = 2
"""Locust's exit code for what it could not even start."""


def load(settings: Settings, wanted: Load, told: Found | None = None) -> int:
    """Load the running service and look for every trace; 0 when all limits hold and no segment is missing.

    Args:
        settings: of the running stack.
        wanted: the scenario, and what of it is changed. `list` lists all.
        told: gets `scenario`, and of a load `limits_hold` (whether Locust's own limits held), `requests` (`sent`,
            `failed`, `p50_ms`, `p99_ms`), `traces` (`expected`, `found`, `complete`), `lost_segments`, `tasks`
            (`started`, `ran`, `at_once`), `parts` (of each, natively, `cpu_percent` of one core, and `memory_mb` at
            most, both null where unknown) and `results` (the folder); of `list` `scenarios` (a line for each name);
            `error` where the load or its traces could not be had.
    """
    console, told = new_console(), {} if told is None else told
    told["scenario"] = wanted.scenario
    if wanted.scenario == "list":
        told["scenarios"] = scenarios()
        _list(console)
        return 0
    check_scenario(wanted)
    oap = Oap(settings.oap_url)
    if not oap.healthy():
        told["error"] = f"OAP at {settings.oap_url} does not answer"
        console.print(f"[red]{told['error']}:[/] `make up` starts the stack.")
        return 1
    chaos = Chaos(settings, console) if wanted.scenario == "chaos" else None
    with Meter(settings) as meter:
        code = _run(console, settings, wanted, chaos)
        if code >= NOT_RUN:
            told["error"] = f"the load ended with exit code {code}"
            console.print(f"[red]{told['error']};[/] the reason is above.")
            return 1
        requests = read_requests(settings, wanted)
        try:
            found = _wait_for_traces(console, oap, settings.service_name, requests)
        except OapError as error:
            told["error"] = f"the traces can't be counted: {error}"
            console.print(
                f"[red]the traces can't be counted:[/] {escape(str(error))}. `make logs PART=oap` may show the reason."
            )
            return 1
    told.update(limits_hold=code == 0, **_describe(requests, found, meter), results=str(wanted.folder(settings)))
    _print_summary(console, requests, found, meter)
    console.print(f"Locust's report: {escape(str(wanted.folder(settings) / 'locust.html'))}")
    if meter.samples["service"]:
        picture = wanted.folder(settings) / "memory.svg"
        picture.write_text(draw_memory(meter.samples, f"Memory during {wanted.scenario}"))
        console.print(f"memory of service and OAP: {escape(str(picture))}")
    if chaos:
        return chaos.judge(requests, found)
    if not found.is_complete:
        console.print(f"[red]{found.lost:,} segments are missing[/]: `make logs PART=service` shows what was dropped")
    return 0 if code == 0 and found.is_complete and found.expected else 1


def _run(console: Console, settings: Settings, wanted: Load, chaos: Chaos | None) -> int:
    """Let Locust run to its end; return its exit code, `NOT_RUN` where the faults could not be caused."""
    process = start_locust(settings, wanted)
    try:
        if chaos:
            chaos.play(process)
    except RuntimeError as error:
        console.print(f"[red]chaos ends here:[/] {escape(str(error))}. `make status` shows what runs.")
        process.wait()
        return NOT_RUN
    return process.wait()


def _wait_for_traces(console: Console, oap: Oap, service: str, requests: list[Request]) -> TraceCount:
    """Wait for the traces of a run, and show the progress.

    Raises:
        OapError: OAP does not answer.
    """
    news = time.monotonic() + NEWS_SECONDS
    with console.status("waiting for the last background tasks and their traces") as status:

        def show(found: TraceCount) -> None:
            nonlocal news
            line = f"complete traces in OAP: {found.complete:,} of {found.expected:,}"
            status.update(line)
            if not console.is_terminal and time.monotonic() > news:
                console.print(line)
                news = time.monotonic() + NEWS_SECONDS

        return wait_for_traces(oap, service, requests, show)


def _list(console: Console) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, line in scenarios().items():
        table.add_row(name, line)
    console.print(table)


def _describe(requests: list[Request], found: TraceCount, meter: Meter) -> Found:
    times = [request.ms for request in requests if request.status]
    window = (requests[0].start, requests[-1].end) if requests else (0.0, 0.0)
    return {
        "requests": {
            "sent": len(requests),
            "failed": sum(bool(request.error) for request in requests),
            "p50_ms": percentile(times, 0.5),
            "p99_ms": percentile(times, 0.99),
        },
        "traces": {"expected": found.expected, "found": found.traces, "complete": found.complete},
        "lost_segments": found.lost,
        "tasks": {
            "started": sum(request.tasks for request in requests if request.trace_id),
            "ran": len(found.tasks),
            "at_once": found.peak,
        },
        "parts": {
            part: {"cpu_percent": meter.cpu_percent(part, *window), "memory_mb": meter.memory_mb(part, *window)}
            for part in meter.samples
        },
    }


def _print_summary(console: Console, requests: list[Request], found: TraceCount, meter: Meter) -> None:
    """Print what was sent, what OAP has of it, and what it cost."""
    times = [request.ms for request in requests if request.status]
    failed = sum(bool(request.error) for request in requests)
    p50, p99 = (percentile(times, share) for share in (0.5, 0.99))
    expected = sum(request.tasks for request in requests if request.trace_id)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("requests sent", f"{len(requests):,}", f"failed {failed:,}, median {p50:.1f} ms, p99 {p99:.1f} ms")
    table.add_row("traces found", f"{found.traces:,}", f"complete {found.complete:,} of {found.expected:,}")
    table.add_row("tasks that ran", f"{len(found.tasks):,}", f"of {expected:,} that were started")
    table.add_row("parallel tasks", f"{found.peak:,}", "at the peak")
    table.add_row("lost segments", f"{found.lost:,}", "")
    if requests:
        window = (requests[0].start, requests[-1].end)
        for part in ("service", "oap"):
            cpu, memory = meter.cpu_percent(part, *window), meter.memory_mb(part, *window)
            if not math.isnan(cpu):
                grown = growth_mb([one for one in meter.samples[part] if window[0] <= one.time <= window[1]])
                change = "" if math.isnan(grown) else f", {grown:+,.0f} MB from its first quarter to its last"
                table.add_row(part, f"{cpu:.0f} %", f"of one core during the load, {memory:,.0f} MB at most{change}")
    console.print(table)
