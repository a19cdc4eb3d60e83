"""The endpoints that start tasks, and the health checks."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated, Literal, Self

from fastapi import APIRouter, BackgroundTasks, Body, Query, Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator
from skywalking_background import ParallelTasks

from demo_service.http.json_values import check_json
from demo_service.http.problems import problems
from demo_service.http.query import NO_PARAMETERS
from demo_service.http.starting import Key, Start
from demo_service.http.timing import Timing
from demo_service.tasks import Refused, sleep_tasks

router = APIRouter(responses=problems(422))
health = APIRouter(prefix="/health", tags=["health"], responses=problems(422), dependencies=[NO_PARAMETERS])


class Mode(StrEnum):
    """How the tasks of one response run: side by side, or as Starlette's own collection does."""

    PARALLEL = "parallel"
    SEQUENTIAL = "sequential"


class ComplexTiming(Timing):
    """How long each of several tasks runs, and when."""

    mode: Mode = Mode.PARALLEL


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


@router.post("/action", responses=problems(413, 503))
async def action(request: Request, start: Start, timing: Annotated[Timing, Query()], key: Key = None) -> Processing:
    """Fire and forget."""

    async def begin() -> Processing:
        start.in_background(sleep_tasks.long_running_task, seconds=timing.seconds_or_default(request))
        return Processing()

    return await start.once(key, begin)


@router.post("/complex-action", response_model=ComplexProcessing, responses=problems(413, 503))
async def complex_action(
    request: Request, start: Start, timing: Annotated[ComplexTiming, Query()], key: Key = None
) -> JSONResponse:
    """Start three tasks, side by side or one after the other."""
    parallel = timing.mode is Mode.PARALLEL
    collection = ParallelTasks() if parallel else BackgroundTasks()

    async def begin() -> ComplexProcessing:
        jobs = (sleep_tasks.task1, sleep_tasks.task2, sleep_tasks.task3)
        for execution in start.accept(*jobs, seconds=timing.seconds_or_default(request)):
            execution.retries_apart = parallel  # one after the other, each waits for all attempts of the one before
            collection.tasks.append(execution)  # type: ignore[arg-type]  # any coroutine function serves
        return ComplexProcessing(tasks=len(jobs))

    answer = await start.once(key, begin)
    return JSONResponse(answer.model_dump(), background=collection)


@router.post("/process", responses=problems(400, 413, 503))
async def process(
    request: Request,
    data: Annotated[Data, Body()],
    start: Start,
    timing: Annotated[Timing, Query()],
) -> Accepted:
    """Start a task with the request's data; the same id again gets the same answer and starts nothing."""
    values = data.model_dump()

    async def begin() -> Accepted:
        start.in_background(sleep_tasks.process_data, data=values, seconds=timing.seconds_or_default(request))
        return Accepted(id=data.id)

    return await start.once(repr(data.id), begin, values)


@router.get("/plain")
def plain(timing: Annotated[Timing, Query()]) -> Literal["ok"]:
    """Answer out of a plain function, which needs one of AnyIO's forty threads: for `duration`, or for a moment."""
    time.sleep(timing.duration or 0)
    return "ok"


@health.get("/live")
async def live() -> dict[str, str]:
    """Say that the process serves."""
    return {"status": "live"}


@health.get("/ready", responses=problems(503))
async def ready(request: Request) -> dict[str, str]:
    """Say whether new requests are welcome: all that they need is there, and SIGTERM has not come."""
    state = request.app.state
    state.room.refuse_when_draining()
    if state.descriptors.exhausted():
        raise Refused(state.descriptors.reason)
    if reason := await state.letters.trouble():
        raise Refused(f"dead letters can't be stored: {reason}")
    return {"status": "ready"}
