from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, Request
from skywalking import config
from skywalking.trace.context import get_context
from skywalking_background import ParallelTasks, current_trace_id, instrument
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

Segments = list[Any]


async def get(app: Any, path: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path, headers=headers)


def names(segments: Segments) -> list[str]:
    return [span.op for segment in segments for span in segment.spans]


async def test_the_answer_carries_the_trace_id_that_the_code_sees(segments: Segments) -> None:
    app = instrument(FastAPI())

    @app.get("/id")
    async def show() -> str | None:
        return current_trace_id()

    answer = await get(app, "/id")
    assert answer.json() == answer.headers["x-trace-id"] == str(segments[0].related_traces[0])


async def test_a_starlette_app_works_as_well(segments: Segments) -> None:
    async def hello(_request: object) -> PlainTextResponse:
        return PlainTextResponse("hello")

    await get(instrument(Starlette(routes=[Route("/hello/{name}", hello)])), "/hello/you")
    assert names(segments) == ["Starlette request handling", "HTTP GET /hello/{name}"]


async def test_log_lines_of_a_request_are_filed_under_its_route(segments: Segments) -> None:
    app = instrument(FastAPI())
    seen = []

    @app.get("/items/{item}")
    async def show(item: str) -> None:
        with get_context().new_local_span("below"):
            seen.append(get_context().primary_endpoint.get_name())  # what the agent's log reporter asks for

    await get(app, "/items/7")
    assert seen == ["HTTP GET /items/{item}"]
    assert names(segments) == ["below", "FastAPI request handling", "HTTP GET /items/{item}"]


async def test_a_finished_request_is_freed_without_the_garbage_collector(segments: Segments) -> None:
    app = instrument(FastAPI())
    contexts: list[weakref.ref[Any]] = []

    async def work() -> None:
        contexts.append(weakref.ref(get_context()))

    @app.get("/")
    async def root(background_tasks: BackgroundTasks) -> None:
        contexts.append(weakref.ref(get_context()))
        background_tasks.add_task(work)

    gc.disable()
    try:
        await get(app, "/")
        segments.clear()
        assert [context() for context in contexts] == [None, None]
    finally:
        gc.enable()


async def test_what_outlives_a_request_does_not_keep_it(segments: Segments) -> None:
    app = instrument(FastAPI())
    outliving, scopes = [], []

    class Part:
        """Of the request's scope, where a database session would be."""

    @app.get("/items/{item}")
    async def show(request: Request) -> None:
        outliving.append(get_context())  # as the context of an asyncio task does
        request.scope["part"] = Part()
        scopes.append(weakref.ref(request.scope["part"]))

    gc.disable()
    try:
        await get(app, "/items/7")
        assert [scope() for scope in scopes] == [None]
    finally:
        gc.enable()
    assert outliving[0].primary_endpoint.get_name() == "HTTP GET /items/{item}"


async def test_a_span_that_outlives_the_request_holds_its_segment_back(segments: Segments) -> None:
    app = instrument(FastAPI())
    open_spans = []

    @app.get("/")
    async def root() -> None:
        span = get_context().new_exit_span("call", "peer:80")
        span.start()
        open_spans.append(span)

    await get(app, "/")
    assert segments == []
    open_spans[0].stop()
    assert names(segments) == ["FastAPI request handling", "HTTP GET /", "call"]


async def test_the_query_stays_out_of_the_trace(segments: Segments) -> None:
    app = instrument(FastAPI())
    await get(app, "/login?password=hunter2")
    assert not any("hunter2" in tag.val for span in segments[0].spans for tag in span.iter_tags())


async def test_the_header_can_be_named_or_left_out(segments: Segments) -> None:
    assert "x-request" in (await get(instrument(FastAPI(), header="X-Request"), "/")).headers
    assert "x-trace-id" not in (await get(instrument(FastAPI(), header=None), "/")).headers
    assert len(segments) == 2


@pytest.mark.parametrize(
    ("rules", "status", "failed"),
    [({"error_status": 500}, 499, False), ({"error_status": 500}, 500, True), ({}, 399, False), ({}, 400, True)],
)
async def test_the_lowest_failing_status_can_be_set(
    segments: Segments, rules: dict[str, Any], status: int, failed: bool
) -> None:
    app = instrument(FastAPI(), **rules)

    @app.get("/", status_code=status)
    async def root() -> None: ...

    await get(app, "/")
    assert [segment.spans[-1].error_occurred for segment in segments] == [failed]


