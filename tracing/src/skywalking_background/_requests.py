"""One request or WebSocket on its way through an app: its spans, from the first line to the last byte."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect

from skywalking_background import _sw8
from skywalking_background._faults import is_order, logger, note
from skywalking_background._ids import new_id
from skywalking_background._internals import inherited_spans, open_spans, sampled, set_open_spans
from skywalking_background._light_spans import HandlingSpan, OwnTag, RequestSpan, common_tag, noop_span, set_tag
from skywalking_background._names import route_template
from skywalking_background._segments import UNSAMPLED, Context, Origin
from skywalking_background._spans import background_span, record_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.applications import Starlette
    from starlette.types import Message, Receive, Scope, Send

    from skywalking_background._internals import Span
    from skywalking_background._request_rules import RequestRules

    Call = Callable[[Starlette, Scope, Receive, Send], Awaitable[None]]


_BODIES: Final = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})
_SWITCHING: Final = 101
_FORBIDDEN: Final = 403
_SERVER_ERROR: Final = 500


class Behavior:
    """What tests may want otherwise."""

    contain_late_errors = True
    """Whether an error after the response ends here, logged, instead of reaching the server."""


class Request:
    """One request on its way: both of its spans, from the first line to the last byte."""

    contains = True
    __slots__ = (
        "ending",
        "entry",
        "error_id",
        "finished",
        "handling",
        "left",
        "method",
        "origin",
        "receive_upstream",
        "rules",
        "scope",
        "send_downstream",
        "started",
        "status",
        "trailers",
    )

    def __init__(self, rules: RequestRules, scope: Scope, receive: Receive, send: Send) -> None:
        self.rules = rules
        self.scope = scope
        self.method = scope.get("method", "WebSocket")
        self.receive_upstream = receive
        self.send_downstream = send
        self.status = _SERVER_ERROR  # what a request ends with that never gets to answer
        self.error_id = 0  # not the error itself: it refers to the frames it went through, and those to this request
        self.started = self.finished = self.left = self.ending = self.trailers = False
        self.entry: RequestSpan | None = None
        self.handling: HandlingSpan | None = None
        self.origin: Origin = UNSAMPLED

    def open(self) -> None:
        """Open both spans, in the caller's trace if its headers name one.

        Whatever spans this context inherited are forgotten: uvicorn can start a request in the context of the one
        before it on the same connection (pipelining, large bodies), whose background task may still run.
        """
        scope, path = self.scope, self.scope["path"]
        sw8 = correlation = host = b""
        for key, value in scope["headers"]:
            if key == b"sw8":
                sw8 = value
            elif key == b"sw8-correlation":
                correlation = value
            elif key == b"host":
                host = value
        caller = None
        try:
            caller = _sw8.parse(sw8, correlation) if sw8 else None
            # A caller's trace goes on whole: the decision to sample was its own.
            traced = not self.rules.ignores(self.method, scope) and (caller is not None or sampled())
        except _sw8.SuppressedError:
            traced = False
        if not traced:
            return
        context = Context(path, caller, 2)
        context.segment_id = new_id()
        context.primary_endpoint = self
        self.origin = Origin(context, 0, path)
        entry = RequestSpan(context, path, int(time.time() * 1000), self.origin)
        handling = HandlingSpan(entry, self.rules.operation)
        set_open_spans([entry, handling])
        self.entry, self.handling = entry, handling
        if client := scope.get("client"):
            entry.peer = f"{client[0]}:{client[1]}"
        tags = entry.tags = defaultdict(list)
        tags["http.method"] = common_tag("http.method", self.method)
        # Without the query: it may hold what nobody should read in a trace.
        tags["http.url"] = OwnTag("http.url", f"{scope['scheme']}://{host.decode('latin-1')}{path}")

    def get_name(self) -> str:
        """Name the endpoint of the log lines of this request: one of the methods of the agent's `PrimaryEndpoint`."""
        return self.name()

    def set_primary_endpoint(self, span: Span) -> None:
        """Stay the endpoint, whatever spans follow: the other of its methods."""

    async def run(self, call: Call, app: Starlette) -> None:
        outer = inherited_spans()
        try:
            self.open()
        except Exception:  # noqa: BLE001  # the request goes on without
            note("opening a request")
        if self.entry is None:
            set_open_spans([noop_span()])  # what plugins find, and leave their own spans out for
        try:
            await call(app, self.scope, self, self.send)
        except BaseException as error:
            # Behind a client that has left no request follows on the connection: its errors are the server's to tell.
            late = self.finished and not self.left and id(error) != self.error_id
            self.close(error)
            self.end(error)
            contained = self.contains and Behavior.contain_late_errors and not is_order(error)
            if not (late and contained):
                raise
            # The client has its answer. Let the error reach the server, and uvicorn closes the connection, under the
            # next request that is being answered on it (https://github.com/encode/uvicorn/issues/3153).
            logger.exception("%s failed after its response", self.name())
        else:
            self.close(None)
            self.end(None)
        finally:
            set_open_spans(outer or [])  # an app that called this one in process goes on in its own place

    def end(self, error: BaseException | None) -> None:
        """Do what is left when the app is through, with the error it ended with."""

    async def __call__(self) -> Message:
        """Receive: itself what the app calls for it, which is one object less for each running task."""
        message = await self.receive_upstream()
        if message["type"] == "http.disconnect":
            self.leave()
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            message = self.start(message)
        elif kind in _BODIES:
            self.ending = not message.get("more_body", False) and not self.trailers
        elif kind == "http.response.trailers":
            self.ending = not message.get("more_trailers", False)
        try:
            await self.send_downstream(message)
        except OSError:  # how a server says that nobody listens any more
            self.ending = False
            self.leave()
            raise
        if self.ending:
            # Starlette answers 500 while it handles the error that it raises again afterwards.
            self.close(sys.exception() if self.status >= _SERVER_ERROR else None, whole=True)

    def leave(self) -> None:
        """End the request as its client left, mostly before it had the whole response."""
        if self.finished:
            return
        # A server may say so while it sends the last of it, and Starlette then cancels what sends it.
        self.left = not self.ending
        self.close(None, whole=self.ending)

    def start(self, message: Message) -> Message:
        """Note the response's status and put the trace id into its headers."""
        self.started = True
        self.status = message.get("status", _SWITCHING)
        self.trailers = message.get("trailers", False)
        header = self.rules.header
        if header is None or self.origin is UNSAMPLED:
            return message
        trace_id = self.origin.trace_id.encode("latin-1", "replace")
        return {**message, "headers": [*message.get("headers", ()), (header, trace_id)]}

    def close(self, error: BaseException | None, *, whole: bool = False) -> None:
        """End both spans; `whole` says that the client got the whole response."""
        if self.finished:
            return
        self.finished = True
        entry, handling = self.entry, self.handling
        if entry is None or handling is None:
            return
        self.entry = self.handling = None  # OAP's by now; the tasks may run on for long
        try:
            self._close(entry, handling, error, whole)
        except Exception:  # noqa: BLE001  # the response is on its way
            note("closing a request")

    def _close(self, entry: RequestSpan, handling: HandlingSpan, error: BaseException | None, whole: bool) -> None:
        self.origin.endpoint = name = self.name()
        Context.name_endpoint(entry, name)
        if self.left or (self.started and not whole and (error is None or isinstance(error, ClientDisconnect))):
            set_tag(handling, "http.disconnected", "true")  # the client's doing, no failure of the service
            error = None
        answered = self.started or not self.left
        failed = error is not None or (answered and self.status >= self.rules.error_status)
        if answered:
            entry.tags["http.status_code"] = handling.tags["http.status_code"] = common_tag(
                "http.status_code", self.status
            )
        entry.error_occurred = handling.error_occurred = failed
        if error is not None:
            self.error_id = id(error)
            record_error(handling, error)
        Context.close(handling, entry)
        self.origin.ended = entry.end_time
        # What runs on in this place hangs below the request. In the list itself: contexts copied from this one have it.
        spans = open_spans()
        if entry in spans:
            spans[:] = [self.origin, *[span for span in spans if span is not entry and span is not handling]]

    def name(self) -> str:
        return f"HTTP {self.method} {route_template(self.scope)}"


