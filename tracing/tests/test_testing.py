"""What people's own tests get: their spans in memory, errors that raise, and a switch that makes the library absent."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from skywalking.agent import agent
from skywalking.trace.context import get_context
from skywalking.trace.tags import Tag
from skywalking_background import _agent, background_span, current_trace_id, instrument, tag
from skywalking_background._requests import Behavior
from skywalking_background.testing import RecordedSpan, RecordedSpans, recorded_spans
from starlette.background import BackgroundTask
from starlette.testclient import TestClient
from trees import get, tree

Segments = list[Any]


async def send_mail() -> None:
    tag("to", "ann")
    with background_span("attempt"), get_context().new_exit_span("/smtp", "mail:25"):
        pass


async def fail() -> None:
    message = "no mail"
    raise ConnectionError(message)


@pytest.fixture
def client(segments: Segments) -> TestClient:
    app = FastAPI()

    @app.post("/orders")
    async def order(tasks: BackgroundTasks) -> str | None:
        tasks.add_task(send_mail)
        return current_trace_id()

    @app.post("/failing")
    async def failing(tasks: BackgroundTasks) -> None:
        tasks.add_task(fail)

    return TestClient(instrument(app))


def test_the_spans_of_a_test_are_there_with_their_parents(client: TestClient, segments: Segments) -> None:
    with recorded_spans() as spans:
        answer = client.post("/orders")
    assert segments == []  # they are recorded instead
    entry, mail = spans.one("HTTP POST /orders"), spans.one("send_mail")
    assert mail.parent is entry
    assert entry.parent is None
    assert spans.one("FastAPI request handling").parent is entry
    assert spans.one("attempt").parent is mail
    call = spans.one("/smtp")
    assert call.parent is spans.one("attempt")
    assert [span.kind for span in (entry, mail, call)] == ["Entry", "Local", "Exit"]
    assert {span.trace_id for span in spans} == {answer.json()}
    assert mail.tags == {"to": "ann"}
    assert entry.tags["http.status_code"] == "200"
    assert not any(span.failed for span in spans)
    assert all(0 < span.start <= span.end for span in spans)
    assert time.time() * 1000 - entry.end < 60_000
    assert mail.logs == []


def test_a_failure_has_its_error(client: TestClient) -> None:
    with recorded_spans() as spans:
        client.post("/failing")
    span = spans.one("fail")
    assert span.failed
    (log,) = span.logs
    assert (log["event"], log["error.kind"], log["message"]) == ("error", "ConnectionError", "no mail")
    assert "raise ConnectionError" in log["stack"]
    assert repr(span) == "<Local fail failed>"
    assert repr(spans.one("HTTP POST /failing")) == "<Entry HTTP POST /failing>"


def test_the_spans_are_in_the_order_in_which_their_segments_were_finished(client: TestClient) -> None:
    with recorded_spans() as spans:
        client.post("/orders")
    assert [span.name for span in spans] == [
        "FastAPI request handling", "HTTP POST /orders", "/smtp", "attempt", "send_mail",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "found"), [("nothing", "0"), ("twice", "2")])
def test_a_span_that_is_not_there_once_is_told_with_the_tree(segments: Segments, name: str, found: str) -> None:
    with recorded_spans() as spans:
        for _ in range(2):
            with background_span("twice"), background_span("below"):
                time.sleep(0.002)
        with pytest.raises(ValueError, match="x"), background_span("failing"):
            raise ValueError("x")
    drawn = tree("""
        Local twice
          Local below
        Local twice
          Local below
        Local failing failed""")
    assert spans.tree() == drawn
    with pytest.raises(LookupError) as raised:
        spans.one(name)
    assert str(raised.value) == f"{found} spans are named '{name}'; there is\n{drawn}"


def test_without_any_span_there_is_an_empty_tree() -> None:
    assert RecordedSpans().tree() == ""


def test_a_parent_that_finishes_later_is_found(segments: Segments) -> None:
    with recorded_spans() as spans:

        async def run() -> None:
            async def child() -> None:
                with background_span("child"):
                    pass

            with background_span("outer"):
                await asyncio.create_task(child())
                assert spans.one("child").parent is None

        asyncio.run(run())
    assert spans.one("child").parent is spans.one("outer")


def test_a_tag_may_be_there_several_times(segments: Segments) -> None:
    class Parameter(Tag):  # type: ignore[misc]  # the agent has no types
        key = "sql.parameters"
        overridable = False

    with recorded_spans() as spans, background_span("outer"), get_context().new_exit_span("/db", "db:1") as call:
        call.tag(Parameter("a"))
        call.tag(Parameter("b"))
    assert spans.one("/db").tags == {"sql.parameters": "b"}  # the last one; the text of each is with OAP


def test_of_what_is_still_open_the_finished_part_is_there(segments: Segments) -> None:
    with background_span("long"):
        with recorded_spans() as spans, get_context().new_exit_span("done", "peer:80"):
            pass
        assert [span.name for span in spans] == ["done", "long (part)"]
        assert spans.one("done").parent is spans.one("long (part)")
    assert [span.op for segment in segments for span in segment.spans] == ["long"]


def test_two_recordings_are_two(client: TestClient, segments: Segments) -> None:
    with recorded_spans() as outer:
        client.post("/orders")
        with recorded_spans() as inner:
            client.post("/orders")
        client.post("/orders")
    assert (len(outer), len(inner)) == (10, 5)
    client.post("/orders")
    assert len(segments) == 2  # the agent has its own again


def test_afterwards_all_is_as_it_was(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    before = agent.archive_segment, Behavior.contain_late_errors
    with suppress(KeyError), recorded_spans(raise_task_errors=True):
        assert (agent.archive_segment, Behavior.contain_late_errors) != before
        raise KeyError
    assert (agent.archive_segment, Behavior.contain_late_errors) == before
    monkeypatch.delattr(agent, "archive_segment")
    with recorded_spans():
        assert "archive_segment" in vars(agent)
    assert "archive_segment" not in vars(agent)


def test_a_failing_task_raises_when_asked_to(client: TestClient) -> None:
    with recorded_spans(raise_task_errors=True) as spans, pytest.raises(ConnectionError, match="no mail"):
        client.post("/failing")
    assert spans.one("fail").failed
    assert not spans.one("HTTP POST /failing").failed


def test_it_does_not_when_not(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    for recording in (recorded_spans, functools.partial(recorded_spans, raise_task_errors=False)):
        with recording():
            assert client.post("/failing").status_code == 200
    with recorded_spans(raise_task_errors=True), recorded_spans():
        assert client.post("/failing").status_code == 200
    assert caplog.text.count("failed after its response") == 3


def test_spans_compare_as_objects() -> None:
    one, other = (RecordedSpan("a", "Local", "t", 1, 2, False, {}) for _ in range(2))
    assert one != other
    assert one.logs == []
    assert one.logs is not other.logs


# The switch. In processes of their own: it is one for each.


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    variables = {**os.environ, "SW_AGENT_COLLECTOR_BACKEND_SERVICES": "127.0.0.1:1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done


ABSENT = """
import threading
from fastapi import BackgroundTasks, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
before = Starlette.__call__, BackgroundTask.__call__, Mount.handle, Route.handle, threading.active_count()
from skywalking.agent import agent
from skywalking_background import background_span, carry, counts, current_trace_id, flush, instrument, tag, untraced

