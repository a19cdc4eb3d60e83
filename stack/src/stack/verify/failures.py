"""What `make verify` shows of tasks that fail: it asks for each kind of failure and reads its trace."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import httpx
from oap_query import build, outline

from stack.verify.small_service import DRAIN_SECONDS, START_TIMEOUT_SECONDS, small_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oap_query import Oap, Span

    from stack.settings import Settings
    from stack.verify.small_service import SmallService

TRACE_TIMEOUT_SECONDS: Final = 30.0
"""Within this time a trace must be complete in OAP, its retries included."""
SHORTEST_WAIT_MS: Final = 500
"""The shortest wait before a second attempt, by the service's retry policy."""

TASK_LINE: Final = "  Local background_sleep_task CROSS_THREAD"
FAILED_ATTEMPT_LINES: Final = tuple(f"    Local attempt {number} failed" for number in (1, 2, 3))
NOTIFY_LINES: Final = ("    Local notify CROSS_THREAD", "      Exit / 200")
Line = tuple[bool, str]


def _request(route: str, status: int = 200) -> str:
    failed = " failed" if status >= httpx.codes.BAD_REQUEST else ""
    return f"Entry HTTP {route} {status}{failed}\n  Local FastAPI request handling {status}{failed}"


@dataclass(frozen=True)
class FailureTrace:
    """A trace of a failure: the span tree that it must have, its spans, and what else was checked."""

    title: str
    trace_id: str
    outline: str
    spans: list[Span]
    lines: list[Line] = field(default_factory=list)

    def named(self, name: str) -> list[Span]:
        """Return the spans of a name, the earliest first."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.start)


class Failures:
    """Asks for failures and reads their traces."""

    def __init__(self, settings: Settings, client: httpx.Client, oap: Oap) -> None:
        self._settings = settings
        self._client = client
        self._oap = oap

    def all(self) -> Iterator[FailureTrace]:
        """Cause every kind of failure."""
        yield self._retried()
        yield from self._dead_and_replayed()
        yield from self._duplicate()
        with small_service(self._settings) as small:
            yield from self._overload(small)
            yield self._notified(small)
            yield self._drained(small)

    def _find(self, title: str, response: httpx.Response, tree: str) -> FailureTrace:
        trace_id = response.headers.get("X-Trace-Id", "none")
        spans = self._oap.wait_for_trace(trace_id, lambda found: outline(build(found)) == tree, TRACE_TIMEOUT_SECONDS)
        return FailureTrace(title, trace_id, tree, spans)

    def _retried(self) -> FailureTrace:
        response = self._client.get("/test?duration=1", headers={"X-Fault": "error;times=2"})
        tree = "\n".join([_request("GET /test"), TASK_LINE, *FAILED_ATTEMPT_LINES[:2], "    Local attempt 3"])
        found = self._find("GET /test, X-Fault: error;times=2: retried, then it succeeds", response, tree)
        found.lines.append((response.text == '"ok"', f"answers {response.status_code} {response.text}"))
        for attempt in [*found.named("attempt 2"), *found.named("attempt 3")]:
            waited = int(attempt.tags.get("task.wait_ms", 0))
            found.lines.append(
                (waited >= SHORTEST_WAIT_MS, f"attempt {attempt.tags.get('task.attempt')} waited {waited} ms")
            )
        found.lines.append(_outcome(found, "succeeded"))
        return found

    def _dead_and_replayed(self) -> Iterator[FailureTrace]:
        response = self._client.get("/test?duration=1", headers={"X-Fault": "error"})
        tree = "\n".join([_request("GET /test"), f"{TASK_LINE} failed", *FAILED_ATTEMPT_LINES])
        dead = self._find("GET /test, X-Fault: error: retried, then a dead letter", response, tree)
        dead.lines.append(_outcome(dead, "dead"))
        letters = self._client.get("/dead-letters?limit=1000").json()["dead_letters"]
        letter = next((letter for letter in letters if letter["trace_id"] == dead.trace_id), None)
        dead.lines.append((letter is not None, "its dead letter is in GET /dead-letters"))
        yield dead
        if letter is None:
            return
        response = self._client.post(f"/dead-letters/{letter['id']}/replay")
        tree = f"{_request('POST /dead-letters/{task_id}/replay', 202)}\n{TASK_LINE}"
        replay = self._find(f"POST /dead-letters/{letter['id']}/replay", response, tree)
        replay.lines.append(_outcome(replay, "succeeded"))
        old = {span.tags.get("replay.of") for span in replay.named("background_sleep_task")}
        replay.lines.append((old == {dead.trace_id}, "its span refers to the trace of the dead letter"))
        yield replay

    def _duplicate(self) -> Iterator[FailureTrace]:
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

    def _overload(self, small: SmallService) -> Iterator[FailureTrace]:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: small.client.get("/test?duration=2"), range(4)))
        answers.sort(key=lambda answer: answer.status_code)
        statuses = [answer.status_code for answer in answers]
        tree = f"{_request('GET /test')}\n{TASK_LINE}"
        found = [self._find("GET /test, 2 at most run: this one waits", answer, tree) for answer in answers[:3]]
        delays = [int(task.tags["task.queue_delay_ms"]) for one in found for task in one.named("background_sleep_task")]
        waited = found[delays.index(max(delays))] if delays else found[0]
        waited.lines.append(
            (max(delays, default=0) > SHORTEST_WAIT_MS, f"it waited {max(delays, default=0):,} ms for a slot")
        )
        yield waited
        refused = self._find("and the fourth one is refused", answers[3], _request("GET /test", 503))
        retry = answers[3].headers.get("Retry-After")
        refused.lines.append((statuses == [200, 200, 200, 503], f"3 of 4 are accepted: {statuses}"))
        refused.lines.append((retry is not None, f"Retry-After: {retry} s"))
        yield refused

    def _notified(self, small: SmallService) -> FailureTrace:
        response = small.client.get("/test?duration=1", headers={"X-Fault": "error"})
        tree = "\n".join([_request("GET /test"), f"{TASK_LINE} failed", *FAILED_ATTEMPT_LINES, *NOTIFY_LINES])
        found = self._find("GET /test, X-Fault: error: a notification is sent for the dead letter", response, tree)
        text = small.messages[0] if small.messages else {"title": "nothing"}
        found.lines.append((found.trace_id in text.get("message", ""), f"received: {text['title']}"))
        return found

    def _drained(self, small: SmallService) -> FailureTrace:
        response = small.client.get("/test?duration=60")
        small.process.send_signal(signal.SIGTERM)
        time.sleep(DRAIN_SECONDS / 4)
        ready, refused = small.client.get("/health/ready").status_code, small.client.get("/test").status_code
        small.process.wait(START_TIMEOUT_SECONDS)
        tree = "\n".join([_request("GET /test"), f"{TASK_LINE} failed", *NOTIFY_LINES])
        found = self._find("GET /test?duration=60, then SIGTERM: the task is interrupted", response, tree)
        found.lines.append((ready == refused == httpx.codes.SERVICE_UNAVAILABLE, f"while draining: {ready}, {refused}"))
        found.lines.append(_outcome(found, "interrupted"))
        return found


def _outcome(found: FailureTrace, expected: str) -> Line:
    outcomes = [span.tags.get("task.outcome") for span in found.named("background_sleep_task")]
    return outcomes == [expected], f"task.outcome={outcomes[0] if outcomes else 'none'}"
