"""What the doctor says of whatever may answer at an address: real sockets, one for each way to be wrong."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from skywalking_background import _probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOST = "127.0.0.1"


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port at which each connection gets `answer`, then its end."""
    with socket.create_server((HOST, 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                try:
                    answer(connection)
                except OSError:
                    pass  # the doctor has hung up
                finally:
                    connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


class Receiver(grpc.GenericRpcHandler):
    """A gRPC server that answers each call as it is told to, and remembers what came along."""

    def __init__(self, code: grpc.StatusCode = grpc.StatusCode.OK) -> None:
        self.code = code
        self.metadata: dict[str, Any] = {}
        self.received: list[bytes] = []

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        self.metadata = dict(call.invocation_metadata or ())
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if self.code is not grpc.StatusCode.OK:
            context.abort(self.code, "no")
        self.received.append(request)
        return request


@contextmanager
def receiving(receiver: Receiver, credentials: grpc.ServerCredentials | None = None) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(1), handlers=[receiver])
    if credentials is None:
        port = server.add_insecure_port(f"{HOST}:0")
    else:
        port = server.add_secure_port(f"{HOST}:0", credentials)
    server.start()
    yield port
    server.stop(None)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A key and a certificate for the loopback address that nobody trusts."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here to make a certificate with")
    folder = tmp_path_factory.mktemp("certificate")
    key, made = folder / "key.pem", folder / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += [
        "-keyout",
        str(key),
        "-out",
        str(made),
        "-days",
        "2",
        "-subj",
        "/CN=oap",
        "-addext",
        f"subjectAltName=IP:{HOST}",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return key, made


@pytest.fixture
def tls_port(certificate: tuple[Path, Path]) -> Iterator[int]:
    key, made = certificate
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), made.read_bytes())])
    with receiving(Receiver(), credentials) as port:
        yield port


@pytest.mark.parametrize("address", ["", "oap_host:oap_port"])
def test_no_address(address: str) -> None:
    assert "no OAP is named: set SW_AGENT_COLLECTOR_BACKEND_SERVICES" in str(_probe.split(address))


@pytest.mark.parametrize(
    "address", ["oap", "oap:", ":11800", "http://oap:11800", "oap:grpc", "oap:0", "oap:65536", "oap:11800/"]
)
def test_malformed_address(address: str) -> None:
    assert "is no address: write SW_AGENT_COLLECTOR_BACKEND_SERVICES=host:port" in str(_probe.split(address))


@pytest.mark.parametrize(
    ("address", "place"), [("oap:1", ("oap", 1)), ("oap:65535", ("oap", 65535)), ("[::1]:11800", ("::1", 11800))]
)
def test_address(address: str, place: tuple[str, int]) -> None:
    assert _probe.split(address) == place


def test_name_that_does_not_resolve() -> None:
    assert "'oap.invalid' can't be resolved" in _probe.connect("oap.invalid", 11800)


def test_closed_port() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    assert f"nobody listens at {HOST}:{port}: start OAP" in _probe.connect(HOST, port)


