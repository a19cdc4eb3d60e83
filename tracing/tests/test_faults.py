"""Whatever goes wrong in tracing: the user's request and task go on, one line in the log says so, and it is counted."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import BackgroundTasks, FastAPI, WebSocket  # FastAPI reads annotations at run time
from skywalking import config
from skywalking.agent import agent
from skywalking.log import sw_logging
from skywalking.trace.context import get_context
from skywalking.trace.tags import Tag, TagHttpMethod
from skywalking_background import (
    _faults,
    _instrument,
    _internals,
    _names,
    _requests,
    _segments,
    _spans,
    background_span,
    carry,
    current_trace_id,
    instrument,
    tag,
)
from skywalking_background._faults import faults, note
from skywalking_background._internals import open_spans, use_safe_values
from skywalking_background._segments import send_what_waits
from starlette.testclient import TestClient
from trees import find, get, names, outline, tags, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Segments = list[Any]


class Broken(Exception):  # noqa: N818  # a defect of tracing itself
    """What the replaced function raises."""


def broken(*_: Any, **__: Any) -> Any:
    raise Broken


class Mute(Exception):  # noqa: N818
    """An error that can't even be shown."""

    def __str__(self) -> str:
        raise Broken

    __repr__ = __str__


class Silent:
    """A value without a text."""

    def __str__(self) -> str:
        raise Broken


@pytest.fixture
def app(segments: Segments) -> FastAPI:
    """Answer "ok", with a task that opens spans and makes a call, and note that it ran."""
    found = FastAPI()

    async def job() -> None:
        tag("color", "red")
        with background_span("step") as span, get_context().new_exit_span("/x", "peer:80") as call:
            span.tag("number", 1)
            call.tag(TagHttpMethod("GET"))
        found.state.ran = True

    @found.get("/")
    async def root(tasks: BackgroundTasks) -> str:
        tasks.add_task(job)
        with get_context().new_exit_span("/y", "peer:80"):
            pass
        return "ok"

    @found.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    return instrument(found)


@pytest.fixture
def expected(caplog: pytest.LogCaptureFixture) -> Iterator[dict[str, int]]:
    """Take what must have failed, by what tracing was doing; each must have one line in the log."""
    wanted: dict[str, int] = {}
    yield wanted
    assert faults() == wanted
    lines = [one for one in caplog.get_records("call") if one.name == "skywalking_background"]
    for doing in wanted:
        (line,) = (one for one in lines if f"tracing failed at {doing} (number 1)" in one.getMessage())
        assert line.levelno == logging.WARNING
        assert line.exc_info is not None
        assert isinstance(line.exc_info[1], Broken)
    _faults._seen.clear()


