"""The same app under every server that runs FastAPI: what its requests and tasks leave in OAP."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import pytest
from harness import OapServer, Server, eventually, free_port, serve
from oap_query import build, outline
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oap_query import Span

BIN = Path(sys.executable).parent
UVICORN = "uvicorn {app} --host 127.0.0.1 --port {port} --no-access-log --timeout-graceful-shutdown 1"
GUNICORN = "gunicorn {app} --bind 127.0.0.1:{port} --worker-class uvicorn.workers.UvicornWorker --graceful-timeout 1"
HYPERCORN = "hypercorn {app} --bind 127.0.0.1:{port} --graceful-timeout 1 --worker-class "
GRANIAN = "granian {app} --host 127.0.0.1 --port {port} --workers-kill-timeout 5 --interface "
SERVERS = {
    "uvicorn-h11": UVICORN + " --http h11 --loop asyncio --ws websockets-sansio",
    "uvicorn-httptools": UVICORN + " --http httptools --loop uvloop --ws wsproto",
    "gunicorn": GUNICORN,
    "hypercorn-asyncio": HYPERCORN + "asyncio",
    "hypercorn-uvloop": HYPERCORN + "uvloop",
    "hypercorn-trio": HYPERCORN + "trio",
    "granian-asgi": GRANIAN + "asgi --loop asyncio",
    "granian-asginl": GRANIAN + "asginl --loop uvloop",
}
WORK = ["  Local work CROSS_THREAD", "    Local inner"]
BELOW = {
    "/tasks": ["  Local blocking_work CROSS_THREAD", *WORK],
    "/family": ["  Local family CROSS_THREAD", "    Local one CROSS_THREAD", "    Local other CROSS_THREAD"],
    "/stream": WORK,
    "/file": WORK,
    "/failing": ["  Local failing_work CROSS_THREAD failed"],
}
"""What stands below the request; all of it begins after the response."""


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, oap: OapServer, tmp_path: Path) -> Iterator[Server]:
    port = free_port()
    program, *words = SERVERS[request.param].format(app="servers_app:app", port=port).split()
    name, command = f"{request.param}-{uuid4().hex[:6]}", [str(BIN / program), *words]
    with serve(tmp_path, name, oap.grpc, command=command, port=port, PYTHONPATH=str(Path(__file__).parent)) as found:
        yield found


def ask(client: httpx.Client, path: str) -> str:
    """Return the trace's id; the next request comes on the same connection, while the tasks run."""
    trace_id = client.get(path).headers["X-Trace-Id"]
    assert client.get("/up").is_success
    return trace_id


def leave(server: Server) -> str:
    with httpx.stream("GET", f"{server.url}/endless", trust_env=False) as response:
        next(response.iter_raw())
        return response.headers["X-Trace-Id"]


def talk(server: Server) -> None:
    with connect(f"{server.url.replace('http', 'ws')}/socket", proxy=None) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
        with pytest.raises(ConnectionClosed):  # Hypercorn's Trio worker dies when both sides close at once
            websocket.recv()


def arrived(oap: OapServer, trace_id: str, spans: int) -> list[Span]:
    return oap.client.wait_for_trace(trace_id, lambda found: len(found) >= spans, 30)


def request_lines(path: str) -> list[str]:
    return [f"Entry HTTP GET {path} 200", "  Local FastAPI request handling 200"]


def test_traces_are_the_same_under_every_server(server: Server, oap: OapServer) -> None:
    began = datetime.now(UTC)
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        traces = {path: ask(client, path) for path in BELOW}
        left = leave(server)
        talk(server)
        time.sleep(1)  # Hypercorn on Trio may cancel what still runs when its connection is closed
    expected = {trace_id: request_lines(path) + BELOW[path] for path, trace_id in traces.items()}
    expected[left] = request_lines("/endless")
    spans = {trace_id: arrived(oap, trace_id, len(lines)) for trace_id, lines in expected.items()}
    assert {trace_id: outline(build(found)).splitlines() for trace_id, found in spans.items()} == expected
    for trace_id in traces.values():
        entry = next(span for span in spans[trace_id] if span.kind == "Entry")
        assert entry.end <= min(span.start for span in spans[trace_id] if span.refs)
    assert [span.tags.get("http.disconnected") for span in spans[left] if span.kind == "Local"] == ["true"]

    # Granian puts no headers of the app's into its answer to a WebSocket.
    def connections() -> list[list[str]]:
        ids = oap.client.traces_since(server.name, began)
        found = [outline(build(oap.client.trace(trace_id))).splitlines() for trace_id in ids]
        return [lines for lines in found if "/socket" in lines[0] and len(lines) > 2]

    assert eventually(connections) == [
        [
            "Entry WebSocket /socket 101",
            "  Local FastAPI request handling 101",
            "  Local WebSocket /socket connection CROSS_THREAD",
        ]
    ]


def test_what_still_runs_when_the_server_ends(server: Server, oap: OapServer) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        trace_id = ask(client, "/long")
    server.stop()
    lines = request_lines("/long")
    # Gunicorn and Granian kill the process: such a task is the journal's to tell of.
    if "gunicorn" not in server.name and "granian" not in server.name:
        lines.append("  Local long_work CROSS_THREAD failed")
    spans = arrived(oap, trace_id, len(lines))
    assert outline(build(spans)).splitlines() == lines
    assert "failed after its response" not in server.log
