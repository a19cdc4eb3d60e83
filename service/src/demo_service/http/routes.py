"""The HTTP contract: every endpoint answers at once, but for the one that shows why."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated, Literal, Self

from fastapi import APIRouter, BackgroundTasks, Body, Query, Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator
from skywalking_background import ParallelTasks
from starlette.background import BackgroundTask

from demo_service import _tasks as tasks
from demo_service._json import check_json
from demo_service._problems import problems
from demo_service._query import NO_PARAMETERS, Parameters
from demo_service._runner import Refused
from demo_service._starting import Key, Start

MAX_SECONDS = 60.0

router = APIRouter(responses=problems(422))
health = APIRouter(prefix="/health", tags=["health"], responses=problems(422), dependencies=[NO_PARAMETERS])


class Timing(Parameters):
    """How long the tasks of a request run."""

    duration: Annotated[
        float | None, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False, description="How long a task runs, in s.")
    ] = None


class Mode(StrEnum):
    """How the tasks of one response run: side by side, or as Starlette's own collection does."""

    PARALLEL = "parallel"
    SEQUENTIAL = "sequential"


class ComplexTiming(Timing):
    """How long each of several tasks runs, and when."""

    mode: Mode = Mode.PARALLEL


def _seconds(request: Request, timing: Timing) -> float:
    default: float = request.app.state.settings.task_seconds
    return default if timing.duration is None else timing.duration


class Processing(BaseModel):
    """The answer to an action."""

    status: Literal["processing"] = "processing"


class ComplexProcessing(Processing):
    """The answer to an action of several tasks."""

    tasks: int


def _printable(text: str) -> str:
    if not text.isprintable():
        message = "must consist of printable characters"
        raise ValueError(message)
    return text


class Data(BaseModel):
    """What `POST /process` takes: an object with an id; whatever else it holds goes to the task."""

    model_config = ConfigDict(extra="allow")

    id: (
        Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
        | Annotated[StrictStr, Field(min_length=1, max_length=128), AfterValidator(_printable)]
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_json(self.model_extra)
        return self


class Accepted(BaseModel):
    """The answer to `POST /process`."""

    status: Literal["accepted"] = "accepted"
    id: int | str


@router.get("/test", responses=problems(503))
async def test(
    request: Request, background_tasks: BackgroundTasks, start: Start, timing: Annotated[Timing, Query()]
) -> Literal["ok"]:
    """Answer at once; a task sleeps on."""
    (work,) = start.accept(tasks.background_sleep_task, seconds=_seconds(request, timing))
    background_tasks.add_task(work)
    return "ok"


@router.get("/test/blocking")
async def test_blocking(request: Request, timing: Annotated[Timing, Query()]) -> Literal["ok"]:
    """Make the client wait for the same sleep: what background tasks spare it."""
    await asyncio.sleep(_seconds(request, timing))
    return "ok"


@router.get("/test/threading", responses=problems(503))
async def test_threading(
    request: Request, background_tasks: BackgroundTasks, start: Start, timing: Annotated[Timing, Query()]
) -> Literal["ok"]:
    """Answer at once; a task sleeps on in a thread."""
    (work,) = start.accept(tasks.threaded_sleep_task, seconds=_seconds(request, timing))
    background_tasks.add_task(work)
    return "ok"


@router.post("/action", responses=problems(413, 503))
async def action(
    request: Request,
    background_tasks: BackgroundTasks,
    start: Start,
    timing: Annotated[Timing, Query()],
    key: Key = None,
) -> Processing:
    """Fire and forget."""

    async def begin() -> Processing:
        (work,) = start.accept(tasks.long_running_task, seconds=_seconds(request, timing))
        background_tasks.add_task(work)
        return Processing()

    return await start.once(key, begin)


@router.post("/complex-action", response_model=ComplexProcessing, responses=problems(413, 503))
async def complex_action(
    request: Request, start: Start, timing: Annotated[ComplexTiming, Query()], key: Key = None
) -> JSONResponse:
    """Start three tasks, side by side or one after the other."""
    collection = BackgroundTasks() if timing.mode is Mode.SEQUENTIAL else ParallelTasks()

    async def begin() -> ComplexProcessing:
        works = start.accept(tasks.task1, tasks.task2, tasks.task3, seconds=_seconds(request, timing))
        collection.tasks += [BackgroundTask(work) for work in works]
        return ComplexProcessing(tasks=len(works))

    answer = await start.once(key, begin)
    return JSONResponse(answer.model_dump(), background=collection)


@router.post("/process", responses=problems(400, 413, 503))
async def process(
    request: Request,
    data: Annotated[Data, Body()],
    background_tasks: BackgroundTasks,
    start: Start,
    timing: Annotated[Timing, Query()],
) -> Accepted:
    """Start a task with the request's data; the same id again gets the same answer and starts nothing."""
    values = data.model_dump()

    async def begin() -> Accepted:
        (work,) = start.accept(tasks.process_data, data=values, seconds=_seconds(request, timing))
        background_tasks.add_task(work)
        return Accepted(id=data.id)

    return await start.once(repr(data.id), begin, values)


@health.get("/live")
async def live() -> dict[str, str]:
    """Say that the process serves."""
    return {"status": "live"}


@health.get("/ready", responses=problems(503))
async def ready(request: Request) -> dict[str, str]:
    """Say that new requests are welcome: all that they need is there, and SIGTERM has not come."""
    state = request.app.state
    state.runner.refuse_when_draining()
    if state.descriptors.exhausted():
        raise Refused(state.descriptors.reason)
    if reason := await state.letters.trouble():
        raise Refused(f"dead letters can't be stored: {reason}")
    return {"status": "ready"}