def test_port_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_probe, "CONNECT_SECONDS", 0.2)
    with socket.socket() as full:
        full.bind((HOST, 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]  # the queue of connections is full now: further ones wait
        for one in waiting:
            one.setblocking(False)
            one.connect_ex((HOST, port))
        assert f"no connection to {HOST}:{port} (timed out): let a firewall pass it" in _probe.connect(HOST, port)
        for one in waiting:
            one.close()


def test_grpc_port() -> None:
    with receiving(Receiver()) as port:
        assert _probe.connect(HOST, port) == ""
        assert _probe.speaks(HOST, port, tls=False) == ""


def test_http_port_of_another_server() -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with listening(refuse) as port:
        assert "speaks HTTP/1, not gRPC: name OAP's gRPC port" in _probe.speaks(HOST, port, tls=False)


@pytest.mark.parametrize("greeting", [b"", b"220 mail ESMTP\r\n"])
def test_port_that_speaks_something_else(greeting: bytes) -> None:
    def greet(connection: socket.socket) -> None:
        connection.sendall(greeting)
        connection.recv(1000)

    with listening(greet) as port:
        assert "does not speak gRPC: name OAP's gRPC port" in _probe.speaks(HOST, port, tls=False)


def test_tls_port_without_tls(tls_port: int) -> None:
    assert f"{HOST}:{tls_port} speaks TLS only: set SW_AGENT_FORCE_TLS=true" == _probe.speaks(HOST, tls_port, tls=False)


def test_tls_port_with_a_certificate_of_unknown_authority(tls_port: int) -> None:
    wrong = _probe.speaks(HOST, tls_port, tls=True)
    assert "is not trusted (self-signed certificate): name its authority's file in GRPC_DEFAULT_SSL" in wrong


def test_tls_port_whose_authority_is_named(
    tls_port: int, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(certificate[1]))
    assert _probe.speaks(HOST, tls_port, tls=True) == ""


def test_plain_port_with_tls() -> None:
    with receiving(Receiver()) as port:
        assert "does not speak TLS: unset SW_AGENT_FORCE_TLS" in _probe.speaks(HOST, port, tls=True)


def test_older_tls_than_gRPC_takes_is_tls_all_the_same(certificate: tuple[Path, Path]) -> None:  # noqa: N802
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])

    def handshake(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).close()

    with listening(handshake) as port:
        assert "speaks TLS only" in _probe.speaks(HOST, port, tls=False)


def collects(port: int, token: str = "") -> str:
    return _probe.collects(f"{HOST}:{port}", tls=False, authentication=token, through_proxy=False)


def test_receiver_takes_an_empty_batch() -> None:
    receiver = Receiver()
    with receiving(receiver) as port:
        assert collects(port) == ""
    assert receiver.received == [b""]
    assert "authentication" not in receiver.metadata


