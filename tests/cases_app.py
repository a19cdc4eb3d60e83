"""The app whose traces the table in `test_traces.py` describes: one route for each case."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import aiohttp
import httpx
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, HTTPException, Request, Response, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from skywalking_background import ParallelTasks, background_span, carry, current_trace_id, instrument, tag
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from typing import Any

    from starlette.types import ASGIApp, Receive, Scope, Send

SHORT = 0.2  # s: long enough to tell a task that ran side by side from one that waited
_threads = ThreadPoolExecutor(4)
_running: set[asyncio.Task[None]] = set()


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Run something at start, so that the table can show that no trace comes of it."""
    await asyncio.sleep(0)
    async with below.router.lifespan_context(below):  # as Starlette wants it: it begins no mounted app's by itself
        yield


app = FastAPI(lifespan=lifespan)
router = APIRouter(prefix="/v1")
sub = FastAPI()


async def work(seconds: float = SHORT) -> None:
    await asyncio.sleep(seconds)


async def more_work() -> None:
    await asyncio.sleep(SHORT)


def sync_work() -> None:
    time.sleep(SHORT)


async def failing_work() -> None:
    await asyncio.sleep(0)
    message = "on purpose"
    raise ValueError(message)


@app.get("/plain")
def plain() -> str:
    return "ok"


@app.get("/async")
async def asynchronous() -> str:
    return "ok"


@app.get("/pid")
async def pid() -> int:
    return os.getpid()


@app.get("/task")
async def with_task(tasks: BackgroundTasks) -> str:
    tasks.add_task(work)
    return "ok"


@app.get("/task/{seconds}")
async def with_long_task(tasks: BackgroundTasks, seconds: float) -> str:
    tasks.add_task(work, seconds)
    return "ok"


@app.get("/plain-task")
def plain_with_task(tasks: BackgroundTasks) -> str:
    tasks.add_task(sync_work)
    return "ok"


@app.get("/sequential")
async def sequential(tasks: BackgroundTasks) -> str:
    tasks.add_task(work)
    tasks.add_task(more_work)
    return "ok"


@app.get("/parallel")
async def parallel() -> Response:
    return PlainTextResponse("ok", background=ParallelTasks([BackgroundTask(work), BackgroundTask(more_work)]))


@app.get("/failing/sequential")
async def failing_sequential(tasks: BackgroundTasks) -> str:
    tasks.add_task(failing_work)
    tasks.add_task(work)
    return "ok"


@app.get("/failing/parallel")
async def failing_parallel() -> Response:
    return PlainTextResponse("ok", background=ParallelTasks([BackgroundTask(failing_work), BackgroundTask(work)]))


@app.get("/response-task")
async def response_task() -> Response:
    return PlainTextResponse("ok", background=BackgroundTask(work))


@app.get("/raises")
async def raises() -> str:
    message = "before the response"
    raise RuntimeError(message)


@app.get("/raises/late")
async def raises_late() -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"some"
        await asyncio.sleep(0.01)
        message = "after the response started"
        raise RuntimeError(message)

    return StreamingResponse(body())


@app.get("/status/{code}")
async def status(code: int) -> str:
    raise HTTPException(code)


@app.get("/stream")
async def stream() -> Response:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(SHORT / 4)
            yield b"x"

    return StreamingResponse(body(), background=BackgroundTask(work))


@app.get("/endless")
async def endless() -> Response:
    async def body() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.02)
            yield b"x" * 1024

    return StreamingResponse(body())


@app.api_route("/methods", methods=["HEAD", "OPTIONS"])
async def methods() -> Response:
    return Response()


@app.post("/body")
async def body(request: Request, tasks: BackgroundTasks) -> int:
    tasks.add_task(work, 1.0)
    return len(await request.body())


@app.websocket("/socket/{room}")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(current_trace_id() or "")
    await websocket.receive_text()
    await websocket.close()


async def teardown() -> AsyncIterator[None]:
    yield
    message = "in the dependency's exit"
    raise RuntimeError(message)


@app.get("/yield", dependencies=[Depends(teardown)])
async def with_teardown() -> str:
    return "ok"


async def spawning_work() -> None:
    async def child() -> None:
        with background_span("child"):
            await asyncio.sleep(SHORT / 2)

    await asyncio.create_task(child())
    async with asyncio.TaskGroup() as group:
        group.create_task(child())
        group.create_task(child())


@app.get("/spawning")
async def spawning(tasks: BackgroundTasks) -> str:
    tasks.add_task(spawning_work)
    return "ok"


async def work_in_attempts() -> None:
    for attempt in (1, 2):
        with background_span("attempt", tags={"task.attempt": attempt}):
            await asyncio.sleep(0.01)


@app.get("/attempts")
async def attempts(tasks: BackgroundTasks) -> str:
    tasks.add_task(work_in_attempts)
    return "ok"


def spawn(work: Coroutine[Any, Any, None]) -> None:
    """Run something that nobody waits for."""
    task = asyncio.create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)


