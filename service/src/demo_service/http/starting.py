"""What every endpoint that starts tasks has in common: room, faults, keys, and that nothing accepted is lost."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from fastapi import Depends, Header, HTTPException, Request
from pydantic.json_schema import SkipJsonSchema

from demo_service._faults import FAULTS, SYNTAX, Fault, parse_fault
from demo_service._release import release

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from demo_service._jobs import Job
    from demo_service._runner import Runner
    from demo_service._work import Work

T = TypeVar("T")

_WORKS: Final = "demo_service.works"  # in the scope: what this request has accepted


class Account:
    """ASGI middleware: when a request is over, each task that it accepted has run or is a dead letter.

    A task may stay behind because the one before it failed (`BackgroundTasks` then drops the rest), because the
    endpoint failed after it had accepted it, or because the server cut the request short.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        works: list[Work] = []
        scope[_WORKS] = works
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            if not _is_told(error, works):
                raise
            release(error)
        finally:
            for work in works:
                work.abandon()
                work.forget()


def _is_told(error: Exception, works: list[Work]) -> bool:
    """Say whether the error is that of a task: those are in the log, with the task, already."""
    if isinstance(error, ExceptionGroup):
        return all(_is_told(one, works) for one in error.exceptions)
    return any(work.error is error for work in works)


class Starter:
    """Starts the tasks of one request."""

    def __init__(self, request: Request, fault: Fault | None) -> None:
        self._request = request
        self._fault = fault

    def accept(self, *jobs: Job, replay_of: str | None = None, **arguments: Any) -> list[Work]:  # noqa: ANN401  # JSON
        """Accept a task for each job, all with the same arguments, or none; the result is what `BackgroundTask` takes.

        Raises:
            Refused: there is no room, or the service is about to end.
        """
        scope = self._request.scope
        runner: Runner = self._request.app.state.runner
        endpoint = f"{scope['method']} {scope['route'].path}"
        works = runner.accept(jobs, arguments, endpoint=endpoint, fault=self._fault, replay_of=replay_of)
        scope[_WORKS] += works
        return works

    async def once(self, key: str | None, start: Callable[[], Awaitable[T]], body: object = None) -> T:
        """Run `start`, but only once for a key; without a key always.

        Raises:
            HTTPException: 422, the key was used with another body or other parameters.
        """
        if key is None:
            return await start()
        request = self._request
        content = await request.body() if body is None else json.dumps(body, sort_keys=True).encode()
        query = sorted(request.query_params.multi_items())
        fingerprint = hashlib.sha256(json.dumps(query).encode() + content).hexdigest()
        answer: T = await request.app.state.idempotency.once(f"{request.url.path} {key}", fingerprint, start)
        return answer


XFault = Annotated[
    str | SkipJsonSchema[None],
    Header(description=f"A fault on purpose: {FAULTS}.", json_schema_extra={"pattern": SYNTAX}),
]
Key = Annotated[
    str | SkipJsonSchema[None],
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key again: the same answer, and no second run.",
    ),
]


async def _starter(request: Request, x_fault: XFault = None) -> Starter:
    if x_fault is None:
        return Starter(request, None)
    if not request.app.state.settings.faults_enabled:
        raise HTTPException(
            422, "header.x-fault: faults are switched off here; SERVICE_FAULTS_ENABLED=true allows them"
        )
    try:
        return Starter(request, parse_fault(x_fault))
    except ValueError as error:
        raise HTTPException(422, f"header.x-fault: {error}") from error


Start = Annotated[Starter, Depends(_starter)]
