"""The way to OAP: addresses, proxies, and what a failure is called."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from skywalking_background import _network
from skywalking_background._failures import UnreachableError
from skywalking_background._network import Address, Proxy, connect, find_proxy, parse_addresses

if TYPE_CHECKING:
    from collections.abc import Iterator

GRPC = ("grpc_proxy", "https_proxy", "http_proxy")
DEAD = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy", "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:11800", [("127.0.0.1", 11800)]),
        ("oap:11800", [("oap", 11800)]),
        ("dns:///oap.example:443", [("oap.example", 443)]),
        ("http://oap:12800/", [("oap", 12800)]),
        ("[::1]:11800", [("::1", 11800)]),
        ("ipv6:[::1]:11800", [("::1", 11800)]),
        ("one:1, two:2", [("one", 1), ("two", 2)]),
        ("ipv4:10.0.0.1:11800", [("10.0.0.1", 11800)]),
        ("oap:1", [("oap", 1)]),
        ("oap:65535", [("oap", 65535)]),
    ],
)
def test_addresses_are_read(text: str, expected: list[tuple[str, int]]) -> None:
    assert parse_addresses(text) == expected


@pytest.mark.parametrize("text", ["oap_host:oap_port", "oap", "", ":11800", "oap:0", "oap:65536", "oap:²"])
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="names no OAP"):
        parse_addresses(text)


@pytest.mark.parametrize(
    ("host", "no_proxy", "goes_through_it"),
    [
        ("127.0.0.1", "", False),
        ("127.8.8.8", "", False),
        ("localhost", "", False),
        ("LOCALHOST", "", False),
        ("localhost.", "", False),
        ("oap.localhost", "", False),
        ("localhost.example", "", True),
        ("::1", "", False),
        ("oap.example", "", True),
        ("10.1.2.3", "", True),
        ("oap.example", "oap.example", False),
        ("oap.example", "oap.example:11800", False),
        ("oap.example", "other, .example", False),
        ("oap.example", "oap.example,other", False),
        ("oap.example", "*.example", False),
        ("oap.example", "*", False),
        ("oap.example", "ample", True),
        ("oap.example", "other", True),
        ("10.1.2.3", "10.0.0.0/8", False),
        ("11.1.2.3", "10.0.0.0/8", True),
    ],
)
def test_when_a_proxy_is_taken(
    monkeypatch: pytest.MonkeyPatch, host: str, no_proxy: str, goes_through_it: bool
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    expected = Proxy("http_proxy", Address("proxy.example", 3128)) if goes_through_it else None
    assert find_proxy(Address(host, 11800), GRPC) == expected


def test_grpc_has_variables_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://one:1")
    monkeypatch.setenv("grpc_proxy", "two:2")
    monkeypatch.setenv("no_proxy", "oap.example")
    monkeypatch.setenv("no_grpc_proxy", "other")
    assert find_proxy(Address("oap.example", 11800), GRPC) == Proxy("grpc_proxy", Address("two", 2))


def test_a_dead_proxy_is_named_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", DEAD)
    with pytest.raises(UnreachableError) as caught:
        connect([Address("oap.example", 11800)], proxies=GRPC, deadline=time.monotonic() + 5)
    assert "through the proxy 127.0.0.1:9 that http_proxy names" in str(caught.value)
    assert "add oap.example to no_proxy" in str(caught.value)


@contextmanager
def a_proxy(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            asked.append(connection.recv(1000))
            connection.sendall(answer)
            time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], asked
        thread.join()


def test_a_proxy_is_asked_for_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_proxy(b"HTTP/1.1 200 Connection established\r\n\r\nhello") as (port, asked):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        with connect([Address("oap.example", 11800)], proxies=GRPC, deadline=time.monotonic() + 5) as connection:
            assert connection.recv(10) == b"hello"
    assert asked == [b"CONNECT oap.example:11800 HTTP/1.1\r\nHost: oap.example:11800\r\n\r\n"]


def test_a_proxy_that_declines_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_proxy(b"HTTP/1.1 403 Forbidden\r\n\r\n") as (port, _):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        with pytest.raises(UnreachableError, match=r"403 Forbidden.* through the proxy .* http_proxy"):
            connect([Address("oap.example", 11800)], proxies=GRPC, deadline=time.monotonic() + 5)


def test_the_second_address_is_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with connect([Address("127.0.0.1", 9), Address("127.0.0.1", port)], deadline=time.monotonic() + 5) as found:
            assert found.getpeername()[1] == port


def test_tls_that_fails_is_said() -> None:
    with a_proxy(b"no TLS here\r\n") as (port, _), pytest.raises(UnreachableError, match="TLS failed"):
        connect([Address("127.0.0.1", port)], tls=True, alpn="h2", deadline=time.monotonic() + 5)


@pytest.mark.parametrize(("host", "entry", "spared"), [
    ("OAP.Example", "oap.example", True), ("oap.example", "OAP.EXAMPLE:11800", True),
    ("oap.example", "oap.example:11801", False), ("oap.example", "*.example", True), ("oap.example", ".example", True),
    ("oap.example", "example", True), ("oapexample", "example", False), ("oap.example", "*", True),
    ("oap.example", "", False), ("oap.example", "*.", False), ("oap.example", "10.0.0.0/8", False),
    ("10.0.0.7", "10.1.2.3/8", True), ("11.0.0.7", "10.1.2.3/8", False), ("10.0.0.7", "10.0.0.0/33", False),
    ("fe80::2", "[fe80::2]", True), ("fe80::2", "[FE80::2]:11800", True), ("fe80::2", "fe80::/16", True),
])  # fmt: skip
def test_an_entry_of_no_proxy_spares_these(host: str, entry: str, spared: bool) -> None:
    assert _network._matches(Address(host, 11800), entry) is spared


@pytest.mark.parametrize(("answer", "said"), [
    (b"HTTP/1.1 200\r\n\r\n", None), (b"HTTP/1.0 200 OK\r\nVia: me\r\n\r\n", None), (b"HTTP/1.0 200 OK", None),
    (b"", "it answered ''"), (b"HTTP/1.1 407 \xe9\r\nA: b\r\n\r\n", "it answered 'HTTP/1.1 407 \xe9'"),
    (b"HTTP/1.1 2000\r\n\r\n", "it answered 'HTTP/1.1 2000'"), (b"200 200", None),
    (b"x" * 120 + b"\r\n\r\n", f"it answered {'x' * 100!r}"),
])  # fmt: skip
def test_only_a_status_of_200_is_a_tunnel(answer: bytes, said: str | None) -> None:
    ours, proxy = socket.socketpair()
    with ours, proxy:
        proxy.sendall(answer)
        proxy.shutdown(socket.SHUT_WR)
        if said is None:
            _network._ask_for_tunnel(ours, Address("oap", 11800))
        else:
            with pytest.raises(ConnectionError) as raised:
                _network._ask_for_tunnel(ours, Address("oap", 11800))
            assert str(raised.value) == said
        assert proxy.recv(100) == b"CONNECT oap:11800 HTTP/1.1\r\nHost: oap:11800\r\n\r\n"


def test_an_answer_without_an_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_network, "_HEAD_MAX", 16)
    ours, proxy = socket.socketpair()
    with ours, proxy:
        proxy.sendall(b"HTTP/1.1 200 OK\r\nVia: and so on")
        _network._ask_for_tunnel(ours, Address("oap", 11800))
        assert ours.recv(100) == b"\nVia: and so on"


UNTRUSTED = (
    "its certificate is not trusted, self-signed: "
    "name the file of the authority that signed it in GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
)


def verified(message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "no")
    error.verify_message = message
    return error


@pytest.mark.parametrize(("error", "cause"), [
    (TimeoutError("1 s"), "nobody answers there"), (ConnectionRefusedError("111"), "connection refused"),
    (socket.gaierror(-2, "no"), "the name {host!r} can't be resolved"),
    (UnicodeError("idna"), "the name {host!r} can't be resolved"), (OSError("odd"), "odd"), (OSError(), "OSError"),
    (verified("self-signed"), UNTRUSTED),
])  # fmt: skip
def test_what_went_wrong_is_said_and_which_proxy_was_in_the_way(error: Exception, cause: str) -> None:
    oap, proxy = Address("oap.example", 11800), Proxy("http_proxy", Address("proxy.example", 3128))
    assert _network._say(error, oap, None) == cause.format(host="oap.example")
    assert _network._say(error, oap, proxy) == (
        f"{cause.format(host='proxy.example')}, through the proxy proxy.example:3128 that http_proxy names; "
        "if OAP is to be reached without it, add oap.example to no_proxy"
    )


@pytest.mark.parametrize(("seconds", "least", "most"), [(3_600, 5.0, 5.0), (2, 1, 2), (-1, 0.01, 0.01)])
def test_nobody_is_waited_for_beyond_the_deadline(
    monkeypatch: pytest.MonkeyPatch, seconds: float, least: float, most: float
) -> None:
    asked: list[float] = []

    def create_connection(_address: Address, timeout: float) -> socket.socket:
        asked.append(timeout)
        raise OSError("away")

    monkeypatch.setattr(_network, "CONNECT_TIMEOUT", 5.0)
    monkeypatch.setattr(socket, "create_connection", create_connection)
    addresses = [Address("one.example", 1), Address("two.example", 2)]
    with pytest.raises(UnreachableError, match=r"^away$"):  # once, as it is the same of both
        connect(addresses, deadline=time.monotonic() + seconds)
    assert len(asked) == 2
    assert all(least <= timeout <= most for timeout in asked)


@pytest.mark.parametrize(("alpn", "agreed"), [("h2", [["h2"]]), ("", [])])
def test_tls_agrees_on_a_protocol_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, alpn: str, agreed: list[list[str]]
) -> None:
    protocols: list[list[str]] = []

    class Context:
        set_alpn_protocols = protocols.append

        def wrap_socket(self, connection: socket.socket, *, server_hostname: str) -> socket.socket:
            assert server_hostname == "127.0.0.1"
            return connection

    monkeypatch.setattr(_network, "_trusting", Context)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address("127.0.0.1", server.getsockname()[1])
        options = {"alpn": alpn} if alpn else {}
        connect([address], tls=True, deadline=time.monotonic() + 5, **options).close()  # type: ignore[arg-type]
    assert protocols == agreed