OPERATIONS: list[tuple[str, Callable[[pytest.MonkeyPatch], None], dict[str, int]]] = [
    ("a request's context", lambda m: m.setattr(_requests, "Context", broken), {"opening a request": 1}),
    ("its sampling", lambda m: m.setattr(_requests, "sampled", broken), {"opening a request": 1}),
    ("its ignoring", lambda m: m.setattr(_instrument.Middleware, "ignores", broken), {"opening a request": 1}),
    ("its tags", lambda m: m.setattr(_requests, "OwnTag", broken), {"opening a request": 1}),
    ("its name", lambda m: m.setattr(_requests, "route_template", broken), {"closing a request": 1}),
    ("a task's context", lambda m: m.setattr(_spans, "TaskSpan", broken), {"opening a background span": 2}),
    ("a span's place", lambda m: m.setattr(_spans, "strand_here", broken), {"opening a background span": 2}),
    ("tags", lambda m: m.setattr(_spans, "set_tag", broken), {"tagging a span": 2}),
    ("making spans", lambda m: m.setattr(_segments, "_new_span", broken), {"opening a span": 2}),
    ("starting spans", lambda m: m.setattr(_segments.Context, "_start", broken), {"starting a span": 3}),
    ("cutting", lambda m: m.setattr(_segments.Context, "_cut", broken), {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("replace", "counted"), [case[1:] for case in OPERATIONS], ids=[case[0] for case in OPERATIONS]
)
async def test_the_request_and_its_task_go_on(
    app: FastAPI,
    expected: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    replace: Callable[[pytest.MonkeyPatch], None],
    counted: dict[str, int],
) -> None:
    replace(monkeypatch)
    expected.update(counted)
    answer = await get(app, "/")
    assert (answer.status_code, answer.json()) == (200, "ok")
    assert app.state.ran


async def test_a_request_whose_spans_cannot_be_closed_is_answered_all_the_same(
    app: FastAPI, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_segments.Context, "close", staticmethod(broken))
    expected.update({"closing a request": 1, "closing a background span": 1})
    assert (await get(app, "/")).json() == "ok"
    assert app.state.ran


@pytest.mark.parametrize("name", ["_finish", "_end"])
async def test_spans_that_cannot_be_finished_are_no_error_of_the_call(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(_segments.Context, name, broken)
    assert (await get(app, "/")).json() == "ok"
    assert app.state.ran
    stopping = {"stopping a span"} if name == "_finish" else set()
    assert set(faults()) == {"closing a request", "closing a background span", *stopping}
    _faults._seen.clear()


async def test_segments_that_cannot_be_handed_over_are_counted(
    app: FastAPI, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "archive_segment", broken, raising=False)
    expected["handing over a segment"] = 2
    assert (await get(app, "/")).json() == "ok"
    assert app.state.ran


def test_that_also_holds_for_what_waits(segments: Segments, expected: dict[str, int], monkeypatch: Any) -> None:
    monkeypatch.setattr(agent, "archive_segment", broken, raising=False)
    with background_span("task"):
        with get_context().new_local_span("below"):
            pass
        send_what_waits(float("inf"))
    expected["handing over a segment"] = 2


def test_a_segment_that_cannot_be_cut_keeps_none_of_the_others_back(
    segments: Segments, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_or_break(context: Any) -> Any:
        return broken() if context.endpoint == "bad" else original(context)

    def work(name: str) -> None:
        with background_span(name):
            with get_context().new_local_span(f"below {name}"):
                pass
            if name == "good":
                send_what_waits(float("inf"))
                send_what_waits(float("inf"))
            else:
                contextvars.Context().run(work, "good")

    original = _segments.Context._cut
    monkeypatch.setattr(_segments.Context, "_cut", cut_or_break)
    work("bad")
    assert names(segments) == ["below good", "good (part)", "good", "below bad", "bad"]
    expected["cutting a segment"] = 1


def test_a_websocket_goes_on(app: FastAPI, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_requests, "Context", broken)
    expected["opening a request"] = 1
    with TestClient(app).websocket_connect("/ws") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "hello"


def test_a_websockets_connection_goes_on(
    app: FastAPI, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_spans, "TaskSpan", broken)
    expected["opening a background span"] = 1
    with TestClient(app).websocket_connect("/ws") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "hello"


async def test_what_was_not_opened_leaves_the_spans_around_it(
    segments: Segments, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with background_span("outer"):
        around = open_spans()
        with monkeypatch.context() as patch:
            patch.setattr(_spans, "_enter", broken)
            with background_span("inner") as span:
                span.tag("color", "red")
                span.record_error(ValueError())
        assert open_spans() is around
        tag("color", "blue")
    assert outline(segments) == "Local outer"
    assert tags(segments[0].spans[0]) == {"color": "blue"}
    expected["opening a background span"] = 1


def test_a_span_that_was_not_started_takes_none_of_the_others_along(
    segments: Segments, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with background_span("task"):
        with get_context().new_local_span("before"):
            pass
        with monkeypatch.context() as patch:
            patch.setattr(_segments.Context, "_start", broken)
            for _ in range(3):
                with get_context().new_exit_span("lost", "peer:80") as lost:
                    lost.tag(TagHttpMethod("GET"))
        with get_context().new_local_span("after"):
            pass
        assert segments == []
    assert outline(segments) == tree("""
        Local task
          Local after
          Local before""")
    expected["starting a span"] = 3


def test_nothing_is_traced_below_a_span_that_could_not_be_made(
    segments: Segments, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with background_span("task"):
        with monkeypatch.context() as patch:
            patch.setattr(_segments, "_new_span", broken)
            made = get_context().new_exit_span("lost", "peer:80")
        with made, get_context().new_exit_span("below", "peer:80"):
            assert made.inject().trace_id == ""
        with get_context().new_local_span("after"):
            pass
    assert names(segments) == ["after", "task"]
    expected["opening a span"] = 1


@pytest.mark.parametrize("failing", [_spans.record_error.__name__, "leave"])
def test_the_users_own_error_stays_what_it_was(
    segments: Segments, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    if failing == "leave":
        monkeypatch.setattr(_segments.Context, "close", staticmethod(broken))
    else:
        monkeypatch.setattr(_spans, "record_error", broken)
    with pytest.raises(KeyError, match="mine"), background_span("task"):
        raise KeyError("mine")
    assert open_spans() == []
    expected["closing a background span"] = 1


def test_an_error_that_cannot_be_shown_is_recorded_by_its_type(segments: Segments) -> None:
    with pytest.raises(Mute), background_span("task"):
        raise Mute
    log = {item.key: item.val for item in segments[0].spans[0].logs[0].items}
    assert log["error.kind"] == "Mute"
    assert log["message"] == "<Mute without text>"
    assert "raise Mute" in log["stack"]


async def test_an_error_whose_stack_cannot_be_shown_is_recorded_with_its_text(
    segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_spans.traceback, "format_exception", broken)
    with pytest.raises(ValueError, match="text"), background_span("task"):
        raise ValueError("text")
    log = {item.key: item.val for item in segments[0].spans[0].logs[0].items}
    assert (log["message"], log["stack"]) == ("text", "text")


def test_an_error_that_was_handled_and_cannot_be_recorded(
    segments: Segments, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_spans, "record_error", broken)
    with background_span("task") as span:
        span.record_error(ValueError())
    expected["recording an error"] = 1
    assert names(segments) == ["task"]


def test_a_background_span_with_tags_that_are_none_is_there_without(segments: Segments) -> None:
    with background_span("task", tags=["no", "mapping"], began="yesterday"):  # type: ignore[arg-type]
        pass
    assert names(segments) == ["task"]
    assert faults() == {"opening a background span": 1}
    _faults._seen.clear()


def test_values_without_a_text_are_named_by_their_type(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tag, "__init__", Tag.__init__)
    for name in ("TextLog", "KeyStringValuePair"):
        monkeypatch.setattr(sw_logging, name, getattr(sw_logging, name))
    use_safe_values()
    with background_span("task", tags={"one": Silent()}) as span:
        span.tag("two", Silent())
        tag("three", Silent())
        with get_context().new_local_span("below") as below:
            below.tag(TagHttpMethod(Silent()))  # as a plugin of the agent's does
    assert set(tags(find(segments, "task")).values()) == {"<Silent without text>"}
    assert tags(find(segments, "below")) == {"http.method": "<Silent without text>"}


def test_carry_that_fails_gives_the_function_itself(
    segments: Segments, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_spans, "place", broken)
    assert carry(sorted)([2, 1]) == [1, 2]
    assert current_trace_id() is None
    expected.update({"taking a trace along": 1, "looking for the trace id": 1})


def test_a_function_that_cannot_be_named_is_run(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_names, "_span_name", broken)
    with background_span("task"):
        assert carry(sorted)([2, 1]) == [1, 2]
    assert names(segments) == ["builtin_function_or_method", "task"]


# How often it is said.


def fail_at(doing: str, error: Exception) -> None:
    try:
        raise error  # noqa: TRY301
    except Exception:  # noqa: BLE001
        note(doing)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "skywalking_background"]


def test_a_fault_is_logged_when_it_is_the_1st_10th_and_100th_of_its_kind(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(1, 1001):
        fail_at("this", Broken())
        fail_at("this", ValueError()) if number % 500 == 0 else None
    numbers = [line.partition("(number ")[2].partition(")")[0] for line in said(caplog)]
    assert numbers == ["1", "10", "100", "1", "1000"]
    assert said(caplog)[0] == "tracing failed at this (number 1); the request or task goes on without"
    fail_at("that", Broken())
    assert faults() == {"this": 1002, "that": 1}
    _faults._seen.clear()


@contextmanager
def failing_handler() -> Iterator[None]:
    """Let one of the user's handlers raise for each of our lines."""
    handler = Handler(Broken())
    ours = logging.getLogger("skywalking_background")
    ours.addHandler(handler)
    try:
        yield
    finally:
        ours.removeHandler(handler)


def test_a_logger_that_raises_harms_nobody() -> None:
    with failing_handler():
        fail_at("this", ValueError())
    fail_at("this", ValueError())
    assert faults() == {"this": 2, "writing a log line": 1}
    _faults._seen.clear()


@pytest.mark.parametrize("path", ["/failing", "/failing/sync"])
def test_nor_does_it_when_a_task_has_failed(segments: Segments, path: str) -> None:
    app = instrument(FastAPI())

    async def fail() -> None:
        raise ValueError

    def fail_in_thread() -> None:
        raise ValueError

    @app.get("/failing")
    async def failing(tasks: BackgroundTasks) -> str:
        tasks.add_task(fail)
        return "ok"

    @app.get("/failing/sync")
    def failing_sync(tasks: BackgroundTasks) -> str:
        tasks.add_task(fail_in_thread)
        return "ok"

    with failing_handler():
        answer = TestClient(app).get(path)  # raises what reaches the server
    assert answer.json() == "ok"
    assert faults() == {"writing a log line": 1}
    _faults._seen.clear()


def test_a_line_of_ours_names_where_it_was_said(caplog: pytest.LogCaptureFixture) -> None:
    fail_at("this", Broken())
    (line,) = caplog.records
    assert line.name == "skywalking_background"
    assert line.funcName != "log"  # of the wrapper around all lines
    _faults._seen.clear()


def test_a_fault_within_the_line_about_a_fault_makes_no_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[Any] = []

    def warn(*values: Any, **_: Any) -> None:
        lines.append(values)
        fail_at("the line", ValueError())

    monkeypatch.setattr(_faults.logger, "warning", warn)
    fail_at("this", ValueError())
    fail_at("that", ValueError())
    assert [values[1] for values in lines] == ["this", "that"]
    assert faults() == {"this": 1, "that": 1}
    _faults._seen.clear()


# The agent's copies of log lines.


class Handler(logging.Handler):
    """A handler of the user's; it fails when told to."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if self.error is not None:
            raise self.error
        self.messages.append(str(record.msg))


@pytest.fixture
def copied(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the agent's log reporter copies of each log line."""
    lines: list[Any] = []
    monkeypatch.setattr(logging.Logger, "handle", logging.Logger.handle)
    monkeypatch.setattr(Tag, "__init__", Tag.__init__)
    for name in ("TextLog", "KeyStringValuePair"):
        monkeypatch.setattr(sw_logging, name, getattr(sw_logging, name))
    monkeypatch.setattr(agent, "archive_log", lines.append, raising=False)
    monkeypatch.setattr(config, "agent_log_reporter_level", "INFO")
    monkeypatch.setattr(Tag, "__init__", Tag.__init__)
    sw_logging.install()
    use_safe_values()
    return lines


@pytest.fixture
def logger() -> logging.Logger:
    """A logger of the user's, without the handlers of the tests."""
    return logging.Logger("shop", logging.INFO)  # noqa: LOG001  # one without parents


def test_a_log_line_with_a_wrong_format_is_only_the_handlers_affair(copied: list[Any], logger: logging.Logger) -> None:
    handler = Handler()
    logger.addHandler(handler)
    logger.info("%d pieces", "many")
    assert handler.messages == ["%d pieces"]
    (told,) = copied
    assert "tracing failed at copying a log line" in told.body.text.text
    assert faults() == {"copying a log line": 1}
    _faults._seen.clear()


def test_a_log_line_with_surrogates_is_copied_with_what_stands_for_them(
    copied: list[Any], logger: logging.Logger
) -> None:
    logger.addHandler(Handler())
    with background_span("r\udce9sum"):
        logger.info("r\udce9sum\udce9\0.pdf")
    assert r"r\udce9sum\udce9\x00.pdf" in copied[0].body.text.text
    assert copied[0].endpoint == r"r\udce9sum"


def test_a_logger_with_an_odd_name_is_copied(copied: list[Any]) -> None:
    found = logging.getLogger("sh\udce9p")
    found.addHandler(Handler())
    found.warning("hello")
    assert {pair.key: pair.value for pair in copied[0].tags.data}["logger"] == r"sh\udce9p"


def test_a_very_long_log_line_is_cut_in_its_middle(copied: list[Any], logger: logging.Logger) -> None:
    logger.addHandler(Handler())
    logger.info("first %s last", "x" * 1_000_000)
    text = copied[0].body.text.text
    assert "first" in text
    assert text.endswith("last")
    assert len(text) <= _internals.LOG_CHARS + 100


def test_an_argument_without_a_text_costs_the_copy_only(copied: list[Any], logger: logging.Logger) -> None:
    handler = Handler()
    logger.addHandler(handler)
    logger.info("%s", Silent())
    assert handler.messages == ["%s"]
    assert faults() == {"copying a log line": 1}
    _faults._seen.clear()


def test_a_queue_of_logs_that_fails_costs_the_copy_only(
    copied: list[Any], logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "archive_log", broken, raising=False)
    handler = Handler()
    logger.addHandler(handler)
    logger.info("hello")
    assert handler.messages == ["hello"]
    assert faults() == {"copying a log line": 1}
    _faults._seen.clear()


def test_an_error_in_the_users_own_handler_is_the_users(copied: list[Any], logger: logging.Logger) -> None:
    logger.addHandler(Handler(KeyError("mine")))
    with pytest.raises(KeyError, match="mine"):
        logger.info("hello")


def test_so_is_one_in_a_filter(copied: list[Any], logger: logging.Logger) -> None:
    def look(_record: logging.LogRecord) -> bool:
        raise KeyError("mine")

    logger.addFilter(look)
    with pytest.raises(KeyError, match="mine"):
        logger.info("hello")


def test_safe_values_are_set_once(copied: list[Any]) -> None:
    before = logging.Logger.handle
    use_safe_values()
    assert logging.Logger.handle is before


def test_a_log_line_without_the_agents_copy_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tag, "__init__", Tag.__init__)
    for name in ("TextLog", "KeyStringValuePair"):
        monkeypatch.setattr(sw_logging, name, getattr(sw_logging, name))
    before = logging.Logger.handle
    use_safe_values()
    assert logging.Logger.handle is before


async def test_faults_in_one_context_leave_the_others_alone(
    segments: Segments, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(name: str) -> None:
        with background_span(name):
            await asyncio.sleep(0)

    def enter_or_break(name: str, *rest: Any) -> Any:
        return broken() if name == "bad" else original(name, *rest)

    original = _spans._enter
    monkeypatch.setattr(_spans, "_enter", enter_or_break)
    tasks = [asyncio.create_task(work(name), context=contextvars.Context()) for name in ("good", "bad", "better")]
    await asyncio.gather(*tasks)
    assert names(segments) == ["good", "better"]
    expected["opening a background span"] = 1