class _Connection(background_span):
    """What a WebSocket does after it was accepted: no task that anybody waits for."""

    __slots__ = ()
    is_task = False


class Socket(Request):
    """A WebSocket: the request ends when it is accepted, the connection has a span of its own."""

    __slots__ = ("connection",)

    contains = False  # the server tells the client of an error by closing the connection

    def __init__(self, rules: RequestRules, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(rules, scope, receive, send)
        self.connection: background_span | None = None

    def end(self, error: BaseException | None) -> None:
        """Close the connection's span; a client that leaves is no failure."""
        if self.connection is not None:
            failure = None if isinstance(error, WebSocketDisconnect) else error
            self.connection.__exit__(type(failure) if failure else None, failure, None)

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            await self.send_downstream(self.start(message))
            self.close(None, whole=True)
            self.connection = _Connection(f"{self.name()} connection")
            self.connection.__enter__()
            return
        if kind == "websocket.http.response.start":
            message = self.start(message)
        await self.send_downstream(message)
        if kind == "websocket.close":
            self.status = _FORBIDDEN  # before it was accepted: what the server answers with
            self.close(None)
        elif kind == "websocket.http.response.body" and not message.get("more_body", False):
            self.close(None, whole=True)

    def name(self) -> str:
        return f"WebSocket {route_template(self.scope)}"