def fail():
    raise KeyError("mine")

app = FastAPI()
@app.get("/")
async def root(tasks: BackgroundTasks):
    with background_span("x") as span, untraced():
        span.tag("a", "b"); tag("a", "b"); span.record_error(KeyError())
    tasks.add_task(carry(fail))
    return current_trace_id()

assert instrument(app, {arguments}) is app
client = TestClient(app)
try:
    client.get("/")
except KeyError:
    print("raised")
after = Starlette.__call__, BackgroundTask.__call__, Mount.handle, Route.handle
assert after == before[:4], after
assert agent.started_pid is None
assert not [one for one in threading.enumerate() if "skywalking" in one.name.lower()]
assert counts() == {{}} and flush()
"""


@pytest.mark.parametrize(("arguments", "variable"), [("enabled=False", "true"), ("", "false")])
def test_switched_off_it_is_as_if_it_were_not_there(arguments: str, variable: str) -> None:
    done = python(ABSENT.format(arguments=arguments), SKYWALKING_BACKGROUND_ENABLED=variable)
    assert done.stdout == "raised\n"
    assert "skywalking_background" not in done.stderr


@pytest.mark.parametrize("variable", ["false", "0", "no", "off", " OFF ", "False"])
def test_the_variable_switches_it_off(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setattr(_agent, "_off", False)
    monkeypatch.setenv("SKYWALKING_BACKGROUND_ENABLED", variable)
    app = FastAPI()
    assert instrument(app) is app
    assert not hasattr(app, "_skywalking_background")
    assert not _agent.switch(on=None)


@pytest.mark.parametrize("variable", ["", "true", "1", "yes", "on", "nonsense"])
def test_anything_else_leaves_it_on(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setattr(_agent, "_off", False)
    monkeypatch.setenv("SKYWALKING_BACKGROUND_ENABLED", variable)
    assert _agent.switch(on=None)
    assert _agent._off is False


def test_what_the_code_says_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_agent, "_off", False)
    monkeypatch.setenv("SKYWALKING_BACKGROUND_ENABLED", "false")
    assert _agent.switch(on=True)
    monkeypatch.delenv("SKYWALKING_BACKGROUND_ENABLED")
    assert _agent.switch(on=None)


WITHOUT_START = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(name)s %(message)s")
from skywalking_background import background_span, carry, current_trace_id
for _ in range(3):
    with background_span("x"):
        assert current_trace_id() is None
    carry(print)("ran")
"""


def test_a_process_that_never_started_says_so_once() -> None:
    said = "skywalking_background nothing is traced: call instrument(app), or start() in a process without an app"
    assert python(WITHOUT_START).stdout.splitlines() == [said, "ran", "ran", "ran"]


def test_one_that_was_switched_off_does_not() -> None:
    done = python(WITHOUT_START, SKYWALKING_BACKGROUND_ENABLED="false")
    assert done.stdout.splitlines() == ["ran", "ran", "ran"]


async def test_recording_needs_no_start_of_the_reporter(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI()

    @app.get("/")
    async def root() -> Any:
        from fastapi.responses import PlainTextResponse

        return PlainTextResponse("", background=BackgroundTask(send_mail))

    with recorded_spans() as spans:
        await get(instrument(app), "/")
    assert spans.one("send_mail").parent is spans.one("HTTP GET /")
