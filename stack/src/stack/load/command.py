"""`make load`: a scenario without Locust's web page, then what OAP says of it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from oap_query import Oap, OapError
from rich.markup import escape
from rich.table import Table

from stack import _found, _locust, _soak
from stack._chaos import Chaos
from stack._console import new_console
from stack._meter import Meter

if TYPE_CHECKING:
    from rich.console import Console

    from stack._found import Found
    from stack._locust import Load, Request
    from stack._settings import Settings

NEWS: Final = 10.0
"""s between two lines about the same wait, where there is no terminal."""
NOT_RUN: Final = 2
"""Locust's exit code for what it could not even start."""


def load(settings: Settings, wanted: Load) -> int:
    """Load the running service and look for every trace; 0 when all limits hold and nothing is missing."""
    console = new_console()
    if wanted.scenario == "list":
        _list(console)
        return 0
    _locust.check(wanted)
    oap = Oap(settings.oap_url)
    if not oap.healthy():
        console.print(f"[red]OAP at {settings.oap_url} does not answer:[/] `make status` tells, `make up` starts it.")
        return 1
    chaos = Chaos(settings, console) if wanted.scenario == "chaos" else None
    with Meter(settings) as meter:
        code = _run(console, settings, wanted, chaos)
        if code >= NOT_RUN:
            console.print(f"[red]the load ended with code {code}[/] and says why above.")
            return 1
        requests = _locust.requests(settings, wanted)
        try:
            found = look(console, oap, settings.service_name, requests)
        except OapError as error:
            console.print(
                f"[red]the traces can't be counted:[/] {escape(str(error))}. `make logs PART=oap` may tell why."
            )
            return 1
    _tell(console, requests, found, meter)
    console.print(f"Locust's report: {escape(str(wanted.folder(settings) / 'locust.html'))}")
    if meter.samples["service"]:
        picture = wanted.folder(settings) / "memory.svg"
        picture.write_text(_soak.draw(meter.samples, f"Memory during {wanted.scenario}"))
        console.print(f"memory of service and OAP: {escape(str(picture))}")
    if chaos:
        return chaos.judge(requests, found)
    if not found.whole:
        console.print(f"[red]{found.lost:,} segments are missing[/]: `make logs PART=service` tells what was dropped")
    return 0 if code == 0 and found.whole and found.expected else 1


def _run(console: Console, settings: Settings, wanted: Load, chaos: Chaos | None) -> int:
    """Let Locust run to its end; return its exit code, `NOT_RUN` where the faults could not be played."""
    process = _locust.start(settings, wanted)
    try:
        if chaos:
            chaos.play(process)
    except RuntimeError as error:
        console.print(f"[red]chaos ends here:[/] {escape(str(error))}. `make status` tells what is up.")
        process.wait()
        return NOT_RUN
    return process.wait()


def look(console: Console, oap: Oap, service: str, requests: list[Request]) -> Found:
    """Wait for the traces of a run, and say how far it is.

    Raises:
        OapError: OAP does not answer.
    """
    news = time.monotonic() + NEWS
    with console.status("waiting for the last background tasks and their traces") as status:

        def tell(found: Found) -> None:
            nonlocal news
            line = f"complete traces in OAP: {found.complete:,} of {found.expected:,}"
            status.update(line)
            if not console.is_terminal and time.monotonic() > news:
                console.print(line)
                news = time.monotonic() + NEWS

        return _found.wait(oap, service, requests, tell)


def _list(console: Console) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, line in _locust.scenarios().items():
        table.add_row(name, line)
    console.print(table)


def _tell(console: Console, requests: list[Request], found: Found, meter: Meter) -> None:
    """Say in one table what was sent, what came of it, and what it cost."""
    times = [request.ms for request in requests if request.status]
    failed = sum(bool(request.error) for request in requests)
    p50, p99 = (_locust.percentile(times, share) for share in (0.5, 0.99))
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
            cpu, memory = meter.cpu(part, *window), meter.memory(part, *window)
            if not math.isnan(cpu):
                grown = _soak.growth([one for one in meter.samples[part] if window[0] <= one.time <= window[1]])
                change = "" if math.isnan(grown) else f", {grown:+,.0f} MB from its first quarter to its last"
                table.add_row(part, f"{cpu:.0f} %", f"of one core during the load, {memory:,.0f} MB at most{change}")
    console.print(table)
