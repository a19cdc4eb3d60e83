"""What each promise of `SERVICE_JOURNAL` costs: CPU for each request, and how much later the answer comes.

The service without tracing, at 500 requests a second with a task of 1 s each, all levels in turn in each round; two
minutes. The library's own journal is a row of `bench/run.py`.

    .venv/bin/python bench/accepted.py
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from rich.console import Console
from rich.table import Table
from stack.settings import exempt_loopback, free_port

HERE: Final = Path(__file__).parent
LEVELS: Final = ("off", "batch", "written", "synced")
RATE: Final = 500
START_SECONDS: Final = 60


@dataclass
class Result:
    """One round of one level."""

    level: str
    cpu_us: float
    """For each request, its task included."""
    p50_ms: float
    p99_ms: float
    failed: int


def run(level: str, requests: int, folder: Path) -> Result:
    """Start the service at a level, load it, and look at its CPU time and the answers."""
    port = free_port()
    environment = {
        **os.environ,
        "SERVICE_PORT": str(port),
        "SERVICE_JOURNAL": level,
        "SERVICE_DATA_DIR": str(folder / level),
        "SKYWALKING_BACKGROUND_ENABLED": "false",
    }
    with (folder / "log").open("ab") as log:
        service = subprocess.Popen([sys.executable, "-m", "demo_service"], env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(f"{url}/health/ready")
        _load(f"{url}/test?duration=0", RATE, RATE)
        process = psutil.Process(service.pid)
        before = _cpu_seconds(process)
        answers = _load(f"{url}/test?duration=1", requests, RATE)
        time.sleep(2)  # until the last task has ended
        used = _cpu_seconds(process) - before
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(60)
    times = sorted(answers["times"])
    p99 = times[int(len(times) * 0.99)]
    return Result(level, used / requests * 1e6, statistics.median(times), p99, answers["failed"])


def _wait(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    sys.exit(f"the service does not start: {url}")


def _load(url: str, requests: int, rate: float) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "load.py"), url, str(requests), str(rate)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Run all rounds and print the table, whose rows are those of `service/README.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    exempt_loopback()
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="accepted-", dir=HERE.parent) as folder:  # a disk, and not a tmpfs
        for number in range(arguments.rounds):
            first = number % len(LEVELS)  # who comes first differs, as a machine is not the same all the time
            turns = LEVELS[first:] + LEVELS[:first]
            results += [run(level, arguments.requests, Path(folder)) for level in turns]
    table = Table(title=f"{arguments.requests:,} requests at {RATE}/s, medians of {arguments.rounds} rounds")
    for title in ("level", "CPU us per request", "over off", "", "answer p50 ms", "over off", "p99 ms", "failed"):
        table.add_column(title, justify="left" if title == "level" else "right")
    base = _middle(results, "off")
    for level in LEVELS:
        cpu, p50, p99 = _middle(results, level)
        failed = sum(one.failed for one in results if one.level == level)
        over = cpu - base[0]
        share = f"{over / base[0]:+.0%}"
        table.add_row(
            level, f"{cpu:.0f}", f"{over:+.0f}", share, f"{p50:.2f}", f"{p50 - base[1]:+.2f}", f"{p99:.1f}", str(failed)
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _middle(results: list[Result], level: str) -> tuple[float, float, float]:
    mine = [one for one in results if one.level == level]
    cpu, p50, p99 = (statistics.median(getattr(one, field) for one in mine) for field in ("cpu_us", "p50_ms", "p99_ms"))
    return cpu, p50, p99


if __name__ == "__main__":
    main()
