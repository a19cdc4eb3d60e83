"""The rule around an ASGI app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from request_guard._rule import HEADERS, SENT

if TYPE_CHECKING:
    from request_guard._rule import Rule

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_CLOSE: Final = 1008  # policy violation
_WANTED: Final = {name.encode(): name for name in SENT}
_NOTHING: Final = {**HEADERS, "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}


class AsgiGuard:
    """Middleware around a whole app, its WebSockets included.

    Args:
        app: what is guarded.
        rule: who may ask.
        headers: what every answer says to browsers.
        refusal: makes the app that answers a refused request from the reason; a line of text by default.
    """

    def __init__(
        self,
        app: App,
        rule: Rule,
        headers: Mapping[str, str] = HEADERS,
        refusal: Callable[[str], App] | None = None,
    ) -> None:
        self.app = app
        self.rule = rule
        self.headers = _encoded(headers)
        self.refusal = refusal or _text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        sent = {_WANTED[name]: value.decode("latin-1") for name, value in scope["headers"] if name in _WANTED}
        reason = self.rule.objection(scope.get("method", "GET"), scope["path"], sent)
        if reason is None:
            await self.app(scope, receive, _adding(send, self.headers))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": _CLOSE, "reason": reason})
        else:
            await self.refusal(reason)(scope, receive, _adding(send, _REFUSED))


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


_REFUSED: Final = _encoded(_NOTHING)


def _adding(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            ours = {name for name, _ in headers}
            others = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in ours]
            message = {**message, "headers": [*others, *headers]}
        await send(message)

    return sending


def _text(reason: str) -> App:
    async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        body = f"{reason}\n".encode()
        lines = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 403, "headers": lines})
        await send({"type": "http.response.body", "body": body})

    return answer
