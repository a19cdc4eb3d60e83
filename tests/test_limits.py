"""Clients that send too much, too slowly, or nothing at all, against the real service."""

from __future__ import annotations

import json
import resource
import socket
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from harness import Server, eventually, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = b"Host: 127.0.0.1\r\n"
QUICK = {
    "SERVICE_MAX_HEAD_BYTES": "20000",
    "SERVICE_HEAD_SECONDS": "1",
    "SERVICE_BODY_SECONDS": "1",
    "SERVICE_KEEP_ALIVE_SECONDS": "1",
}


def run(folder: Path, **environment: str) -> Any:
    """Run the service with no OAP to report to."""
    variables: dict[str, Any] = {**QUICK, "SERVICE_DATA_DIR": str(folder), **environment}
    name = f"limits-{uuid4().hex[:6]}"
    return serve(folder, name, "127.0.0.1:1", module="demo_service", health="/health/ready", **variables)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with run(tmp_path_factory.mktemp("limits")) as found:
        yield found


def connect(server: Server) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), 20)


def talk(server: Server, *pieces: bytes, pause: float = 0.0, patience: float = 10.0) -> bytes:
    """Send pieces with a pause after each, until the server hangs up; return all that it said."""
    with connect(server) as connection:
        answer = b""
        for piece in pieces:
            try:
                connection.sendall(piece)
                connection.settimeout(pause or 0.001)
                answer += (part := connection.recv(65536))
                if not part:
                    return answer
            except TimeoutError:
                continue
            except ConnectionError:
                return answer
        connection.settimeout(patience)
        while part := connection.recv(65536):
            answer += part
        return answer


def problem(answer: bytes) -> dict[str, Any]:
    """Check that it is a problem document and that the connection ends with it."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    assert b"connection: close" in head.lower()
    found: dict[str, Any] = json.loads(body)
    assert head.split(b" ")[1] == str(found["status"]).encode()
    assert set(found) == {"type", "title", "status", "detail", "trace_id"}
    return found


def test_headers_that_are_too_large_are_431_with_a_trace(server: Server) -> None:
    answer = problem(talk(server, b"GET /test?duration=0 HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 21_000 + b"\r\n\r\n"))
    assert (answer["status"], answer["trace_id"] is None) == (431, False)
    many = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 200) for number in range(100))
    assert problem(talk(server, b"GET /tasks HTTP/1.1\r\n" + HOST + many + b"\r\n"))["status"] == 431
    assert problem(talk(server, b"GET /" + b"x" * 21_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"))["status"] == 431


def test_headers_that_never_end_are_431(server: Server) -> None:
    pieces = [b"GET /test HTTP/1.1\r\n" + HOST + b"X: ", *[b"x" * 1000] * 60]
    assert problem(talk(server, *pieces))["status"] == 431


def test_large_headers_within_the_limit_are_fine(server: Server) -> None:
    headers = {"X-Large": "x" * 19_000}
    assert httpx.get(f"{server.url}/test?duration=0", headers=headers, trust_env=False).status_code == 200


@pytest.mark.parametrize("start", [b"GET /", b"GET /test HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
def test_headers_that_come_byte_by_byte_are_408(server: Server, start: bytes) -> None:
    began = time.monotonic()
    answer = problem(talk(server, start, *[b"E"] * 50, pause=0.1))
    assert answer["status"] == 408
    assert 0.9 < time.monotonic() - began < 4


@pytest.mark.parametrize("piece", [b"", b"\r\n"])
def test_a_client_that_asks_nothing_is_hung_up_on(server: Server, piece: bytes) -> None:
    began = time.monotonic()
    assert b"HTTP/1.1 200" not in talk(server, *[piece] * 50 if piece else [], pause=0.1)
    assert 0.9 < time.monotonic() - began < 4


def test_a_body_that_does_not_come_is_408_with_a_trace(server: Server) -> None:
    head = b"POST /process HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    answer = problem(talk(server, head, *[b" "] * 50, pause=0.1))
    assert (answer["status"], answer["trace_id"] is None) == (408, False)


def test_a_body_that_nobody_reads_does_not_hold_the_connection(server: Server) -> None:
    began = time.monotonic()
    head = b"GET /test?duration=0 HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n"
    talk(server, head, *[b" "] * 100, pause=0.1)
    assert time.monotonic() - began < 9


def test_a_huge_body_and_what_is_no_http_are_problem_documents_too(server: Server) -> None:
    response = httpx.post(f"{server.url}/process", content=b"x" * 70_000, trust_env=False)
    assert (response.status_code, response.headers["Content-Type"]) == (413, "application/problem+json")
    assert response.json()["trace_id"] == response.headers["X-Trace-Id"]
    chunks = httpx.post(f"{server.url}/process", content=iter([b"x" * 1000] * 70), trust_env=False)
    assert (chunks.status_code, chunks.json()["status"]) == (413, 413)
    assert problem(talk(server, b"\x16\x03\x01 not http\r\n\r\n"))["status"] == 400


def test_an_idle_connection_is_kept_for_as_long_as_it_was_set(server: Server) -> None:
    request = b"GET /test?duration=0 HTTP/1.1\r\n" + HOST + b"\r\n"
    with connect(server) as connection:
        for _ in range(2):
            connection.sendall(request)
            time.sleep(0.5)
            assert b'"ok"' in connection.recv(65536)
        began = time.monotonic()
        assert connection.recv(65536) == b""
        assert 0.3 < time.monotonic() - began < 3


def test_a_slow_answer_is_no_slow_client(server: Server) -> None:
    answer = httpx.get(f"{server.url}/test/blocking?duration=3", timeout=20, trust_env=False)
    assert answer.status_code == 200


def test_a_limit_of_files_that_is_reached_is_one_line_and_not_ready(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
    try:
        running = run(tmp_path, SERVICE_HEAD_SECONDS="8", SERVICE_KEEP_ALIVE_SECONDS="8")
        server = running.__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    try:
        idle = [connect(server) for _ in range(100)]
        ready = httpx.get(f"{server.url}/health/ready", trust_env=False)
        assert (ready.status_code, "128 open files" in ready.json()["detail"]) == (503, True)
        refused = httpx.get(f"{server.url}/test", trust_env=False)
        assert (refused.status_code, "128 open files" in refused.json()["detail"]) == (503, True)
        assert httpx.get(f"{server.url}/health/live", trust_env=False).status_code == 200
        for connection in idle:
            connection.close()
        assert eventually(lambda: httpx.get(f"{server.url}/health/ready", trust_env=False).status_code == 200, 10)
        assert server.log.count("open files is reached") == 1
        assert server.log.count("open files to spare again") == 1
        assert "Traceback" not in server.log
    finally:
        running.__exit__(None, None, None)


@pytest.mark.parametrize("pause", [0.0, 0.2])
def test_the_body_of_a_request_that_asks_for_another_protocol_is_read(server: Server, pause: float) -> None:
    # As Java's own client sends it, and with it OAP its alarms.
    head = b"POST /process?duration=0 HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, HTTP2-Settings\r\n"
    head += (
        b"HTTP2-Settings: AAEAAEAAAAIAAAAB\r\nUpgrade: h2c\r\nContent-Length: 9\r\nContent-Type: application/json\r\n"
    )
    answer = talk(server, head + b"\r\n", b'{"id": 1}', pause=pause)
    assert b'{"status":"accepted","id":1}' in answer
