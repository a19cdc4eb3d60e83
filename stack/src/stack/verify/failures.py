"""What `make verify` shows of tasks that fail: each way, asked for on purpose, with its trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import httpx
from oap_query import build, outline

from stack._settings import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oap_query import Oap, Span

    from stack._settings import Settings

DEADLINE: Final = 30.0
"""s by which a trace must be readable, its retries included."""
BOOT: Final = 30.0
"""s that the small service may take to answer."""
GRACE: Final = 2
"""s that the small service's tasks get to end after SIGTERM."""
LEAST_WAIT: Final = 500
"""ms: the shortest wait before a second attempt, by the service's own policy."""

TASK: Final = "  Local background_sleep_task CROSS_THREAD"
THREE_FAILED: Final = tuple(f"    Local attempt {number} failed" for number in (1, 2, 3))
TOLD: Final = ("    Local notify CROSS_THREAD", "      Exit / 200")
Line = tuple[bool, str]


def _request(route: str, status: int = 200) -> str:
    failed = " failed" if status >= httpx.codes.BAD_REQUEST else ""
    return f"Entry HTTP {route} {status}{failed}\n  Local FastAPI request handling {status}{failed}"


@dataclass(frozen=True)
class Finding:
    """One trace to show: the span tree that it must have, the spans that it has, and what else must hold."""

    title: str
    trace_id: str
    outline: str
    spans: list[Span]
    lines: list[Line] = field(default_factory=list)

    def named(self, name: str) -> list[Span]:
        """Return the spans of a name, the earliest first."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.start)


class Failures:
    """Asks for failures and finds their traces."""

    def __init__(self, settings: Settings, client: httpx.Client, oap: Oap) -> None:
        self._settings = settings
        self._client = client
        self._oap = oap

    def all(self) -> Iterator[Finding]:
        """Go through every way to fail."""
        yield self._retried()
        yield from self._dead_and_replayed()
        yield from self._duplicate()
        with _small_service(self._settings) as small:
            yield from self._overload(small)
            yield self._notified(small)
            yield self._drained(small)

    def _find(self, title: str, response: httpx.Response, tree: str) -> Finding:
        trace_id = response.headers.get("X-Trace-Id", "none")
        spans = self._oap.wait_for_trace(trace_id, lambda found: outline(build(found)) == tree, DEADLINE)
        return Finding(title, trace_id, tree, spans)

    def _retried(self) -> Finding:
        response = self._client.get("/test?duration=1", headers={"X-Fault": "error;times=2"})
        tree = "\n".join([_request("GET /test"), TASK, *THREE_FAILED[:2], "    Local attempt 3"])
        found = self._find("GET /test, X-Fault: error;times=2: retried, then it succeeds", response, tree)
        found.lines.append((response.text == '"ok"', f"answers {response.status_code} {response.text}"))
        for attempt in [*found.named("attempt 2"), *found.named("attempt 3")]:
            waited = int(attempt.tags.get("task.wait_ms", 0))
            found.lines.append((waited >= LEAST_WAIT, f"attempt {attempt.tags.get('task.attempt')} waited {waited} ms"))
        found.lines.append(_outcome(found, "succeeded"))
        return found

    def _dead_and_replayed(self) -> Iterator[Finding]:
        response = self._client.get("/test?duration=1", headers={"X-Fault": "error"})
        tree = "\n".join([_request("GET /test"), f"{TASK} failed", *THREE_FAILED])
        dead = self._find("GET /test, X-Fault: error: retried, then a dead letter", response, tree)
        dead.lines.append(_outcome(dead, "dead"))
        letters = self._client.get("/dead-letters?limit=1000").json()["dead_letters"]
        letter = next((letter for letter in letters if letter["trace_id"] == dead.trace_id), None)
        dead.lines.append((letter is not None, "its dead letter is in GET /dead-letters"))
        yield dead
        if letter is None:
            return
        response = self._client.post(f"/dead-letters/{letter['id']}/replay")
        tree = f"{_request('POST /dead-letters/{task_id}/replay', 202)}\n{TASK}"
        replay = self._find(f"POST /dead-letters/{letter['id']}/replay", response, tree)
        replay.lines.append(_outcome(replay, "succeeded"))
        old = {span.tags.get("replay.of") for span in replay.named("background_sleep_task")}
        replay.lines.append((old == {dead.trace_id}, "its span refers to the trace of the dead letter"))
        yield replay

    def _duplicate(self) -> Iterator[Finding]:
        order = f"order-{uuid4().hex[:8]}"
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda _: self._client.post("/process?duration=1", json={"id": order}), range(2)))
        same = answers[0].text == answers[1].text and {answer.status_code for answer in answers} == {httpx.codes.OK}
        tasks = self._client.get("/tasks?limit=1000").json()["tasks"]
        ran = {task["trace_id"] for task in tasks}
        answers.sort(key=lambda answer: answer.headers["X-Trace-Id"] not in ran)
        tree = f"{_request('POST /process')}\n  Local process_data CROSS_THREAD"
        first = self._find(f"POST /process with id {order}, twice at once: the one that ran", answers[0], tree)
        yield first
        second = self._find("and the other one", answers[1], _request("POST /process"))
        second.lines.append((same, f"both answer {answers[1].status_code} {answers[1].text}"))
        known = {span.tags.get("idempotency.first_trace") for span in second.named("FastAPI request handling")}
        second.lines.append((known == {first.trace_id}, "its span refers to the trace of the one that ran"))
        yield second

    def _overload(self, small: _Small) -> Iterator[Finding]:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: small.client.get("/test?duration=2"), range(4)))
        answers.sort(key=lambda answer: answer.status_code)
        statuses = [answer.status_code for answer in answers]
        tree = f"{_request('GET /test')}\n{TASK}"
        found = [self._find("GET /test, 2 at most run: this one waits", answer, tree) for answer in answers[:3]]
        delays = [int(task.tags["task.queue_delay_ms"]) for one in found for task in one.named("background_sleep_task")]
        waited = found[delays.index(max(delays))] if delays else found[0]
        waited.lines.append(
            (max(delays, default=0) > LEAST_WAIT, f"it waited {max(delays, default=0):,} ms for a slot")
        )
        yield waited
        refused = self._find("and the fourth one is refused", answers[3], _request("GET /test", 503))
        retry = answers[3].headers.get("Retry-After")
        refused.lines.append((statuses == [200, 200, 200, 503], f"3 of 4 are accepted: {statuses}"))
        refused.lines.append((retry is not None, f"it may come again after {retry} s"))
        yield refused

    def _notified(self, small: _Small) -> Finding:
        response = small.client.get("/test?duration=1", headers={"X-Fault": "error"})
        tree = "\n".join([_request("GET /test"), f"{TASK} failed", *THREE_FAILED, *TOLD])
        found = self._find("GET /test, X-Fault: error: somebody is told of the dead letter", response, tree)
        text = small.messages[0] if small.messages else {"title": "nothing"}
        found.lines.append((found.trace_id in text.get("message", ""), f"received: {text['title']}"))
        return found

    def _drained(self, small: _Small) -> Finding:
        response = small.client.get("/test?duration=60")
        small.process.send_signal(signal.SIGTERM)
        time.sleep(GRACE / 4)
        ready, refused = small.client.get("/health/ready").status_code, small.client.get("/test").status_code
        small.process.wait(BOOT)
        tree = "\n".join([_request("GET /test"), f"{TASK} failed", *TOLD])
        found = self._find("GET /test?duration=60, then SIGTERM: the task is interrupted", response, tree)
        found.lines.append((ready == refused == httpx.codes.SERVICE_UNAVAILABLE, f"while draining: {ready}, {refused}"))
        found.lines.append(_outcome(found, "interrupted"))
        return found


def _outcome(found: Finding, expected: str) -> Line:
    outcomes = [span.tags.get("task.outcome") for span in found.named("background_sleep_task")]
    return outcomes == [expected], f"task.outcome={outcomes[0] if outcomes else 'none'}"


@dataclass(frozen=True)
class _Small:
    """A service of two slots and one place to wait, whose dead letters are told to us."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    messages: list[dict[str, Any]]


