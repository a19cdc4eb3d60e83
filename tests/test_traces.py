"""What a trace looks like in SkyWalking, case by case: real uvicorn, real OAP."""

from __future__ import annotations

import base64
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from textwrap import dedent
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from harness import OapServer, Server, make_python, serve, trace_ids
from oap_query import build, outline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oap_query import Span

SHORT = 0.2  # s: how long a task of `cases_app` sleeps
CUT = 1  # ms: a span's start and end are cut to whole ones, so it may look that much shorter
DEADLINE = 20.0  # s until a trace must be complete in OAP


@dataclass(frozen=True)
class Case:
    """A request and the span tree that OAP must hold for it."""

    name: str
    path: str
    tree: str
    method: str = "GET"
    headers: dict[str, str | bytes] = field(default_factory=dict)
    from_caller: bool = False
    """Whether the request comes out of another service's trace."""
    elsewhere: dict[str, str] = field(default_factory=dict)
    """The tree on one of the other stacks, by the stack's name, where it is another one."""


def _sw8(trace_id: str = "") -> str:
    """Write a header as a traced caller sends it, in a new trace."""
    texts = (trace_id or uuid4().hex, "caller-segment", "caller", "caller-1", "/", "host:80")
    trace, segment, *rest = (base64.b64encode(text.encode()).decode() for text in texts)
    return "-".join(["1", trace, segment, "2", *rest])


