"""`make verify`: one request to every endpoint, and its trace held against the contract line by line."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import httpx
from oap_query import Node, Oap, OapError, Span, build, outline
from rich.console import Console
from rich.markup import escape

from stack._found import peak
from stack._verify_endpoints import check_endpoints
from stack._verify_failures import Failures
from stack._waterfall import waterfall

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stack._settings import Settings

AT_ONCE: Final = 100
"""ms: the overview's limit for an answer that does not wait for its task."""
TOLERANCE: Final = 250
"""ms that a task may take longer than it sleeps, on a busy machine."""
LATE: Final = 50
"""ms that a span may end after the client has read the answer, on a busy machine."""
CONCURRENT: Final = 20
DEADLINE: Final = 30.0
"""s after the last task's end by which its trace must be readable."""


@dataclass(frozen=True)
class Case:
    """A request, the answer and the span tree that it must give, and how long (s) each of its tasks runs."""

    method: str
    path: str
    answer: object
    outline: str
    seconds: float
    params: dict[str, str] = field(default_factory=dict)
    body: object = None
    blocking: bool = False
    sequential: bool = False

    @property
    def title(self) -> str:
        """The request as one reads it."""
        query = "&".join(f"{key}={value}" for key, value in self.params.items())
        return f"{self.method} {self.path}" + (f"?{query}" if query else "")

    @property
    def size(self) -> int:
        """How many spans the trace has when it is complete."""
        return self.outline.count("\n") + 1


def _tree(request: str, *tasks: str) -> str:
    """Write down the tree of the contract: the request, its handling, and the tasks in segments of their own."""
    lines = [f"Entry HTTP {request} 200", "  Local FastAPI request handling 200"]
    return "\n".join(lines + [f"  Local {task} CROSS_THREAD" for task in tasks])


THREE: Final = ("task1", "task2", "task3")
ORDER: Final = f"order-{uuid4().hex[:8]}"  # a new one each time: a known one would start no task
SHORT: Final = {"duration": "2"}
CASES: Final = (
    Case("GET", "/test", "ok", _tree("GET /test", "background_sleep_task"), 10),
    Case("GET", "/test/blocking", "ok", _tree("GET /test/blocking"), 2, SHORT, blocking=True),
    Case(
        "GET",
        "/test/threading",
        "ok",
        _tree("GET /test/threading", "threaded_sleep_task") + "\n    Local sleep_in_thread CROSS_THREAD",
        2,
        SHORT,
    ),
    Case("POST", "/action", {"status": "processing"}, _tree("POST /action", "long_running_task"), 2, SHORT),
    Case(
        "POST",
        "/complex-action",
        {"status": "processing", "tasks": 3},
        _tree("POST /complex-action", *THREE),
        2,
        {**SHORT, "mode": "parallel"},
    ),
    Case(
        "POST",
        "/complex-action",
        {"status": "processing", "tasks": 3},
        _tree("POST /complex-action", *THREE),
        2,
        {**SHORT, "mode": "sequential"},
        sequential=True,
    ),
    Case(
        "POST",
        "/process",
        {"status": "accepted", "id": ORDER},
        _tree("POST /process", "process_data"),
        2,
        SHORT,
        body={"id": ORDER, "lines": 3},
    ),
)


@dataclass(frozen=True)
class Result:
    """What came of a case: the response, how long it took (ms), and the trace."""

    case: Case
    response: httpx.Response
    took: float
    spans: list[Span]

    @property
    def tasks(self) -> list[Span]:
        """The spans of the background tasks, the earliest first."""
        return sorted((span for span in self.spans if span.refs), key=lambda span: span.start)


def verify(settings: Settings) -> int:
    """Check the running stack against its contract; 0 when every line holds."""
    console = Console(width=None if Console().is_terminal else 120)
    oap, began = Oap(settings.oap_url), datetime.now(UTC)
    try:
        with httpx.Client(base_url=settings.service_url, timeout=60, trust_env=False) as client:
            client.get("/health/ready").raise_for_status()
            _warm_up(client)
            with console.status("sending one request to each endpoint, waiting for the tasks"):
                results = _run(client, oap, CASES)
            with console.status(f"sending {CONCURRENT} requests at once"):
                concurrent = _run(client, oap, [_concurrent_case()] * CONCURRENT)
            with console.status("letting tasks fail in every way"):
                failures = list(Failures(settings, client, oap).all())
        spans = [span for result in (*results, *concurrent) for span in result.spans]
        spans += [span for failure in failures for span in failure.spans]
        with console.status("looking for their endpoints"):
            listed = check_endpoints(oap, settings.service_name, spans, began)
    except (httpx.HTTPError, OapError) as error:
        console.print(
            f"[red]not verified:[/] {escape(str(error)) or type(error).__name__}. `make status` tells what is up."
        )
        return 1
    failed = 0
    for result in results:
        roots = build(result.spans)
        console.print(f"\n[bold]{result.case.title}[/]  trace {result.response.headers.get('X-Trace-Id', 'none')}")
        console.print(waterfall(roots))
        failed += _report(console, _check(result, roots))
    console.print(f"\n[bold]{CONCURRENT} times {concurrent[0].case.title} at once[/]")
    failed += _report(console, _check_concurrent(concurrent))
    for finding in failures:
        roots = build(finding.spans)
        console.print(f"\n[bold]{finding.title}[/]  trace {finding.trace_id}")
        console.print(waterfall(roots))
        failed += _report(console, [_check_tree(roots, finding.outline), *finding.lines])
    console.print("\n[bold]The endpoints of all these[/]")
    failed += _report(console, [listed])
    if failed:
        console.print(f"\n[red]{failed} lines of the contract are broken[/]")
        return 1
    console.print("\n[green]every line of the contract holds[/]; next: `make load`, then look at the parallel tasks")
    return 0


