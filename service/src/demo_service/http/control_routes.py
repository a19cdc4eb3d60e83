"""The endpoints that act on tasks: cancel one, pause a job, replay or delete many dead letters. Each leaves a line."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

from fastapi import APIRouter, HTTPException, Path, Query, Request
from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, StringConstraints
from skywalking_background import tag

from demo_service.dead_letters import Reason, Wanted
from demo_service.http.problems import problems
from demo_service.http.query import NO_PARAMETERS, Parameters
from demo_service.http.task_routes import TaskId
from demo_service.tasks import JOBS, Refused

if TYPE_CHECKING:
    from demo_service import dead_letters
    from demo_service.dead_letters.store import DeadLetters
    from demo_service.tasks import Room

logger = logging.getLogger(__name__)

router = APIRouter(responses=problems(422))

_ISO: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]")
JobName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def _as_text(value: object) -> object:
    """Refuse a number, which pydantic takes for the seconds of a clock."""
    if isinstance(value, str) and not _ISO.match(value):
        message = "must be a time as 2026-11-25T16:30:00Z"
        raise ValueError(message)
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_as_text)]


class Filter(Parameters):
    """Which dead letters: those to which all that is given applies. Without any, `all=true` says that it is meant."""

    name: Text | None = None
    error: Text | None = None
    reason: Reason | None = None
    after: Moment | None = None
    before: Moment | None = None
    all: bool = False

    def wanted(self) -> Wanted:
        """Return what is wanted.

        Raises:
            HTTPException: 422, nothing says which.
        """
        wanted = Wanted(self.name, self.error, self.reason, self.after, self.before)
        if wanted == Wanted() and not self.all:
            raise HTTPException(422, "say which letters by name, error, reason, after or before, or all=true")
        return wanted


class ReplayFilter(Filter):
    """Which dead letters to replay, the oldest first."""

    limit: Annotated[int, Field(ge=1, le=10_000)] = 1_000


class Cancelling(BaseModel):
    """The answer to a cancellation."""

    status: Literal["cancelling"] = "cancelling"
    task_id: str


class BulkReplayed(BaseModel):
    """The answer to a replay of many."""

    task_ids: list[str]
    skipped: int
    """How many stay: their arguments are not complete, or this version has no such task."""
    refused: str | None
    """Why the rest stays, where there was no room for all."""


class BulkDeleted(BaseModel):
    """The answer to a deletion of many."""

    deleted: int


class JobState(BaseModel):
    """A job, and whether its queue is paused."""

    name: str
    paused: bool


class Jobs(BaseModel):
    """All jobs."""

    jobs: list[JobState]


def audit(request: Request, action: str, target: str, **details: object) -> None:
    """Leave a line in the log, which SkyWalking has too, and tags on the request's span: who did what to which."""
    client = request.client.host if request.client else "unknown"
    tag("audit.action", action)
    tag("audit.target", target)
    tag("audit.client", client)
    for key, value in details.items():
        tag(f"audit.{key}", value)
    extra = {"action": action, "target": target, "client": client, **{f"audit_{key}": details[key] for key in details}}
    more = "".join(f", {key} {value}" for key, value in details.items())
    logger.warning("audit: %s of %s by %s%s", action, target, client, more, extra=extra)


@router.post(
    "/tasks/{task_id}/cancel", status_code=202, responses=problems(404, 409, 503), dependencies=[NO_PARAMETERS]
)
async def cancel(request: Request, task_id: TaskId) -> Cancelling:
    """End a task, whether it has begun or not, in whichever process of the service it is."""
    room: Room = request.app.state.room
    try:
        found = await room.orders.cancel(task_id)
    except OSError as error:
        raise HTTPException(503, f"the other processes can't be asked: {error}") from error
    if found is None:
        raise HTTPException(404, "there is no task of this id")
    if not found.cancelled:
        raise HTTPException(409, f"the task has ended already: {found.state}")
    audit(request, "cancel", f"task {task_id}", name=found.name, trace=found.trace_id)
    return Cancelling(task_id=task_id)


@router.post("/dead-letters/replay", status_code=202, responses=problems(503), tags=["bulk"])
async def replay_many(request: Request, wanted: Annotated[ReplayFilter, Query()]) -> BulkReplayed:
    """Run the tasks of many dead letters again, each in a trace of its own, and take the letters out."""
    letters: DeadLetters = request.app.state.letters
    room: Room = request.app.state.room
    room.refuse_when_draining()
    found = await letters.select(wanted.wanted(), wanted.limit)
    able = [letter for letter in found if letter.complete and letter.name in JOBS]
    task_ids: list[str] = []
    refused = None
    for letter in able:
        if not await letters.remove(letter.id):  # somebody else was faster
            continue
        try:
            task_ids.append(_replay(room, letter))
        except Refused as error:
            letters.put(letter)
            refused = str(error)
            break
    await room.kept()
    audit(request, "replay", "dead letters", filter=_text(wanted), replayed=len(task_ids))
    return BulkReplayed(task_ids=task_ids, skipped=len(found) - len(able), refused=refused)


def _replay(room: Room, letter: dead_letters.DeadLetter) -> str:
    arguments = json.loads(letter.arguments)
    of = letter.trace_id or "unknown"
    execution = room.accept_apart(JOBS[letter.name], arguments, endpoint=letter.endpoint, replay_of=of)
    room.run_apart(execution)
    return execution.task.id


@router.delete("/dead-letters", responses=problems(503), tags=["bulk"])
async def delete_many(request: Request, wanted: Annotated[Filter, Query()]) -> BulkDeleted:
    """Forget many dead letters."""
    deleted = await request.app.state.letters.remove_all(wanted.wanted())
    audit(request, "delete", "dead letters", filter=_text(wanted), deleted=deleted)
    return BulkDeleted(deleted=deleted)


def _text(wanted: Filter) -> str:
    given = wanted.model_dump(exclude_none=True, exclude_defaults=True)
    return "&".join(
        f"{key}={value.isoformat() if isinstance(value, datetime) else value}" for key, value in given.items()
    )


@router.get("/jobs", dependencies=[NO_PARAMETERS])
async def jobs(request: Request) -> Jobs:
    """Show the jobs, and which of them are paused."""
    gates = request.app.state.room.gates
    gates.look()  # another process may just have been told
    paused = gates.paused
    return Jobs(jobs=[JobState(name=name, paused=name in paused) for name in JOBS])


@router.post("/jobs/{name}/pause", responses=problems(404, 503), dependencies=[NO_PARAMETERS])
async def pause(request: Request, name: JobName) -> JobState:
    """Let none of a job's tasks begin until it is resumed; what runs goes on, what is accepted waits."""
    return _set(request, name, paused=True)


@router.post("/jobs/{name}/resume", responses=problems(404, 503), dependencies=[NO_PARAMETERS])
async def resume(request: Request, name: JobName) -> JobState:
    """Let a job's tasks begin again."""
    return _set(request, name, paused=False)


def _set(request: Request, name: str, *, paused: bool) -> JobState:
    if name not in JOBS:
        raise HTTPException(404, f"there is no job {name!r}")
    gates = request.app.state.room.gates
    try:
        gates.pause(name) if paused else gates.resume(name)
    except OSError as error:
        raise HTTPException(503, f"it can't be noted for the other processes: {error}") from error
    audit(request, "pause" if paused else "resume", f"job {name}")
    return JobState(name=name, paused=paused)
