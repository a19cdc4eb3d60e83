"""A request ends with its response or when its client leaves, whatever server and app say it in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse
from skywalking.trace.context import get_context
from skywalking_background import current_trace_id, instrument
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocket, WebSocketDisconnect
from trees import find, get, names, outline, tags, tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

Segments = list[Any]

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body", "body": b""}
LEAVES: Message = {"type": "http.disconnect"}


class Exchange:
    """A request as a server makes it: what the app sent, and how many segments were finished after each message.

    Args:
        segments: the finished segments.
        incoming: what the app receives; afterwards it waits for ever.
        fails: what the server raises when it is to send a message of that type.
    """

    def __init__(self, segments: Segments, *incoming: Message, fails: dict[str, Exception] | None = None) -> None:
        self.segments = segments
        self.incoming = list(incoming)
        self.fails = fails or {}
        self.sent: list[Message] = []
        self.finished: list[int] = []

    async def receive(self) -> Message:
        if not self.incoming:
            await asyncio.sleep(60)
        return self.incoming.pop(0)

    async def send(self, message: Message) -> None:
        if error := self.fails.get(message["type"]):
            raise error
        self.sent.append(message)
        self.finished.append(len(self.segments))  # when the message goes out

    async def run(self, app: ASGIApp, path: str = "/raw/x", **scope: Any) -> None:
        base: Scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": [],
            "client": ("10.0.0.9", 4711), "server": ("127.0.0.1", 80), "extensions": {},
        }  # fmt: skip
        await app({**base, **scope}, self.receive, self.send)


def raw(*messages: Message, then: Callable[[], Any] | None = None) -> FastAPI:
    """Make an app that sends these messages, and then does something."""

    async def send_all(_scope: Scope, _receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if then is not None:
            then()

    app = FastAPI()
    app.mount("/raw", send_all)
    return instrument(app)


RAW = tree("""
    Entry HTTP GET /raw/{path}
      Local FastAPI request handling""")
BODY = {"type": "http.response.body", "body": b"x"}


@pytest.mark.parametrize(
    "messages",
    [
        (START, LAST),
        (START, {**BODY, "more_body": True}, {**BODY, "more_body": True}, {**BODY, "more_body": False}),
        (START, {**BODY, "more_body": True}, BODY),
        (START, {"type": "http.response.pathsend", "path": "/etc/hostname"}),
        (START, {"type": "http.response.zerocopysend", "file": 7, "more_body": True},
         {"type": "http.response.zerocopysend", "file": 7}),
        ({"type": "http.response.debug"}, START, LAST),
        ({**START, "trailers": True}, {**BODY, "more_body": True}, LAST,
         {"type": "http.response.trailers", "headers": [], "more_trailers": True},
         {"type": "http.response.trailers", "headers": []}),
        ({**START, "trailers": True}, {"type": "http.response.pathsend", "path": "/etc/hostname"},
         {"type": "http.response.trailers", "headers": []}),
        ({**START, "trailers": False}, LAST),
        ({"type": "http.response.start"}, LAST),
    ],
)  # fmt: skip
async def test_the_request_ends_with_the_last_message_of_its_response(
    segments: Segments, messages: tuple[Message, ...]
) -> None:
    messages = tuple({"status": 200, **message} for message in messages)
    exchange = Exchange(segments)
    after: list[int] = []
    await exchange.run(raw(*messages, then=lambda: after.append(len(segments))))
    assert [message["type"] for message in exchange.sent] == [message["type"] for message in messages]
    assert exchange.finished == [0] * len(messages)  # it is handed over, then the request ends
    assert after == [1]
    assert outline(segments) == RAW
    assert [tags(span).get("http.disconnected") for span in segments[0].spans] == [None, None]
    assert [tags(span)["http.status_code"] for span in segments[0].spans] == ["200", "200"]


async def test_what_the_app_does_after_the_last_message_is_no_more_of_it(segments: Segments) -> None:
    def more() -> None:
        with get_context().new_local_span("after"):
            pass

    await Exchange(segments).run(raw(START, LAST, then=more))
    assert outline(segments) == tree("""
        Entry HTTP GET /raw/{path}
          Local FastAPI request handling
          Local after CROSS_THREAD""")


async def test_messages_after_the_last_change_nothing(segments: Segments) -> None:
    await Exchange(segments).run(raw(START, LAST, LAST, {"type": "http.response.trailers"}))
    assert outline(segments) == RAW


async def test_the_trace_id_goes_out_beside_the_apps_own_headers(segments: Segments) -> None:
    exchange = Exchange(segments)
    start = {**START, "headers": [(b"x-own", b"1")]}
    await exchange.run(raw(start, LAST))
    trace_id = str(segments[0].related_traces[0]).encode()
    assert exchange.sent[0]["headers"] == [(b"x-own", b"1"), (b"X-Trace-Id", trace_id)]
    assert start["headers"] == [(b"x-own", b"1")]  # the app's own message is not touched


async def test_an_app_may_leave_the_headers_out(segments: Segments) -> None:
    exchange = Exchange(segments)
    await exchange.run(raw({"type": "http.response.start", "status": 204}, LAST))
    assert [name for name, _ in exchange.sent[0]["headers"]] == [b"X-Trace-Id"]
    assert {tags(span)["http.status_code"] for span in segments[0].spans} == {"204"}


async def test_the_entry_span_says_who_asked_for_what(segments: Segments) -> None:
    await Exchange(segments).run(raw(START, LAST), headers=[(b"host", b"shop:80"), (b"x", b"y")], scheme="https")
    entry = find(segments, "HTTP GET /raw/{path}")
    assert entry.peer == "10.0.0.9:4711"
    assert tags(entry) == {"http.method": "GET", "http.url": "https://shop:80/raw/x", "http.status_code": "200"}
    assert entry.layer.name == "Http"
    assert entry.component.name == "FastAPI"
    assert not entry.error_occurred


@pytest.mark.parametrize("client", [None, ()])
async def test_a_server_that_does_not_know_its_client_is_fine(segments: Segments, client: Any) -> None:
    await Exchange(segments).run(raw(START, LAST), client=client)
    assert find(segments, "HTTP GET /raw/{path}").peer is None


async def test_a_request_begins_in_the_trace_of_its_caller(segments: Segments) -> None:
    sw8 = (b"sw8", b"1-dA==-cw==-2-c2hvcA==-aQ==-Lw==-aDo4MA==")
    exchange = Exchange(segments)
    await exchange.run(raw(START, LAST), headers=[(b"accept", b"*/*"), sw8, (b"sw8-correlation", b"aw==:dg==")])
    (ref,) = find(segments, "HTTP GET /raw/{path}").refs
    assert (ref.ref_type, ref.trace_id, ref.segment_id, ref.span_id) == ("CrossProcess", "t", "s", 2)
    assert (ref.service, ref.service_instance, ref.endpoint, ref.client_address) == ("shop", "i", "/", "h:80")
    assert exchange.sent[0]["headers"] == [(b"X-Trace-Id", b"t")]
    assert find(segments, "FastAPI request handling").refs == []


async def test_a_caller_that_is_not_traced_has_no_trace_here_either(segments: Segments) -> None:
    exchange = Exchange(segments)
    await exchange.run(raw(START, LAST), headers=[(b"sw8", b"1-------")])
    assert segments == []
    assert exchange.sent == [START, LAST]


# Clients that leave.


def leaving(how: Callable[[Receive, Send], Awaitable[None]]) -> FastAPI:
    async def run(_scope: Scope, receive: Receive, send: Send) -> None:
        await how(receive, send)

    app = FastAPI()
    app.mount("/raw", run)
    return instrument(app)


async def test_a_client_that_leaves_before_the_answer_gets_none(segments: Segments) -> None:
    async def wait(receive: Receive, _send: Send) -> None:
        assert (await receive())["type"] == "http.disconnect"
        assert len(segments) == 1  # it has ended

    await Exchange(segments, LEAVES).run(leaving(wait))
    handling, entry = segments[0].spans
    assert tags(handling) == {"http.disconnected": "true"}
    assert "http.status_code" not in tags(entry)
    assert [span.error_occurred for span in (handling, entry)] == [False, False]


async def test_a_client_that_leaves_in_mid_stream_ends_the_request(segments: Segments) -> None:
    async def stream(receive: Receive, send: Send) -> None:
        await send(START)
        await send({**BODY, "more_body": True})
        await receive()
        assert len(segments) == 1
        await send(LAST)

    await Exchange(segments, LEAVES).run(leaving(stream))
    assert outline(segments) == RAW
    assert tags(segments[0].spans[0]) == {"http.disconnected": "true", "http.status_code": "200"}


async def test_what_is_received_but_a_disconnect_ends_nothing(segments: Segments) -> None:
    async def read(receive: Receive, send: Send) -> None:
        await receive()
        assert segments == []
        await send(START)
        await send(LAST)

    await Exchange(segments, {"type": "http.request", "body": b"", "more_body": False}).run(leaving(read))
    assert tags(segments[0].spans[0]) == {"http.status_code": "200"}


async def test_a_server_may_say_so_while_it_sends_the_last_of_it(segments: Segments) -> None:
    class Telling(Exchange):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if message["type"] == "http.response.body":
                listening.set()
                await asyncio.sleep(0.01)

    listening = asyncio.Event()

    async def answer(receive: Receive, send: Send) -> None:
        async def listen() -> None:
            await listening.wait()
            await receive()

        task = asyncio.create_task(listen())
        await send(START)
        await send(LAST)
        await task

    await Telling(segments, LEAVES).run(leaving(answer))
    assert "http.disconnected" not in tags(segments[0].spans[0])


@pytest.mark.parametrize("kind", ["http.response.start", "http.response.body"])
async def test_a_send_that_nobody_listens_to_ends_the_request(
    segments: Segments, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    gone = BrokenPipeError("gone")
    with pytest.raises(BrokenPipeError):
        await Exchange(segments, fails={kind: gone}).run(raw(START, LAST))
    handling, entry = segments[0].spans
    assert tags(handling)["http.disconnected"] == "true"
    assert "failed after its response" not in caplog.text
    assert [span.error_occurred for span in (handling, entry)] == [False, False]
    assert handling.logs == []


async def test_an_error_of_the_server_is_one(segments: Segments) -> None:
    with pytest.raises(ValueError, match="server"):
        await Exchange(segments, fails={"http.response.body": ValueError("server")}).run(raw(START, LAST))
    assert [span.error_occurred for span in segments[0].spans] == [True, True]


async def test_a_client_disconnect_is_no_failure(segments: Segments) -> None:
    async def fail(_receive: Receive, send: Send) -> None:
        await send(START)
        raise ClientDisconnect

    with pytest.raises(ClientDisconnect):
        await Exchange(segments).run(leaving(fail))
    assert [span.error_occurred for span in segments[0].spans] == [False, False]
    assert tags(segments[0].spans[0])["http.disconnected"] == "true"


async def test_a_cleanup_task_is_not_the_requests_time(segments: Segments) -> None:
    app = instrument(FastAPI())
    cleaned = []

    async def cleanup() -> None:
        assert names(segments) == ["FastAPI request handling", "HTTP GET /stream"]
        await asyncio.sleep(0.01)
        cleaned.append(current_trace_id())

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0.001)

        return StreamingResponse(body(), background=BackgroundTask(cleanup))

    class Left(Exchange):
        async def receive(self) -> Message:
            while len(self.sent) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            return LEAVES

    exchange = Left(segments)
    await exchange.run(app, "/stream", asgi={"version": "3.0", "spec_version": "2.3"})
    assert cleaned == [dict(exchange.sent[0]["headers"])[b"X-Trace-Id"].decode()]
    assert outline(segments) == tree("""
        Entry HTTP GET /stream
          Local FastAPI request handling
          Local cleanup CROSS_THREAD""")
    assert tags(find(segments, "FastAPI request handling"))["http.disconnected"] == "true"
    entry, task = find(segments, "HTTP GET /stream"), find(segments, "cleanup")
    assert entry.end_time <= task.start_time


# Answers of other kinds.


async def test_head_has_a_name_of_its_own(segments: Segments) -> None:
    app = instrument(FastAPI())

    @app.head("/")
    async def root() -> None: ...

    assert (await get(app, "/", "HEAD")).content == b""
    assert outline(segments) == tree("""
        Entry HTTP HEAD /
          Local FastAPI request handling""")


@pytest.mark.parametrize(("status", "limit", "failed"), [
    (399, 400, False), (400, 400, True), (499, 500, False), (500, 500, True), (503, 500, True), (599, 600, False),
])  # fmt: skip
async def test_a_status_fails_from_the_limit_on(segments: Segments, status: int, limit: int, failed: bool) -> None:
    app = FastAPI()

    @app.get("/")
    async def root() -> Any:
        from fastapi.responses import PlainTextResponse

        return PlainTextResponse("", status)

    await get(instrument(app, error_status=limit), "/")
    assert [span.error_occurred for span in segments[0].spans] == [failed, failed]
    assert segments[0].spans[0].logs == []


async def test_the_error_behind_a_500_is_told_once(segments: Segments, caplog: pytest.LogCaptureFixture) -> None:
    app = instrument(FastAPI())

    @app.get("/")
    async def root() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        await get(app, "/")
    handling, entry = segments[0].spans
    assert [log.items[1].val for log in handling.logs] == ["KeyError"]
    assert entry.logs == []
    assert "after its response" not in caplog.text
    assert tags(entry)["http.status_code"] == "500"


async def test_an_error_that_comes_late_after_one_that_was_answered_ends_here(
    segments: Segments, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()

    @app.exception_handler(KeyError)
    async def answer(_request: Any, _error: KeyError) -> Any:
        from fastapi.responses import PlainTextResponse

        def fail() -> None:
            raise ValueError("late")

        return PlainTextResponse("", 500, background=BackgroundTask(fail))

    @app.get("/")
    async def root() -> None:
        raise KeyError("mine")

    assert (await get(instrument(app), "/")).status_code == 500
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == [
        "HTTP GET / failed after its response"
    ]
    assert find(segments, "FastAPI request handling").error_occurred


async def test_a_task_that_is_cancelled_reaches_the_server(segments: Segments) -> None:
    app = instrument(FastAPI())

    async def stop() -> None:
        raise asyncio.CancelledError

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> None:
        tasks.add_task(stop)

    with pytest.raises(asyncio.CancelledError):
        await get(app, "/")
    assert find(segments, "stop").error_occurred
    assert not find(segments, "HTTP GET /").error_occurred


# WebSockets.


def socket(handle: Callable[[WebSocket], Awaitable[None]]) -> FastAPI:
    app = FastAPI()

    async def endpoint(websocket: WebSocket) -> None:
        await handle(websocket)

    app.router.add_websocket_route("/ws/{room}", endpoint)
    return instrument(app)


CONNECT: Message = {"type": "websocket.connect"}
WS: Scope = {"type": "websocket", "scheme": "ws", "subprotocols": []}


async def talk(app: ASGIApp, exchange: Exchange, path: str = "/ws/a") -> None:
    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        del scope["method"]
        await app(scope, receive, send)

    await exchange.run(run, path, **WS)


CONNECTED = tree("""
    Entry WebSocket /ws/{room}
      Local FastAPI request handling
      Local WebSocket /ws/{room} connection CROSS_THREAD""")


async def test_a_websocket_is_a_request_until_it_is_accepted(segments: Segments) -> None:
    async def handle(websocket: WebSocket) -> None:
        await websocket.accept()
        assert names(segments) == ["FastAPI request handling", "WebSocket /ws/{room}"]
        with get_context().new_exit_span("/x", "peer:80"):
            pass
        await websocket.close()
        assert len(segments) == 1  # the connection's end is the app's

    exchange = Exchange(segments, CONNECT)
    await talk(socket(handle), exchange)
    assert outline(segments) == CONNECTED + "\n    Exit /x"
    assert {tags(span)["http.status_code"] for span in segments[0].spans} == {"101"}
    assert not any(span.error_occurred for segment in segments for span in segment.spans)
    assert tags(find(segments, "WebSocket /ws/{room}"))["http.method"] == "WebSocket"
    assert dict(exchange.sent[0]["headers"])[b"X-Trace-Id"] == str(segments[0].related_traces[0]).encode()
    assert "http.disconnected" not in tags(segments[0].spans[0])


async def test_a_websocket_that_is_not_accepted_is_a_403(segments: Segments) -> None:
    await talk(socket(lambda websocket: websocket.close()), Exchange(segments, CONNECT))
    assert outline(segments) == tree("""
        Entry WebSocket /ws/{room} failed
          Local FastAPI request handling failed""")
    assert {tags(span)["http.status_code"] for span in segments[0].spans} == {"403"}


async def test_a_websocket_can_be_denied_with_a_response(segments: Segments) -> None:
    async def handle(websocket: WebSocket) -> None:
        start = {"type": "websocket.http.response.start", "status": 429, "headers": []}
        body = {"type": "websocket.http.response.body", "body": b"x"}
        await websocket.receive()
        await websocket._send(start)
        await websocket._send({**body, "more_body": True})
        assert segments == []
        await websocket._send(body)
        assert len(segments) == 1

    exchange = Exchange(segments, CONNECT)
    await talk(socket(handle), exchange)
    assert {tags(span)["http.status_code"] for span in segments[0].spans} == {"429"}
    assert exchange.sent[0]["headers"][0][0] == b"X-Trace-Id"
    assert "http.disconnected" not in tags(segments[0].spans[0])
    assert outline(segments).count("failed") == 2


async def test_a_client_that_leaves_a_websocket_is_no_failure(segments: Segments) -> None:
    async def handle(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()

    with pytest.raises(WebSocketDisconnect):
        await talk(socket(handle), Exchange(segments, CONNECT, {"type": "websocket.disconnect", "code": 1006}))
    assert outline(segments) == CONNECTED


async def test_an_error_in_a_websocket_is_the_connections_and_reaches_the_server(segments: Segments) -> None:
    async def handle(websocket: WebSocket) -> None:
        await websocket.accept()
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await talk(socket(handle), Exchange(segments, CONNECT))
    assert outline(segments) == CONNECTED.replace(" connection", " connection failed")
    log = {item.key: item.val for item in find(segments, "WebSocket /ws/{room} connection").logs[0].items}
    assert log["message"] == "mine"


async def test_an_error_before_a_websocket_was_accepted_is_the_requests(segments: Segments) -> None:
    async def handle(websocket: WebSocket) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await talk(socket(handle), Exchange(segments, CONNECT))
    assert outline(segments) == tree("""
        Entry WebSocket /ws/{room} failed
          Local FastAPI request handling failed""")
    assert {tags(span)["http.status_code"] for span in segments[0].spans} == {"500"}


async def test_a_websocket_on_an_ignored_path_leaves_nothing(segments: Segments) -> None:
    async def handle(websocket: WebSocket) -> None:
        await websocket.accept()
        with get_context().new_exit_span("/x", "peer:80"):
            assert current_trace_id() is None

    app = FastAPI()
    app.router.add_websocket_route("/ws", handle)
    exchange = Exchange(segments, CONNECT)
    await talk(instrument(app, ignore="/ws"), exchange, "/ws")
    assert segments == []
    assert exchange.sent[0]["type"] == "websocket.accept"
    assert b"X-Trace-Id" not in dict(exchange.sent[0]["headers"])


# What is no request of ours.


async def test_an_outer_app_has_traced_the_request_already(segments: Segments) -> None:
    inner, outer = instrument(FastAPI()), instrument(FastAPI())

    @inner.get("/x")
    async def x() -> str | None:
        return current_trace_id()

    outer.mount("/inner", inner)
    answer = await get(outer, "/inner/x")
    assert answer.json() == answer.headers["x-trace-id"]
    assert answer.headers.get_list("x-trace-id") == [answer.json()]
    assert outline(segments) == tree("""
        Entry HTTP GET /inner/x
          Local FastAPI request handling""")


async def test_an_app_inside_of_one_that_is_not_traced_is(segments: Segments) -> None:
    inner, outer = instrument(FastAPI()), FastAPI()

    @inner.get("/x")
    async def x() -> None: ...

    outer.mount("/inner", inner)
    await get(outer, "/inner/x")
    assert outline(segments).startswith("Entry HTTP GET /inner/x\n")


async def test_a_lifespan_is_no_request_and_ends_with_a_flush(
    segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skywalking_background import _agent

    order: list[str] = []
    monkeypatch.setattr(_agent, "flush", lambda: order.append("flush"))

    class Noting(Exchange):
        async def send(self, message: Message) -> None:
            order.append(message["type"])

    await Noting(segments, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}).run(
        instrument(Starlette()), type="lifespan"
    )
    assert order == ["lifespan.startup.complete", "flush", "lifespan.shutdown.complete"]
    assert segments == []


async def test_a_kind_of_scope_that_nobody_knows_is_passed_on(segments: Segments) -> None:
    with pytest.raises(AssertionError):  # Starlette's own: it knows three
        await Exchange(segments).run(instrument(Starlette()), type="webtransport")
    assert segments == []
