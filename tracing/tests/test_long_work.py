"""A long WebSocket, task or loop: segments of a bounded size, sent while it runs, with nothing twice or missing."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import time
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, WebSocket  # FastAPI reads annotations at run time
from skywalking.trace.context import get_context
from skywalking_background import _segments as rooms
from skywalking_background import background_span, instrument
from skywalking_background._limits import SEGMENT_SECONDS, SEGMENT_SPANS
from skywalking_background._segments import send_what_waits
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient
from trees import check, find, get, names, outline, tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

Segments = list[Any]

CALLS = 1_000
PARTS = 5  # spans that stay open around a call, and what is finished at the same moment


@pytest.fixture(autouse=True)
def nothing_waits(segments: Segments) -> Iterator[None]:
    """What has ended waits for nothing."""
    yield
    assert rooms._waiting == {}


def calls(count: int = CALLS) -> Iterator[int]:
    """Make calls as one of the agent's plugins does; tell the number of each, and how many finished spans are held."""
    for number in range(count):
        with get_context().new_exit_span(f"call {number}", "peer:80"):
            pass
        yield number


def held() -> int:
    """Count the finished spans that this code's segment holds back."""
    return len(get_context().spans)


def in_a_background_span() -> None:
    with background_span("long"):
        assert max(held() for _ in calls()) <= SEGMENT_SPANS


def in_a_plugins_span() -> None:
    with get_context().new_entry_span("long"):
        assert max(held() for _ in calls()) <= SEGMENT_SPANS


def in_a_websocket() -> None:
    app = instrument(FastAPI())

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        assert max(held() for _ in calls()) <= SEGMENT_SPANS
        await websocket.close()

    with TestClient(app).websocket_connect("/ws") as websocket:
        assert websocket.receive() == {"type": "websocket.close", "code": 1000, "reason": ""}


def in_a_streaming_request() -> None:
    app = instrument(FastAPI())

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            for number in calls():
                assert held() <= SEGMENT_SPANS
                yield f"{number}\n"

        return StreamingResponse(body())

    assert TestClient(app).get("/stream").text.count("\n") == CALLS


WORK = {
    "long": in_a_background_span,
    "a plugin's span": in_a_plugins_span,
    "WebSocket /ws connection": in_a_websocket,
    "HTTP GET /stream": in_a_streaming_request,
}


@pytest.mark.parametrize(("root", "work"), WORK.items())
def test_long_work_makes_segments_of_a_bounded_size(segments: Segments, root: str, work: Callable[[], None]) -> None:
    root = "long" if root == "a plugin's span" else root
    began = int(time.time() * 1000)
    work()
    ended = int(time.time() * 1000)
    check(segments)
    assert max(len(segment.spans) for segment in segments) <= SEGMENT_SPANS + PARTS
    of_calls = [sum(name.startswith("call ") for name in names([segment])) for segment in segments]
    assert [count for count in of_calls if count] == [SEGMENT_SPANS] * 3 + [CALLS - 3 * SEGMENT_SPANS]
    counted = Counter(names(segments))
    parts = {name for name in counted if name.endswith("(part)")}
    assert {name: counted[name] for name in counted if name not in parts} == {
        **{f"call {number}": 1 for number in range(CALLS)},
        **{name: 1 for name in counted if not name.startswith("call ") and name not in parts},
    }
    assert counted[f"{root} (part)"] == CALLS // SEGMENT_SPANS
    whole = find(segments, root)
    assert began <= whole.start_time <= whole.end_time <= ended
    of_it = [one for segment in segments for one in segment.spans if one.op == f"{root} (part)"]
    assert {part.start_time for part in of_it} == {whole.start_time}
    assert all(part.end_time <= whole.end_time for part in of_it)
    assert len({str(segment.related_traces[0]) for segment in segments}) == 1


