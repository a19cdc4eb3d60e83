"""Work that still runs: one log line in its trace, and an event for what runs for long."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from skywalking import config
from skywalking.protocol.event.Event_pb2 import Event, Type
from skywalking.protocol.logging.Logging_pb2 import LogData
from skywalking_background import _encoding, _events, _faults, _light_spans, _running, background_span, carry, untraced
from skywalking_background._events import HEARTBEAT_SECONDS, RunningEvents, TaskEvent
from skywalking_background._failures import UnreachableError, UnwelcomeError
from skywalking_background._faults import faults
from skywalking_background._http import HttpTransport
from skywalking_background._internals import open_spans
from skywalking_background._records import Task
from skywalking_background._rescue import Lost
from skywalking_background._segments import NEW_TRACE
from skywalking_background._start_reports import StartReports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Segments = list[Any]


class Lines(StartReports):
    """Start reports that are kept as protobuf reads them."""

    def __init__(self, after: float = 0) -> None:
        self.found: list[LogData] = []
        super().__init__(after, lambda data: self.found.append(LogData.FromString(data)))

    def names(self) -> list[str]:
        return [tags(line)["task.name"] for line in self.found]


def tags(line: LogData) -> dict[str, str]:
    return {tag.key: tag.value for tag in line.tags.data}


class Events(RunningEvents):
    """Events that are kept as protobuf reads them; OAP may be away, or take none."""

    def __init__(self, after: float = 0) -> None:
        self.found: list[Event] = []
        self.begun: list[tuple[str, str]] = []
        self.trouble: Exception | None = None
        self.tries = 0
        super().__init__(after, self.take, lambda *ids: self.begun.append(ids))

    def take(self, batch: list[bytes]) -> None:
        self.tries += 1
        if self.trouble is not None:
            raise self.trouble
        self.found += [Event.FromString(one) for one in batch]

    def later(self, seconds: float) -> None:
        """Look again after so many seconds."""
        self._next_look -= seconds
        self._try_again -= seconds
        for batch in self._batches:
            batch.due -= seconds
        self.look()


@pytest.fixture
def lines(segments: Segments) -> Iterator[Lines]:
    watching = Lines()
    _running.watch_by((watching.watch,), bool)
    yield watching
    assert (watching.watch.fresh, watching.watch.known) == ({}, {})  # nothing stays of what has ended
    _running.watch_by((), bool)


@pytest.fixture
def events(segments: Segments) -> Iterator[Events]:
    watching = Events()
    _running.watch_by((watching.watch,), bool)
    yield watching
    assert (watching.watch.fresh, watching.watch.known) == ({}, {})
    _running.watch_by((), bool)


def a_moment() -> None:
    """Let the clock's next millisecond begin."""
    time.sleep(0.002)


def test_a_running_task_has_a_line_in_its_trace(lines: Lines, segments: Segments) -> None:
    with background_span("resize", tags={"task.id": 7}) as task:
        task._span.start_time = 1_700_000_000_123
        lines.look()
    (line,) = lines.found
    (segment,) = segments
    span = segment.spans[0]
    place = line.traceContext
    assert (place.traceId, place.traceSegmentId) == (segment.related_traces[0], segment.segment_id)
    assert place.spanId == span.sid == 0
    assert (line.service, line.serviceInstance) == (config.agent_name, config.agent_instance_name)
    assert line.endpoint == "resize"
    assert line.body.type == "text"
    assert line.body.text.text == "task started: resize (7), running since 2023-11-14T22:13:20.123Z"
    assert tags(line) == {
        "level": "INFO",
        "logger": "skywalking_background",
        "task.state": "started",
        "task.name": "resize",
        "task.id": "7",
        "task.since": str(span.start_time),
        "segment.id": segment.segment_id,
    }
    assert abs(line.timestamp / 1000 - time.time()) < 60


def test_the_line_is_what_protobuf_writes(lines: Lines) -> None:
    with background_span("ü\0\udcff" * 100, tags={"task.id": "\ud800"}):
        a_moment()
        lines.look()
    (line,) = lines.found
    assert tags(line)["task.name"] == r"ü\x00\udcff" * 100
    assert tags(line)["task.id"] == r"\ud800"


