"""`instrument(app)`: one entry span per request, closed with the last byte of its response."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, TypeVar

import anyio.to_thread
from starlette.applications import Starlette

from skywalking_background import _agent
from skywalking_background._names import MOUNTS, OUTER_MOUNTS, note_routes
from skywalking_background._request_rules import RequestRules
from skywalking_background._requests import Request, Socket
from skywalking_background._tasks import trace_background_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from starlette.types import Message, Receive, Scope, Send

    from skywalking_background._requests import Call

App = TypeVar("App", bound=Starlette)
_MIDDLEWARE: Final = "_skywalking_background"
_KINDS: Final[dict[str, type[Request]]] = {"http": Request, "websocket": Socket}


def instrument(
    app: App,
    *,
    enabled: bool | None = None,
    ignore: str | Iterable[str] = (),
    error_status: int = 400,
    header: str | None = "X-Trace-Id",
) -> App:
    """Trace an app's requests and its background tasks to SkyWalking, and start the agent if nobody has.

    Name, OAP address and the rest come from the agent's own `SW_AGENT_*` variables.

    Args:
        app: a FastAPI or Starlette app that has not answered a request yet.
        enabled: `False` leaves the app and the process as if this library were not there; by default the variable
            `SKYWALKING_BACKGROUND_ENABLED` says so with `false`, `0`, `no` or `off`.
        ignore: one or several regular expressions; a path that one of them matches as a whole is never traced, nor are
            its tasks. It is the path as the app's routes match it, or the whole path with the prefix of a proxy.
        error_status: the lowest response status that marks the request as failed.
        header: the response header that carries the trace id; `None` for none.

    Raises:
        RuntimeError: the app already serves, or the agent runs with a setting that would trace requests twice.
    """
    if app.middleware_stack is not None:
        message = "instrument(app) must come before the app's first request"
        raise RuntimeError(message)
    if not _agent.switch(on=enabled):
        return app
    _agent.start()
    trace_background_tasks()
    note_routes()
    trace_calls()
    framework = "Starlette" if type(app) is Starlette else "FastAPI"
    patterns = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    middleware = Middleware(f"{framework} request handling", patterns, error_status, header)
    setattr(app, _MIDDLEWARE, middleware)
    return app


def trace_calls() -> None:
    """Trace the calls of each app that was given a middleware.

    Around the whole app: outside of `ServerErrorMiddleware`, whose 500 must be seen, and independent of what other
    libraries make of the middleware stack, before or after.
    """
    if hasattr(Starlette.__call__, _MIDDLEWARE):
        return
    call = Starlette.__call__

    @functools.wraps(call)
    def traced(app: Starlette, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # No coroutine of its own, which would stay for as long as the request's tasks run.
        middleware: Middleware | None = app.__dict__.get(_MIDDLEWARE)
        if middleware is None:
            return call(app, scope, receive, send)
        return middleware(call, app, scope, receive, send)

    setattr(traced, _MIDDLEWARE, True)
    Starlette.__call__ = traced  # type: ignore[method-assign, assignment]


class Middleware(RequestRules):
    """Traces the requests of one app by its rules."""

    def __call__(self, call: Call, app: Starlette, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Trace the call of an app, if it is a request that nobody traces yet."""
        kind = scope["type"]
        if kind == "lifespan":
            return call(app, scope, receive, _reporting(send))
        if kind not in _KINDS or MOUNTS in scope:  # an outer app has traced this request already
            return call(app, scope, receive, send)
        scope[MOUNTS] = scope.pop(OUTER_MOUNTS, "")
        return _KINDS[kind](self, scope, receive, send).run(call, app)


def _reporting(send: Send) -> Send:
    """Report from the app's start, and deliver what is queued before the server ends the process.

    It may do so without running `atexit`, and it has forked its workers by the start.
    """

    async def reporting(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            _agent.app_starts()
        elif message["type"].startswith("lifespan.shutdown."):
            await anyio.to_thread.run_sync(_agent.app_ends)
        await send(message)

    return reporting
