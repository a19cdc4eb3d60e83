"""Faults while a load runs, and which losses they explain."""

from __future__ import annotations

import resource
import time
import xmlrpc.client
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx
import psutil
from oap_query import Oap, OapError
from rich.table import Table

from stack._native import find
from stack._progress import Progress
from stack._settings import UsageError
from stack._start import answers, late
from stack._supervisor import ALIVE, Supervisor

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from stack._found import Found
    from stack._locust import Request
    from stack._settings import Settings

QUIET: Final = 10.0
"""s of undisturbed load before each fault and after the last one."""
MARGIN: Final = 5.0
"""s before a fault of which OAP may still hold something in memory that it has acknowledged."""
PATIENCE: Final = 120.0
"""s that OAP gets to take what has gathered while it was away."""
SPANS: Final = 3
"""Of a request for `/test`: the request, its handling, the task."""
LASTS: Final = 10.0
"""s that OAP stays away, or its disk full."""


@dataclass
class Fault:
    """What was done, and when it began and was over, in s since the epoch."""

    name: str
    begin: float
    end: float = float("inf")

    def covers(self, request: Request) -> bool:
        """Say whether the request was under way, or its task ran, during the fault."""
        return self.begin - MARGIN <= request.end and request.start <= self.end


class Chaos:
    """Breaks the running stack part by part while a load runs.

    Args:
        settings: of the natively running stack.
        console: where each fault is told.

    Raises:
        UsageError: the stack does not run natively.
    """

    def __init__(self, settings: Settings, console: Console) -> None:
        self.faults: list[Fault] = []
        self._settings = settings
        self._console = console
        self._supervisor = Supervisor(settings.run_dir)
        if self._supervisor.process is None:
            raise UsageError("chaos needs the native runtime, whose processes it ends: `make up RUNTIME=native`")

    def play(self, locust: subprocess.Popen[bytes]) -> None:
        """Play every fault, then end the load.

        Raises:
            RuntimeError: a part did not come back.
        """
        try:
            for name, play in (
                ("OAP stopped and started", self._oap_away),
                ("service restarted", self._service_restarted),
                ("OAP's disk full", self._disk_full),
            ):
                time.sleep(QUIET)
                self._catch_up()
                fault = Fault(name, time.time())
                self.faults.append(fault)
                self._console.print(f"fault: {name}")
                play()
                fault.end = time.time()
                self._console.print(f"works again after {fault.end - fault.begin:.0f} s")
            time.sleep(QUIET)
            self._catch_up()
        except (OSError, OapError, httpx.HTTPError, psutil.Error, xmlrpc.client.Error) as error:
            raise RuntimeError(f"the faults could not be played: {error}") from error
        finally:
            # Users end their requests, and the results are written. SIGINT would do the same, but a shell's background
            # jobs ignore it.
            locust.terminate()

    def judge(self, requests: Sequence[Request], found: Found) -> int:
        """Show what each fault has cost; 0 when nothing failed or was lost that no fault explains."""
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        for title in ("fault", "lasted s", "requests", "failed", "traces incomplete"):
            table.add_column(title, justify="right" if title != "fault" else "left")
        rest = list(requests)
        for fault in self.faults:
            mine = [request for request in rest if fault.covers(request)]
            rest = [request for request in rest if not fault.covers(request)]
            table.add_row(fault.name, f"{fault.end - fault.begin:.0f}", *_row(mine, found))
        table.add_row("none", "", *_row(rest, found))
        self._console.print(table)
        failed = sum(bool(request.error) for request in rest)
        lost = sum(request.trace_id in found.incomplete for request in rest if request.trace_id)
        if failed or lost:
            self._console.print(f"[red]without any fault:[/] {failed:,} requests failed, {lost:,} traces incomplete")
            return 1
        if not any(request.start > self.faults[-1].end for request in rest):
            self._console.print("[red]the load ended before the last fault:[/] make it longer with DURATION")
            return 1
        self._console.print("[green]every loss belongs to a fault[/], and all works again")
        return 0

    def _catch_up(self) -> None:
        """Wait until a request of now is in OAP: then all before it are, and the next fault is to blame for its own."""
        url = f"{self._settings.service_url}/test"
        trace_id = httpx.get(url, params={"duration": 0}, trust_env=False).headers["X-Trace-Id"]
        oap = Oap(self._settings.oap_url, timeout=60)
        if len(oap.wait_for_trace(trace_id, lambda spans: len(spans) >= SPANS, PATIENCE)) < SPANS:
            raise RuntimeError(f"trace {trace_id} is not in OAP after {PATIENCE:.0f} s")

    def _oap_away(self) -> None:
        self._restart("oap", lambda: time.sleep(LASTS))

    def _service_restarted(self) -> None:
        self._restart("service")

    def _disk_full(self) -> None:
        """Forbid OAP to let any file grow: to a process that is the same as a full disk, and needs no root."""
        process = psutil.Process(self._supervisor.info("oap")["pid"])
        process.rlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        time.sleep(LASTS)
        process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self._restart("oap")  # H2 closes its database when it can't write

    def _restart(self, name: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        part = find(self._settings, name)
        if self._supervisor.state(name) in ALIVE:
            self._supervisor.rpc.stopProcess(name)
        meanwhile()
        progress, began = Progress(self._supervisor.log_of(name)), time.monotonic()
        self._supervisor.rpc.startProcess(name, False)
        while not answers(part):
            idle = progress.idle_seconds(self._supervisor.info(name).get("pid", 0))
            if reason := late(self._settings, part, idle, time.monotonic() - began):
                raise RuntimeError(reason)
            time.sleep(0.2)


def _row(requests: Sequence[Request], found: Found) -> tuple[str, str, str]:
    failed = sum(bool(request.error) for request in requests)
    lost = sum(request.trace_id in found.incomplete for request in requests if request.trace_id)
    return f"{len(requests):,}", f"{failed:,}", f"{lost:,}"
