"""A small service of our own, for failures that the stack's service must not suffer: overload and its end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

import httpx
import psutil

from stack.settings import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stack.settings import Settings

START_TIMEOUT_SECONDS: Final = 60.0
"""How long the service may take to answer, or to end."""
DRAIN_SECONDS: Final = 2
"""How long its tasks may run on after SIGTERM."""


@dataclass(frozen=True)
class SmallService:
    """A service that runs two tasks at once and lets one wait; `messages` has the notifications of its dead letters."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    messages: list[dict[str, Any]]


@contextmanager
def small_service(settings: Settings) -> Iterator[SmallService]:
    """Run another service beside the stack's: one that is easily overloaded, and that may be ended.

    Raises:
        httpx.HTTPError: it does not answer; its log is in the run folder.
    """
    folder = empty_folder(settings, "verify")
    with _receiver() as (url, messages):
        variables = {
            "SERVICE_FAULTS_ENABLED": "true",
            "SERVICE_MAX_RUNNING": "2",
            "SERVICE_MAX_QUEUED": "1",
            "SERVICE_DRAIN_SECONDS": str(DRAIN_SECONDS),
            "SERVICE_NOTIFY_URLS": json.dumps([url]),
            "SERVICE_WORKERS": "1",
        }
        with service_beside(settings, "small", folder, variables) as (process, client):
            yield SmallService(process, client, messages)


def empty_folder(settings: Settings, name: str) -> Path:
    """Return an empty folder in the run folder."""
    folder = settings.run_dir / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@contextmanager
def service_beside(
    settings: Settings, name: str, folder: Path, variables: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """Run a service beside the stack's, until the block ends; then it is killed, with its workers.

    Args:
        settings: of the stack, whose OAP it reports to.
        name: what is put behind the service's name.
        folder: its data and its log.
        variables: its own settings.

    Raises:
        httpx.HTTPError: it does not answer; its log is in the folder.
    """
    port = free_port()
    environment = {
        # Without the settings of the user's own service: its database, who is told of its dead letters.
        **{name: value for name, value in os.environ.items() if not name.startswith("SERVICE_")},
        "SERVICE_HOST": HOST,
        "SERVICE_PORT": str(port),
        "SERVICE_DATA_DIR": str(folder),
        "SW_AGENT_NAME": f"{settings.service_name}-{name}",
        "SW_AGENT_COLLECTOR_BACKEND_SERVICES": f"{HOST}:{settings.oap_grpc_port}",
        **variables,
    }
    with (folder / "service.log").open("ab") as log:
        command = [sys.executable, "-m", "demo_service"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603  # our own program
        try:
            with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=60, trust_env=False) as client:
                _wait_until_ready(client)
                yield process, client
        finally:
            kill_with_workers(process)


def kill_with_workers(process: subprocess.Popen[bytes]) -> None:
    """End it as the kernel does that has no memory left; its workers would not notice."""
    if process.poll() is None:
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for worker in workers:
            worker.kill()
    process.wait()


def _wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            client.get("/health/ready").raise_for_status()
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


@contextmanager
def _receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Receive notifications: yield an Apprise URL, and the messages that were sent to it."""
    messages: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"json://{HOST}:{server.server_port}/", messages
    finally:
        server.shutdown()
        server.server_close()
