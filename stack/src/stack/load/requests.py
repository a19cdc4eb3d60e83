"""Requests that the runner sends by itself, for measurements that want each answer."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TIMEOUT_SECONDS: Final = 90.0
CONNECTIONS: Final = 20
"""Of each client: httpx looks at all of a client's connections for each request, and would be what is measured."""


@dataclass(frozen=True)
class Sent:
    """One request and its answer."""

    at_ms: float
    """When it was sent, since the epoch."""
    milliseconds: float
    """How long its answer took."""
    status: int
    """0 where there was no answer."""
    trace_id: str

    @property
    def succeeded(self) -> bool:
        """Whether it was answered by 2xx."""
        return httpx.codes.is_success(self.status)


async def send(  # noqa: PLR0913  # each is one thing that a caller wants different
    url: str,
    count: int,
    *,
    method: str = "GET",
    seconds: float | None = None,
    headers: Mapping[str, str] | None = None,
    rate: float | None = None,
    at_once: int = 50,
    each: Callable[[int], None] = lambda _succeeded: None,
) -> list[Sent]:
    """Send the same request again and again; return what became of each, in the order in which they were sent.

    Args:
        url: with its query.
        count: how many.
        method: of HTTP.
        seconds: `?duration=` of the work; without it the service's own.
        headers: of each request.
        rate: requests in a second; without it as fast as `at_once` goes.
        at_once: how many may be under way.
        each: called with the number of those that have succeeded so far.
    """
    most = count if rate else at_once
    slots = asyncio.Semaphore(most)
    target = httpx.URL(url).copy_merge_params({} if seconds is None else {"duration": f"{seconds:g}"})
    succeeded = 0
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(_client()) for _ in range(-(-most // CONNECTIONS))]
        began = time.monotonic()

        async def one(number: int) -> Sent:
            nonlocal succeeded
            if rate:
                await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            async with slots:
                at, start = time.time(), time.perf_counter()
                status, trace_id = 0, ""
                try:
                    answer = await clients[number % len(clients)].request(method, target, headers=headers)
                    status, trace_id = answer.status_code, answer.headers.get("X-Trace-Id", "")
                except httpx.HTTPError:
                    pass
                sent = Sent(at * 1000, (time.perf_counter() - start) * 1000, status, trace_id)
                if sent.succeeded:
                    succeeded += 1
                    each(succeeded)
                return sent

        return await asyncio.gather(*(one(number) for number in range(count)))


def _client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=CONNECTIONS)
    return httpx.AsyncClient(limits=limits, timeout=TIMEOUT_SECONDS, verify=False, trust_env=False)  # noqa: S501
