"""The same request twice: one run, one answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from cachetools import TTLCache
from fastapi import HTTPException
from skywalking_background import current_trace_id, tag

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


@dataclass(frozen=True)
class _Entry(Generic[T]):
    fingerprint: str
    answer: asyncio.Future[T]
    trace_id: str | None


class Idempotency(Generic[T]):
    """The answers of this process by key.

    Args:
        seconds: how long each is kept.
        limit: how many are kept; the least recently used is forgotten first.
    """

    def __init__(self, seconds: float, limit: int) -> None:
        self._entries: TTLCache[str, _Entry[T]] = TTLCache(limit, seconds)

    async def once(self, key: str, fingerprint: str, start: Callable[[], Awaitable[T]]) -> T:
        """Start what the key stands for, or return the answer of whoever did; also while that is still starting.

        Args:
            key: what both requests have in common.
            fingerprint: what must not differ between them.
            start: does the work; when it raises, nothing is remembered and the next request may try.

        Raises:
            HTTPException: 422, the key was used for something else.
        """
        entry = self._entries.get(key)
        if entry is None:
            return await self._start(key, fingerprint, start)
        if entry.fingerprint != fingerprint:
            raise HTTPException(422, "this key was used before with another request: choose a new key")
        tag("idempotency.first_trace", entry.trace_id)
        return await asyncio.shield(entry.answer)

    async def _start(self, key: str, fingerprint: str, start: Callable[[], Awaitable[T]]) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        # From here on, before anything is awaited: no other request can slip in between.
        self._entries[key] = _Entry(fingerprint, answer, current_trace_id())
        try:
            result = await start()
        except BaseException as error:
            self._entries.pop(key, None)
            if isinstance(error, Exception):
                answer.set_exception(error)
                answer.exception()  # it need not have been waited for
            else:
                answer.cancel()
            raise
        answer.set_result(result)
        return result
