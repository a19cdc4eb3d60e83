"""Who may talk to the console: browsers that show the console itself, and nobody else's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from collections.abc import Container

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# NiceGUI compiles Vue templates in the browser, hence eval and inline; everything must come from here all the same.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_CLOSE: Final = 1008  # policy violation


class Guard:
    """Middleware around the whole app, its websocket included: every click of a NiceGUI page comes over that.

    A `Host` that is not the console's is refused (DNS rebinding), so is an `Origin` other than the page's own
    (cross-site requests, form posts and websockets alike).
    """

    def __init__(self, app: ASGIApp, hosts: Container[str]) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        reason = self._objection(Headers(scope=scope), scope["path"])
        if reason is None:
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": _CLOSE, "reason": reason})
        else:
            await PlainTextResponse(f"{reason}\n", 403)(scope, receive, send)

    def _objection(self, headers: Headers, path: str) -> str | None:
        host = headers.get("host", "").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name not in self.hosts and path != "/health":  # a container's health check has a name of its own
            return f"{name or 'no name'} is no name of the console: add it to CONSOLE_ALLOWED_HOSTS if it should be one"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host:
            return "requests from other sites are refused"
        return None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
        await send(message)

    return sending