def test_where_oap_wants_it_the_endpoint_is_a_tag(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_encoding, "ENDPOINT_AS_TAG", True)
    with background_span("resize"):
        a_moment()
        lines.look()
    (line,) = lines.found
    assert (line.endpoint, tags(line)["endpoint"]) == ("", "resize")


def test_each_task_is_reported_once_and_a_short_one_not_at_all(segments: Segments) -> None:
    lines = Lines(after=0.05)
    _running.watch_by((lines.watch,), bool)
    with background_span("long"):
        for _ in range(100):
            with background_span("its child"):
                pass
            carry(lambda: None, name="short")()
            lines.look()
            time.sleep(0.002)
        lines.look()
    _running.watch_by((), bool)
    assert lines.names() == ["long"]


def test_a_task_is_reported_when_it_has_run_for_so_long(segments: Segments) -> None:
    lines = Lines(after=20)
    _running.watch_by((lines.watch,), bool)
    with background_span("task") as span:
        for seconds, reported in ((10, []), (30, ["task"])):
            span._span.start_time = int((time.time() - seconds) * 1000)
            lines.look()
            assert lines.names() == reported
    _running.watch_by((), bool)


def test_one_that_began_first_may_be_found_last(segments: Segments) -> None:
    lines = Lines(after=20)
    _running.watch_by((lines.watch,), bool)
    with background_span("young"), background_span("old", parent=NEW_TRACE) as span:
        span._span.start_time -= 30_000
        lines.look()
    _running.watch_by((), bool)
    assert lines.names() == ["old"]


def test_the_first_task_wakes_whoever_watches(segments: Segments) -> None:
    woken: list[str] = []
    for name, watches in (("nobody", ()), ("lines", (Lines().watch,))):
        _running.watch_by(watches, partial(woken.append, name))
        for _ in range(2):
            with background_span("task"):
                pass
    _running.watch_by((), bool)
    assert woken == ["lines"]


def test_of_several_tags_under_one_key_the_last_names_the_task(segments: Segments) -> None:
    with background_span("task") as task:
        span: Any = task._span
        span.tags["task.id"] = [SimpleNamespace(val="6"), SimpleNamespace(val="7")]
        assert _running.task_id(span) == "7"
        span.tags.pop("task.id")


@pytest.mark.parametrize("context", ["never made", "made before", "made after", "made meanwhile"])
def test_where_a_task_will_be_is_known_before_its_segment_is_made(
    segments: Segments, monkeypatch: pytest.MonkeyPatch, context: str
) -> None:
    places: list[_light_spans.Place] = []

    def piece() -> None:
        with background_span("piece"):
            pass

    def work() -> None:
        (span,) = open_spans()
        if context == "made before":
            piece()
        if context == "made meanwhile":
            monkeypatch.setattr(_light_spans, "new_id", lambda: span.context and "chosen")
        places.append(span.place())
        if context == "made after":
            piece()
        places.append(span.place())

    with background_span("request"):
        task = carry(work, name="task")
    task()
    request, made = segments
    for place in places:
        assert (place.trace_id, place.segment_id) == (made.related_traces[0], made.segment_id)
        assert place.parent is not None
        assert (place.parent.segment_id, place.endpoint) == (request.segment_id, "task")
    assert (made.segment_id == "chosen") == (context == "made meanwhile")


def test_what_fails_in_looking_at_tasks_stays_there(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines.watch, "take", None)
    lines.look()
    assert faults() == {"reporting what runs": 1}
    _faults._seen.clear()


def test_what_is_not_traced_is_not_reported(lines: Lines) -> None:
    with untraced(), background_span("within"):
        a_moment()
        lines.look()
    assert lines.found == []


def test_a_task_that_ends_at_the_very_moment_of_the_look_leaves_nothing(lines: Lines) -> None:
    class Known(dict[Any, bool]):
        def __setitem__(self, span: Any, state: bool) -> None:
            super().__setitem__(span, state)
            task.__exit__(None, None, None)

    ended: list[Any] = []
    watch: _running.Watch[bool] = _running.Watch("a test", lambda *what: ended.append(what))
    watch.known = Known()
    _running.watch_by((lines.watch, watch), bool)
    task = background_span("task")
    task.__enter__()
    assert watch.take(True) == []
    assert (ended, watch.fresh, watch.known) == ([], {}, {})


