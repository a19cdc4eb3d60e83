"""The HTTP transport on the wire: what is sent, what each answer means, when a connection is kept."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from skywalking import config
from skywalking.protocol.language_agent.Tracing_pb2 import SegmentCollection, SegmentObject
from skywalking.protocol.logging.Logging_pb2 import LogData
from skywalking_background import _http
from skywalking_background._failures import (
    DeliveryError,
    RefusedError,
    TimedOutError,
    UnreachableError,
    UnwelcomeError,
)
from skywalking_background._http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import Iterator

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CLOSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


class Server:
    """What listens: the requests that came, as `(connection's number, head, body)`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.requests: list[tuple[int, str, bytes]] = []


@contextmanager
def answering(*connections: list[bytes]) -> Iterator[Server]:
    """Give each connection its answers in turn, an empty one for none, and close it after the last."""
    done = threading.Event()

    def serve() -> None:
        for number, answers in enumerate(connections):
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                for answer in answers:
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        line = stream.readline()
                        if not line:
                            break
                        head += line
                    lines = head.decode().splitlines()
                    length = next((int(x.split(":")[1]) for x in lines if x.lower().startswith("content-length")), 0)
                    if head:
                        server.requests.append((number, head.decode(), stream.read(length)))
                    if not answer:
                        done.wait(5)
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(listener.getsockname()[1])
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server
        done.set()
        thread.join(5)


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    monkeypatch.setattr(config, "agent_name", "shop")
    monkeypatch.setattr(config, "agent_instance_name", "one")
    monkeypatch.setattr(config, "agent_authentication", "")


def transport(server: Server) -> HttpTransport:
    return HttpTransport(f"127.0.0.1:{server.port}")


def test_what_is_sent_where() -> None:
    segment, log = SegmentObject(traceId="t", traceSegmentId="s"), LogData(service="shop")
    with answering([OK] * 3) as server:
        to = transport(server)
        to.introduce()
        collection = SegmentCollection(segments=[segment]).SerializeToString()
        to.send_segments([collection, collection])
        to.send_logs([log.SerializeToString()])
    paths = [head.split()[1] for _, head, _ in server.requests]
    assert paths == ["/v3/management/keepAlive", "/v3/segments", "/v3/logs"]
    assert [json.loads(body) for _, _, body in server.requests] == [
        {"service": "shop", "serviceInstance": "one"},
        [{"traceId": "t", "traceSegmentId": "s"}] * 2,
        [{"service": "shop"}],
    ]
    for number, head, _ in server.requests:
        assert number == 0  # one connection for all
        assert head.startswith("POST ")
        assert "Content-Type: application/json\r\n" in head
        assert f"Host: 127.0.0.1:{server.port}\r\n" in head
        assert "authentication" not in head


def test_a_token_travels_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "agent_authentication", "secret")
    with answering([OK]) as server:
        transport(server).introduce()
    assert "authentication: secret\r\n" in server.requests[0][1]


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_a_proxy_is_given_the_whole_address(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    with answering([OK]) as server:
        monkeypatch.setenv("http" if variable == "http_proxy" else "all", "")
        monkeypatch.setenv(variable, f"http://127.0.0.1:{server.port}")
        HttpTransport("oap.example:12800").introduce()
    assert server.requests[0][1].startswith("POST http://oap.example:12800/v3/management/keepAlive HTTP/1.1\r\n")


def test_what_is_encrypted_asks_a_proxy_for_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "agent_force_tls", True)
    with answering([b"HTTP/1.1 403 Forbidden\r\n\r\n"]) as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # not for this
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.port}")
        with pytest.raises(UnreachableError, match="403 Forbidden"):
            HttpTransport("oap.example:12800").introduce()
    assert server.requests[0][1].startswith("CONNECT oap.example:12800 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (199, None),
        (200, None),
        (204, None),
        (299, None),
        (300, RefusedError),
        (400, RefusedError),
        (401, UnwelcomeError),
        (403, UnwelcomeError),
        (404, UnwelcomeError),
        (405, UnwelcomeError),
        (407, UnwelcomeError),
        (413, RefusedError),
        (429, UnreachableError),
        (500, RefusedError),
        (502, UnreachableError),
        (503, UnreachableError),
        (504, UnreachableError),
    ],
)
def test_what_a_status_means(status: int, kind: type[DeliveryError] | None) -> None:
    to = HttpTransport("oap:1")
    if kind is None and status in range(200, 300):
        to._judge(status, "any")
        return
    with pytest.raises(kind or RefusedError) as caught:
        to._judge(status, "a  text\nof " + "many " * 100)
    expected = f"HTTP status {status}: {('a text of ' + 'many ' * 100)[:200]}"
    if kind is UnwelcomeError:
        expected += " (SW_AGENT_PROTOCOL=http wants OAP's HTTP port, by default 12800)"
    assert str(caught.value) == expected
    assert type(caught.value) is (kind or RefusedError)


def test_a_connection_that_was_closed_while_idle_is_made_anew() -> None:
    with answering([OK], [OK, OK]) as server:
        to = transport(server)
        to.introduce()
        to.introduce()
        to.introduce()
    assert [number for number, _, _ in server.requests] == [0, 1, 1]
    assert {(head.split()[1], bool(body)) for _, head, body in server.requests} == {("/v3/management/keepAlive", True)}


def test_one_that_the_server_announces_to_close_is_not_used_again() -> None:
    with answering([CLOSE], [OK]) as server:
        to = transport(server)
        to.introduce()
        assert to._connection is None
        to.introduce()
    assert [number for number, _, _ in server.requests] == [0, 1]


def test_one_whose_answer_was_not_read_whole_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "_TEXT_MAX", 4)
    long = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 6\r\n\r\nabcdef"
    with answering([long], [OK]) as server:
        to = transport(server)
        with pytest.raises(RefusedError, match=r"HTTP status 400: abcd$"):
            to.introduce()
        to.introduce()
    assert [number for number, _, _ in server.requests] == [0, 1]


def test_a_new_connection_that_breaks_is_not_tried_again() -> None:
    with answering([b"H"], [OK]) as server:
        to = transport(server)
        with pytest.raises(UnwelcomeError, match="does not speak HTTP: SW_AGENT_PROTOCOL=http wants"):
            to.introduce()
        assert to._connection is None
        to.introduce()


def test_a_server_that_hangs_up_is_not_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        to = HttpTransport(f"127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(UnreachableError, match=r"^the connection was lost, "):
            to.introduce()
        thread.join()
    assert to._connection is None


def test_a_server_that_never_answers_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "CALL_TIMEOUT", 0.3)
    with answering([b""]) as server:
        to = transport(server)
        with pytest.raises(TimedOutError, match=r"^no answer within 0 s$"):
            to.introduce()
        assert to._connection is None


def test_nobody_there_is_not_reachable() -> None:
    to = HttpTransport("127.0.0.1:9")
    with pytest.raises(UnreachableError, match="connection refused"):
        to.introduce()
    assert to._connection is None


def test_what_is_no_address_is_a_wrong_setting() -> None:
    with pytest.raises(UnwelcomeError, match="names no OAP"):
        HttpTransport("oap").introduce()


def test_a_close_ends_the_connection_and_may_come_twice() -> None:
    with answering([OK], [OK]) as server:
        to = transport(server)
        to.close()
        to.introduce()
        assert to._connection is not None
        open_socket = to._connection.sock
        to.close()
        assert open_socket.fileno() == -1
        assert to._connection is None
        to.introduce()
    assert [number for number, _, _ in server.requests] == [0, 1]
