"""The demo service as the console sees it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT: Final = 75.0
"""s: a blocking request may take the longest task that the service allows, and some."""
CONNECTIONS: Final = 200
KEEP_ALIVE: Final = 2.0
"""s"""
UNTRACED: Final = {"sw8": "0-"}
"""Says to SkyWalking's agents that the caller is not traced, so nor should they: looking must not fill the timeline."""
EXCERPT: Final = 200
"""Characters of an answer that are shown."""


class ServiceError(Exception):
    """The service does not answer, or refuses; the message says which."""


@dataclass(frozen=True)
class Ask:
    """One request to the service."""

    method: str
    path: str
    duration: float | None = None
    """How long its tasks run, in s; the service's own default without it."""
    fault: str = ""
    """What goes wrong, as the `X-Fault` header says it."""
    params: Mapping[str, str] = field(default_factory=dict)
    body: Any = None

    @property
    def title(self) -> str:
        """The request as one reads it."""
        words = {**self.params} if self.duration is None else {**self.params, "duration": f"{self.duration:g}"}
        query = "&".join(f"{key}={value}" for key, value in words.items())
        return f"{self.method} {self.path}" + (f"?{query}" if query else "")


@dataclass(frozen=True)
class Answer:
    """What came of a request: `status` 0 where nothing did; how long it took, in ms."""

    status: int
    text: str
    took: float
    trace_id: str | None = None


class Service:
    """A connection to the service, by its URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        # Idle connections are given up before uvicorn does so, after 5 s: a request in that moment would be lost.
        limits = httpx.Limits(
            max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=KEEP_ALIVE
        )
        self._client = httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=limits, trust_env=False)

    async def ready(self) -> bool:
        """Say whether the service takes requests."""
        try:
            return (await self._client.get("/health/ready", timeout=3, headers=UNTRACED)).is_success
        except httpx.HTTPError:
            return False

    async def paths(self) -> frozenset[str]:
        """Return the paths that the service has, by its own description of itself."""
        return frozenset((await self._json("GET", "/openapi.json"))["paths"])

    async def send(self, ask: Ask) -> Answer:
        """Send one request; whatever comes of it is an answer."""
        params = {**ask.params} | ({} if ask.duration is None else {"duration": f"{ask.duration:g}"})
        headers = {"X-Fault": ask.fault} if ask.fault else {}
        began = time.perf_counter()
        try:
            response = await self._client.request(ask.method, ask.path, params=params, json=ask.body, headers=headers)
        except httpx.HTTPError as error:
            return Answer(0, f"no answer ({error or type(error).__name__})", (time.perf_counter() - began) * 1000)
        took = (time.perf_counter() - began) * 1000
        return Answer(response.status_code, response.text[:EXCERPT], took, response.headers.get("X-Trace-Id"))

    async def tasks(self, state: str = "", limit: int = 1000) -> dict[str, Any] | None:
        """Return `{"tasks": [...], "counts": {...}, "running": n}`; `None` from a service that has no such list."""
        return await self._optional("/tasks", {"limit": str(limit)} | ({"state": state} if state else {}))

    async def dead_letters(self, limit: int = 100) -> dict[str, Any] | None:
        """Return `{"dead_letters": [...], "total": n}`; `None` from a service that keeps none."""
        return await self._optional("/dead-letters", {"limit": str(limit)})

    async def replay(self, task_id: str) -> str:
        """Run a dead letter's task again; return the new task's id."""
        return str((await self._json("POST", f"/dead-letters/{quote(task_id, safe='')}/replay"))["task_id"])

    async def discard(self, task_id: str) -> None:
        """Delete a dead letter."""
        await self._json("DELETE", f"/dead-letters/{quote(task_id, safe='')}")

    async def _optional(self, path: str, params: dict[str, str]) -> dict[str, Any] | None:
        answer: dict[str, Any] | None = await self._json("GET", path, params=params, missing=True)
        return answer

    async def _json(self, method: str, path: str, *, missing: bool = False, **more: Any) -> Any:  # noqa: ANN401  # JSON
        try:
            response = await self._client.request(method, path, timeout=10, headers=UNTRACED, **more)
        except httpx.HTTPError as error:
            message = f"the service at {self.url} does not answer ({error or type(error).__name__})"
            raise ServiceError(message) from error
        if missing and response.status_code == httpx.codes.NOT_FOUND:
            return None
        try:
            answer = response.json() if response.content else None
        except ValueError:
            answer = None
        if not response.is_success:
            detail = answer.get("detail") if isinstance(answer, dict) else None
            message = f"the service answers {response.status_code}: {detail or response.reason_phrase}"
            raise ServiceError(message)
        return answer