def test_tasks_that_end_while_they_are_looked_at_leave_nothing(lines: Lines) -> None:
    watch: _running.Watch[bool] = _running.Watch("a test", lambda *_what: None)
    _running.watch_by((lines.watch, watch), bool)
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            with background_span("task"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        lines.look()
        watch.take(True)
    over.set()
    for thread in threads:
        thread.join()
    assert (watch.fresh, watch.known) == ({}, {})


def test_too_many_tasks_are_counted_and_said_now_and_then(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_running, "LIMIT", 2)
    watch: _running.Watch[bool] = _running.Watch("a test", lambda *_what: None)
    _running.watch_by((lines.watch, watch), bool)
    taken: list[Any] = []
    hold(13, lambda: taken.extend(watch.take(True)))
    assert len(taken) == 2
    assert watch.missed == 11
    assert [record.getMessage() for record in caplog.records] == [
        f"2 tasks run, more are not watched for a test (number {number})" for number in (1, 10)
    ]


@pytest.mark.parametrize(
    ("tag", "error", "handled", "said"),
    [
        (None, None, False, "ended"),
        (None, None, True, "failed"),
        (None, ValueError(), False, "failed"),
        (None, asyncio.CancelledError(), True, "cancelled"),
        ("dead", ValueError(), True, "dead"),
    ],
)
def test_how_a_task_ended_is_its_tag_or_its_error(
    segments: Segments, tag: str | None, error: BaseException | None, handled: bool, said: str
) -> None:
    with background_span("task", tags={"task.id": 7} if tag else None) as task:
        span: Any = task._span
        assert _running.task_id(span) == ("7" if tag else span.context.segment_id)
        if tag is not None:
            task.tag("task.outcome", tag)
        span.error_occurred = handled
        assert _running.outcome(span, error) == said


def hold(count: int, look: Callable[[], object]) -> None:
    """Run so many tasks at once, and look at them meanwhile."""

    async def one() -> None:
        with background_span("task"):
            await asyncio.sleep(0.05)

    async def all_of_them() -> None:
        tasks = [asyncio.create_task(one()) for _ in range(count)]
        await asyncio.sleep(0.01)
        look()
        await asyncio.gather(*tasks)

    asyncio.run(all_of_them())


def test_one_that_cannot_be_told_does_not_keep_the_others(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    put = lines._put
    calls = []

    def failing(data: bytes) -> None:
        calls.append(data)
        if len(calls) == 1:
            raise ZeroDivisionError
        put(data)

    monkeypatch.setattr(lines, "_put", failing)
    hold(3, lines.look)
    assert len(lines.found) == 2
    assert faults() == {"reporting what runs": 1}
    _faults._seen.clear()


def test_an_event_begins_lives_and_ends_under_one_id(events: Events, segments: Segments) -> None:
    with background_span("resize", tags={"task.id": "a1"}):
        a_moment()
        events.look()
        assert len(events.begun) == 1
        events.later(HEARTBEAT_SECONDS - 1)
        assert len(events.found) == 1
        events.later(2)
    events.look()
    begun, alive, ended = events.found
    (segment,) = segments
    span = segment.spans[0]
    assert {event.uuid for event in events.found} == {segment.segment_id}
    assert events.begun == [(segment.segment_id, segment.segment_id)]
    seen: list[tuple[int, str]] = []
    for event in events.found:
        assert (event.source.service, event.source.serviceInstance) == (config.agent_name, config.agent_instance_name)
        assert (event.name, event.layer) == ("BackgroundTask", "GENERAL")
        assert event.parameters["task.since"] == str(span.start_time)
        assert event.startTime // 1000 == span.start_time // 1000
        assert event.type == Type.Normal
        alive_at, outcome = event.parameters.pop("task.alive"), event.parameters.pop("task.outcome")
        seen.append((int(alive_at), outcome))
        assert dict(event.parameters) == {
            "trace.id": segment.related_traces[0],
            "segment.id": segment.segment_id,
            "task.name": "resize",
            "task.id": "a1",
            "task.since": str(span.start_time),
        }
    assert (begun.endTime, alive.endTime) == (0, 0)
    assert begun.message == "resize runs for 0 s"
    assert span.start_time < seen[0][0] <= seen[1][0] <= span.end_time
    assert span.start_time < ended.endTime <= span.end_time
    assert [outcome for _, outcome in seen] == ["running", "running", "ended"]


def test_each_message_about_an_event_is_a_ms_later_within_the_second_of_its_start() -> None:
    """So that BanyanDB shows the last one, and takes all of them for one event."""
    start = 1_700_000_000_999
    event = TaskEvent("id", "service", "instance", "resize", "a1", "trace", "segment", start, start)
    seconds = (0, 30, 60, 90, 29_940)
    messages = [replace(event, alive=start + 1000 * number) for number in seconds]
    messages.append(replace(event, alive=start + 90_000_000, end=start + 90_000_000, outcome="crashed"))
    found = [Event.FromString(message.encode()) for message in messages]
    assert [one.startTime - 1_700_000_000_000 for one in found] == [0, 1, 2, 3, 998, 999]
    assert Event.FromString(replace(event, alive=start + 90_000_000).encode()).startTime < found[-1].startTime
    assert Event.FromString(replace(event, alive=start - 90_000).encode()).startTime == found[0].startTime


@pytest.mark.parametrize(
    ("error", "outcome"), [(ValueError(), "failed"), (asyncio.CancelledError(), "cancelled"), (None, "dead")]
)
def test_an_event_says_how_the_task_ended(events: Events, error: BaseException | None, outcome: str) -> None:
    with contextlib.suppress(BaseException), background_span("resize") as span:
        a_moment()
        events.look()
        if error is None:
            span.tag("task.outcome", outcome)
        else:
            raise error
    events.look()
    assert [(event.type, event.parameters["task.outcome"]) for event in events.found] == [
        (Type.Normal, "running"),
        (Type.Error, outcome),
    ]


def test_events_wait_for_an_oap_that_is_away(events: Events, caplog: pytest.LogCaptureFixture) -> None:
    events.trouble = UnreachableError("nobody there")
    with background_span("resize"):
        a_moment()
        events.look()
        events.look()
        assert (events.tries, events.begun) == (1, [])
    events.later(1)
    assert events.tries == 1  # OAP is not asked in each round
    events.trouble = None
    events.later(10)
    assert [event.parameters["task.outcome"] for event in events.found] == ["ended"]
    assert caplog.records == []  # the reporter says that OAP is away


def test_an_oap_that_takes_no_events_is_asked_rarely_and_it_is_said_once(
    events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    events.trouble = UnwelcomeError("UNIMPLEMENTED")
    with background_span("resize"):
        a_moment()
        events.look()
        for _ in range(10):
            events.later(10)
        assert events.tries == 1
        events.later(300)
        assert events.tries == 2
    (record,) = caplog.records
    assert "OAP takes no events (UNIMPLEMENTED)" in record.getMessage()


def test_there_are_not_too_many_events(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_events, "LIMIT", 3)

    async def one() -> None:
        with background_span("task"):
            await asyncio.sleep(0.05)

    async def some(count: int) -> None:
        tasks = [asyncio.create_task(one()) for _ in range(count)]
        await asyncio.sleep(0.01)
        events.later(10)
        events.later(10)
        await asyncio.gather(*tasks)

    asyncio.run(some(8))
    events.look()
    assert sum(not event.endTime for event in events.found) == 3
    assert sum(bool(event.endTime) for event in events.found) == 3


def test_an_event_begins_when_a_task_has_run_for_long_and_not_in_each_round(segments: Segments) -> None:
    events = Events(after=30)
    _running.watch_by((events.watch,), bool)
    events.look()
    with background_span("resize") as span:
        events.later(1)
        assert events.found == []
        span._span.start_time -= 31_000
        events.look()
        assert events.found == []
        events.later(1)
        assert [event.message for event in events.found] == ["resize runs for 31 s"]
    _running.watch_by((), bool)


def test_what_another_process_has_left_ends_its_event(events: Events) -> None:
    for event in ("e1", ""):
        task = Task("s1", "t1", "resize", 1_000, None, {"task.id": "7"}, event)
        events.lost(Lost(task, "shop", "gone", 101_000, "was gone"))
    events.lost(Lost(Task("s2", "t2", "mail", 1_000, None, {}, "e2"), "shop", "gone", 2_000, "was gone"))
    events.look()
    first, second = events.found
    assert (first.uuid, first.type, first.startTime, first.endTime) == ("e1", Type.Error, 1_999, 101_000)
    assert (first.source.service, first.source.serviceInstance) == ("shop", "gone")
    assert first.message == "resize crashed after 100.0 s"
    assert dict(first.parameters) == {
        "task.name": "resize",
        "task.id": "7",
        "task.since": "1000",
        "task.alive": "101000",
        "task.outcome": "crashed",
        "trace.id": "t1",
        "segment.id": "s1",
    }
    assert second.parameters["task.id"] == "s2"


def test_what_fails_in_reporting_events_stays_there(events: Events) -> None:
    events.trouble = ZeroDivisionError()
    with background_span("resize"):
        a_moment()
        events.look()
    assert faults() == {"reporting events": 1}
    _faults._seen.clear()


def test_events_go_over_http_too(monkeypatch: pytest.MonkeyPatch) -> None:
    posted: list[Any] = []
    monkeypatch.setattr(HttpTransport, "post", lambda _self, path, content: posted.append((path, content)))
    HttpTransport("127.0.0.1:9").send_events(
        [Event(uuid="a", name="b", startTime=7, layer="GENERAL").SerializeToString()]
    )
    assert posted == [("/v3/events", [{"uuid": "a", "name": "b", "startTime": "7", "layer": "GENERAL"}])]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "StartReports 2.0 RunningEvents 60.0"),
        ({"SKYWALKING_BACKGROUND_START_REPORT_SECONDS": "0"}, "StartReports 0.0 RunningEvents 60.0"),
        ({"SKYWALKING_BACKGROUND_START_REPORT_SECONDS": "off"}, "RunningEvents 60.0"),
        ({"SKYWALKING_BACKGROUND_EVENT_SECONDS": "OFF"}, "StartReports 2.0"),
        ({"SW_AGENT_LOG_REPORTER_ACTIVE": "false"}, "RunningEvents 60.0"),
        (
            {"SKYWALKING_BACKGROUND_EVENT_SECONDS": "90", "SW_AGENT_PROTOCOL": "http"},
            "StartReports 2.0 RunningEvents 90.0",
        ),
        (
            {"SKYWALKING_BACKGROUND_START_REPORT_SECONDS": "soon"},
            "SECONDS='soon' is neither a number of seconds nor off",
        ),
        ({"SKYWALKING_BACKGROUND_EVENT_SECONDS": "-1"}, "SECONDS='-1' is neither a number of seconds nor off"),
    ],
)
def test_settings_say_what_is_reported(variables: dict[str, str], expected: str) -> None:
    program = (
        "import skywalking_background as sw; from skywalking_background import _agent; sw.start()\n"
        "o = _agent._observers; assert len(o.watches) == len([x for x in (o.lines, o.events) if x])\n"
        "print(*[f'{type(x).__name__} {float(x._after)}' for x in (o.lines, o.events) if x])"
    )
    environment = {"SW_AGENT_COLLECTOR_BACKEND_SERVICES": "127.0.0.1:9", **variables}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert expected in done.stdout + done.stderr


def test_the_first_task_begins_the_reporting_and_a_process_without_one_has_no_thread() -> None:
    program = (
        "import threading, skywalking_background as sw; sw.start()\n"
        "names = lambda: [t.name for t in threading.enumerate() if 'background' in t.name]\n"
        "assert names() == [], names()\n"
        "with sw.background_span('first'): print(names())"
    )
    environment = {"SW_AGENT_COLLECTOR_BACKEND_SERVICES": "127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['skywalking-background-reporter']", done.stderr


def test_logging_is_not_asked(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with background_span("resize"):
        a_moment()
        lines.look()
    assert caplog.records == []  # the line is OAP's only, whatever the level of the user's loggers
