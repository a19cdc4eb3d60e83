"""Limits of a connection that uvicorn does not have: how large a request's head is, and how long its parts may take.

Slow clients (slowloris) cost a connection and a descriptor each, and send nothing that an app could refuse.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from demo_service.http.bodies import REFUSAL
from demo_service.http.problems import problem

if TYPE_CHECKING:
    import asyncio

    from demo_service.http.descriptors import Descriptors
    from demo_service.settings import Settings

GRACE_SECONDS: Final = 5.0
"""s after `body_seconds` in which the app may still say 408, before the connection is cut."""


_UPGRADE: Final = re.compile(rb"^(connection:[^\r\n]*?)upgrade", re.IGNORECASE | re.MULTILINE)


def _without_upgrade(data: bytes) -> bytes:
    """Remove the request for another protocol (`Upgrade`) from a request's head: none is supported here.

    Java's own HTTP client, with which OAP sends alarms, asks for HTTP/2 beside each POST, and uvicorn's parser drops
    the body of a request that asks.
    """
    if b"pgrade" not in data:
        return data
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(rb"\1x-upgrade", head) + end + rest


class _Part(Enum):
    """What of a request is expected next."""

    NOTHING = auto()
    HEAD = auto()
    BODY = auto()


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's own protocol with these limits; `lifespan` gives it `settings` and `descriptors`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # uvicorn's own
        super().__init__(*args, **kwargs)
        self._settings: Settings = self.app_state["settings"]
        self._descriptors: Descriptors = self.app_state["descriptors"]
        self._part = _Part.HEAD
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._spare = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: a client that says nothing must not stay."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        self._spare = connection is None or self._descriptors.take(connection.fileno())
        self._start_timer(self._settings.head_seconds if self._spare else GRACE_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then see how far the request has come."""
        before = self._part
        if before is not _Part.BODY:
            self._head_bytes += len(data)
            data = _without_upgrade(data)
        super().data_received(data)
        if self.transport.is_closing():
            self._stop_timer()
        elif self._part is _Part.NOTHING:
            self._stop_timer()
            if not self._busy():
                self._start_timer(self._settings.head_seconds)  # blank lines, or a body that came after its answer
        elif self._part is _Part.BODY:
            if before is not _Part.BODY:
                self._start_timer(self._settings.body_seconds + GRACE_SECONDS)
        elif self._head_bytes > self._settings.max_head_bytes:
            self._refuse(431, self._too_large())
        elif self._timer is None:
            self._start_timer(self._settings.head_seconds)

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the WebSocket's protocol."""
        self._stop_timer()
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """Note that a request has begun."""
        super().on_message_begin()
        self._part = _Part.HEAD

    def on_headers_complete(self) -> None:
        """Have the app refuse what is too much, so that the refusal has a trace as others have."""
        # With `: ` and the line's end.
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._settings.max_head_bytes:
            self.scope[REFUSAL] = (431, self._too_large())  # type: ignore[typeddict-unknown-key]
        elif not self._spare:
            self.scope[REFUSAL] = (503, self._descriptors.reason)  # type: ignore[typeddict-unknown-key]
        self._part = _Part.BODY
        self._head_bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that nothing is missing any more."""
        self._part = _Part.NOTHING
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP with a problem document too."""
        self._refuse(400, msg)

    def _too_large(self) -> str:
        return f"the request line and the headers have more than {self._settings.max_head_bytes} bytes"

    def _busy(self) -> bool:
        """Say whether a request is being answered, or the keep-alive timer runs."""
        return self.timeout_keep_alive_task is not None or (self.cycle is not None and not self.cycle.response_complete)

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._part is _Part.HEAD and self._head_bytes:
            self._refuse(408, f"the headers were not complete after {self._settings.head_seconds:g} s")
        else:
            self.transport.close()  # nothing was asked, or the app has had its chance to answer

    def _refuse(self, status: int, detail: str) -> None:
        """Answer a request that the app never sees, unless the connection still owes another answer."""
        self._stop_timer()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            answer = problem(status, detail, {"Connection": "close"})
            first = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()
            lines = [first, *(b": ".join(header) for header in answer.raw_headers)]
            self.transport.write(b"\r\n".join((*lines, b"", bytes(answer.body))))
        self.transport.close()
