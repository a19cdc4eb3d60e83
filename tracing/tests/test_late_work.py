"""Work that outlives its request: it may do anything, and what it does hangs below where it came from."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from skywalking import Component, Kind, config, sampling
from skywalking.agent import agent
from skywalking.log import sw_logging
from skywalking.trace.context import get_context
from skywalking_background import background_span, current_trace_id, instrument, tag
from skywalking_background._segments import send_what_waits
from trees import find, get, names, outline, tags, tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

Segments = list[Any]


class Late:
    """An app with one way of outliving a request for each path, and what ran after the answer."""

    def __init__(self, work: Callable[[], object], **options: Any) -> None:
        self.answered = threading.Event()  # the client has its answer
        self.done = asyncio.Event()
        self.failure: BaseException | None = None
        self.work = work
        self.keep: list[Any] = []
        self.jobs: asyncio.Queue[None] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        self.app = FastAPI()
        for name in KINDS:
            self.app.get(f"/{name}")(getattr(self, name))
        self.app.get("/dependency", dependencies=[Depends(self.leaving)])(self.nothing)
        self.app.get("/middleware")(self.nothing)
        self.app.add_middleware(functools.partial(After, late=self))
        instrument(self.app, **options)

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test tells
            self.failure = error
        self.loop.call_soon_threadsafe(self.done.set)

    async def waiting(self) -> None:
        while not self.answered.is_set():  # noqa: ASYNC110  # threads wait for it too
            await asyncio.sleep(0.001)
        self.run()

    async def create_task(self) -> None:
        self.keep.append(asyncio.create_task(self.waiting()))

    async def create_task_below_a_span(self) -> None:
        with get_context().new_local_span("closed"):
            await self.create_task()

    async def to_thread(self) -> None:
        def blocking() -> None:
            self.answered.wait(5)
            self.run()

        self.keep.append(asyncio.create_task(asyncio.to_thread(blocking)))

    async def thread_with_context(self) -> None:
        def blocking() -> None:
            self.answered.wait(5)
            self.run()

        thread = threading.Thread(target=contextvars.copy_context().run, args=(blocking,))
        thread.start()
        self.keep.append(thread)

    async def call_later(self) -> None:
        def look() -> None:
            if self.answered.is_set():
                self.run()
            else:
                self.loop.call_later(0.001, look)

        self.loop.call_later(0.001, look)

    async def plain_def(self) -> None:
        await asyncio.to_thread(lambda: self.loop.call_soon_threadsafe(self.loop.create_task, self.waiting()))

    async def lazy_worker(self) -> None:
        async def work_off() -> None:
            await self.jobs.get()
            await self.waiting()

        self.keep.append(asyncio.create_task(work_off()))
        self.jobs.put_nowait(None)

    async def task_in_a_task(self, tasks: BackgroundTasks) -> None:
        async def job() -> None:
            await self.create_task()

        tasks.add_task(job)

    async def task_in_a_background_span(self) -> None:
        with background_span("job"):
            await self.create_task()

    async def leaving(self) -> AsyncIterator[None]:
        yield
        self.run()

    async def nothing(self) -> None: ...

    async def send(self, path: str) -> httpx.Response:
        answer = await get(self.app, f"/{path}")
        assert answer.status_code == 200
        self.answered.set()
        await asyncio.wait_for(self.done.wait(), 5)
        for one in self.keep:
            if isinstance(one, asyncio.Task):
                await one
        if self.failure is not None:
            raise self.failure
        return answer


class After:
    """A middleware that does something when the response is out."""

    def __init__(self, app: ASGIApp, late: Late) -> None:
        self.app, self.late = app, late

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
        if scope.get("path") == "/middleware":
            self.late.run()


IN_REQUEST = ("create_task", "to_thread", "thread_with_context", "call_later", "plain_def", "lazy_worker")
IN_JOB = ("task_in_a_task", "task_in_a_background_span")
KINDS = (*IN_REQUEST, *IN_JOB, "create_task_below_a_span")
PATHS = (*KINDS, "dependency", "middleware")

OPENERS = {
    "Exit": lambda: get_context().new_exit_span("/x", "peer:80", component=Component.HTTPX),
    "Local": lambda: get_context().new_local_span("/x"),
    "Entry": lambda: get_context().new_entry_span("/x"),
}


def expected(path: str, line: str) -> str:
    """Draw the tree of a late span: below the request, or below the task that it came from."""
    if path in IN_JOB:
        job = "Late.task_in_a_task.<locals>.job" if path == "task_in_a_task" else "job"
        lines = ["  Local FastAPI request handling", f"  Local {job.rpartition('.')[2]} CROSS_THREAD", f"    {line}"]
    elif path == "create_task_below_a_span":
        lines = ["  Local FastAPI request handling", "    Local closed", f"      {line}"]
    else:
        lines = [f"  {line}", "  Local FastAPI request handling"]
        lines.sort()
    return "\n".join([f"Entry HTTP GET /{path}", *lines])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", OPENERS)
async def test_a_late_span_hangs_below_where_it_came_from(segments: Segments, path: str, kind: str) -> None:
    seen: list[str | None] = []

    def work() -> None:
        tag("too", "late")
        seen.append(current_trace_id())
        with OPENERS[kind]() as span:
            tag("color", "red")
            seen.append(current_trace_id())
            if kind == "Exit":
                carrier = span.inject()
                assert carrier.is_valid
                seen.append(str(carrier.trace_id))
        tag("much too", "late")
        seen.append(current_trace_id())

    answer = await Late(work).send(path)
    assert outline(segments) == expected(path, f"{kind} /x CROSS_THREAD")
    assert set(seen) == {answer.headers["x-trace-id"]} == {str(segment.related_traces[0]) for segment in segments}
    assert tags(find(segments, "/x")) == {"color": "red"}
    assert not any(key in tags(span) for segment in segments for span in segment.spans for key in ("too", "much too"))


@pytest.mark.parametrize("path", PATHS)
async def test_a_late_background_span_does_too(segments: Segments, path: str) -> None:
    def work() -> None:
        with background_span("/x"), background_span("below"):
            pass

    await Late(work).send(path)
    drawn = outline(segments).splitlines()
    at = next(number for number, line in enumerate(drawn) if "Local /x CROSS_THREAD" in line)
    assert drawn[at + 1].strip() == "Local below"
    del drawn[at + 1]
    assert "\n".join(drawn) == expected(path, "Local /x CROSS_THREAD")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", OPENERS)
async def test_an_ignored_path_leaves_nothing_at_all(segments: Segments, path: str, kind: str) -> None:
    seen: list[str | None] = []

    def work() -> None:
        with OPENERS[kind](), background_span("own"), get_context().new_exit_span("/y", "peer:80") as span:
            tag("color", "red")
            seen.append(current_trace_id())
            seen.append(str(span.inject().trace_id or "") or None if kind == "Exit" else None)

    answer = await Late(work, ignore="/.*").send(path)
    assert segments == []
    assert seen == [None, None]
    assert "x-trace-id" not in answer.headers


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", OPENERS)
async def test_an_unsampled_request_leaves_nothing_whatever_the_sampler_says_later(
    segments: Segments, monkeypatch: pytest.MonkeyPatch, path: str, kind: str
) -> None:
    sampler = SimpleNamespace(takes=False)
    sampler.try_sampling = lambda: sampler.takes
    monkeypatch.setattr(sampling, "sampling_service", sampler)

    def work() -> None:
        sampler.takes = True
        with OPENERS[kind](), background_span("own"):
            assert current_trace_id() is None

    await Late(work).send(path)
    assert segments == []


async def test_a_sampled_request_keeps_its_late_work_whatever_the_sampler_says(
    segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = SimpleNamespace(takes=True)
    sampler.try_sampling = lambda: sampler.takes
    monkeypatch.setattr(sampling, "sampling_service", sampler)

    def work() -> None:
        sampler.takes = False
        with OPENERS["Exit"]():
            pass

    await Late(work).send("create_task")
    assert outline(segments) == expected("create_task", "Exit /x CROSS_THREAD")


async def test_each_late_span_refers_to_the_request_not_to_the_one_before(segments: Segments) -> None:
    def work() -> None:
        for _ in range(3):
            with OPENERS["Exit"]():
                pass

    await Late(work).send("create_task")
    late = [span for segment in segments for span in segment.spans if span.op == "/x"]
    assert {(span.refs[0].segment_id, span.refs[0].span_id) for span in late} == {(str(segments[0].segment_id), 0)}
    assert {span.refs[0].endpoint for span in late} == {"HTTP GET /create_task"}  # not the raw path it began with


async def test_what_a_late_span_opens_below_it_is_in_the_same_segment(segments: Segments) -> None:
    def work() -> None:
        with OPENERS["Local"](), OPENERS["Exit"]():
            pass

    await Late(work).send("to_thread")
    assert [len(segment.spans) for segment in segments] == [2, 2]
    assert [(span.kind.name, span.sid, span.pid) for span in segments[1].spans] == [("Exit", 1, 0), ("Local", 0, -1)]


async def test_a_late_call_passes_on_what_the_requests_caller_sent_along(segments: Segments) -> None:
    seen: list[Any] = []

    def work() -> None:
        with OPENERS["Exit"]() as span:
            seen.append(span.inject().correlation_carrier.correlation)
        seen.append(get_context().get_correlation("user"))

    late = Late(work)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(late.app), base_url="http://test") as client:
        await client.get("/create_task", headers={"sw8": SW8, "sw8-correlation": "dXNlcg==:YW5u"})
    late.answered.set()
    await late.keep[0]
    assert seen == [{"user": "ann"}, "ann"]
    assert {str(segment.related_traces[0]) for segment in segments} == {"t"}


async def test_what_captures_its_place_after_the_response_captures_the_requests(segments: Segments) -> None:
    snapshots: list[Any] = []
    await Late(lambda: snapshots.append(get_context().capture())).send("create_task")

    def elsewhere() -> None:  # as the agent's plugins for threads do
        with get_context().new_local_span("elsewhere"):
            get_context().continued(snapshots[0])

    contextvars.Context().run(elsewhere)
    assert snapshots[0].is_valid()
    assert outline(segments) == expected("create_task", "Local elsewhere CROSS_THREAD")


@pytest.mark.parametrize("kind", OPENERS)
async def test_a_span_that_was_made_in_time_and_started_late_goes_on_from_its_parent(
    segments: Segments, kind: str
) -> None:
    made: list[Any] = []
    app = instrument(FastAPI())

    @app.get("/")
    async def root() -> None:
        made.append(OPENERS[kind]())

    await get(app, "/")
    assert len(segments) == 1
    with made[0]:
        pass
    assert outline(segments) == tree(f"""
        Entry HTTP GET /
          Local FastAPI request handling
            {kind} /x CROSS_THREAD""")


@pytest.mark.parametrize("kind", OPENERS)
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_context_that_somebody_kept_goes_on_from_its_request(
    segments: Segments, kind: str, elsewhere: bool
) -> None:
    kept: list[Any] = []
    app = instrument(FastAPI())

    @app.get("/")
    async def root() -> None:
        kept.append(get_context())

    await get(app, "/")
    ways = {
        "Exit": lambda: kept[0].new_exit_span("/x", "peer:80"),
        "Local": lambda: kept[0].new_local_span("/x"),
        "Entry": lambda: kept[0].new_entry_span("/x"),
    }

    def late() -> None:
        with ways[kind]():
            assert current_trace_id() == str(segments[0].related_traces[0])

    (contextvars.Context().run if elsewhere else contextvars.copy_context().run)(late)
    lines = sorted([f"  {kind} /x CROSS_THREAD", "  Local FastAPI request handling"])
    assert outline(segments) == "\n".join(["Entry HTTP GET /", *lines])


async def test_a_context_used_by_a_thread_that_knows_no_span_goes_on_from_its_request(segments: Segments) -> None:
    app = instrument(FastAPI())

    @app.get("/")
    async def root() -> None:
        context = get_context()

        def in_a_bare_thread() -> None:
            with context.new_exit_span("/x", "peer:80"):
                pass

        thread = threading.Thread(target=in_a_bare_thread)
        thread.start()
        thread.join()

    await get(app, "/")
    assert outline(segments) == tree("""
        Entry HTTP GET /
          Exit /x CROSS_THREAD
          Local FastAPI request handling""")


async def test_what_is_under_way_when_the_request_ends_stays_in_its_segment(segments: Segments) -> None:
    late: list[Any] = []
    app = instrument(FastAPI())

    @app.get("/")
    async def root() -> None:
        async def call() -> None:
            with OPENERS["Exit"]():
                await asyncio.sleep(0.01)
                tag("color", "red")

        late.append(asyncio.create_task(call()))
        await asyncio.sleep(0)

    await get(app, "/")
    assert segments == []  # it waits for the call
    await late[0]
    assert [len(segment.spans) for segment in segments] == [3]
    assert tags(find(segments, "/x")) == {"color": "red"}
    assert (find(segments, "/x").sid, find(segments, "/x").pid) == (2, 1)


async def test_a_span_that_hangs_for_long_does_not_keep_its_request_from_oap(segments: Segments) -> None:
    late: list[Any] = []
    app = instrument(FastAPI())

    @app.get("/")
    async def root() -> None:
        span = get_context().new_local_span("/x")
        span.start()
        late.append(span)

    await get(app, "/")
    send_what_waits(float("inf"))
    late[0].stop()
    assert sorted(names(segments)) == sorted(["/x", "FastAPI request handling", "HTTP GET /"])
    assert outline(segments)


# An app that calls itself, or another one in its process.

SW8 = "1-dA==-cw==-2-c2hvcA==-aQ==-Lw==-aDo4MA=="  # of a trace named "t"


def calling_itself(headers: dict[str, str]) -> FastAPI:
    """Serve `/0`; `/1` and a task of `/task` call it in process, `/2` calls `/1`, with these headers."""
    app = FastAPI()

    async def step(depth: int) -> dict[str, Any]:
        before = current_trace_id()
        context = get_context()
        tag("before", depth)
        inner = None
        if depth:
            answer = await get(app, f"/{depth - 1}", **headers)
            inner = answer.headers["x-trace-id"]
            assert inner == answer.json()["before"]
        tag("after", depth)
        with OPENERS["Exit"](), background_span(f"below {depth}"):
            pass
        assert get_context() is context
        return {"before": before, "after": current_trace_id(), "inner": inner}

    for depth in range(3):
        app.get(f"/{depth}")(functools.partial(step, depth))

    @app.get("/task")
    async def task(tasks: BackgroundTasks) -> None:
        async def job() -> None:
            seen = await step(1)
            assert seen["before"] == seen["after"] != seen["inner"]

        tasks.add_task(job)

    return instrument(app, ignore="/ignored")


def whole(depth: int, how: str = "") -> str:
    return tree(f"""
        Entry HTTP GET /{depth}{how}
          Local FastAPI request handling
            Exit /x
              Local below {depth} CROSS_THREAD""")


@pytest.mark.parametrize(("headers", "how"), [({}, ""), ({"sw8": SW8}, " CROSS_PROCESS")])
async def test_a_call_in_process_leaves_the_caller_as_it_was(
    segments: Segments, headers: dict[str, str], how: str
) -> None:
    answer = await get(calling_itself(headers), "/2")
    seen = answer.json()
    assert seen["before"] == seen["after"] == answer.headers["x-trace-id"] != seen["inner"]
    assert outline(segments) == "\n".join(sorted([whole(0, how), whole(1, how), whole(2)]))
    handling = [span for one in segments for span in one.spans if span.sid == 1 and span.kind is Kind.Local]
    assert [(tags(span)["before"], tags(span)["after"]) for span in handling] == [("0", "0"), ("1", "1"), ("2", "2")]


@pytest.mark.parametrize(("headers", "how"), [({}, ""), ({"sw8": SW8}, " CROSS_PROCESS")])
async def test_nor_does_one_out_of_a_background_task(segments: Segments, headers: dict[str, str], how: str) -> None:
    await get(calling_itself(headers), "/task")
    task = tree("""
        Entry HTTP GET /task
          Local FastAPI request handling
          Local job CROSS_THREAD
            Exit /x
              Local below 1""")
    assert outline(segments) == "\n".join(sorted([whole(0, how), task]))
    job = find(segments, "job")
    assert (tags(job)["before"], tags(job)["after"]) == ("1", "1")


async def test_nor_does_one_of_an_ignored_path_which_is_not_traced_itself(segments: Segments) -> None:
    app = calling_itself({})

    @app.get("/ignored")
    async def ignored() -> str | None:
        with OPENERS["Exit"]():
            return current_trace_id()

    @app.get("/outer")
    async def outer() -> Any:
        inner = await get(app, "/ignored")
        tag("after", "inner")
        return inner.json(), current_trace_id()

    answer = await get(app, "/outer")
    assert answer.json() == [None, answer.headers["x-trace-id"]]
    assert names(segments) == ["FastAPI request handling", "HTTP GET /outer"]
    assert tags(segments[0].spans[0])["after"] == "inner"


async def test_nor_does_one_that_fails(segments: Segments) -> None:
    app = calling_itself({})

    @app.get("/fails")
    async def fails() -> None:
        message = "inner"
        raise ValueError(message)

    @app.get("/outer")
    async def outer() -> str | None:
        with pytest.raises(ValueError, match="inner"):
            await get(app, "/fails")
        return current_trace_id()

    answer = await get(app, "/outer")
    assert answer.json() == answer.headers["x-trace-id"]


# The copies of log lines that the agent sends to OAP.


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the agent's log reporter copies of each log line."""
    lines: list[Any] = []
    monkeypatch.setattr(logging.Logger, "handle", logging.Logger.handle)
    monkeypatch.setattr(agent, "archive_log", lines.append, raising=False)
    monkeypatch.setattr(config, "agent_log_reporter_level", "INFO")
    sw_logging.install()
    return lines


@pytest.mark.parametrize("path", PATHS)
async def test_a_late_log_line_carries_the_trace_id(segments: Segments, copied: list[Any], path: str) -> None:
    answer = await Late(lambda: logging.getLogger("shop").warning("still at it")).send(path)
    (line,) = (one for one in copied if "still at it" in one.body.text.text)
    assert line.traceContext.traceId == answer.headers["x-trace-id"]
    place = {(str(one.segment_id), span.sid): span.op for one in segments for span in one.spans}
    below = place[line.traceContext.traceSegmentId, line.traceContext.spanId]
    endpoint = "job" if path in IN_JOB else f"HTTP GET /{path}"
    assert line.endpoint == endpoint
    assert below == ("closed" if path == "create_task_below_a_span" else endpoint)


async def test_a_log_line_on_an_ignored_path_carries_none(segments: Segments, copied: list[Any]) -> None:
    await Late(lambda: logging.getLogger("shop").warning("still at it"), ignore="/.*").send("create_task")
    (line,) = (one for one in copied if "still at it" in one.body.text.text)
    assert line.traceContext.traceId == ""