CASES = (
    Case(
        "plain endpoint",
        "/plain",
        """
        Entry HTTP GET /plain 200
          Local FastAPI request handling 200""",
    ),
    Case(
        "async endpoint",
        "/async",
        """
        Entry HTTP GET /async 200
          Local FastAPI request handling 200""",
    ),
    Case(
        "async task",
        "/task",
        """
        Entry HTTP GET /task 200
          Local FastAPI request handling 200
          Local work CROSS_THREAD""",
    ),
    Case(
        "sync task in the thread pool",
        "/plain-task",
        """
        Entry HTTP GET /plain-task 200
          Local FastAPI request handling 200
          Local sync_work CROSS_THREAD""",
    ),
    Case(
        "several tasks, sequential",
        "/sequential",
        """
        Entry HTTP GET /sequential 200
          Local FastAPI request handling 200
          Local more_work CROSS_THREAD
          Local work CROSS_THREAD""",
    ),
    Case(
        "several tasks, parallel",
        "/parallel",
        """
        Entry HTTP GET /parallel 200
          Local FastAPI request handling 200
          Local more_work CROSS_THREAD
          Local work CROSS_THREAD""",
    ),
    # Starlette drops the tasks behind a failure; the trace must show that, not hide it.
    Case(
        "failing task, sequential",
        "/failing/sequential",
        """
        Entry HTTP GET /failing/sequential 200
          Local FastAPI request handling 200
          Local failing_work CROSS_THREAD failed""",
    ),
    Case(
        "failing task, parallel",
        "/failing/parallel",
        """
        Entry HTTP GET /failing/parallel 200
          Local FastAPI request handling 200
          Local failing_work CROSS_THREAD failed
          Local work CROSS_THREAD""",
    ),
    Case(
        "task on the returned response",
        "/response-task",
        """
        Entry HTTP GET /response-task 200
          Local FastAPI request handling 200
          Local work CROSS_THREAD""",
    ),
    Case(
        "endpoint raises before the response",
        "/raises",
        """
        Entry HTTP GET /raises 500 failed
          Local FastAPI request handling 500 failed""",
    ),
    # BaseHTTPMiddleware ends the response properly before it passes the error on: the client saw no failure.
    Case(
        "endpoint raises after the response started",
        "/raises/late",
        """
        Entry HTTP GET /raises/late 200 failed
          Local FastAPI request handling 200 failed""",
        elsewhere={
            "BaseHTTPMiddleware": """
        Entry HTTP GET /raises/late 200
          Local FastAPI request handling 200"""
        },
    ),
    Case(
        "4xx",
        "/status/404",
        """
        Entry HTTP GET /status/{code} 404 failed
          Local FastAPI request handling 404 failed""",
    ),
    Case(
        "5xx",
        "/status/503",
        """
        Entry HTTP GET /status/{code} 503 failed
          Local FastAPI request handling 503 failed""",
    ),
    Case(
        "streaming response",
        "/stream",
        """
        Entry HTTP GET /stream 200
          Local FastAPI request handling 200
          Local work CROSS_THREAD""",
    ),
    Case(
        "router prefix",
        "/v1/items/7",
        """
        Entry HTTP GET /v1/items/{item_id} 200
          Local FastAPI request handling 200
          Local work CROSS_THREAD""",
    ),
    Case(
        "router in a router",
        "/v1/inner/x",
        """
        Entry HTTP GET /v1/inner/{name} 200
          Local FastAPI request handling 200""",
    ),
    Case(
        "mounted sub-app",
        "/sub/acme/things/acme-1",
        """
        Entry HTTP GET /sub/{tenant}/things/{thing_id} 200
          Local FastAPI request handling 200
          Local work CROSS_THREAD""",
    ),
    Case(
        "mounted Starlette app",
        "/plain-starlette/stars/vega",
        """
        Entry HTTP GET /plain-starlette/stars/{star} 200
          Local FastAPI request handling 200
          Local work CROSS_THREAD""",
    ),
    Case(
        "second app in the process",
        "/other/7",
        """
        Entry HTTP GET /other/{number} 200
          Local FastAPI request handling 200
          Local work CROSS_THREAD""",
    ),
    # One name for all of them: a scanner must not make an endpoint per guess.
    Case(
        "unmatched path",
        "/no/such/path",
        """
        Entry HTTP GET (unmatched) 404 failed
          Local FastAPI request handling 404 failed""",
    ),
    Case(
        "wrong method",
        "/async",
        """
        Entry HTTP DELETE /async 405 failed
          Local FastAPI request handling 405 failed""",
        method="DELETE",
    ),
    Case(
        "HEAD",
        "/methods",
        """
        Entry HTTP HEAD /methods 200
          Local FastAPI request handling 200""",
        method="HEAD",
    ),
    Case(
        "OPTIONS",
        "/methods",
        """
        Entry HTTP OPTIONS /methods 200
          Local FastAPI request handling 200""",
        method="OPTIONS",
    ),
    # The answer is out: what a dependency does afterwards is in the log, the request was right.
    # FastAPI before 0.118 left its dependencies before it answered.
    Case(
        "dependency fails after the response",
        "/yield",
        """
        Entry HTTP GET /yield 200
          Local FastAPI request handling 200""",
        elsewhere={
            "lowest versions": """
        Entry HTTP GET /yield 500 failed
          Local FastAPI request handling 500 failed"""
        },
    ),
    Case(
        "create_task and TaskGroup inside a task",
        "/spawning",
        """
        Entry HTTP GET /spawning 200
          Local FastAPI request handling 200
          Local spawning_work CROSS_THREAD
            Local child CROSS_THREAD
            Local child CROSS_THREAD
            Local child CROSS_THREAD""",
    ),
    Case(
        "attempts inside a task",
        "/attempts",
        """
        Entry HTTP GET /attempts 200
          Local FastAPI request handling 200
          Local work_in_attempts CROSS_THREAD
            Local attempt
            Local attempt""",
    ),
    Case(
        "own task runner",
        "/own-runner",
        """
        Entry HTTP GET /own-runner 200
          Local FastAPI request handling 200
          Local own_runner CROSS_THREAD""",
    ),
    Case(
        "thread",
        "/thread",
        """
        Entry HTTP GET /thread 200
          Local FastAPI request handling 200
          Local sync_work CROSS_THREAD""",
    ),
    Case(
        "event loop of another thread",
        "/other-loop",
        """
        Entry HTTP GET /other-loop 200
          Local FastAPI request handling 200
          Local carried CROSS_THREAD""",
    ),
    Case(
        "cancelled task",
        "/cancelled",
        """
        Entry HTTP GET /cancelled 200
          Local FastAPI request handling 200
          Local cancelled_work CROSS_THREAD failed""",
    ),
    Case(
        "task calls with httpx",
        "/calls/httpx",
        """
        Entry HTTP GET /calls/httpx 200
          Local FastAPI request handling 200
          Local call_httpx CROSS_THREAD
            Exit /called 200
              Entry HTTP GET /called 200 CROSS_PROCESS
                Local FastAPI request handling 200""",
    ),
    Case(
        "task calls with aiohttp",
        "/calls/aiohttp",
        """
        Entry HTTP GET /calls/aiohttp 200
          Local FastAPI request handling 200
          Local call_aiohttp CROSS_THREAD
            Exit /called 200
              Entry HTTP GET /called 200 CROSS_PROCESS
                Local FastAPI request handling 200""",
    ),
    Case(
        "partial of an object that is awaited",
        "/partial-object",
        """
        Entry HTTP GET /partial-object 200
          Local FastAPI request handling 200
          Local Resize CROSS_THREAD""",
    ),
    Case(
        "error that can't be shown",
        "/failing/mutely",
        """
        Entry HTTP GET /failing/mutely 200
          Local FastAPI request handling 200
          Local failing_mutely CROSS_THREAD failed""",
    ),
    Case(
        "error that is no Exception",
        "/failing/past-all",
        """
        Entry HTTP GET /failing/past-all 200
          Local FastAPI request handling 200
          Local failing_past_all CROSS_THREAD failed""",
    ),
    Case(
        "name that protobuf refuses",
        "/odd-name",
        r"""
        Entry HTTP GET /odd-name 200
          Local FastAPI request handling 200
          Local r\udce9sum\udce9 CROSS_THREAD""",
    ),
    Case(
        "call in a copied context, from an executor after the response",
        "/late/copied-context",
        """
        Entry HTTP GET /late/copied-context 200
          Local FastAPI request handling 200
          Exit /x 200 CROSS_THREAD""",
    ),
    Case(
        "mounted app with a lifespan of its own",
        "/below/served",
        """
        Entry HTTP GET /below/served 200
          Local FastAPI request handling 200
          Local work CROSS_THREAD""",
    ),
    Case(
        "sw8 of no bytes",
        "/plain",
        """
        Entry HTTP GET /plain 200
          Local FastAPI request handling 200""",
        headers={"sw8": b""},
    ),
    Case(
        "headers in Latin-1",
        "/plain",
        """
        Entry HTTP GET /plain 200
          Local FastAPI request handling 200""",
        headers={"sw8": b"1-\xe9-\xe9-0-\xe9-\xe9-\xe9-\xe9", "sw8-correlation": b"\xe9:\xff", "host": b"h\xf6st"},
    ),
    Case(
        "malformed sw8",
        "/plain",
        """
        Entry HTTP GET /plain 200
          Local FastAPI request handling 200""",
        headers={"sw8": "1-%%%-x-0-y-z-a-b"},
    ),
    # Work that outlives its request or its task and then makes a call: it hangs below where it came from.
    Case(
        "call from create_task after the response",
        "/late/create-task",
        """
        Entry HTTP GET /late/create-task 200
          Local FastAPI request handling 200
          Exit /x 200 CROSS_THREAD""",
    ),
    Case(
        "call from to_thread after the response",
        "/late/to-thread",
        """
        Entry HTTP GET /late/to-thread 200
          Local FastAPI request handling 200
          Exit /x 200 CROSS_THREAD""",
    ),
    Case(
        "call from call_later after the response",
        "/late/call-later",
        """
        Entry HTTP GET /late/call-later 200
          Local FastAPI request handling 200
          Exit /x 200 CROSS_THREAD""",
    ),
    Case(
        "call from a task that a task left behind",
        "/late/in-a-task",
        """
        Entry HTTP GET /late/in-a-task 200
          Local FastAPI request handling 200
          Local leaving_a_task_behind CROSS_THREAD
            Exit /x 200 CROSS_THREAD""",
    ),
    # FastAPI before 0.118 left its dependencies before it answered.
    Case(
        "call from a dependency's exit",
        "/late/dependency",
        """
        Entry HTTP GET /late/dependency 200
          Local FastAPI request handling 200
          Exit /x 200 CROSS_THREAD""",
        elsewhere={
            "lowest versions": """
        Entry HTTP GET /late/dependency 200
          Local FastAPI request handling 200
            Exit /x 200"""
        },
    ),
    Case(
        "call from a middleware after the response",
        "/late/middleware",
        """
        Entry HTTP GET /late/middleware 200
          Local FastAPI request handling 200
          Exit /x 200 CROSS_THREAD""",
    ),
    # The app calls itself through a transport without a socket, and goes on in its own place.
    Case(
        "call in process",
        "/in-process",
        """
        Entry HTTP GET /in-process 200
          Local FastAPI request handling 200
            Exit /async 200
              Entry HTTP GET /async 200 CROSS_PROCESS
                Local FastAPI request handling 200
          Local after CROSS_THREAD
          Local work CROSS_THREAD""",
    ),
    Case(
        "mount parameter that equals another value",
        "/sub/things/things/things",
        """
        Entry HTTP GET /sub/{tenant}/things/{thing_id} 200
          Local FastAPI request handling 200
          Local work CROSS_THREAD""",
    ),
    Case(
        "subclass of BackgroundTask",
        "/subclass",
        """
        Entry HTTP GET /subclass 200
          Local FastAPI request handling 200
          Local more_work CROSS_THREAD""",
    ),
    Case(
        "run_in_threadpool as a task",
        "/threadpool",
        """
        Entry HTTP GET /threadpool 200
          Local FastAPI request handling 200
          Local sync_work CROSS_THREAD""",
    ),
    Case(
        "values that protobuf refuses",
        "/odd-values",
        """
        Entry HTTP GET /odd-values 200
          Local FastAPI request handling 200
          Local odd_values CROSS_THREAD""",
    ),
    # One of them has started the worker; each job is its own request's.
    Case(
        "carried job 1 of a queue",
        "/queue/1",
        """
        Entry HTTP GET /queue/{number} 200
          Local FastAPI request handling 200
          Local job 1 CROSS_THREAD""",
    ),
    Case(
        "carried job 2 of a queue",
        "/queue/2",
        """
        Entry HTTP GET /queue/{number} 200
          Local FastAPI request handling 200
          Local job 2 CROSS_THREAD""",
    ),
    Case(
        "sw8 with a line break in its trace id",
        "/plain",
        """
        Entry HTTP GET /plain 200
          Local FastAPI request handling 200""",
        headers={"sw8": _sw8("a\r\nSet-Cookie: stolen=1")},
    ),
    Case(
        "sw8 with a very long trace id",
        "/plain",
        """
        Entry HTTP GET /plain 200
          Local FastAPI request handling 200""",
        headers={"sw8": _sw8("a" * 900)},
    ),
    # The caller's own segment is not in this OAP: what there is hangs below it all the same.
    Case(
        "caller's trace",
        "/task",
        """
        Entry HTTP GET /task 200 CROSS_PROCESS
          Local FastAPI request handling 200
          Local work CROSS_THREAD""",
        from_caller=True,
    ),
)


