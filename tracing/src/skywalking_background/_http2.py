"""Calls over one HTTP/2 connection, as gRPC makes them, in whichever thread calls: nothing that a fork could break.

Why not gRPC's own library: its core does not survive a fork. Measured with grpcio 1.85, a parent whose thread makes
calls while its main thread forks children that make their own channel (20 to 150 forks):

- the channel left open: 6 of 30 children failed with UNAVAILABLE, and in two of three runs the parent's own channel
  hung for good, with `GRPC_ENABLE_FORK_SUPPORT` true as well as false;
- every channel closed before the fork and made anew after it: a fork took up to 457 ms, and in one run of three the
  parent hung for good.

A blocking socket is simply closed in the child. And Python starts no new threads when a process ends, of which
gRPC's streams need one: here the thread that wants something delivered does it itself.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING, Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from skywalking_background._failures import (
    DeliveryError,
    RefusedError,
    TimedOutError,
    UnreachableError,
    UnwelcomeError,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

_RECEIVE: Final = 65_536  # bytes
_OK: Final = "200"
_TRY_LATER: Final = {"429", "502", "503", "504"}  # what gateways answer when there is nobody behind them
# https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
_STATUS: Final = {
    "1": "CANCELLED",
    "2": "UNKNOWN",
    "3": "INVALID_ARGUMENT",
    "4": "DEADLINE_EXCEEDED",
    "5": "NOT_FOUND",
    "6": "ALREADY_EXISTS",
    "7": "PERMISSION_DENIED",
    "8": "RESOURCE_EXHAUSTED",
    "9": "FAILED_PRECONDITION",
    "10": "ABORTED",
    "11": "OUT_OF_RANGE",
    "12": "UNIMPLEMENTED",
    "13": "INTERNAL",
    "14": "UNAVAILABLE",
    "15": "DATA_LOSS",
    "16": "UNAUTHENTICATED",
}
_KINDS: Final[dict[str, type[DeliveryError]]] = {
    "DEADLINE_EXCEEDED": TimedOutError,
    "UNAVAILABLE": UnreachableError,
    "UNIMPLEMENTED": UnwelcomeError,
    "PERMISSION_DENIED": UnwelcomeError,
    "UNAUTHENTICATED": UnwelcomeError,
}
# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors
_RESETS: Final = {
    h2.errors.ErrorCodes.REFUSED_STREAM: "UNAVAILABLE",
    h2.errors.ErrorCodes.CANCEL: "CANCELLED",
    h2.errors.ErrorCodes.ENHANCE_YOUR_CALM: "RESOURCE_EXHAUSTED",
    h2.errors.ErrorCodes.INADEQUATE_SECURITY: "PERMISSION_DENIED",
}
_NO_GRPC: Final = (
    "what listens there does not speak gRPC: SW_AGENT_PROTOCOL=grpc wants OAP's gRPC port, by default 11800"
)


class StaleConnectionError(UnreachableError):
    """The other side has left since the last call: a new connection may do."""


class _Answer:
    """What has come back of one call so far."""

    def __init__(self) -> None:
        self.status: str | None = None
        self.grpc_status: str | None = None
        self.text = ""
        self.body = bytearray()
        self.ended = False
        self.reset: str | None = None

    def take_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        for key, value in headers:
            if key == ":status":
                self.status = value
            elif key == "grpc-status":
                self.grpc_status = value
            elif key == "grpc-message":
                self.text = value[:300]

    def result(self) -> bytes:
        """Return the message that came back.

        Raises:
            DeliveryError: there is none; which error says why.
        """
        if self.status is not None and self.status != _OK:
            if self.status in _TRY_LATER:
                raise UnreachableError(f"the gateway before it answers with HTTP status {self.status}")
            raise UnwelcomeError(f"HTTP status {self.status}: {_NO_GRPC}")
        if self.grpc_status == "0":
            return bytes(self.body[5:])  # behind the prefix: not compressed, and how long
        if self.grpc_status is None and self.reset is None:
            raise UnreachableError("the connection was closed before the answer")
        name = _STATUS.get(self.grpc_status, "UNKNOWN") if self.grpc_status is not None else self.reset or "UNKNOWN"
        raise _KINDS.get(name, RefusedError)(f"{name}: {self.text}" if self.text else name)


class Http2Connection:
    """One connection; it makes one call at a time and is not to be shared between threads."""

    def __init__(self, connected: socket.socket, scheme: str, authority: str) -> None:
        self._socket = connected
        self._scheme = scheme
        self._authority = authority
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._calls = 0
        self._answer = _Answer()
        self._stream = 0
        self._going = False  # the other side is about to close the connection
        self._heard = self._understood = False  # anything at all; HTTP/2
        self.usable = True

    def close(self) -> None:
        """Close the socket, without a word to the other side: it may be a parent's connection."""
        self.usable = False
        self._socket.close()

    def call(self, path: str, messages: Iterable[bytes], metadata: list[tuple[str, str]], timeout: float) -> bytes:
        """Send a call's messages, which have their prefixes already, and wait for its one answer.

        Raises:
            DeliveryError: there is no good answer within `timeout` seconds. The connection stays usable if it can.
        """
        deadline = time.monotonic() + timeout
        first, self._calls = not self._calls, self._calls + 1
        try:
            self._look_up(deadline)
            answer = self._answer = _Answer()
            self._stream = self._h2.get_next_available_stream_id()
            self._h2.send_headers(self._stream, self._head(path, metadata, timeout))
            for message in messages:
                self._send(message, deadline)
            if not self._over():
                self._h2.end_stream(self._stream)
            self._write(deadline)
            while not self._over():
                self._read(deadline)
        except TimeoutError:
            self.usable = False
            if self._heard and not self._understood:
                raise UnwelcomeError(_NO_GRPC) from None  # it has greeted, and waits for words of its own
            raise TimedOutError(f"no answer within {timeout:.0f} s") from None
        except (OSError, h2.exceptions.ProtocolError) as error:
            self.usable = False
            goodbye = _said_goodbye(error)
            if self._heard and not self._understood and not goodbye:
                raise UnwelcomeError(_NO_GRPC) from error
            # h2 takes no more frames once the other side has said goodbye, with a call under way or not.
            kind = UnreachableError if first else StaleConnectionError
            raise kind(f"the connection was lost, {'closed by the other side' if goodbye else error}") from error
        except DeliveryError:
            self.usable = False
            raise
        if self._going:
            self.usable = False
        return answer.result()

    def _head(self, path: str, metadata: list[tuple[str, str]], timeout: float) -> list[tuple[str, str]]:
        return [
            (":method", "POST"),
            (":scheme", self._scheme),
            (":path", path),
            (":authority", self._authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", f"{max(1, int(timeout * 1000))}m"),
            ("user-agent", "skywalking-background"),
            *metadata,
        ]

    def _over(self) -> bool:
        return self._answer.ended or self._answer.reset is not None

    def _look_up(self, deadline: float) -> None:
        """Take note of what came since the last call: the other side may have said goodbye."""
        waiting = select.poll()  # not `select.select`, which fails where more than 1,024 files are open
        waiting.register(self._socket, select.POLLIN)
        while waiting.poll(0):
            self._read(deadline)
        if self._going:
            message = "the other side has closed the connection"
            raise StaleConnectionError(message)

    def _send(self, message: bytes, deadline: float) -> None:
        sent, view = 0, memoryview(message)
        while sent < len(view) and not self._over():
            room = min(self._h2.local_flow_control_window(self._stream), self._h2.max_outbound_frame_size)
            if room <= 0:
                self._write(deadline)
                self._read(deadline)
                continue
            self._h2.send_data(self._stream, view[sent : sent + room].tobytes())
            sent += room

    def _write(self, deadline: float) -> None:
        if data := self._h2.data_to_send():
            self._socket.settimeout(_left(deadline))
            self._socket.sendall(data)

    def _read(self, deadline: float) -> None:
        self._socket.settimeout(_left(deadline))
        data = self._socket.recv(_RECEIVE)
        if not data:
            message = "closed by the other side"
            raise ConnectionError(message)
        self._heard = True
        for event in self._h2.receive_data(data):
            self._understood = True
            self._take(event)
        self._write(deadline)  # acknowledgements

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self._going = True
            # The call that runs ends as it should, unless the other side says that it does not do it any more.
            if event.last_stream_id is not None and event.last_stream_id < self._stream and not self._over():
                message = "the other side closes the connection"
                raise StaleConnectionError(message)
        elif getattr(event, "stream_id", None) != self._stream:
            return
        elif isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
            self._answer.take_headers(event.headers)  # type: ignore[arg-type]  # text, as was asked for
        elif isinstance(event, h2.events.DataReceived):
            self._answer.body += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, self._stream)
        elif isinstance(event, h2.events.StreamEnded):
            self._answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            self._answer.reset = _RESETS.get(event.error_code, "INTERNAL")  # type: ignore[call-overload]


def _said_goodbye(error: Exception) -> bool:
    """Whether h2 refused a frame only because the other side's GOAWAY came right before it.

    Such an error leaves no event of the GOAWAY and no other mark than its text.
    """
    return isinstance(error, h2.exceptions.ProtocolError) and str(error).endswith("ConnectionState.CLOSED")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
