"""The demo service as the console sees it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_SECONDS: Final = 75.0
"""A blocking request lasts as long as the longest task that the service allows, and a little more."""
MAX_CONNECTIONS: Final = 200
KEEP_ALIVE_SECONDS: Final = 2.0
UNTRACED: Final = {"sw8": "0-"}
"""Tells SkyWalking's agent not to trace these requests: reading must not add traces to the timeline."""
DESCRIPTION_SECONDS: Final = 30.0
"""How long the service's OpenAPI description is kept."""
MAX_REPLAYED: Final = 10_000
"""By one order; the service allows no more."""
EXCERPT_CHARACTERS: Final = 200
"""Of an answer's text."""


class ServiceError(Exception):
    """The service does not answer, or refuses. The message says which."""


@dataclass(frozen=True)
class Request:
    """A request to the service."""

    method: str
    path: str
    task_seconds: float | None = None
    """How long its tasks run; `None` for the service's default."""
    fault: str = ""
    """What should fail: the value of the `X-Fault` header."""
    params: Mapping[str, str] = field(default_factory=dict)
    body: Any = None

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters."""
        return {**self.params} | ({} if self.task_seconds is None else {"duration": f"{self.task_seconds:g}"})

    @property
    def title(self) -> str:
        """The method, the path and the query."""
        query = "&".join(f"{key}={value}" for key, value in self.query.items())
        return f"{self.method} {self.path}" + (f"?{query}" if query else "")


@dataclass(frozen=True)
class LetterFilter:
    """Which dead letters are meant; an empty text means all."""

    name: str = ""
    error: str = ""
    """The error's type."""
    reason: str = ""
    """`failed`, `interrupted` or `crashed`."""
    after: str = ""
    """ISO 8601 with a timezone, of the time of death; `before` likewise."""
    before: str = ""

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters. All letters must be asked for in so many words."""
        return {key: value for key, value in asdict(self).items() if value} or {"all": "true"}

    def fits(self, letter: Mapping[str, Any]) -> bool:
        """Say whether a letter, as the service lists it, is meant."""
        died = datetime.fromisoformat(letter["died_at"])
        return (
            self.name in {"", letter["name"]}
            and self.error in {"", (letter.get("error") or {}).get("type")}
            and self.reason in {"", letter["reason"]}
            and (not self.after or died >= datetime.fromisoformat(self.after))
            and (not self.before or died <= datetime.fromisoformat(self.before))
        )


@dataclass(frozen=True)
class Answer:
    """An answer of the service; `status` is 0 when none came."""

    status: int
    text: str
    milliseconds: float
    trace_id: str | None = None


class Service:
    """The service's HTTP interface."""

    def __init__(self, url: str) -> None:
        self.url = url
        # uvicorn closes idle connections after 5 s, and a request sent in that moment is lost: close them before.
        limits = httpx.Limits(
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS,
            keepalive_expiry=KEEP_ALIVE_SECONDS,
        )
        self._endpoints: frozenset[tuple[str, str]] = frozenset()
        self._described = 0.0
        self._client = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False)

    async def problem(self) -> str:
        """Return why the service takes no requests, as a sentence's end; nothing when it does."""
        try:
            answer = await self._client.get("/health/ready", timeout=3, headers=UNTRACED)
        except httpx.HTTPError:
            return "does not answer"
        return "" if answer.is_success else f"is not ready (/health/ready answers {answer.status_code})"

    async def paths(self) -> frozenset[str]:
        """Return the paths that the service has, from its OpenAPI description."""
        return frozenset(path for _, path in await self.endpoints())

    async def endpoints(self) -> frozenset[tuple[str, str]]:
        """Return the methods and paths that the service has, such as `("POST", "/tasks/{task_id}/cancel")`."""
        moment = time.monotonic()
        if not self._endpoints or moment - self._described > DESCRIPTION_SECONDS:
            paths = (await self._json("GET", "/openapi.json"))["paths"]
            self._endpoints = frozenset((method.upper(), path) for path, item in paths.items() for method in item)
            self._described = moment
        return self._endpoints

    async def send(self, request: Request) -> Answer:
        """Send a request. No answer is an `Answer` too, with its reason as the text."""
        params = request.query
        headers = {"X-Fault": request.fault} if request.fault else {}
        began = time.perf_counter()
        try:
            response = await self._client.request(
                request.method, request.path, params=params, json=request.body, headers=headers
            )
        except httpx.HTTPError as error:
            return Answer(0, f"no answer ({error or type(error).__name__})", (time.perf_counter() - began) * 1000)
        milliseconds = (time.perf_counter() - began) * 1000
        return Answer(
            response.status_code, response.text[:EXCERPT_CHARACTERS], milliseconds, response.headers.get("X-Trace-Id")
        )

    async def tasks(self, state: str = "", limit: int = 1000) -> dict[str, Any] | None:
        """Return `{"tasks": [...], "counts": {...}, "running": n}`; `None` from a service without task states."""
        return await self._optional("/tasks", {"limit": str(limit)} | ({"state": state} if state else {}))

    async def dead_letters(self, limit: int = 100) -> dict[str, Any] | None:
        """Return `{"dead_letters": [...], "total": n}`; `None` from a service without dead letters."""
        return await self._optional("/dead-letters", {"limit": str(limit)})

    async def replay(self, task_id: str) -> str:
        """Run the task of a dead letter again; return the new task's id."""
        return str((await self._json("POST", f"/dead-letters/{quote(task_id, safe='')}/replay"))["task_id"])

    async def discard(self, task_id: str) -> None:
        """Delete a dead letter."""
        await self._json("DELETE", f"/dead-letters/{quote(task_id, safe='')}")

    async def cancel(self, task_id: str) -> None:
        """Cancel a task that runs; one that has ended already is a `ServiceError`."""
        await self._json("POST", f"/tasks/{quote(task_id, safe='')}/cancel")

    async def jobs(self) -> dict[str, bool]:
        """Return whether each job is paused, by its name."""
        return {job["name"]: job["paused"] for job in (await self._json("GET", "/jobs"))["jobs"]}

    async def pause(self, name: str, *, paused: bool) -> None:
        """Let none of a job's tasks begin, or let them begin again."""
        await self._json("POST", f"/jobs/{quote(name, safe='')}/{'pause' if paused else 'resume'}")

    async def replay_all(self, wanted: LetterFilter) -> tuple[int, int, str]:
        """Run the tasks of these dead letters again.

        Returns:
            How many run; how many can't; and why others wait, where there was no room for all.
        """
        answer = await self._json("POST", "/dead-letters/replay", params={**wanted.query, "limit": MAX_REPLAYED})
        return len(answer["task_ids"]), answer["skipped"], answer["refused"] or ""

    async def discard_all(self, wanted: LetterFilter) -> int:
        """Delete these dead letters; return how many there were."""
        return int((await self._json("DELETE", "/dead-letters", params=wanted.query))["deleted"])

    async def faults(self) -> dict[str, Any] | None:
        """Return the fault board; `None` from a service without one."""
        return await self._optional("/faults", {})

    async def set_faults(self, rule: Mapping[str, Any]) -> None:
        """Set the board's rule; one that is not valid is a `ServiceError`."""
        await self._json("PUT", "/faults", json=dict(rule))

    async def clear_faults(self) -> None:
        """Clear the board's rule."""
        await self._json("DELETE", "/faults")

    async def alarms(self) -> list[dict[str, Any]]:
        """Return the alarms that OAP told the service, the newest first; none from a service that takes none."""
        answer = await self._json("GET", "/alarms", missing=True)
        return list(answer.get("alarms", ()) if isinstance(answer, dict) else answer or ())

    async def _optional(self, path: str, params: dict[str, str]) -> dict[str, Any] | None:
        answer: dict[str, Any] | None = await self._json("GET", path, params=params, missing=True)
        return answer

    async def _json(self, method: str, path: str, *, missing: bool = False, **more: Any) -> Any:  # noqa: ANN401  # JSON
        try:
            response = await self._client.request(method, path, timeout=10, headers=UNTRACED, **more)
        except httpx.HTTPError as error:
            message = f"The service at {self.url} does not answer ({error or type(error).__name__})"
            raise ServiceError(message) from error
        if missing and response.status_code == httpx.codes.NOT_FOUND:
            return None
        try:
            answer = response.json() if response.content else None
        except ValueError:
            answer = None
        if not response.is_success:
            detail = answer.get("detail") if isinstance(answer, dict) else None
            message = f"The service answers {response.status_code}: {detail or response.reason_phrase}"
            raise ServiceError(message)
        return answer
