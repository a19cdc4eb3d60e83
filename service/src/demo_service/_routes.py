"""The HTTP contract: every endpoint answers at once, but for the one that shows why."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Body, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StrictStr
from skywalking_background import ParallelTasks
from starlette.background import BackgroundTask

from demo_service import _tasks as tasks
from demo_service._tasks import new_task_id

MAX_SECONDS = 60.0

router = APIRouter()
health = APIRouter(prefix="/health", tags=["health"])


async def _seconds(  # `def` would cost each request a trip to the thread pool
    request: Request,
    duration: Annotated[
        float | None, Query(ge=0, le=MAX_SECONDS, allow_inf_nan=False, description="How long the task runs, in s.")
    ] = None,
) -> float:
    default: float = request.app.state.settings.task_seconds
    return default if duration is None else duration


Seconds = Annotated[float, Depends(_seconds)]


class Mode(StrEnum):
    """How the tasks of one response run: side by side, or as Starlette's own collection does."""

    PARALLEL = "parallel"
    SEQUENTIAL = "sequential"


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

    id: StrictInt | Annotated[StrictStr, Field(min_length=1, max_length=128), AfterValidator(_printable)]


class Accepted(BaseModel):
    """The answer to `POST /process`."""

    status: Literal["accepted"] = "accepted"
    id: int | str


@router.get("/test")
async def test(background_tasks: BackgroundTasks, seconds: Seconds) -> Literal["ok"]:
    """Answer at once; a task sleeps on."""
    background_tasks.add_task(tasks.background_sleep_task, new_task_id(), seconds)
    return "ok"


@router.get("/test/blocking")
async def test_blocking(seconds: Seconds) -> Literal["ok"]:
    """Make the client wait for the same sleep: what background tasks spare it."""
    await asyncio.sleep(seconds)
    return "ok"


@router.post("/action")
async def action(background_tasks: BackgroundTasks, seconds: Seconds) -> Processing:
    """Fire and forget."""
    background_tasks.add_task(tasks.long_running_task, new_task_id(), seconds)
    return Processing()


@router.post("/complex-action", response_model=ComplexProcessing)
async def complex_action(seconds: Seconds, mode: Mode = Mode.PARALLEL) -> JSONResponse:
    """Start three tasks, side by side or one after the other."""
    work = [BackgroundTask(task, new_task_id(), seconds) for task in (tasks.task1, tasks.task2, tasks.task3)]
    collection = ParallelTasks(work) if mode is Mode.PARALLEL else BackgroundTasks(work)
    return JSONResponse(ComplexProcessing(tasks=len(work)).model_dump(), background=collection)


@router.post("/process")
async def process(data: Annotated[Data, Body()], background_tasks: BackgroundTasks, seconds: Seconds) -> Accepted:
    """Start a task with the request's data."""
    values: dict[str, Any] = data.model_dump()
    background_tasks.add_task(tasks.process_data, new_task_id(), values, seconds)
    return Accepted(id=data.id)


@health.get("/live")
async def live() -> dict[str, str]:
    """Say that the process serves."""
    return {"status": "live"}


@health.get("/ready")
async def ready() -> dict[str, str]:
    """Say that new requests are welcome."""
    return {"status": "ready"}