@pytest.mark.parametrize(("root", "work"), WORK.items())
def test_all_parts_hang_where_the_work_does(segments: Segments, root: str, work: Callable[[], None]) -> None:
    work()
    root = "long" if root == "a plugin's span" else root
    whole = find(segments, root)
    of_it = [one for segment in segments for one in segment.spans if one.op == f"{root} (part)"]
    refs = [[(ref.segment_id, ref.span_id) for ref in one.refs] for one in [whole, *of_it]]
    assert refs == [refs[0]] * (1 + CALLS // SEGMENT_SPANS)
    assert all(one.sid == 0 and one.pid == -1 and one.kind.name == "Local" for one in of_it)


def test_what_happened_is_visible_while_the_work_still_runs(segments: Segments) -> None:
    with background_span("long"):
        for number in calls():
            assert sum(len(segment.spans) for segment in segments) >= number - SEGMENT_SPANS


def test_what_waits_for_too_long_is_sent(segments: Segments) -> None:
    now = time.monotonic()
    with background_span("long"):
        list(calls(3))
        send_what_waits(now + SEGMENT_SECONDS - 1)
        assert segments == []
        send_what_waits(now + SEGMENT_SECONDS + 1)
        assert names(segments) == ["call 0", "call 1", "call 2", "long (part)"]
        send_what_waits(now + 10 * SEGMENT_SECONDS)
        assert len(segments) == 1  # nothing waits
        list(calls(1))
    assert names(segments[1:]) == ["call 0", "long"]
    check(segments)


def test_by_the_clock_unless_told_otherwise(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "SEGMENT_SECONDS", 0)
    with background_span("long"):
        send_what_waits()
        assert segments == []  # no finished span waits
        list(calls(1))
        send_what_waits()
        assert names(segments) == ["call 0", "long (part)"]


def test_the_time_begins_with_the_first_that_waits(segments: Segments) -> None:
    with background_span("long"):
        list(calls(1))
        since = get_context().since
        list(calls(2))
        assert get_context().since == since
        send_what_waits(since + SEGMENT_SECONDS)
        assert len(segments) == 1
        assert get_context().since == 0


def test_a_call_that_is_under_way_keeps_the_numbers_that_it_told(segments: Segments) -> None:
    with background_span("long"):
        slow = get_context().new_exit_span("slow", "peer:80")
        slow.start()
        told = slow.inject()

        def others() -> None:
            list(calls(2))

        context = contextvars.copy_context()
        context.run(others)
        send_what_waits(float("inf"))
        assert segments == []  # it waits for the call
        slow.stop()
        assert sorted(names(segments)) == ["call 0", "call 1", "long (part)", "slow"]
    assert (told.segment_id, int(told.span_id)) == (str(segments[0].segment_id), find(segments, "slow").sid)
    check(segments)


def test_while_a_call_is_under_way_more_of_it_is_cut(segments: Segments) -> None:
    slow: list[Any] = []

    def begin() -> None:
        slow.append(get_context().new_exit_span("slow", "peer:80"))
        slow[0].start()

    with background_span("long"):
        contextvars.copy_context().run(begin)
        told = slow[0].inject()
        for _ in calls():
            assert held() <= SEGMENT_SPANS
        slow[0].stop()
    check(segments)
    assert max(len(segment.spans) for segment in segments) <= SEGMENT_SPANS + PARTS
    (its,) = (segment for segment in segments if "slow" in [span.op for span in segment.spans])
    assert str(its.segment_id) == told.segment_id
    counted = Counter(names(segments))
    assert all(counted[f"call {number}"] == 1 for number in range(CALLS))
    assert counted["slow"] == counted["long"] == 1


def test_nested_spans_go_on_together(segments: Segments) -> None:
    with background_span("task"):
        for attempt in range(3):
            with background_span(f"attempt {attempt}"), get_context().new_local_span(f"step {attempt}"):
                list(calls(250))
    check(segments)
    counted = Counter(names(segments))
    for name in ("task", *(f"{kind} {number}" for kind in ("attempt", "step") for number in range(3))):
        assert counted[name] == 1
    assert all(counted[f"call {number}"] == 3 for number in range(250))
    for number in range(3):
        step, attempt = find(segments, f"step {number}"), find(segments, f"attempt {number}")
        assert (step.pid, attempt.pid) == (attempt.sid, find(segments, "task").sid)


def test_what_stands_for_a_span_that_goes_on_says_so(segments: Segments) -> None:
    with background_span("task"), background_span("attempt"):
        list(calls(1))
        send_what_waits(float("inf"))
    assert outline(segments) == tree("""
        Local task
          Local attempt
        Local task (part)
          Local attempt (part)
            Exit call 0""")


async def test_a_request_has_its_name_in_its_parts(segments: Segments) -> None:
    app = instrument(FastAPI())

    @app.get("/items/{item}")
    async def show(item: str) -> None:
        list(calls(1))
        send_what_waits(float("inf"))
        list(calls(1))

    await get(app, "/items/7")
    assert outline(segments) == tree("""
        Entry HTTP GET /items/{item}
          Local FastAPI request handling
            Exit call 0
        Local HTTP GET /items/{item} (part)
          Local FastAPI request handling (part)
            Exit call 0""")


async def test_tasks_and_late_work_hang_below_a_request_that_was_cut(segments: Segments) -> None:
    app = instrument(FastAPI())
    late: list[Any] = []
    answered = asyncio.Event()

    async def wait() -> None:
        await answered.wait()
        list(calls(1))

    @app.get("/")
    async def root() -> None:
        late.append(asyncio.create_task(wait()))
        list(calls(1))
        send_what_waits(float("inf"))
        late.append(asyncio.create_task(wait()))

    await get(app, "/")
    answered.set()
    await asyncio.gather(*late)
    assert outline(segments) == tree("""
        Entry HTTP GET /
          Exit call 0 CROSS_THREAD
          Exit call 0 CROSS_THREAD
          Local FastAPI request handling
        Local HTTP GET / (part)
          Local FastAPI request handling (part)
            Exit call 0""")


def test_what_began_before_a_cut_ends_after_it(segments: Segments) -> None:
    with background_span("task"):
        with get_context().new_local_span("across"):
            list(calls(1))
            send_what_waits(float("inf"))
        made = get_context().new_local_span("made")
        list(calls(1))
        send_what_waits(float("inf"))
        with made:
            pass
    check(segments)
    counted = Counter(names(segments))
    assert (counted["across"], counted["made"], counted["task"]) == (1, 1, 1)


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_threads")
def test_threads_share_a_context_while_what_waits_is_sent(segments: Segments) -> None:
    threads, each = 8, 400
    stop = threading.Event()

    def work(name: int) -> None:
        for number in range(each):
            with get_context().new_local_span(f"outer {name}.{number}"):
                with get_context().new_exit_span(f"inner {name}.{number}", "peer:80"):
                    pass
                with background_span(f"own {name}.{number}"):
                    pass

    def sweep() -> None:
        while not stop.is_set():
            send_what_waits(float("inf"))
            time.sleep(0.0005)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    with background_span("task"):
        running = [threading.Thread(target=contextvars.copy_context().run, args=(work, n)) for n in range(threads)]
        for one in running:
            one.start()
        for one in running:
            one.join()
    stop.set()
    sweeper.join()
    check(segments)
    counted = Counter(name for name in names(segments) if "(part)" not in name)
    assert set(counted.values()) == {1}
    assert len(counted) == 3 * threads * each + 1
    for segment in segments:
        assert len(segment.spans) <= SEGMENT_SPANS + threads * 3 + 1


@pytest.mark.usefixtures("eager_threads")
async def test_requests_that_end_while_they_are_cut_are_there_once(segments: Segments) -> None:
    app = instrument(FastAPI())
    stop = threading.Event()

    @app.get("/{number}")
    async def show(number: str) -> None:
        for _ in range(3):
            with get_context().new_exit_span(f"call {number}", "peer:80"):
                await asyncio.sleep(0)

    def sweep() -> None:
        while not stop.is_set():
            send_what_waits(float("inf"))

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    for first in range(0, 200, 20):
        await asyncio.gather(*(get(app, f"/{number}") for number in range(first, first + 20)))
    stop.set()
    sweeper.join()
    check(segments)
    counted = Counter(names(segments))
    assert counted["HTTP GET /{number}"] == 200
    assert all(counted[f"call {number}"] == 3 for number in range(200))


def test_work_that_was_cut_is_freed_without_the_garbage_collector(segments: Segments) -> None:
    def work() -> list[weakref.ref[Any]]:
        with background_span("long"):
            for _ in calls(5):
                pass
            seen = [weakref.ref(get_context())]
            send_what_waits(float("inf"))
            return [*seen, weakref.ref(get_context())]

    gc.disable()
    try:
        contexts = work()
        segments.clear()
        assert [context() for context in contexts] == [None, None]
    finally:
        gc.enable()
