"""The endpoints that show what became of the tasks: their states, and the dead letters."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from pydantic import BaseModel, Field
from skywalking_background import tag

from demo_service.dead_letters import Reason
from demo_service.http.problems import problems
from demo_service.http.query import NO_PARAMETERS, Parameters
from demo_service.http.starting import Key, Start
from demo_service.queues import CELERY_TASK, MESSAGE_TASK, BrokerUnavailableError
from demo_service.tasks import JOBS, Refused, State

if TYPE_CHECKING:
    from demo_service import dead_letters, tasks
    from demo_service.dead_letters.store import DeadLetters
    from demo_service.queues import Publisher
    from demo_service.tasks import Registry

router = APIRouter(responses=problems(422))

TaskId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
Milliseconds = float | None


class Limited(Parameters):
    """How many of a list are wanted, the latest first."""

    limit: Annotated[int, Field(ge=1, le=10_000)] = 100


class WantedTasks(Limited):
    """Which tasks are wanted."""

    state: State | None = None


class Task(BaseModel):
    """A task; what is not known (yet) is null."""

    id: str
    name: str
    endpoint: str
    state: State
    attempts: int
    accepted_at: datetime
    queue_delay_ms: Milliseconds
    run_time_ms: Milliseconds
    trace_id: str | None
    trace_url: str | None
    error: str | None
    replay_of: str | None
    """The trace of the dead letter that this is the replay of."""


class Tasks(BaseModel):
    """Tasks, the last accepted first."""

    tasks: list[Task]
    counts: dict[State, int]
    running: int


class Error(BaseModel):
    """What a task failed with."""

    type: str
    message: str
    stack: str


class DeadLetter(BaseModel):
    """A task that failed for good."""

    id: str
    name: str
    endpoint: str
    arguments: dict[str, Any]
    replayable: bool
    error: Error
    attempts: int
    reason: Reason
    trace_id: str | None
    trace_url: str | None
    replay_of: str | None
    died_at: datetime


class DeadLetterList(BaseModel):
    """Dead letters, the latest first."""

    dead_letters: list[DeadLetter]
    total: int


class Replayed(BaseModel):
    """The answer to a replay."""

    status: Literal["processing"] = "processing"
    task_id: str


def trace_url(template: str, trace_id: str | None) -> str | None:
    """Return where a person sees a trace."""
    return None if trace_id is None else template.replace("{trace_id}", quote(trace_id, safe=""))


def _task(task: tasks.Task, template: str) -> Task:
    return Task(
        id=task.id,
        name=task.name,
        endpoint=task.endpoint,
        state=task.state,
        attempts=task.attempts,
        accepted_at=datetime.fromtimestamp(task.accepted_at, UTC),
        queue_delay_ms=_rounded(task.queue_delay_ms),
        run_time_ms=_rounded(task.run_time_ms),
        trace_id=task.trace_id,
        trace_url=trace_url(template, task.trace_id),
        error=task.error,
        replay_of=task.replay_of,
    )


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 3)


def _letter(letter: dead_letters.DeadLetter, template: str) -> DeadLetter:
    return DeadLetter(
        id=letter.id,
        name=letter.name,
        endpoint=letter.endpoint,
        arguments=json.loads(letter.arguments),
        replayable=letter.complete,
        error=Error(type=letter.error_type, message=letter.error_message, stack=letter.error_stack),
        attempts=letter.attempts,
        reason=letter.reason,
        trace_id=letter.trace_id,
        trace_url=trace_url(template, letter.trace_id),
        replay_of=letter.replay_of,
        died_at=datetime.fromisoformat(letter.died_at),
    )


def _unknown(what: str) -> HTTPException:
    return HTTPException(404, f"there is no {what} of this id")


@router.get("/tasks")
async def list_tasks(request: Request, wanted: Annotated[WantedTasks, Query()]) -> Tasks:
    """Show the unfinished tasks of this process and the latest finished ones."""
    registry: Registry = request.app.state.room.registry
    template: str = request.app.state.settings.trace_url
    return Tasks(
        tasks=[_task(task, template) for task in registry.newest(wanted.state, wanted.limit)],
        counts={each: registry.counts[each] for each in State},
        running=registry.counts[State.RUNNING],
    )


@router.get("/tasks/{task_id}", responses=problems(404), dependencies=[NO_PARAMETERS])
async def get_task(request: Request, task_id: TaskId) -> Task:
    """Show one task."""
    task = request.app.state.room.registry.get(task_id)
    if task is None:
        raise _unknown("task")
    return _task(task, request.app.state.settings.trace_url)


@router.get("/dead-letters", responses=problems(503))
async def list_dead_letters(request: Request, wanted: Annotated[Limited, Query()]) -> DeadLetterList:
    """Show the tasks that failed for good."""
    letters, total = await request.app.state.letters.read(wanted.limit)
    template: str = request.app.state.settings.trace_url
    return DeadLetterList(dead_letters=[_letter(letter, template) for letter in letters], total=total)


@router.post(
    "/dead-letters/{task_id}/replay",
    status_code=202,
    responses=problems(404, 409, 413, 503),
    dependencies=[NO_PARAMETERS],
)
async def replay(request: Request, task_id: TaskId, start: Start, key: Key = None) -> Replayed:
    """Run a dead letter's task again, as a new task in a trace of its own, and take the letter out."""
    letters: DeadLetters = request.app.state.letters
    publisher: Publisher = request.app.state.publisher

    async def begin() -> Replayed:
        letter = await letters.get(task_id)
        if letter is None:
            raise _unknown("dead letter")
        if letter.name not in {*JOBS, CELERY_TASK, MESSAGE_TASK}:
            raise HTTPException(409, f"this version of the service has no task {letter.name!r}")
        if not letter.complete:
            raise HTTPException(409, "its arguments were secret or too large to be kept: send the request again")
        if not await letters.remove(task_id):
            raise _unknown("dead letter")  # somebody else was faster
        arguments, replay_of = json.loads(letter.arguments), letter.trace_id or "unknown"
        try:
            if letter.name in JOBS:
                new_id = start.in_background(JOBS[letter.name], replay_of=replay_of, **arguments).id
            else:
                tag("replay.of", replay_of)
                new_id = await publisher.send_again(letter.name, arguments)
        except (Refused, BrokerUnavailableError):
            letters.put(letter)
            raise
        return Replayed(task_id=new_id)

    return await start.once(key, begin)


@router.delete("/dead-letters/{task_id}", status_code=204, responses=problems(404, 503), dependencies=[NO_PARAMETERS])
async def delete_dead_letter(request: Request, task_id: TaskId) -> Response:
    """Forget a task that failed for good."""
    if not await request.app.state.letters.remove(task_id):
        raise _unknown("dead letter")
    return Response(status_code=204)
