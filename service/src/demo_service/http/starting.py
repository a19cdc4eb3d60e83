"""What all endpoints that start tasks share: the room for them, faults on purpose, and idempotency keys."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import BackgroundTasks, Depends, Header, HTTPException, Request
from pydantic.json_schema import SkipJsonSchema
from skywalking_background import tag

from demo_service.http.unstarted import note_accepted
from demo_service.tasks import FAULTS, SYNTAX, parse_fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from demo_service import tasks
    from demo_service.tasks import Execution, Job, Room, Task

T = TypeVar("T")


class Starter:
    """Starts the tasks of one request."""

    def __init__(self, request: Request, background_tasks: BackgroundTasks, fault: tasks.Fault | None) -> None:
        self._request = request
        self._background_tasks = background_tasks
        self._fault = fault

    def in_background(self, job: Job, *, replay_of: str | None = None, **arguments: Any) -> Task:  # noqa: ANN401  # JSON
        """Accept a task and run it when the response is sent.

        Raises:
            Refused: there is no room, or the service is about to end.
        """
        (execution,) = self.accept(job, replay_of=replay_of, **arguments)
        # Not `add_task`: the span of a `BackgroundTask` ends when that returns, a task's with its last attempt.
        self._background_tasks.tasks.append(execution)  # type: ignore[arg-type]
        return execution.task

    def accept(
        self,
        *jobs: Job,
        replay_of: str | None = None,
        **arguments: Any,  # noqa: ANN401  # JSON
    ) -> list[Execution]:
        """Accept a task for each job, all with the same arguments, or none; the caller has them run.

        Raises:
            Refused: there is no room, or the service is about to end.
        """
        scope = self._request.scope
        room: Room = self._request.app.state.room
        endpoint = f"{scope['method']} {scope['route'].path}"
        accepted = room.accept(jobs, arguments, endpoint=endpoint, fault=self._fault, replay_of=replay_of)
        note_accepted(scope, accepted)
        return accepted

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


async def _fault(request: Request, x_fault: XFault = None) -> tasks.Fault | None:
    """Return the fault that the request asks for, or else the one with which the fault board strikes it."""
    if x_fault is None:
        fault: tasks.Fault | None = request.app.state.faults.draw()
        if fault is not None:
            tag("fault", fault.text)
            tag("fault.from", fault.origin)
        return fault
    if not request.app.state.settings.faults_enabled:
        raise HTTPException(
            422, "header.x-fault: faults are switched off here; SERVICE_FAULTS_ENABLED=true allows them"
        )
    try:
        return parse_fault(x_fault)
    except ValueError as error:
        raise HTTPException(422, f"header.x-fault: {error}") from error


Fault = Annotated["tasks.Fault | None", Depends(_fault)]


async def _starter(request: Request, background_tasks: BackgroundTasks, fault: Fault) -> Starter:
    return Starter(request, background_tasks, fault)


Start = Annotated[Starter, Depends(_starter)]
