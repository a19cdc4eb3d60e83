"""What the benchmarks over HTTP have in common: the service of a variant, its CPU time, and the load on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
from stack.settings import free_port
from variants import sink

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
WARM_UP = 300  # requests before anything is counted


@dataclass
class Service:
    """A variant's service, warmed up, in a process of its own, with a sink of its own."""

    process: psutil.Process
    url: str
    spans_made: int = 0  # known when it has ended
    spans_arrived: int = 0

    def cpu(self) -> float:
        """Say how many seconds all of its threads have computed."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def stats(self, path: str = "stats") -> dict[str, int]:
        """Ask how many tasks run now, and how many did at the most."""
        found: dict[str, int] = httpx.get(f"{self.url}/{path}", trust_env=False).json()
        return found

    def load(self, seconds: float, requests: int, rate: float) -> dict[str, Any]:
        """Send requests, each with a task of so many seconds, at so many requests per second."""
        url = f"{self.url}/test?seconds={seconds}"
        command = [sys.executable, str(HERE / "load.py"), url, str(requests), str(rate)]
        found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return found


@contextmanager
def serve(variant: str) -> Iterator[Service]:
    """Run a variant; when it has ended, its service says how many spans were made and have arrived."""
    with sink() as (address, count_arrived):
        port = free_port()
        environment = {
            **os.environ,
            "BENCH_VARIANT": variant,
            "BENCH_PORT": str(port),
            "BENCH_SINK": address,
            "SW_AGENT_NAME": "bench",
            "SW_AGENT_COLLECTOR_BACKEND_SERVICES": address,
        }
        command = [sys.executable, str(HERE / "app.py")]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as app:
            service = Service(psutil.Process(app.pid), f"http://127.0.0.1:{port}")
            try:
                _warm_up(service)
                yield service
            finally:
                app.terminate()
                service.spans_made = int(app.communicate(timeout=30)[0])
        service.spans_arrived = count_arrived()


def _warm_up(service: Service) -> None:
    while True:
        try:
            service.stats()
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            break
    service.load(0, WARM_UP, 300)
    time.sleep(1)
    # A run has two or three full collections. Where the first one comes must not depend on what was imported before.
    service.stats("collect")
