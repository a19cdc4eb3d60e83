"""What one request with one background task costs, in microseconds: for comparing two steps of an optimisation.

No HTTP and no socket of the service's: the ASGI app is called directly, one request after the other, in a fresh
process for each variant. What is finished is encoded and delivered to the sink as ever, by whatever thread does it.
Two numbers, each the best of several repetitions: the CPU of the event loop's thread, and that of all threads until all
is delivered.

    python bench/micro.py                     # all variants, about half a minute
    python bench/micro.py ours --profile      # where the time goes in the event loop's thread
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import os
import pstats
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from variants import VARIANTS, create_app, deliver, sink, tally

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

WARM_UP = 500
SETTLE_SECONDS = 0.3  # for the plugin's reporter after each repetition: there is no way to wait for its delivery
SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/test",
    "raw_path": b"/test",
    "query_string": b"seconds=0",
    "root_path": "",
    "headers": [(b"host", b"127.0.0.1:8000"), (b"accept", b"*/*"), (b"user-agent", b"bench")],
    "client": ("127.0.0.1", 50_000),
    "server": ("127.0.0.1", 8_000),
}


async def requests(app: ASGIApp, number: int) -> None:
    """Send requests, each to its end, its background task included."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pass

    for _ in range(number):
        await app({**SCOPE, "headers": list(SCOPE["headers"]), "state": {}}, receive, send)


async def measure(name: str, number: int, repetitions: int) -> dict[str, float]:
    """Measure one variant in this process: microseconds per request, and spans per request."""
    app = create_app(name)
    finish = deliver(name)
    await requests(app, WARM_UP)
    finish()
    loop_cpu, all_cpu = [], []
    before = tally.spans
    for _ in range(repetitions):
        gc.collect()
        thread, process = time.thread_time(), time.process_time()
        await requests(app, number)
        loop_cpu.append(time.thread_time() - thread)
        finish()
        time.sleep(SETTLE_SECONDS)  # noqa: ASYNC251  # other threads' turn
        all_cpu.append(time.process_time() - process)
    scale = 1e6 / number
    spans = (tally.spans - before) / number / repetitions
    return {"loop": min(loop_cpu) * scale, "all": min(all_cpu) * scale, "spans": spans}


async def profile(name: str, number: int) -> None:
    """Print the functions that take the most time of the event loop's thread."""
    app = create_app(name)
    await requests(app, WARM_UP)
    profiler = cProfile.Profile()
    profiler.enable()
    await requests(app, number)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


def run(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Measure one variant in a process of its own, beside a sink of its own."""
    with sink() as (address, _):
        command = [sys.executable, __file__, name, "--child", "--requests", str(arguments.requests)]
        command += ["--repetitions", str(arguments.repetitions), *(["--profile"] if arguments.profile else [])]
        environment = {
            **os.environ,
            "BENCH_SINK": address,
            "OTEL_BSP_MAX_QUEUE_SIZE": "100000",  # so that nothing is dropped: a dropped span would cost nothing
            "SW_AGENT_NAME": "bench",
            "SW_AGENT_COLLECTOR_BACKEND_SERVICES": address,
        }
        out = None if arguments.profile else subprocess.PIPE
        text = subprocess.run(command, env=environment, check=True, stdout=out, text=True).stdout
    found: dict[str, float] = json.loads(text) if text else {}
    return found


def main() -> None:
    """Run the variants one after the other, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", default=[name for name in VARIANTS if "+" not in name])
    parser.add_argument("--requests", type=int, default=2_000, help="in each repetition")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--profile", action="store_true", help="show where the time goes instead")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.variants) - VARIANTS.keys():
        parser.error(f"no such variant: {', '.join(sorted(unknown))}; there are {', '.join(VARIANTS)}")
    if arguments.child:
        (name,) = arguments.variants
        if arguments.profile:
            asyncio.run(profile(name, arguments.requests))
        else:
            print(json.dumps(asyncio.run(measure(name, arguments.requests, arguments.repetitions))), flush=True)
        os._exit(0)  # agents wait for their threads
    if not arguments.profile:
        print(f"us of CPU per request with one task, best of {arguments.repetitions} x {arguments.requests:,}:")
        print(f"{'':34}{'spans':>6}{'loop':>8}{'all':>8}{'+loop':>8}{'+all':>8}")
    base: dict[str, float] = {}
    for name in arguments.variants:
        found = run(name, arguments)
        if arguments.profile:
            continue
        base = base or found
        more = "" if found is base else f"{found['loop'] - base['loop']:8.1f}{found['all'] - base['all']:8.1f}"
        print(
            f"{VARIANTS[name].label:34}{found['spans']:6.2f}{found['loop']:8.1f}{found['all']:8.1f}{more}", flush=True
        )


if __name__ == "__main__":
    main()
