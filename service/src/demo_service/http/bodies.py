"""What a request may send: nothing that the protocol has refused, and no body that is too large or too slow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException

from demo_service.http.problems import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

REFUSAL: Final = "demo_service.refusal"
"""In the scope of a request that shall get no more than a problem document: its status and detail."""
_CLOSE: Final = {"Connection": "close"}  # what it still sends is not read


class Refusals:
    """ASGI middleware: refuses with problem documents, where FastAPI's own `max_body_size` says it in plain text."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, body_seconds: float) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif refusal := self._refusal(scope):
            status, detail = refusal
            await problem(status, detail, _CLOSE)(scope, receive, send)
        else:
            await self.app(scope, self._bounded(receive), send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        marked: tuple[int, str] | None = scope.get(REFUSAL)
        if marked and not scope["path"].startswith("/health/"):
            return marked
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self.max_body_bytes:
                return 413, self._too_large
        return None

    @property
    def _too_large(self) -> str:
        return f"the body has more than {self.max_body_bytes} bytes"

    def _bounded(self, receive: Receive) -> Receive:
        deadline: float | None = asyncio.get_running_loop().time() + self.body_seconds
        size = 0

        async def receiving() -> Message:
            nonlocal deadline, size
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                detail = f"the body was not complete after {self.body_seconds:g} s"
                raise HTTPException(408, detail, _CLOSE) from None
            size += len(message.get("body", b""))
            if size > self.max_body_bytes:
                raise HTTPException(413, self._too_large, _CLOSE)
            if not message.get("more_body"):
                deadline = None  # from now on it waits for the client to leave
            return message

        return receiving