def _warm_up(client: httpx.Client) -> None:
    """Spare the cases what only the first request to an endpoint costs. These leave no trace: their caller has none."""
    for case in CASES:
        body = {**case.body, "id": uuid4().hex} if isinstance(case.body, dict) else None
        params = {**case.params, "duration": "0"}
        client.request(case.method, case.path, params=params, json=body, headers={"sw8": "0-"}).raise_for_status()


def _concurrent_case() -> Case:
    return Case("GET", "/test", "ok", _tree("GET /test", "background_sleep_task"), 3, {"duration": "3"})


def _run(client: httpx.Client, oap: Oap, cases: list[Case] | tuple[Case, ...]) -> list[Result]:
    """Send all requests side by side and collect their traces."""

    def send(case: Case) -> tuple[httpx.Response, float]:
        began = time.perf_counter()
        response = client.request(case.method, case.path, params=case.params, json=case.body)
        return response, (time.perf_counter() - began) * 1000

    def collect(case: Case, response: httpx.Response, took: float) -> Result:
        trace_id = response.headers.get("X-Trace-Id")
        if trace_id is None:
            return Result(case, response, took, [])
        wait = case.seconds * (len(THREE) if case.sequential else 1) + DEADLINE
        spans = oap.wait_for_trace(trace_id, lambda spans: len(spans) >= case.size, wait)
        return Result(case, response, took, spans)

    with ThreadPoolExecutor(len(cases)) as pool:
        answers = list(pool.map(send, cases))
        return list(pool.map(lambda pair: collect(pair[0], *pair[1]), zip(cases, answers, strict=True)))


def _check(result: Result, roots: list[Node]) -> Iterator[tuple[bool, str]]:
    """Yield the lines of the contract, each with whether it holds."""
    case, response, tasks = result.case, result.response, result.tasks
    yield (
        response.status_code == httpx.codes.OK and response.json() == case.answer,
        f"answers {response.status_code} {response.text}",
    )
    if case.blocking:
        yield result.took >= case.seconds * 1000, f"makes the client wait: {result.took:,.0f} ms"
    else:
        yield result.took < AT_ONCE, f"answers in {result.took:.1f} ms (at once: under {AT_ONCE} ms)"
    right, text = _check_tree(roots, case.outline)
    yield right, text
    if not right:
        return
    entry = roots[0].span
    yield entry.layer == "Http" and entry.component == "FastAPI", f"entry span: {entry.layer}, {entry.component}"
    yield entry.duration <= result.took + LATE, f"entry span ends with the response: {entry.duration} ms"
    for task in tasks:
        low, high = case.seconds * 1000 - 1, case.seconds * 1000 + TOLERANCE
        yield (
            task.start >= entry.end,
            f"{task.name} starts after the entry span ended, at {task.start - entry.start} ms",
        )
        yield (
            low <= task.duration <= high,
            f"{task.name} lasts {task.duration:,} ms (sleeps {case.seconds * 1000:,.0f})",
        )
    if len(tasks) > 1:
        yield (
            _overlap(tasks) != case.sequential,
            ("tasks run one after the other" if case.sequential else "tasks run side by side"),
        )


def _check_tree(roots: list[Node], expected: str) -> tuple[bool, str]:
    found = outline(roots)
    if found == expected:
        return True, "has the span tree of the contract"
    return False, f"has the span tree of the contract; expected:\n{expected}\nfound:\n{found or 'no spans'}"


def _check_concurrent(results: list[Result]) -> Iterator[tuple[bool, str]]:
    right = sum(outline(build(result.spans)) == result.case.outline for result in results)
    yield right == CONCURRENT, f"{right} of {CONCURRENT} traces have the span tree of the contract"
    tasks = [task for result in results for task in result.tasks]
    yield (
        len(tasks) == CONCURRENT and _overlap(tasks),
        f"{peak((task.start, task.end) for task in tasks)} tasks run at the same time",
    )


def _overlap(tasks: list[Span]) -> bool:
    return max(task.start for task in tasks) < min(task.end for task in tasks)


def _report(console: Console, lines: Iterable[tuple[bool, str]]) -> int:
    failed = 0
    for holds, text in lines:
        console.print("[green]  ok[/]  " if holds else "[red]  BROKEN[/]  ", end="")
        console.print(text, markup=False, highlight=False)
        failed += not holds
    return failed