async def test_an_app_within_another_is_traced_once_and_gets_the_whole_request(segments: Segments) -> None:
    inner, outer = instrument(FastAPI()), instrument(FastAPI())
    outer.mount("/in", inner)

    @inner.post("/echo")
    async def echo(request: Request) -> str:
        return (await request.body()).decode()

    async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://test") as client:
        assert (await client.post("/in/echo", content="hello")).json() == "hello"
    assert names(segments) == ["FastAPI request handling", "HTTP POST /in/echo"]


async def test_ignored_paths_leave_nothing_not_even_tasks(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    app = instrument(FastAPI(), ignore=["/health/.*"])

    @app.get("/{path:path}")
    async def anything(tasks: BackgroundTasks) -> None:
        tasks.add_task(ran.append, 1)

    answer = await get(app, "/health/live")
    assert (segments, ran) == ([], [1])
    assert "x-trace-id" not in answer.headers
    await get(app, "/healthy")
    assert len(segments) == 2
    monkeypatch.setattr(config, "plugin_http_ignore_method", "GET")
    config.finalize_regex()
    await get(app, "/healthy")
    monkeypatch.undo()
    config.finalize_regex()
    assert len(segments) == 2


async def test_a_late_error_is_logged_and_contained(segments: Segments, caplog: pytest.LogCaptureFixture) -> None:
    app = instrument(FastAPI())

    def fail() -> None:
        message = "too late"
        raise ValueError(message)

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(fail)

    answer = await get(app, "/")  # the transport would raise what the app raises
    assert answer.status_code == 200
    assert "HTTP GET / failed after its response" in caplog.text
    assert "too late" in caplog.text


class NoException(BaseException):
    """What libraries raise that no `except Exception` is to stop."""


@pytest.mark.parametrize(("error", "contained"), [
    (NoException("late"), True),
    (BaseExceptionGroup("late", [NoException(), ValueError()]), True),
    (asyncio.CancelledError(), False),
    (SystemExit(1), False),
    (BaseExceptionGroup("late", [BaseExceptionGroup("", [NoException(), KeyboardInterrupt()])]), False),
], ids=repr)  # fmt: skip
async def test_only_an_order_to_end_leaves_a_task(segments: Segments, error: BaseException, contained: bool) -> None:
    async def fail() -> None:
        raise error

    async def root(_request: Request) -> Response:
        return Response(background=BackgroundTask(fail))

    app = instrument(Starlette(routes=[Route("/", root)]))
    with nullcontext() if contained else pytest.raises(type(error)):
        assert (await get(app, "/")).status_code == 200


async def test_an_endpoints_error_still_reaches_the_server(segments: Segments) -> None:
    app = instrument(FastAPI())

    @app.get("/")
    async def root() -> None:
        message = "server, log this"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="server, log this"):
        await get(app, "/")
    handling, entry = segments[0].spans
    assert (handling.error_occurred, entry.error_occurred) == (True, True)
    assert "server, log this" in handling.logs[0].items[3].val


async def test_an_app_that_was_not_instrumented_is_left_alone(segments: Segments) -> None:
    instrument(FastAPI())
    other = FastAPI()

    @other.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(lambda: None)

    await get(other, "/")
    assert segments == []


async def test_too_late_is_said(segments: Segments) -> None:
    app = FastAPI()
    await get(app, "/")
    with pytest.raises(RuntimeError, match=r"^instrument\(app\) must come before the app's first request$"):
        instrument(app)


async def test_a_server_that_never_answers_gets_a_span_all_the_same(segments: Segments) -> None:
    app = instrument(FastAPI())

    async def silent(_scope: Scope, _receive: Receive, _send: Send) -> None: ...

    app.mount("/silent", silent)
    with pytest.raises(AssertionError):  # the transport's: no response
        await get(app, "/silent/")
    assert names(segments)[-1] == "HTTP GET /silent/{path}"


async def test_parallel_tasks_all_run_and_report_every_failure() -> None:
    ran = []

    async def fail(number: int) -> None:
        ran.append(number)
        raise ValueError(number)

    with pytest.raises(ExceptionGroup, match="2 of 3") as group:
        await ParallelTasks([BackgroundTask(fail, 1), BackgroundTask(ran.append, 2), BackgroundTask(fail, 3)])()
    assert sorted(ran) == [1, 2, 3]
    assert len(group.value.exceptions) == 2


async def test_an_order_to_end_is_none_of_the_failures_of_parallel_tasks() -> None:
    async def end() -> None:
        raise GeneratorExit

    with pytest.raises(BaseExceptionGroup) as group:
        await ParallelTasks([BackgroundTask(end)])()
    assert [type(error) for error in group.value.exceptions] == [GeneratorExit]
    assert "background tasks failed" not in str(group.value)
