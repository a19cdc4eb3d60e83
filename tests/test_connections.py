"""What can happen on a connection: it is shared, it is cut, it turns into a WebSocket."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from harness import OapServer, Server, eventually, serve
from oap_query import build, outline
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oap_query import Span

KINDS = ("Entry", "Local")
PLAIN = ["Entry HTTP GET /plain 200", "  Local FastAPI request handling 200"]


@pytest.fixture(scope="module")
def server(oap: OapServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("connections"), f"connections-{uuid4().hex[:6]}", oap.grpc) as found:
        yield found


def tree(oap: OapServer, trace_id: str, lines: int) -> list[str]:
    """Return the outline of a trace once it has that many lines."""
    return outline(build(oap.client.wait_for_trace(trace_id, lambda spans: len(spans) >= lines, 20))).splitlines()


def test_a_large_body_does_not_lend_its_spans_to_the_next_request(server: Server, oap: OapServer) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        first = client.post("/body", content=b"x" * 300_000)
        second = client.get("/plain")  # on the same connection, while the first one's task runs
    assert first.json() == 300_000
    assert tree(oap, second.headers["X-Trace-Id"], 2) == PLAIN
    assert tree(oap, first.headers["X-Trace-Id"], 3)[-1] == "  Local work CROSS_THREAD"


def test_pipelined_requests_have_traces_of_their_own(server: Server, oap: OapServer) -> None:
    address = urlsplit(server.url)
    request = b"GET /task HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(request + request + last)
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    ids = [line.split(": ")[1] for line in answer.split("\r\n") if line.lower().startswith("x-trace-id")]
    assert len(set(ids)) == 3
    task = ["Entry HTTP GET /task 200", "  Local FastAPI request handling 200", "  Local work CROSS_THREAD"]
    assert [tree(oap, trace_id, 3 if n < 2 else 2) for n, trace_id in enumerate(ids)] == [task, task, PLAIN]


def test_a_client_that_leaves_in_mid_stream_is_no_failure_of_the_service(server: Server, oap: OapServer) -> None:
    with httpx.stream("GET", server.url + "/endless", trust_env=False) as response:
        next(response.iter_raw())
        trace_id = response.headers["X-Trace-Id"]
    assert tree(oap, trace_id, 2) == ["Entry HTTP GET /endless 200", "  Local FastAPI request handling 200"]
    (handling,) = (span for span in oap.client.trace(trace_id) if span.kind == "Local")
    assert handling.tags["http.disconnected"] == "true"


def test_a_client_that_leaves_does_not_wait_for_the_cleanup(server: Server, oap: OapServer) -> None:
    with httpx.stream("GET", server.url + "/left", trust_env=False) as response:
        next(response.iter_raw())
        trace_id = response.headers["X-Trace-Id"]
    assert tree(oap, trace_id, 3) == [
        "Entry HTTP GET /left 200",
        "  Local FastAPI request handling 200",
        "  Local work CROSS_THREAD",
    ]
    spans = oap.client.trace(trace_id)
    entry, task = (next(span for span in spans if span.name == name) for name in ("HTTP GET /left", "work"))
    assert entry.end <= task.start
    assert entry.duration < 900
    assert task.duration >= 999


def test_a_websocket_is_a_short_request_and_a_long_connection(server: Server, oap: OapServer) -> None:
    with connect(server.url.replace("http", "ws") + "/socket/lobby", proxy=None) as websocket:
        trace_id = websocket.recv()
        time.sleep(0.3)
        websocket.send("bye")
    spans = oap.client.wait_for_trace(str(trace_id), lambda spans: len(spans) >= 3, 20)
    assert outline(build(spans)).splitlines() == [
        "Entry WebSocket /socket/{room} 101",
        "  Local FastAPI request handling 101",
        "  Local WebSocket /socket/{room} connection CROSS_THREAD",
    ]
    entry, connection = (next(s for s in spans if s.kind == kind and s.parent_span_id == -1) for kind in KINDS)
    assert entry.end <= connection.start
    assert connection.duration >= 300


def test_a_long_websocket_is_seen_while_it_is_open_and_whole_afterwards(server: Server, oap: OapServer) -> None:
    def calls(spans: list[Span]) -> int:
        return sum(span.kind == "Exit" and span.name == "/x" for span in spans)

    with connect(server.url.replace("http", "ws") + "/long", proxy=None) as websocket:
        trace_id = str(websocket.recv())
        websocket.send("1000")
        websocket.recv()
        open_yet = oap.client.wait_for_trace(trace_id, lambda spans: calls(spans) >= 900, 20)
        websocket.send("0")
    whole = oap.client.wait_for_trace(trace_id, lambda spans: calls(spans) >= 1000, 20)
    assert (calls(open_yet), calls(whole)) == (900, 1000)
    names = [span.name for span in whole if span.name.startswith("WebSocket")]
    assert sorted(names) == [
        "WebSocket /long",
        "WebSocket /long connection",
        *["WebSocket /long connection (part)"] * 3,
    ]
    assert all(sum(span.segment_id == one.segment_id for span in whole) <= 301 for one in whole)


def test_an_ignored_path_leaves_nothing_not_even_behind_its_tasks(server: Server, oap: OapServer) -> None:
    for path in ("/ignored/deep/x", "/ignored/late/x"):
        assert "X-Trace-Id" not in httpx.get(server.url + path, trust_env=False).headers
    time.sleep(0.5)  # the late call was made
    marker = httpx.get(server.url + "/plain", trust_env=False).headers["X-Trace-Id"]
    assert tree(oap, marker, 2) == PLAIN  # what was sent before has arrived too
    found = oap.client.query(
        'query ($id: ID!) { found: findEndpoint(serviceId: $id, keyword: "/by/", limit: 10) { name } }',
        id=eventually(lambda: oap.client.service_id(server.name)),
    )
    assert found == {"found": []}
