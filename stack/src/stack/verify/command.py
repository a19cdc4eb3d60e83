"""`make verify`: one request to every endpoint, and its trace compared with the contract line by line."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import httpx
from oap_query import Node, Oap, OapError, Span, build, outline
from rich.markup import escape
from tracing_claims import RESPONSE_LIMIT_MS

from stack.load import most_at_once
from stack.runtime import problem_of
from stack.terminal import new_console
from stack.verify.cases import CASES, THREE_TASKS, Case, span_tree
from stack.verify.endpoints import check_endpoints
from stack.verify.failures import Failures
from stack.verify.killed import TASKS, check_killed
from stack.verify.lines import Lines
from stack.verify.meters import check_meters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console

    from stack.document import Found
    from stack.settings import Settings
    from stack.verify.lines import Line

TASK_TOLERANCE_MS: Final = 500
"""A task may take longer than it sleeps by so much, on a busy machine."""
ENTRY_TOLERANCE_MS: Final = 50
"""The entry span may end so long after the client has the answer, on a busy machine."""
CONCURRENT_REQUESTS: Final = 20
APART_SECONDS: Final = 0.1
"""Time between two of the single requests, so that none is slower because of another."""
WARM_UP_SECONDS: Final = 60.0
"""How long the first tasks may take: one of them starts the process pool."""
UNFINISHED: Final = frozenset({"accepted", "running", "failed"})
"""States of a task that has not ended; `failed` waits for its next attempt."""
TRACE_TIMEOUT_SECONDS: Final = 30.0
"""So long after the end of the last task its trace must be complete in OAP."""


@dataclass(frozen=True)
class Result:
    """The result of a case: the response, the response time, and the trace."""

    case: Case
    response: httpx.Response
    response_ms: float
    spans: list[Span]

    @property
    def tasks(self) -> list[Span]:
        """The spans of the background tasks, the earliest first."""
        return sorted((span for span in self.spans if span.refs), key=lambda span: span.start)


def verify(settings: Settings, told: Found | None = None, *, has_broker: bool) -> int:
    """Check the running stack against its contract; 0 when every line holds.

    Args:
        settings: of the running stack.
        told: gets `holds`, `broken` and `checks`, see `Lines`; `error` where the stack could not be checked to the end.
        has_broker: whether the endpoints that need a broker are checked too.
    """
    console, told = new_console(), {} if told is None else told
    oap, began = Oap(settings.oap_url), datetime.now(UTC)
    try:
        with httpx.Client(base_url=settings.service_url, timeout=60, trust_env=False) as client:
            ready = client.get("/health/ready")
            if not ready.is_success:
                return _not_verified(console, told, f"the service {problem_of(ready)}.")
            cases = [case for case in CASES if has_broker or not case.broker]
            _warm_up(client, cases)
            with console.status("sending one request to each endpoint, waiting for the tasks"):
                results = _run(client, oap, cases, APART_SECONDS)
            with console.status(f"sending {CONCURRENT_REQUESTS} requests at once"):
                concurrent = _run(client, oap, [_concurrent_case()] * CONCURRENT_REQUESTS)
            with console.status("letting tasks fail in every way"):
                failures = list(Failures(settings, client, oap).all())
            with console.status(f"killing a service that runs {TASKS} tasks"):
                killed = list(check_killed(settings, oap))
        spans = [span for result in (*results, *concurrent) for span in result.spans]
        spans += [span for failure in failures for span in failure.spans]
        with console.status("looking for their endpoints"):
            listed = check_endpoints(oap, settings.service_name, spans, began)
        with console.status("reading the meters"):
            tasks = sum(len(result.tasks) for result in (*results, *concurrent))
            metered = check_meters(oap, settings.service_name, tasks, CONCURRENT_REQUESTS, began)
    except (httpx.HTTPError, OapError) as error:
        return _not_verified(console, told, f"{str(error) or type(error).__name__}. `make status` shows what runs.")
    lines = Lines(console, told)
    for result in results:
        trace_id = result.response.headers.get("X-Trace-Id", "")
        lines.show(result.case.title, _check(result, build(result.spans)), trace_id=trace_id, spans=result.spans)
    lines.show(f"{CONCURRENT_REQUESTS} times {concurrent[0].case.title} at once", _check_concurrent(concurrent))
    for finding in failures:
        kept = [_check_tree(build(finding.spans), finding.outline), *finding.lines]
        lines.show(finding.title, kept, trace_id=finding.trace_id, spans=finding.spans)
    lines.show(f"{TASKS} tasks of a service that is killed (SIGKILL) and started again", killed)
    lines.show("The endpoints of all these", [listed])
    lines.show("The meters of all these", metered)
    if not has_broker:
        console.print("\nnot checked, as there is no broker: /test/celery and /test/queue")
    if lines.broken:
        console.print(f"\n[red]{lines.broken} lines of the contract are broken[/]")
        return 1
    console.print("\n[green]every line of the contract holds[/]; next: `make load`, then look at the parallel tasks")
    return 0


def _not_verified(console: Console, told: Found, reason: str) -> int:
    told["error"] = f"not verified: {reason}"
    console.print(f"[red]not verified:[/] {escape(reason)}")
    return 1


def _warm_up(client: httpx.Client, cases: Iterable[Case]) -> None:
    """Send one request to each endpoint, as the first one is slower, and wait for its task.

    The `sw8` header says that these are not sampled: so they leave no trace, and their tasks have no trace id.
    """
    for case in cases:
        body = {**case.body, "id": uuid4().hex} if isinstance(case.body, dict) else None
        params = {**case.params, "duration": "0"}
        client.request(case.method, case.path, params=params, json=body, headers={"sw8": "0-"}).raise_for_status()
    deadline = time.monotonic() + WARM_UP_SECONDS
    while time.monotonic() < deadline:
        tasks = client.get("/tasks?limit=100").json()["tasks"]
        if not any(task["trace_id"] is None and task["state"] in UNFINISHED for task in tasks):
            return
        time.sleep(0.1)


def _concurrent_case() -> Case:
    return Case("GET", "/test", "ok", span_tree("GET /test", "background_sleep_task"), 3, {"duration": "3"})


def _run(client: httpx.Client, oap: Oap, cases: list[Case], apart_seconds: float = 0.0) -> list[Result]:
    """Send all requests, each in a thread of its own, and collect their traces."""

    def send(case: Case) -> tuple[httpx.Response, float]:
        began = time.perf_counter()
        response = client.request(case.method, case.path, params=case.params, json=case.body)
        return response, (time.perf_counter() - began) * 1000

    def collect(case: Case, response: httpx.Response, response_ms: float) -> Result:
        trace_id = response.headers.get("X-Trace-Id")
        if trace_id is None:
            return Result(case, response, response_ms, [])
        wait = case.task_seconds * (len(THREE_TASKS) if case.sequential else 1) + TRACE_TIMEOUT_SECONDS
        spans = oap.wait_for_trace(trace_id, lambda spans: len(spans) >= case.size, wait)
        return Result(case, response, response_ms, spans)

    with ThreadPoolExecutor(len(cases)) as pool:
        sending = []
        for case in cases:
            sending.append(pool.submit(send, case))
            time.sleep(apart_seconds)
        answers = [one.result() for one in sending]
        return list(pool.map(lambda pair: collect(pair[0], *pair[1]), zip(cases, answers, strict=True)))


def _check(result: Result, roots: list[Node]) -> Iterator[Line]:
    """Yield the lines of the contract, each with whether it holds."""
    case, response, tasks = result.case, result.response, result.tasks
    yield (
        response.status_code == httpx.codes.OK and response.json() == case.answer,
        f"answers {response.status_code} {response.text}",
    )
    if case.blocking:
        yield result.response_ms >= case.task_seconds * 1000, f"makes the client wait: {result.response_ms:,.0f} ms"
    else:
        yield (
            result.response_ms < RESPONSE_LIMIT_MS,
            f"answers in {result.response_ms:.1f} ms (at once: under {RESPONSE_LIMIT_MS} ms)",
        )
    right, text = _check_tree(roots, case.outline)
    yield right, text
    if not right:
        return
    entry = roots[0].span
    yield entry.layer == "Http" and entry.component == "FastAPI", f"entry span: {entry.layer}, {entry.component}"
    yield (
        entry.duration <= result.response_ms + ENTRY_TOLERANCE_MS,
        f"entry span ends with the response: {entry.duration} ms",
    )
    for task in tasks:
        low, high = case.task_seconds * 1000 - 1, case.task_seconds * 1000 + TASK_TOLERANCE_MS
        if case.after_response:
            yield (
                task.start >= entry.end,
                f"{task.name} starts after the entry span ended, at {task.start - entry.start} ms",
            )
        if case.broker:
            queue, latency = (task.tags.get(name) for name in ("mq.queue", "transmission.latency"))
            text = f"{task.name} was in the queue {queue} for {latency} ms, and ran in {task.service}"
            yield queue is not None and latency is not None, text
        yield (
            low <= task.duration <= high,
            f"{task.name} lasts {task.duration:,} ms (sleeps {case.task_seconds * 1000:,.0f})",
        )
    if len(tasks) > 1:
        yield (
            _overlap(tasks) != case.sequential,
            ("tasks run one after the other" if case.sequential else "tasks run side by side"),
        )


def _check_tree(roots: list[Node], expected: str) -> Line:
    found = outline(roots)
    if found == expected:
        return True, "has the span tree of the contract"
    return False, f"has the span tree of the contract; expected:\n{expected}\nfound:\n{found or 'no spans'}"


def _check_concurrent(results: list[Result]) -> Iterator[Line]:
    right = sum(outline(build(result.spans)) == result.case.outline for result in results)
    yield right == CONCURRENT_REQUESTS, f"{right} of {CONCURRENT_REQUESTS} traces have the span tree of the contract"
    tasks = [task for result in results for task in result.tasks]
    yield (
        len(tasks) == CONCURRENT_REQUESTS and _overlap(tasks),
        f"{most_at_once((task.start, task.end) for task in tasks)} tasks run at the same time",
    )


def _overlap(tasks: list[Span]) -> bool:
    return max(task.start for task in tasks) < min(task.end for task in tasks)