def _send(url: str, case: Case) -> httpx.Response:
    headers: Any = {"sw8": _sw8()} if case.from_caller else case.headers
    with httpx.stream(case.method, url + case.path, headers=headers, trust_env=False) as response:
        with suppress(httpx.RemoteProtocolError):  # a case breaks its response on purpose; its headers are there
            response.read()
        return response


@dataclass(frozen=True)
class Stack:
    """What the app of the cases runs on: by default the environment of the tests."""

    name: str
    python: str = ""
    """A version of Python; with it the app gets an environment of its own."""
    requirements: tuple[str, ...] = ()
    """What that environment has; the lock's versions by default."""
    middleware: bool = False


SERVER = ("uvicorn[standard]", "httpx", "aiohttp")
STACKS = (
    Stack("bare"),
    Stack("BaseHTTPMiddleware", middleware=True),
    Stack("Python 3.12", "3.12"),
    # The library's, not the repository's: the newest of all that it needs.
    Stack("Python 3.13", "3.13", ("fastapi==0.165.0", "uvicorn[standard]==0.54.0", "httpx", "aiohttp==3.14.3")),
    # The oldest that the library promises to work with, beside the newest of all others.
    Stack(
        "lowest versions", "3.11", ("fastapi==0.115.2", "starlette==0.40.0", "uvicorn[standard]", "httpx", "aiohttp")
    ),
)