def test_proxy_is_taken_only_when_asked_for(no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv("http_proxy", "http://127.0.0.1:1")
    with receiving(Receiver()) as port:
        assert collects(port) == ""
        wrong = _probe.collects(f"{HOST}:{port}", tls=False, authentication="", through_proxy=True)
    assert "gRPC does not reach" in wrong


def test_untrusted_certificate_is_refused_by_grpc_too(tls_port: int) -> None:
    wrong = _probe.collects(f"{HOST}:{tls_port}", tls=True, authentication="", through_proxy=False)
    assert "gRPC does not reach" in wrong


@pytest.fixture
def silent_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port that takes whatever comes and never answers."""
    monkeypatch.setattr(_probe, "ANSWER_SECONDS", 0.2)
    with socket.create_server((HOST, 0)) as server:  # the kernel takes connections: nobody accepts them
        yield server.getsockname()[1]


def test_silent_port(silent_port: int) -> None:
    """What is silent may be a busy OAP: nothing is known of what it speaks."""
    silence = f"{HOST}:{silent_port} accepts connections, but has said nothing for 0 s: OAP may be overloaded"
    assert _probe.speaks(HOST, silent_port, tls=False).startswith(silence)
    assert _probe.speaks(HOST, silent_port, tls=True).startswith(silence)
    assert f"{HOST}:{silent_port} has not answered for 0 s (Deadline Exceeded): OAP may be overloaded" in collects(
        silent_port
    )
    query = f"http://{HOST}:{silent_port}"
    assert f"{query} has not answered for 0 s: OAP may be overloaded" in _probe.stored(query, "the-id", 0)


def test_port_that_closes_between_two_questions() -> None:
    assert "does not speak gRPC" in _probe.speaks(HOST, 1, tls=False)


def test_answer_that_comes_in_pieces() -> None:
    def answer(connection: socket.socket) -> None:
        for piece in (b"HT", b"TP/1", b".1 400 Bad Request"):
            connection.sendall(piece)
            time.sleep(0.02)

    with listening(answer) as port:
        assert "speaks HTTP/1" in _probe.speaks(HOST, port, tls=False)


def test_token_is_sent() -> None:
    receiver = Receiver()
    with receiving(receiver) as port:
        assert collects(port, "secret") == ""
    assert receiver.metadata["authentication"] == "secret"


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED])
def test_wrong_token(code: grpc.StatusCode) -> None:
    with receiving(Receiver(code)) as port:
        assert "wants another token: set SW_AGENT_AUTHENTICATION" in collects(port)


def test_grpc_server_that_is_no_oap() -> None:
    with receiving(Receiver(grpc.StatusCode.UNIMPLEMENTED)) as port:
        assert "takes no segments: name OAP's gRPC port" in collects(port)


def test_other_refusal_is_named() -> None:
    with receiving(Receiver(grpc.StatusCode.RESOURCE_EXHAUSTED)) as port:
        assert "refused an empty batch (RESOURCE_EXHAUSTED: no): look into OAP's own log" in collects(port)


def test_grpc_does_not_get_through() -> None:
    assert "gRPC does not reach 127.0.0.1:1 (" in collects(1)


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_no_proxy(no_proxies: pytest.MonkeyPatch) -> None:
    assert _probe.proxy("oap") == ""


@pytest.mark.parametrize("name", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_proxy(no_proxies: pytest.MonkeyPatch, name: str) -> None:
    no_proxies.setenv(name, "http://127.0.0.1:1")
    assert _probe.proxy("oap") == name


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "::1", "127.0.0.9"])
def test_loopback_takes_no_proxy(no_proxies: pytest.MonkeyPatch, host: str) -> None:
    no_proxies.setenv("http_proxy", "http://127.0.0.1:1")
    assert _probe.proxy(host) == ""


@pytest.mark.parametrize("name", ["no_proxy", "no_grpc_proxy"])
@pytest.mark.parametrize(("host", "variable"), [("oap", "http_proxy"), ("other", ""), ("a.inner", "")])
def test_hosts_that_need_no_proxy(no_proxies: pytest.MonkeyPatch, name: str, host: str, variable: str) -> None:
    no_proxies.setenv("http_proxy", "http://127.0.0.1:1")
    no_proxies.setenv(name, "other,.inner")
    assert _probe.proxy(host) == variable


@contextmanager
def querying(*answers: object) -> Iterator[tuple[str, list[Any]]]:
    """OAP's HTTP port: one answer after the other, the last one again and again; and what was asked."""
    left, asked = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            assert self.headers["Content-Type"] == "application/json"
            body = json.dumps(left.pop(0) if len(left) > 1 else left[0]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer((HOST, 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://{HOST}:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def spans(*names: str) -> dict[str, Any]:
    return {"data": {"trace": {"spans": [{"endpointName": name} for name in names]}}}


@pytest.mark.parametrize("end", ["", "/", "/graphql"])
def test_trace_is_waited_for(end: str) -> None:
    with querying(spans(), spans("doctor")) as (url, asked):
        assert _probe.stored(url + end, "the-id", 10) == ""
    assert [path for path, _ in asked] == ["/graphql", "/graphql"]
    assert asked[0][1].keys() == {"query", "variables"}
    assert asked[0][1]["variables"] == {"id": "the-id"}


def test_query_address_is_asked_without_a_proxy(no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv("http_proxy", "http://127.0.0.1:1")
    with querying(spans("doctor")) as (url, _):
        assert _probe.stored(url, "the-id", 0) == ""


def test_trace_that_never_comes() -> None:
    with querying(spans()) as (url, _):
        assert _probe.stored(url, "the-id", 0) == (
            "OAP took the test segment but does not show its trace the-id after 0 s: "
            "look into OAP's own log, and whether --query names the same OAP"
        )


@pytest.mark.parametrize(
    ("answer", "cause"),
    [({"errors": ["no"]}, "KeyError: 'data'"), ([], "TypeError: "), ({"data": None}, "TypeError: ")],
)
def test_query_address_that_is_no_oap(answer: object, cause: str) -> None:
    with querying(answer) as (url, _):
        assert f"{url} answers no queries ({cause}" in _probe.stored(url, "the-id", 0)


@pytest.mark.parametrize("query", ["127.0.0.1", "http://127.0.0.1:1", "http://oap.invalid"])
def test_query_address_without_anybody(query: str) -> None:
    assert f"{query} answers no queries" in _probe.stored(query, "the-id", 0)


def test_query_address_is_the_grpc_port() -> None:
    with receiving(Receiver()) as port:
        assert "name OAP's HTTP address, as in --query" in _probe.stored(f"http://{HOST}:{port}", "the-id", 0)
