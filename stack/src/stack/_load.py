"""`make load`: a Locust run without its web page, then what OAP says of it."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from oap_query import Oap, OapError
from rich.console import Console

from stack._settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stack._settings import Settings

USERS: Final = 50
SECONDS: Final = 30
TASK_SECONDS: Final = 10
"""How long the tasks of `/test` run: the last traces are complete that much after the load."""
SETTLE: Final = 20.0
"""s without a new trace after which the count is final."""


@dataclass(frozen=True)
class Totals:
    """Locust's last line: how many requests, how many of them failed, and the median response time in ms."""

    requests: int
    failures: int
    median: float


def load(settings: Settings) -> int:
    """Load the running service and count its traces; 0 when every request was answered and traced."""
    console = Console()
    results = settings.run_dir / "load"
    results.mkdir(parents=True, exist_ok=True)
    oap = Oap(settings.oap_url)
    began = datetime.now(UTC)
    traces = 0
    try:
        before = oap.traces_since(settings.service_name, began)
        _run_locust(settings.service_url, results / "smoke")
        totals = _read_totals(results / "smoke.json")
        with console.status("waiting for the last background tasks and their traces") as status:
            time.sleep(TASK_SECONDS)
            for found in _count_traces(oap, settings.service_name, began, totals.requests, before):
                traces = found
                status.update(f"traces in OAP: {found:,} of {totals.requests:,}")
    except (OapError, OSError, RuntimeError) as error:
        console.print(f"[red]load failed:[/] {error}. Is the stack up? `make status` tells, `make up` starts it.")
        return 1
    complete = traces >= totals.requests
    console.print(
        f"requests {totals.requests:,} · failed {totals.failures:,} · median response {totals.median:g} ms · "
        f"traces in OAP {traces:,} " + ("[green]all there[/]" if complete else "[red]some are missing[/]")
    )
    console.print(f"Locust's report: {(results / 'smoke.html').resolve()}")
    return 0 if complete and totals.requests and not totals.failures else 1


def _run_locust(host: str, prefix: Path) -> None:
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"), "--headless"]
    command += ["--host", host, "--users", str(USERS), "--spawn-rate", str(USERS), "--run-time", f"{SECONDS}s"]
    command += ["--json-file", str(prefix), "--html", f"{prefix}.html", "--only-summary", "--exit-code-on-error", "0"]
    code = subprocess.run(command, check=False).returncode  # noqa: S603  # our own command line
    if code:
        message = f"locust ended with code {code}"
        raise RuntimeError(message)


def _read_totals(path: Path) -> Totals:
    rows = json.loads(path.read_text())
    # By route: response times in ms, each with how often it was measured.
    times = sorted((int(ms), count) for row in rows for ms, count in row["response_times"].items())
    answered = [ms for ms, count in times for _ in range(count)]
    return Totals(
        sum(row["num_requests"] for row in rows),
        sum(row["num_failures"] for row in rows),
        statistics.median(answered) if answered else math.nan,
    )


def _count_traces(oap: Oap, service: str, began: datetime, expected: int, before: set[str]) -> Iterator[int]:
    """Count the run's traces again and again until all are there, or none came for `SETTLE` seconds."""
    found, changed = 0, time.monotonic()
    yield found
    while found < expected and time.monotonic() - changed < SETTLE:
        count = len(oap.traces_since(service, began) - before)
        if count > found:
            found, changed = count, time.monotonic()
        yield found
        time.sleep(1)