@contextmanager
def _small_service(settings: Settings) -> Iterator[_Small]:
    """Run a service of our own that is easily overloaded, and may be ended, beside the one of the stack.

    Raises:
        httpx.HTTPError: it does not answer; its log is in the run folder.
    """
    folder = settings.run_dir / "verify"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    with _receiver() as (url, messages), (folder / "service.log").open("wb") as log:
        environment = {
            **os.environ,
            "SERVICE_HOST": HOST,
            "SERVICE_PORT": str(port),
            "SERVICE_DATA_DIR": str(folder),
            "SERVICE_FAULTS_ENABLED": "true",
            "SERVICE_MAX_RUNNING": "2",
            "SERVICE_MAX_QUEUED": "1",
            "SERVICE_DRAIN_SECONDS": str(GRACE),
            "SERVICE_NOTIFY_URLS": json.dumps([url]),
            "SW_AGENT_NAME": f"{settings.service_name}-small",
            "SW_AGENT_COLLECTOR_BACKEND_SERVICES": f"{HOST}:{settings.oap_grpc_port}",
        }
        command = [sys.executable, "-m", "demo_service"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603  # our own program
        try:
            with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=60, trust_env=False) as client:
                _wait(client)
                yield _Small(process, client, messages)
        finally:
            process.kill()
            process.wait()


def _wait(client: httpx.Client) -> None:
    deadline = time.monotonic() + BOOT
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
    """Take notifications: an Apprise URL, and what was sent to it."""
    messages: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"json://{HOST}:{server.server_port}/", messages
    finally:
        server.shutdown()
        server.server_close()
