"""Faults while a load runs, and which losses they explain."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx
import psutil
from oap_query import Oap, OapError
from rich.table import Table

from stack.runtime import NativeRuntime, PartError
from stack.settings import UsageError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from rich.console import Console

    from stack.load.locust import Request
    from stack.load.traces import TraceCount
    from stack.settings import Settings

REST_SECONDS: Final = 10.0
"""The load is left undisturbed for so long before each fault and after the last one."""
UNSTORED_SECONDS: Final = 5.0
"""OAP may lose what it acknowledged so shortly before a fault, as it has it in memory only."""
CATCH_UP_SECONDS: Final = 120.0
"""How long OAP may take to receive what was queued while it was away."""
SPANS_OF_TEST: Final = 3
"""A request for `/test` has the spans of the request, its handling, and the task."""
FAULT_SECONDS: Final = 10.0
"""For so long OAP is away, or its disk full."""


@dataclass
class Fault:
    """A fault, and when it began and ended, in seconds since the epoch."""

    name: str
    begin: float
    end: float = float("inf")

    def covers(self, request: Request) -> bool:
        """Whether the fault may have cost this request, its answer or its trace."""
        return self.begin - UNSTORED_SECONDS <= request.end and request.start <= self.end


class Chaos:
    """Breaks the running stack part by part while a load runs.

    Args:
        settings: of the natively running stack.
        console: where each fault is printed.

    Raises:
        UsageError: the stack does not run natively.
    """

    def __init__(self, settings: Settings, console: Console) -> None:
        self.faults: list[Fault] = []
        self._settings = settings
        self._console = console
        self._runtime = NativeRuntime(settings)
        if not self._runtime.is_up:
            raise UsageError("chaos ends processes, so it needs the native runtime: `make up RUNTIME=native`")

    def play(self, locust: subprocess.Popen[bytes]) -> None:
        """Play every fault, then end the load.

        Raises:
            RuntimeError: a part did not come back.
        """
        try:
            plays = {"OAP stopped and started": self._oap_away, "service restarted": self._service_restarted}
            if hasattr(psutil.Process, "rlimit"):
                plays["OAP's disk full"] = self._disk_full
            else:
                self._console.print("left out: OAP's disk full, as this system can't limit the files of a process")
            for name, play in plays.items():
                time.sleep(REST_SECONDS)
                self._catch_up()
                fault = Fault(name, time.time())
                self.faults.append(fault)
                self._console.print(f"fault: {name}")
                play()
                fault.end = time.time()
                self._console.print(f"works again after {fault.end - fault.begin:.0f} s")
            time.sleep(REST_SECONDS)
            self._catch_up()
        except (OSError, OapError, httpx.HTTPError, psutil.Error, PartError) as error:
            raise RuntimeError(f"the faults could not be caused: {error}") from error
        finally:
            # Users end their requests, and the results are written. SIGINT would do the same, but a shell's background
            # jobs ignore it.
            locust.terminate()

    def judge(self, requests: Sequence[Request], found: TraceCount) -> int:
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
        """Wait until OAP has the trace of a new request: all older ones have arrived then."""
        url = f"{self._settings.service_url}/test"
        trace_id = httpx.get(url, params={"duration": 0}, trust_env=False).headers["X-Trace-Id"]
        oap = Oap(self._settings.oap_url, timeout=60)
        if (
            len(oap.wait_for_trace(trace_id, lambda spans: len(spans) >= SPANS_OF_TEST, CATCH_UP_SECONDS))
            < SPANS_OF_TEST
        ):
            raise RuntimeError(f"trace {trace_id} is not in OAP after {CATCH_UP_SECONDS:.0f} s")

    def _oap_away(self) -> None:
        self._runtime.restart_quietly("oap", pause_seconds=FAULT_SECONDS)

    def _service_restarted(self) -> None:
        self._runtime.restart_quietly("service")

    def _disk_full(self) -> None:
        """Forbid OAP to let any file grow: a process can't tell that from a full disk, and it needs no root."""
        process = psutil.Process(self._runtime.pids().get("oap", 0))
        process.rlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        time.sleep(FAULT_SECONDS)
        process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self._runtime.restart_quietly("oap")  # H2 closes its database when it can't write


def _row(requests: Sequence[Request], found: TraceCount) -> tuple[str, str, str]:
    failed = sum(bool(request.error) for request in requests)
    lost = sum(request.trace_id in found.incomplete for request in requests if request.trace_id)
    return f"{len(requests):,}", f"{failed:,}", f"{lost:,}"