@dataclass
class Run:
    """All cases sent to one server, side by side, before the first is looked at."""

    server: Server
    answers: dict[str, httpx.Response]
    stack: str
    began: datetime


@pytest.fixture(scope="module", params=STACKS, ids=lambda stack: stack.name)
def run(request: pytest.FixtureRequest, oap: OapServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    stack: Stack = request.param
    environment: dict[str, Any] = {"CASES_MIDDLEWARE": "1"} if stack.middleware else {}
    folder = tmp_path_factory.mktemp("cases")
    began = datetime.now(UTC)
    python = make_python(stack.python, stack.requirements, folder / "venv") if stack.python else sys.executable
    with serve(folder, f"cases-{uuid4().hex[:6]}", oap.grpc, python=python, **environment) as server:
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda case: _send(server.url, case), CASES)
        answered = {case.name: answer for case, answer in zip(CASES, answers, strict=True)}
        yield Run(server, answered, stack.name, began)


def read_trace(oap: OapServer, trace_id: str, tree: str) -> list[Span]:
    """Poll until the trace has the tree; return what there is at the deadline."""
    expected = dedent(tree).strip()
    return oap.client.wait_for_trace(trace_id, lambda spans: outline(build(spans)) == expected, DEADLINE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_trace(case: Case, run: Run, oap: OapServer) -> None:
    tree = case.elsewhere.get(run.stack, case.tree)
    spans = read_trace(oap, run.answers[case.name].headers["X-Trace-Id"], tree)
    assert outline(build(spans)) == dedent(tree).strip()


def test_no_other_trace_came_of_it(run: Run, oap: OapServer) -> None:
    """Start-up, shut-down and idling leave no trace, and no segment strays into one of its own."""
    expected = {answer.headers["X-Trace-Id"] for answer in run.answers.values()}
    assert trace_ids(oap, run.server.name, run.began, expected) == expected


@pytest.mark.parametrize("case", ["async task", "sync task in the thread pool", "streaming response"])
def test_the_request_ends_with_its_last_byte_and_the_task_begins_afterwards(
    run: Run, oap: OapServer, case: str
) -> None:
    spans = oap.client.trace(run.answers[case].headers["X-Trace-Id"])
    entry = next(span for span in spans if span.kind == "Entry")
    task = next(span for span in spans if span.refs)
    assert entry.end <= task.start
    assert task.duration >= SHORT * 1000 - CUT
    if case == "streaming response":
        assert entry.duration >= SHORT * 1000 - CUT


@pytest.mark.parametrize(
    ("case", "name", "error"),
    [
        ("failing task, parallel", "failing_work", "ValueError: on purpose"),
        ("cancelled task", "cancelled_work", "CancelledError: "),
        ("endpoint raises before the response", "FastAPI request handling", "RuntimeError: before the response"),
    ],
)
def test_a_failure_is_explained_on_its_span(run: Run, oap: OapServer, case: str, name: str, error: str) -> None:
    spans = oap.client.trace(run.answers[case].headers["X-Trace-Id"])
    (log,) = next(span for span in spans if span.name == name).logs
    assert (log["event"], f"{log['error.kind']}: {log['message']}") == ("error", error)
    assert "cases_app.py" in log["stack"]


def test_a_call_in_process_leaves_the_callers_trace_as_it_was(run: Run, oap: OapServer) -> None:
    answer = run.answers["call in process"]
    trace_id = answer.headers["X-Trace-Id"]
    assert answer.json() == {"before": trace_id, "after": trace_id}
    handling = [span for span in oap.client.trace(trace_id) if span.name == "FastAPI request handling"]
    assert sorted(span.tags.get("after", "") for span in handling) == ["", "the call"]


def test_values_that_protobuf_refuses_are_replaced(run: Run, oap: OapServer) -> None:
    trace_id = run.answers["values that protobuf refuses"].headers["X-Trace-Id"]
    spans = oap.client.wait_for_trace(trace_id, lambda found: any(span.name == "odd_values" for span in found))
    (task,) = (span for span in spans if span.name == "odd_values")
    assert {key: task.tags[key] for key in ("file", "zero")} == {"file": r"r\udce9sum\udce9", "zero": r"a\x00b"}


@pytest.mark.parametrize("case", ["sw8 with a line break in its trace id", "sw8 with a very long trace id"])
def test_no_stranger_names_the_trace(run: Run, case: str) -> None:
    answer = run.answers[case]
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    assert len(answer.headers["X-Trace-Id"]) == 32
    assert "stolen" not in run.server.log
