"""The console as it is run for real, and stand-ins that pass an OAP's answers on or change them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
from harness import OapServer, Server, free_port, wait_until
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
JSON = {"Content-Type": "application/json"}
SOON_MS = 60_000  # on a machine that does other things too
expect.set_options(timeout=SOON_MS)


def ask(server: Server, path: str, method: str = "GET") -> str:
    """Send a request; return its trace id."""
    response = httpx.request(method, server.url + path, trust_env=False)
    assert response.is_success
    return response.headers["X-Trace-Id"]


@contextmanager
def run_console(directory: Path, **environment: str) -> Iterator[str]:
    """Run the console as it is run for real; yield its URL."""
    port, log = free_port(), directory / "console.log"
    env = {**os.environ, "CONSOLE_PORT": str(port), **environment}
    del env["PYTEST_CURRENT_TEST"]  # NiceGUI would take itself for the thing under test
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tracing_console"], env=env, stdout=output, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(f"{url}/health"), process, log, 120)
        yield url
    finally:
        process.terminate()
        process.wait(60)
    assert "Traceback" not in log.read_text(), log.read_text()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def forward(port: int, target: int) -> Iterator[None]:
    """Pass connections on to another port for a while: an OAP that comes and goes at the cost of none."""
    listener = socket.create_server(("127.0.0.1", port))
    pairs: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", target))
            pairs.extend((near, far))
            for ends in ((near, far), (far, near)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        for each in (listener, *pairs):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextmanager
def answering(oap: OapServer, answers: dict[str, Any], garbage: list[bytes] | None = None) -> Iterator[str]:
    """Stand before an OAP and answer the queries of these names; or all queries with garbage, while there is some."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            own = {name: value for name, value in answers.items() if name in json.loads(body)["query"]}
            given = garbage[0] if garbage else json.dumps({"data": own}).encode()
            if not own and not garbage:
                given = httpx.post(oap.url + self.path, content=body, headers=JSON, trust_env=False).content
            self._give(given)

        def do_GET(self) -> None:
            self._give(httpx.get(oap.url + self.path, trust_env=False).content)

        def _give(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
