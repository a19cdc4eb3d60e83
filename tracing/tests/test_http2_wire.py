"""Calls over HTTP/2 on the wire: what is sent, what each answer means, when a connection is used again."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import pytest
from skywalking import config
from skywalking.protocol.management.Management_pb2 import InstancePingPkg
from skywalking_background import _grpc
from skywalking_background._failures import (
    DeliveryError,
    RefusedError,
    TimedOutError,
    UnreachableError,
    UnwelcomeError,
)
from skywalking_background._grpc import Channel, GrpcTransport, frame
from skywalking_background._http2 import _NO_GRPC, Http2Connection, StaleConnectionError, _Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Speaker = Callable[[h2.connection.H2Connection, int], None]

PING = InstancePingPkg(service="shop", serviceInstance="one")
HEAD = [(":status", "200"), ("content-type", "application/grpc")]


class Peer:
    """The other side of a connection, in a thread: what it got, and what it says to each call that has ended.

    Args:
        speak: says it.
    """

    def __init__(self, connection: socket.socket, speak: Speaker) -> None:
        self.calls: list[dict[str, str]] = []
        self.bodies: list[bytearray] = []
        self.hung_up = False
        self._socket = connection
        self._speak = speak
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(10)

    def _serve(self) -> None:
        self._h2.initiate_connection()
        with self._socket, suppress(BrokenPipeError):
            self._socket.sendall(self._h2.data_to_send())
            while True:
                try:
                    data = self._socket.recv(65_536)
                except OSError:
                    data = b""
                if not data:
                    self.hung_up = True
                    return
                try:
                    for event in self._h2.receive_data(data):
                        self._take(event)
                    self._socket.sendall(self._h2.data_to_send())
                except (OSError, h2.exceptions.ProtocolError):  # it has said goodbye itself
                    return

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.calls.append(dict(event.headers))  # type: ignore[arg-type]
            self.bodies.append(bytearray())
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[-1] += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self._speak(self._h2, event.stream_id)


def good(connection: h2.connection.H2Connection, stream: int) -> None:
    connection.send_headers(stream, HEAD)
    connection.send_data(stream, frame(b"answer"))
    connection.send_headers(stream, [("grpc-status", "0")], end_stream=True)


def failing(status: str, text: str = "") -> Speaker:
    def speak(connection: h2.connection.H2Connection, stream: int) -> None:
        trailers = [("grpc-status", status)] + [("grpc-message", text)] * bool(text)
        connection.send_headers(stream, HEAD + trailers, end_stream=True)

    return speak


@contextmanager
def connected(speak: Speaker = good) -> Iterator[tuple[Http2Connection, Peer]]:
    mine, theirs = socket.socketpair()
    peer = Peer(theirs, speak)
    connection = Http2Connection(mine, "http", "oap:11800")
    yield connection, peer
    connection.close()
    peer.join()


def test_a_call_says_what_grpc_says_and_gives_back_the_answer() -> None:
    with connected() as (connection, peer):
        assert connection.call("/a.B/c", [frame(b"one"), frame(b"two")], [("authentication", "x")], 10) == b"answer"
        assert connection.call("/a.B/d", [], [], 0.5) == b"answer"
        assert connection.usable
        connection.close()
        assert not connection.usable
    first, second = peer.calls
    assert first == {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/a.B/c",
        ":authority": "oap:11800",
        "te": "trailers",
        "content-type": "application/grpc",
        "grpc-timeout": "10000m",
        "user-agent": "skywalking-background",
        "authentication": "x",
    }
    assert (second[":path"], second["grpc-timeout"], "authentication" in second) == ("/a.B/d", "500m", False)
    assert peer.bodies == [b"\0\0\0\0\3one\0\0\0\0\3two", b""]
    assert peer.hung_up


def test_what_is_larger_than_the_window_waits_for_room() -> None:
    message = bytes(range(256)) * 800
    with connected() as (connection, peer):
        for _ in range(3):
            assert connection.call("/a", [message, message], [], 20) == b"answer"
    assert peer.bodies == [message * 2] * 3


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        ("1", RefusedError, "CANCELLED: why"),
        ("2", RefusedError, "UNKNOWN: why"),
        ("3", RefusedError, "INVALID_ARGUMENT: why"),
        ("4", TimedOutError, "DEADLINE_EXCEEDED: why"),
        ("7", UnwelcomeError, "PERMISSION_DENIED: why"),
        ("8", RefusedError, "RESOURCE_EXHAUSTED: why"),
        ("12", UnwelcomeError, "UNIMPLEMENTED: why"),
        ("13", RefusedError, "INTERNAL: why"),
        ("14", UnreachableError, "UNAVAILABLE: why"),
        ("16", UnwelcomeError, "UNAUTHENTICATED: why"),
        ("99", RefusedError, "UNKNOWN: why"),
    ],
)
def test_what_a_status_of_grpcs_means(number: str, kind: type[DeliveryError], text: str) -> None:
    with connected(failing(number, "why")) as (connection, _):
        with pytest.raises(kind) as caught:
            connection.call("/a", [b"x"], [], 10)
        assert type(caught.value) is kind
        assert str(caught.value) == text
        assert connection.usable


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        *((status, UnreachableError, f"the gateway before it answers with HTTP status {status}")
          for status in ("429", "502", "503", "504")),
        ("404", UnwelcomeError, f"HTTP status 404: {_NO_GRPC}"),
    ],
)  # fmt: skip
def test_what_a_status_of_https_means(status: str, kind: type[DeliveryError], text: str) -> None:
    def speak(connection: h2.connection.H2Connection, stream: int) -> None:
        connection.send_headers(stream, [(":status", status)], end_stream=True)

    with connected(speak) as (connection, _):
        with pytest.raises(kind) as caught:
            connection.call("/a", [b"x"], [], 10)
        assert (type(caught.value), str(caught.value)) == (kind, text)


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (h2.errors.ErrorCodes.REFUSED_STREAM, UnreachableError, "UNAVAILABLE"),
        (h2.errors.ErrorCodes.CANCEL, RefusedError, "CANCELLED"),
        (h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, RefusedError, "RESOURCE_EXHAUSTED"),
        (h2.errors.ErrorCodes.INADEQUATE_SECURITY, UnwelcomeError, "PERMISSION_DENIED"),
        (h2.errors.ErrorCodes.INTERNAL_ERROR, RefusedError, "INTERNAL"),
    ],
)
def test_what_a_reset_means(code: int, kind: type[DeliveryError], text: str) -> None:
    with connected(lambda connection, stream: connection.reset_stream(stream, code)) as (connection, _):
        with pytest.raises(kind) as caught:
            connection.call("/a", [b"x"], [], 10)
        assert (type(caught.value), str(caught.value)) == (kind, text)
        assert connection.usable


def test_an_answer_of_an_earlier_call_is_not_taken_for_this_one() -> None:
    late: list[int] = []

    def speak(connection: h2.connection.H2Connection, stream: int) -> None:
        if late:
            connection.send_headers(late[0], [*HEAD, ("grpc-status", "13")], end_stream=True)
            good(connection, stream)
        late.append(stream)

    with connected(speak) as (connection, _):
        with pytest.raises(TimedOutError, match=r"^no answer within 0 s$"):
            connection.call("/a", [b"x"], [], 0.2)
        assert not connection.usable
        assert connection.call("/a", [b"x"], [], 10) == b"answer"


def test_an_answer_without_a_status_is_none() -> None:
    def speak(connection: h2.connection.H2Connection, stream: int) -> None:
        connection.send_headers(stream, HEAD, end_stream=True)

    with connected(speak) as (connection, _), pytest.raises(UnreachableError) as caught:
        connection.call("/a", [b"x"], [], 10)
    assert str(caught.value) == "the connection was closed before the answer"


def test_a_long_text_is_cut_and_none_is_left_out() -> None:
    answer = _Answer()
    answer.take_headers([("grpc-status", "13"), ("grpc-message", "x" * 400), ("other", "y")])
    with pytest.raises(RefusedError, match=rf"^INTERNAL: {'x' * 300}$"):
        answer.result()
    with connected(failing("13")) as (connection, _), pytest.raises(RefusedError, match=r"^INTERNAL$"):
        connection.call("/a", [b"x"], [], 10)


def test_a_goodbye_after_the_answer_ends_the_connection_not_the_call() -> None:
    def speak(connection: h2.connection.H2Connection, stream: int) -> None:
        good(connection, stream)
        connection.close_connection(last_stream_id=stream)

    with connected(speak) as (connection, _):
        assert connection.call("/a", [b"x"], [], 10) == b"answer"
        if connection.usable:  # the goodbye came after what was read
            time.sleep(0.1)
            with pytest.raises(StaleConnectionError):
                connection.call("/a", [b"x"], [], 10)
        assert not connection.usable


def test_a_goodbye_instead_of_an_answer_is_a_stale_connection() -> None:
    with connected(lambda connection, _stream: connection.close_connection(last_stream_id=0)) as (connection, _):
        with pytest.raises(StaleConnectionError, match=r"^the other side closes the connection$"):
            connection.call("/a", [b"x"], [], 10)
        assert not connection.usable


def test_a_goodbye_between_two_calls_makes_a_connection_stale() -> None:
    with connected() as (connection, peer):
        connection.call("/a", [b"x"], [], 10)
        peer._h2.close_connection()
        peer._socket.sendall(peer._h2.data_to_send())
        with pytest.raises(StaleConnectionError, match=r"^the other side has closed the connection$"):
            connection.call("/a", [b"x"], [], 10)
        assert (connection.usable, len(peer.calls)) == (False, 1)


@pytest.mark.parametrize("calls", [0, 1])
def test_a_connection_that_breaks_is_stale_if_it_was_good_before(calls: int) -> None:
    mine, theirs = socket.socketpair()
    peer = Peer(theirs, good)
    connection = Http2Connection(mine, "http", "oap")
    for _ in range(calls):
        connection.call("/a", [b"x"], [], 10)
    theirs.shutdown(socket.SHUT_RDWR)
    peer.join()
    with pytest.raises(UnreachableError, match=r"^the connection was lost, ") as caught:
        connection.call("/a", [b"x"], [], 10)
    assert type(caught.value) is (StaleConnectionError if calls else UnreachableError)
    assert not connection.usable
    connection.close()


def test_what_speaks_something_else_is_named() -> None:
    mine, theirs = socket.socketpair()
    theirs.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 3)
    with theirs, pytest.raises(UnwelcomeError, match=r"does not speak gRPC: SW_AGENT_PROTOCOL=grpc wants OAP's"):
        Http2Connection(mine, "http", "oap").call("/a", [b"x"], [], 0.3)
    mine.close()


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Channel, list[Peer], list[Speaker]]]:
    """A channel whose connections end at peers that were told what to say, in turn."""
    peers: list[Peer] = []
    speakers: list[Speaker] = []

    def connect(*_places: object, **_options: object) -> socket.socket:
        mine, theirs = socket.socketpair()
        peers.append(Peer(theirs, speakers[len(peers)]))
        return mine

    monkeypatch.setattr(_grpc, "connect", connect)
    made = Channel("oap:11800")
    yield made, peers, speakers
    made.close()
    for peer in peers:
        peer.join()


def test_a_channel_keeps_its_connection(channel: tuple[Channel, list[Peer], list[Speaker]]) -> None:
    made, peers, speakers = channel
    speakers += [good, good]
    assert made.call("/a", [b"x"]) == made.call("/a", [b"x"]) == b"answer"
    assert len(peers) == 1
    made.close()
    made.close()
    assert made.call("/a", [b"x"]) == b"answer"
    assert len(peers) == 2


def test_a_stale_connection_is_made_anew_once(channel: tuple[Channel, list[Peer], list[Speaker]]) -> None:
    made, peers, speakers = channel

    def leave(connection: h2.connection.H2Connection, _stream: int) -> None:
        connection.close_connection(last_stream_id=0)

    speakers += [good, leave, good]
    made.call("/a", [b"x"])
    peers[0]._speak = leave
    with pytest.raises(StaleConnectionError):  # the second one leaves as well
        made.call("/a", [b"x"])
    assert len(peers) == 2
    assert made.call("/a", [b"x"]) == b"answer"
    assert len(peers) == 3


@pytest.mark.parametrize("tls", [True, False])
def test_a_connection_is_made_as_the_settings_say(monkeypatch: pytest.MonkeyPatch, tls: bool) -> None:
    asked: list[Any] = []

    def connect(*places: Any, **options: Any) -> socket.socket:
        asked.append((places, options))
        mine, theirs = socket.socketpair()
        asked.append(Peer(theirs, good))
        return mine

    monkeypatch.setattr(_grpc, "connect", connect)
    monkeypatch.setattr(config, "agent_force_tls", tls)
    monkeypatch.setattr(config, "agent_authentication", "secret")
    channel = Channel("oap:11800,other:11801")
    assert channel.call("/a", [b"x"], 3) == b"answer"
    channel.close()
    ((addresses,), options), peer = asked
    peer.join()
    assert [str(one) for one in addresses] == ["oap:11800", "other:11801"]
    assert 0 < options.pop("deadline") - time.monotonic() <= 3
    assert options == {"proxies": ("grpc_proxy", "https_proxy", "http_proxy"), "tls": tls, "alpn": "h2"}
    (call,) = peer.calls
    assert (call[":scheme"], call[":authority"]) == ("https" if tls else "http", "oap:11800")
    assert call["authentication"] == "secret"


def test_an_address_that_is_none_is_a_setting_to_correct() -> None:
    with pytest.raises(UnwelcomeError, match="nonsense"):
        Channel("oap:nonsense").call("/a", [b"x"])


# What the agent's stubs ask of a channel.


def test_a_stub_sends_its_messages_and_reads_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    channel = Channel("127.0.0.1:9")
    monkeypatch.setattr(channel, "call", lambda *arguments: asked.append(arguments) or b"answer")
    one = channel.unary_unary("/one", str.encode, bytes.decode, _registered_method=True)
    assert one("a", timeout=3) == "answer"
    many = channel.stream_unary("/many", str.encode, bytes.decode, _registered_method=True)
    assert many(iter("bc"), timeout=2) == many(iter("")) == "answer"
    assert asked == [
        ("/one", [b"\0\0\0\0\1a"], 3),
        ("/many", [b"\0\0\0\0\1b", b"\0\0\0\0\1c"], 2),
        ("/many", [], None),
    ]


def test_a_stub_of_what_the_agent_never_calls_says_so() -> None:
    channel = Channel("127.0.0.1:9")
    for make in (channel.stream_stream, channel.unary_stream):
        with pytest.raises(NotImplementedError, match=r"^/path$"):
            make("/path")(1, 2)
    channel.subscribe(print, try_to_connect=True)
    channel.unsubscribe(print)


@pytest.mark.parametrize(
    ("send", "path", "messages"),
    [
        (GrpcTransport.introduce, "ManagementService/keepAlive", [frame(PING.SerializeToString())]),
        (lambda to: to.send_segments([b"a", b"bc"]), "TraceSegmentReportService/collectInSync", [frame(b"abc")]),
        (lambda to: to.send_logs([b"a", b"bc"]), "LogReportService/collect", [frame(b"a") + frame(b"bc")]),
        (lambda to: to.send_events([b"a", b"bc"]), "EventService/collect", [frame(b"a") + frame(b"bc")]),
        (lambda to: to.send_meters(b"abc"), "MeterReportService/collectBatch", [frame(b"abc")]),
    ],
)
def test_what_is_sent_goes_to_the_service_that_takes_it(
    monkeypatch: pytest.MonkeyPatch, send: Callable[[GrpcTransport], None], path: str, messages: list[bytes]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(config, "agent_name", PING.service)
    monkeypatch.setattr(config, "agent_instance_name", PING.serviceInstance)
    monkeypatch.setattr(Channel, "call", lambda _self, *arguments: asked.append(arguments))
    send(GrpcTransport("127.0.0.1:9"))
    assert asked == [("/skywalking.v3." + path, messages)]