@app.get("/own-runner")
async def own_runner() -> str:
    async def run() -> None:
        with background_span("own_runner"):
            await asyncio.sleep(SHORT)

    spawn(run())
    return "ok"


@app.get("/thread")
async def thread() -> str:
    _threads.submit(carry(sync_work))
    return "ok"


@app.get("/other-loop")
async def other_loop() -> str:
    carried = carry(work, name="carried")
    _threads.submit(lambda: asyncio.run(carried()))
    return "ok"


@app.get("/cancelled")
async def cancelled(tasks: BackgroundTasks) -> str:
    async def cancelled_work() -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]  # runs in one
        await asyncio.sleep(1)

    async def run() -> None:
        task = asyncio.create_task(BackgroundTask(cancelled_work)())
        await asyncio.wait([task])

    spawn(run())
    return "ok"


@app.get("/called")
async def called(sw8: Annotated[str, Header()] = "") -> str:
    return sw8


async def call_httpx(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.get(url)


async def call_aiohttp(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        await response.read()


@app.get("/calls/httpx")
async def calls_httpx(request: Request, tasks: BackgroundTasks) -> str:
    tasks.add_task(call_httpx, str(request.url_for("called")))
    return "ok"


@app.get("/calls/aiohttp")
async def calls_aiohttp(request: Request, tasks: BackgroundTasks) -> str:
    tasks.add_task(call_aiohttp, str(request.url_for("called")))
    return "ok"


@app.get("/ignored/deep/{item}")
async def ignored(request: Request, item: str, tasks: BackgroundTasks) -> str:
    tasks.add_task(call_httpx, str(request.url_for("traced_by", item=item)))
    return "ok"


@app.get("/by/{item}", name="traced_by")
async def traced_by(item: str) -> str:
    return item


@router.get("/items/{item_id}")
async def item(item_id: int, tasks: BackgroundTasks) -> int:
    tasks.add_task(work)
    return item_id


@sub.get("/things/{thing_id}")
async def thing(thing_id: str, tasks: BackgroundTasks) -> str:
    tasks.add_task(work)
    return thing_id


# What outlives its request or its task, without a span of its own, and makes a call.

LATER = 0.05  # s: when the response is out for sure
sink = httpx.MockTransport(lambda _request: httpx.Response(200))  # what is called is not of interest


async def call_sink(seconds: float = LATER) -> None:
    await asyncio.sleep(seconds)
    async with httpx.AsyncClient(transport=sink) as client:
        await client.get("http://sink/x")


def call_sink_and_wait() -> None:
    time.sleep(LATER)
    with httpx.Client(transport=sink) as client:
        client.get("http://sink/x")


@app.get("/late/create-task")
async def late_create_task() -> str:
    spawn(call_sink())
    return "ok"


@app.get("/late/to-thread")
async def late_to_thread() -> str:
    spawn(asyncio.to_thread(call_sink_and_wait))
    return "ok"


@app.get("/late/call-later")
async def late_call_later() -> str:
    asyncio.get_running_loop().call_later(LATER, lambda: spawn(call_sink(0)))
    return "ok"


@app.get("/late/copied-context")
async def late_copied_context() -> str:
    copied = contextvars.copy_context()

    async def later() -> None:
        await asyncio.sleep(LATER)
        await asyncio.get_running_loop().run_in_executor(_threads, copied.run, call_sink_and_wait)

    spawn(later())
    return "ok"


async def leaving_a_task_behind() -> None:
    spawn(call_sink())


@app.get("/late/in-a-task")
async def late_in_a_task(tasks: BackgroundTasks) -> str:
    tasks.add_task(leaving_a_task_behind)
    return "ok"


async def calling_teardown() -> AsyncIterator[None]:
    yield
    await call_sink()


@app.get("/late/dependency", dependencies=[Depends(calling_teardown)])
async def late_dependency() -> str:
    return "ok"


class AfterTheResponse:
    """A middleware that makes a call when the app is through."""

    def __init__(self, app: ASGIApp) -> None:
        self.inside = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.inside(scope, receive, send)
        if scope.get("path") == "/late/middleware":
            await call_sink()


app.add_middleware(AfterTheResponse)


@app.get("/late/middleware")
async def late_middleware() -> str:
    return "ok"


@app.get("/ignored/late/{item}")
async def ignored_late(request: Request, item: str) -> str:
    async def call() -> None:
        await asyncio.sleep(LATER)
        await call_httpx(str(request.url_for("traced_by", item=item)))

    spawn(call())
    return "ok"


@app.get("/in-process")
async def in_process(tasks: BackgroundTasks) -> dict[str, str | None]:
    before = current_trace_id()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://inside") as client:
        await client.get("/async")
    tag("after", "the call")
    with background_span("after"):
        tasks.add_task(work)
    return {"before": before, "after": current_trace_id()}


# What people hand to `add_task`.


class TwiceTask(BackgroundTask):
    """A task that runs its function as it likes."""

    async def __call__(self) -> None:
        for _ in range(2):
            await self.func(*self.args, **self.kwargs)


@app.get("/subclass")
async def subclass() -> Response:
    return PlainTextResponse("ok", background=TwiceTask(more_work))


@app.get("/threadpool")
async def threadpool(tasks: BackgroundTasks) -> str:
    tasks.add_task(run_in_threadpool, sync_work)
    return "ok"


class Resize:
    """An object that is called and awaited."""

    async def __call__(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@app.get("/partial-object")
async def partial_object(tasks: BackgroundTasks) -> str:
    tasks.add_task(functools.partial(functools.partial(Resize()), SHORT))
    return "ok"


class MuteError(Exception):
    """One that can't even be shown."""

    def __str__(self) -> str:
        message = "no text"
        raise RuntimeError(message)

    __repr__ = __str__


async def failing_mutely() -> None:
    raise MuteError


@app.get("/failing/mutely")
async def with_mute_failure(tasks: BackgroundTasks) -> str:
    tasks.add_task(failing_mutely)
    return "ok"


class NoException(BaseException):
    """What some libraries raise, so that no `except Exception` stops it."""


async def failing_past_all() -> None:
    raise NoException


@app.get("/failing/past-all")
async def with_failure_past_all(tasks: BackgroundTasks) -> str:
    tasks.add_task(failing_past_all)
    return "ok"


async def odd_name() -> None:
    await asyncio.sleep(SHORT)


odd_name.__qualname__ = "r\udce9sum\udce9"


@app.get("/odd-name")
async def with_odd_name(tasks: BackgroundTasks) -> str:
    tasks.add_task(odd_name)
    return "ok"


async def odd_values() -> None:
    tag("file", "r\udce9sum\udce9")
    tag("zero", "a\0b")


@app.get("/odd-values")
async def with_odd_values(tasks: BackgroundTasks) -> str:
    tasks.add_task(odd_values)
    return "ok"


jobs: list[asyncio.Queue[Any]] = []


@app.get("/queue/{number}")
async def queue(number: int) -> int:
    """Leave a job to a worker that the first of these requests has started."""

    async def work_off() -> None:
        while True:
            await (await jobs[0].get())()

    if not jobs:
        jobs.append(asyncio.Queue())
        spawn(work_off())
    jobs[0].put_nowait(carry(work, name=f"job {number}"))
    return number


@app.get("/left")
async def left() -> Response:
    """Stream until the client leaves, and then clean up for a while."""

    async def body() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.02)
            yield b"x" * 1024

    return StreamingResponse(body(), background=BackgroundTask(work, 1.0))


@app.websocket("/long")
async def long_socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(current_trace_id() or "")
    async with httpx.AsyncClient(transport=sink) as client:
        while (calls := int(await websocket.receive_text())) > 0:
            for _ in range(calls):
                await client.get("http://sink/x")
            await websocket.send_text("done")
    await websocket.close()


inner = APIRouter(prefix="/inner")


@inner.get("/{name}")
async def inner_name(name: str) -> str:
    return name


async def star(_request: Request) -> Response:
    return PlainTextResponse("ok", background=BackgroundTask(work))


app.mount("/plain-starlette", Starlette(routes=[Route("/stars/{star}", star)]))
router.include_router(inner)
app.include_router(router)
app.mount("/sub/{tenant}", sub)

served: list[str] = []


@asynccontextmanager
async def lifespan_below(_app: FastAPI) -> AsyncIterator[None]:
    served.append("begun")
    yield


below = FastAPI(lifespan=lifespan_below)


@below.get("/served")
async def served_below(tasks: BackgroundTasks) -> list[str]:
    tasks.add_task(work)
    return served


app.mount("/below", instrument(below))


@app.get("/up")
async def up() -> None: ...


if os.environ.get("CASES_MIDDLEWARE"):
    _call = BackgroundTask.__call__

    @functools.wraps(_call)
    async def wrapped(task: BackgroundTask) -> None:
        """Stand for another library's wrapper around every task."""
        await _call(task)

    BackgroundTask.__call__ = wrapped  # type: ignore[assignment, method-assign]

instrument(app, ignore=["/ignored/.*", "/up", "/pid"])
# A mounted app that was instrumented on its own must not open a second entry span.
instrument(sub)

if os.environ.get("CASES_MIDDLEWARE"):

    async def dispatch(request: Request, call_next: object) -> Response:
        response: Response = await call_next(request)  # type: ignore[operator]  # Starlette's own untyped protocol
        response.headers["X-Middleware"] = "seen"
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)

other = instrument(FastAPI())


@other.get("/other/{number}")
async def other_number(number: int, tasks: BackgroundTasks) -> int:
    tasks.add_task(work)
    return number


async def both(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve two apps that know nothing of each other."""
    await (other if scope.get("path", "").startswith("/other/") else app)(scope, receive, send)


logging.basicConfig(level=logging.INFO)
