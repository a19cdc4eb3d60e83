"""`make bench`: what each of the library's features costs, in CPU time of all threads.

They cost a few percent each, and what else a machine does changes a run by more than that. So a service with a feature
and one without are up and loaded at the same time, half of the rate each: whatever slows one of them slows both.

    python bench/features.py              # about 12 minutes
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from driver import serve
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from stack.settings import exempt_loopback

if TYPE_CHECKING:
    from collections.abc import Callable

FEATURES = {
    "start reports and events": ("ours", "ours+quiet"),
    "meters": ("ours", "ours+unmetered"),
    "the journal": ("ours+journal", "ours"),
    "none: twice the same": ("ours", "ours+again"),
}
"""What can be switched: a variant with it, one without. The last one says what this method can tell apart."""
RATE = 250  # requests per second to each of the two
TASK_SECONDS = 10.0
LOOK_SECONDS = 5.0
SAMPLES = 10_000  # of these spells, drawn with repetition, for an interval

Pair = tuple[float, float]


def measure(variants: tuple[str, str], seconds: float, advance: Callable[[float], object]) -> list[Pair]:
    """Return the CPU seconds of both per spell of `LOOK_SECONDS`, while as many tasks run as will."""
    spells: list[Pair] = []
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        services = [stack.enter_context(serve(name)) for name in variants]
        requests = int((TASK_SECONDS + seconds + LOOK_SECONDS) * RATE)
        loads = [pool.submit(service.load, TASK_SECONDS, requests, RATE) for service in services]
        time.sleep(TASK_SECONDS + 1)  # until the first tasks have ended
        before = [service.cpu() for service in services]
        for _ in range(int(seconds / LOOK_SECONDS)):
            time.sleep(LOOK_SECONDS)
            now = [service.cpu() for service in services]
            spells.append((now[0] - before[0], now[1] - before[1]))
            before = now
            advance(LOOK_SECONDS)
        if failed := sum(load.result()["failed"] for load in loads):
            raise RuntimeError(f"{failed} requests failed")
        time.sleep(TASK_SECONDS + 2)
    for name, service in zip(variants, services, strict=True):
        if service.spans_arrived != service.spans_made:
            raise RuntimeError(f"{name}: {service.spans_arrived:,} of {service.spans_made:,} spans arrived")
    return spells


def more(spells: list[Pair]) -> tuple[float, float, float]:
    """Say what share the first of a pair takes more than the second, and the 95 % interval of that."""
    draw = random.Random(1)  # noqa: S311  # the same samples each time

    def share(sample: list[Pair]) -> float:
        return sum(one for one, _ in sample) / sum(other for _, other in sample) - 1

    shares = sorted(share(draw.choices(spells, k=len(spells))) for _ in range(SAMPLES))
    cut = SAMPLES // 40
    return share(spells), shares[cut], shares[-cut]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=150, help="of each pair (default %(default)s)")
    parser.add_argument("--features", nargs="+", default=list(FEATURES), choices=list(FEATURES))
    arguments = parser.parse_args()
    exempt_loopback()
    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table(title=f"two services at once, {RATE} requests/s each, each with a task of {TASK_SECONDS:.0f} s")
    table.add_column("feature")
    for title in ("CPU s per 1,000 requests", "without it", "more", "95 % of samples"):
        table.add_column(title, justify="right")
    with Progress(console=console) as progress:
        bar = progress.add_task("", total=arguments.seconds * len(arguments.features))
        for feature in arguments.features:
            progress.update(bar, description=feature)
            spells = measure(FEATURES[feature], arguments.seconds, lambda step: progress.advance(bar, step))
            requests = len(spells) * LOOK_SECONDS * RATE
            figures = [f"{sum(one) / requests * 1000:.3f}" for one in zip(*spells, strict=True)]
            share, low, high = more(spells)
            table.add_row(feature, *figures, f"{share:+.1%}", f"{low:+.1%} to {high:+.1%}")
    console.print(table)


if __name__ == "__main__":
    main()
