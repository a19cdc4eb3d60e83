"""The requests of the comparison: sent side by side, with what came back."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracing_claims.variants import Variant

TIMEOUT_SECONDS: Final = 90.0
CONNECTIONS: Final = 20
"""Of each client: httpx looks at all of a client's connections for each request, and would be what is measured."""


@dataclass
class Sent:
    """What became of some requests of one variant."""

    milliseconds: list[float] = field(default_factory=list)
    """Response times of those that were answered by 200."""
    traces: list[str] = field(default_factory=list)
    """Their traces."""
    failed: int = 0
    """Those that were not: the client knows of it, nothing is lost."""
    began: float = 0.0
    """When the first was sent, in seconds as of `time.time()`."""


async def send(  # noqa: PLR0913  # each is one thing that a measurement wants different
    url: str,
    variant: Variant,
    count: int,
    *,
    work_seconds: float,
    rate: float | None = None,
    at_once: int = 50,
    retry_seconds: float = 0.0,
    each: Callable[[int], None] = lambda _answered: None,
) -> Sent:
    """Send requests: so many in a second, or so many at once.

    Args:
        url: the service.
        variant: what is asked for.
        count: how many.
        work_seconds: how long its work takes.
        rate: requests in a second; without it as fast as `at_once` goes.
        at_once: how many may be under way.
        retry_seconds: how long a client tries again where it gets no answer, or 503; 0 for never.
        each: called with the number of answers so far.
    """
    most = count if rate else at_once
    slots = asyncio.Semaphore(most)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(_client(url)) for _ in range(-(-most // CONNECTIONS))]
        sent = Sent(began=time.time())

        async def one(number: int) -> None:
            client = clients[number % len(clients)]
            if rate:
                await asyncio.sleep(max(0.0, sent.began + number / rate - time.time()))
            async with slots:
                deadline = time.monotonic() + retry_seconds
                while not await _ask(client, variant, work_seconds, sent):
                    if time.monotonic() >= deadline:
                        sent.failed += 1
                        return
                    await asyncio.sleep(0.5)
                each(len(sent.traces))

        await asyncio.gather(*(one(number) for number in range(count)))
    return sent


def _client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=CONNECTIONS)
    return httpx.AsyncClient(base_url=url, limits=limits, timeout=TIMEOUT_SECONDS, verify=False, trust_env=False)  # noqa: S501


async def _ask(client: httpx.AsyncClient, variant: Variant, work_seconds: float, sent: Sent) -> bool:
    began = time.perf_counter()
    try:
        answer = await client.get(variant.path, params={"duration": work_seconds})
    except httpx.HTTPError:
        return False
    if not answer.is_success:
        return False
    sent.milliseconds.append((time.perf_counter() - began) * 1000)
    sent.traces.append(answer.headers.get("X-Trace-Id", ""))
    return True
