"""The load generator: asks at a fixed rate, whether or not the answers keep up, in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time

import aiohttp


async def load(url: str, requests: int, rate: float) -> dict[str, object]:
    """Send the requests and return each one's time in ms, counted from the moment that it was due."""
    times: list[float] = []
    failed = 0

    async def ask(due: float) -> None:
        nonlocal failed
        try:
            async with session.get(url) as response:
                if await response.read() != b'"ok"':
                    failed += 1
        except aiohttp.ClientError:
            failed += 1
        times.append((time.perf_counter() - due) * 1000)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as session:
        start = time.perf_counter()
        running = set()
        for number in range(requests):
            due = start + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(ask(due))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
    return {"times": times, "failed": failed}


if __name__ == "__main__":
    gc.disable()
    print(json.dumps(asyncio.run(load(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))))
