"""`GET /test…`: the same work in each of the ways of `tracing_claims.variants`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from uuid import uuid4

from fastapi import APIRouter, Query, Request
from pydantic import model_validator
from tracing_claims import variants

from demo_service import ledger
from demo_service.http.problems import problems
from demo_service.http.starting import Fault, Start
from demo_service.http.timing import Timing
from demo_service.tasks import Threads, Work, sleep_tasks, wait_or_compute

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tracing_claims.variants import Variant

    from demo_service import tasks
    from demo_service.queues import Publisher
    from demo_service.tasks import LooseTasks

CPU_SECONDS = 1.0
"""How long work computes by default, if tasks take longer than that."""

router = APIRouter(responses=problems(422))


class Wanted(Timing):
    """What work is wanted."""

    work: Work = Work.SLEEP

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.work is Work.CPU and (self.duration or 0) > variants.MAX_CPU_SECONDS:
            message = f"work=cpu takes {variants.MAX_CPU_SECONDS:g} s at most: in some variants nobody else is served"
            raise ValueError(message)
        return self

    def seconds_or_default(self, request: Request) -> float:
        """Return how long the work takes."""
        seconds = super().seconds_or_default(request)
        return min(seconds, CPU_SECONDS) if self.work is Work.CPU and self.duration is None else seconds


class WantedInThread(Wanted):
    """What work is wanted, and in whose threads."""

    threads: Threads = Threads.OWN


Asked = Annotated[Wanted, Query()]


def _arguments(request: Request, wanted: Wanted) -> dict[str, Any]:
    """Return a task's arguments; sleeping is understood."""
    arguments: dict[str, Any] = {"seconds": wanted.seconds_or_default(request)}
    return arguments if wanted.work is Work.SLEEP else {**arguments, "work": wanted.work.value}


def _accepted(variant: Variant, work_id: str) -> Literal["ok"]:
    ledger.note("accepted", variant.name, work_id)
    return "ok"


async def _publish(
    request: Request, send: Callable[..., Awaitable[None]], variant: Variant, message: tuple[str, dict[str, Any]]
) -> Literal["ok"]:
    request.app.state.room.refuse_when_draining()
    work_id, arguments = message
    await send(work_id, **arguments)
    return _accepted(variant, work_id)


@router.get("/test", responses=problems(503))
async def test(request: Request, start: Start, wanted: Asked) -> Literal["ok"]:
    """Answer at once; a task sleeps on."""
    task = start.in_background(sleep_tasks.background_sleep_task, **_arguments(request, wanted))
    return _accepted(variants.BACKGROUND_TASK, task.id)


@router.get("/test/blocking")
async def test_blocking(request: Request, wanted: Asked) -> Literal["ok"]:
    """Make the client wait for the same work: what background tasks spare it."""
    work_id = uuid4().hex
    ledger.note("begun", variants.BLOCKING.name, work_id)
    await wait_or_compute(wanted.seconds_or_default(request), wanted.work)
    ledger.note("done", variants.BLOCKING.name, work_id)
    return _accepted(variants.BLOCKING, work_id)


@router.get("/test/create-task", responses=problems(503))
async def test_create_task(request: Request, wanted: Asked) -> Literal["ok"]:
    """Answer at once; an asyncio task works on that nobody waits for."""
    loose: LooseTasks = request.app.state.loose_tasks
    request.app.state.room.refuse_when_draining()
    work_id = loose.start(wanted.seconds_or_default(request), wanted.work)
    return _accepted(variants.CREATE_TASK, work_id)


@router.get("/test/threading", responses=problems(503))
async def test_threading(request: Request, start: Start, wanted: Annotated[WantedInThread, Query()]) -> Literal["ok"]:
    """Answer at once; a task sleeps on in a thread."""
    arguments = _arguments(request, wanted)
    if wanted.threads is Threads.SHARED:
        arguments["threads"] = wanted.threads.value
    task = start.in_background(sleep_tasks.threaded_sleep_task, **arguments)
    return _accepted(variants.THREADING, task.id)


@router.get("/test/process", responses=problems(503))
async def test_process(request: Request, start: Start, wanted: Asked) -> Literal["ok"]:
    """Answer at once; a process of a pool does the work."""
    task = start.in_background(sleep_tasks.process_sleep_task, **_arguments(request, wanted))
    return _accepted(variants.PROCESS, task.id)


@router.get("/test/celery", responses=problems(503))
async def test_celery(request: Request, fault: Fault, wanted: Asked) -> Literal["ok"]:
    """Answer when the broker has the message; a Celery worker does the work."""
    publisher: Publisher = request.app.state.publisher
    return await _publish(request, publisher.send_to_celery, variants.CELERY, _message(request, fault, wanted))


@router.get("/test/queue", responses=problems(503))
async def test_queue(request: Request, fault: Fault, wanted: Asked) -> Literal["ok"]:
    """Answer when the broker has the message; a consumer does the work."""
    publisher: Publisher = request.app.state.publisher
    return await _publish(request, publisher.send_message, variants.QUEUE, _message(request, fault, wanted))


def _message(request: Request, fault: tasks.Fault | None, wanted: Wanted) -> tuple[str, dict[str, Any]]:
    arguments = {"seconds": wanted.seconds_or_default(request), "work": wanted.work.value}
    return uuid4().hex, {**arguments, "fault": fault.text} if fault else arguments
