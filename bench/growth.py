"""What grows with the load: one and two uvicorn workers at rising rates, then ten times the stored traces.

It brings up stacks of its own (ports and folder are chosen here), so nothing else of this machine is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from oap_query import Oap, segments
from rich.console import Console
from rich.table import Table
from stack.report import Measured, Step, measure
from stack.runtime import NativeRuntime
from stack.settings import ROOT, Settings, exempt_loopback, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

TASK_SECONDS = 10
HOLD = 15
LOOKS = 20  # queries of each kind


@dataclass
class Stored:
    """Storage with so many traces: how long (ms) OAP takes to list 20 and to show one, its size and memory in MB."""

    traces: int
    listing: float
    one: float
    disk: float
    memory: float


@contextmanager
def stack(workers: int) -> Iterator[tuple[Settings, Oap]]:
    """Run a new stack on free ports with an empty storage."""
    os.environ["SERVICE_WORKERS"] = str(workers)
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        names = ("service_port", "oap_grpc_port", "oap_http_port", "locust_port", "console_port")
        ports: dict[str, Any] = {name: free_port() for name in names if name in Settings.model_fields}
        settings = Settings(run_dir=Path(folder) / "run", **ports)
        try:
            if NativeRuntime(settings).up():
                sys.exit("the stack does not start")
            yield settings, Oap(settings.oap_url, timeout=60)
        finally:
            NativeRuntime(settings).down()


def stored(settings: Settings, oap: Oap, traces: int) -> Stored:
    """Ask OAP as its pages do, and look at what it holds."""
    since = datetime.now(UTC) - timedelta(minutes=30)
    pages = chain.from_iterable(segments(oap, since, service=settings.service_name))
    ids = [segment.trace_id for segment in islice(pages, LOOKS)]
    condition: dict[str, Any] = {
        "serviceId": oap.service_id(settings.service_name),
        "queryDuration": oap.duration(since),
        "traceState": "ALL",
        "queryOrder": "BY_DURATION",
        "paging": {"pageNum": 1, "pageSize": 20},
    }
    text = "query ($c: TraceQueryCondition) { data: queryBasicTraces(condition: $c) { traces { segmentId } } }"
    listing, one = [], []
    for number, trace_id in enumerate(ids):
        # Each another query: H2 keeps the result of the last one for as long as nothing is written.
        condition["minTraceDuration"] = number
        began = time.perf_counter()
        oap.query(text, c=condition)
        listing.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        oap.trace(trace_id)
        one.append((time.perf_counter() - began) * 1000)
    disk = sum(path.stat().st_size for path in (settings.run_dir / "oap" / "db").rglob("*")) / 2**20
    memory = psutil.Process(NativeRuntime(settings).pids()["oap"]).memory_info().rss / 2**20
    return Stored(traces, statistics.median(listing), statistics.median(one), disk, memory)


def row(workers: int, rate: int, found: Measured) -> dict[str, float]:
    """Pick what the report shows of a step."""
    rates = {"workers": workers, "rate": rate, "requests": found.requests, "failed": found.failed}
    parts = ("service", "oap", "others")
    cpu = {f"{part}_cpu": getattr(found, f"{part}_cpu_percent") for part in parts}
    times = {"p50": found.p50_ms, "p99": found.p99_ms}
    return {**rates, **times, **cpu, "memory": found.memory_mb, "peak": found.found.peak, "lost": found.found.lost}


def main() -> None:
    """Measure, print two tables, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=int, nargs="+", default=[100, 200, 400], help="requests per second")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="none: only the stored traces")
    parser.add_argument("--traces", type=int, default=6000, help="how many are stored before it becomes ten times that")
    parser.add_argument("--out", type=Path, default=ROOT / ".run" / "bench" / "growth.json")
    arguments = parser.parse_args()
    exempt_loopback()
    console = Console(width=None if sys.stdout.isatty() else 140)
    rows, storage = [], []
    for workers in arguments.workers:
        with stack(workers) as (settings, oap):
            for rate in arguments.rates:
                step = Step(rate * TASK_SECONDS, TASK_SECONDS, hold_seconds=HOLD)
                rows.append(row(workers, rate, measure(settings, oap, step, lambda _: None)))
                console.print(rows[-1])
    with stack(1) as (settings, oap):
        count = 0
        for goal in (arguments.traces, 10 * arguments.traces):
            step = Step(200, 1, hold_seconds=(goal - count) / 200 - 1)  # tasks of 1 s: what is stored counts here
            count += measure(settings, oap, step, lambda _: None).found.traces
            storage.append(stored(settings, oap, count))
            console.print(storage[-1])
    if rows:
        console.print(_table("Workers", rows))
    console.print(_table("Stored traces", [asdict(one) for one in storage]))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "workers": rows,
        "stored": [asdict(one) for one in storage],
    }
    arguments.out.write_text(json.dumps(document, indent=1))
    console.print(f"numbers: {arguments.out}")


def _table(title: str, rows: list[dict[str, float]]) -> Table:
    table = Table(*rows[0], title=title, title_justify="left")
    for values in rows:
        table.add_row(*(f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" for value in values.values()))
    return table


if __name__ == "__main__":
    main()
