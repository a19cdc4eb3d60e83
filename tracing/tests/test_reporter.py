"""The reporter against a real gRPC server that records what it gets."""

from __future__ import annotations

import logging
import os
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from collector import Collector, listening
from skywalking import config
from skywalking.protocol.logging.Logging_pb2 import LogData
from skywalking_background import _faults, _grpc, _lane, _reporter, background_span
from skywalking_background._failures import RefusedError, TimedOutError, UnreachableError, UnwelcomeError
from skywalking_background._reporter import Counts, Reporter

if TYPE_CHECKING:
    from collections.abc import Callable

USUAL_FIRST_CONTACT = _reporter.FIRST_CONTACT


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    monkeypatch.setattr(config, "agent_collector_backend_services", f"127.0.0.1:{number}")
    monkeypatch.setattr(config, "agent_trace_reporter_max_buffer_size", 20)
    monkeypatch.setattr(_reporter, "RETRY_MAX", 0.2)
    monkeypatch.setattr(_reporter, "RETRY_FLUSHING", 0.05)
    monkeypatch.setattr(_reporter, "RETRY_ASIDE_FLUSHING", 0.2)
    # A busy machine's collector may need longer for its first answer than a service should wait for one.
    monkeypatch.setattr(_reporter, "FIRST_CONTACT", 10.0)
    return number


def make_segment(segments: list[Any], name: str = "task", value: str = "value") -> Any:
    # As many tags as it takes: each is cut at 4,000 characters.
    parts = [value[at : at + 4_000] for at in range(0, len(value), 4_000)]
    with background_span(name, tags={f"key{number or ''}": part for number, part in enumerate(parts)}):
        pass
    return segments.pop()


def patiently(reporter: Reporter, ready: Callable[[], bool], seconds: float = 8) -> bool:
    """Flush until something is so."""
    deadline = time.monotonic() + seconds
    while not (found := ready()) and time.monotonic() < deadline:
        reporter.flush(0.5)
        time.sleep(0.05)
    return found


def test_everything_arrives_in_full(port: int, segments: list[Any]) -> None:
    collector = Collector()
    with listening(collector, port):
        reporter = Reporter()
        segment = make_segment(segments)
        reporter.segments.put(segment)
        reporter.logs.put(LogData(service="shop"))
        assert reporter.flush()
    (message,) = collector.segments
    assert message.traceSegmentId == str(segment.segment_id)
    (span,) = message.spans
    assert (span.operationName, span.spanId, span.parentSpanId, span.isError) == ("task", 0, -1, False)
    assert [(tag.key, tag.value) for tag in span.tags] == [("key", "value")]
    assert [log.service for log in collector.logs] == ["shop"]
    assert reporter.counts() == {"segments": Counts(1, 0, 0), "logs": Counts(1, 0, 0)}


def test_nothing_is_lost_while_oap_is_away(port: int, segments: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector()
    reporter = Reporter()
    for _ in range(10):
        reporter.segments.put(make_segment(segments))
    assert not reporter.flush(0.5)
    assert reporter.counts()["segments"] == Counts(0, 10, 0)
    with listening(collector, port):
        assert reporter.flush(10)
    assert len(collector.segments) == 10
    reporter.segments.put(make_segment(segments))
    assert not reporter.flush(0.3)
    with listening(collector, port):
        assert reporter.flush(10)
        deadline = time.monotonic() + 5
        while caplog.text.count(f"{port} is back after") < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert len({message.traceSegmentId for message in collector.segments}) == 11
    # Once for each time it was away, however often it was tried.
    assert caplog.text.count(f"{port} is not reachable") == 2
    assert caplog.text.count(f"{port} is back after") == 2


def test_an_idle_process_notices_that_oap_is_back(port: int, caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter()
    reporter.begin()
    assert patiently(reporter, lambda: f"{port} is not reachable" in caplog.text)
    with listening(Collector(), port):
        assert patiently(reporter, lambda: f"{port} is back after" in caplog.text)
    assert reporter.counts()["segments"] == Counts(0, 0, 0)


def test_what_does_not_fit_is_counted(port: int, segments: list[Any]) -> None:
    collector = Collector()
    reporter = Reporter()
    for _ in range(25):
        reporter.segments.put(make_segment(segments))
    assert reporter.counts()["segments"] == Counts(0, 20, 5)
    with listening(collector, port):
        assert reporter.flush(10)
    assert reporter.counts()["segments"] == Counts(20, 0, 5)


def test_one_bad_value_does_not_hold_up_the_rest(
    port: int, segments: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    collector = Collector()
    reporter = Reporter()
    bad = make_segment(segments)
    bad.spans[0].start_time = "late"  # protobuf wants a number
    reporter.segments.put(bad)
    reporter.segments.put(make_segment(segments))
    with listening(collector, port):
        assert reporter.flush(10)
    assert len(collector.segments) == 1
    assert reporter.counts()["segments"] == Counts(1, 0, 1)
    assert "can't be encoded" in caplog.text


def test_nothing_runs_before_the_first_segment(port: int, segments: list[Any]) -> None:
    before = set(threading.enumerate())
    begun: list[str] = []
    reporter = Reporter(on_begin=lambda: begun.append(threading.current_thread().name))
    assert reporter.flush(5)
    assert set(threading.enumerate()) == before
    assert not begun
    reporter.segments.put(make_segment(segments))
    reporter.segments.put(make_segment(segments))
    (thread,) = set(threading.enumerate()) - before
    assert thread.name == "skywalking-background-reporter"
    assert begun == ["MainThread"]


def test_the_process_introduces_itself_first(port: int, segments: list[Any]) -> None:
    collector = Collector()
    reporter = Reporter()
    with listening(collector, port):
        reporter.segments.put(make_segment(segments))
        assert reporter.flush()
    assert collector.instances == [config.agent_instance_name]


def test_under_load_few_calls_are_made(port: int, segments: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reporter, "INTERVAL", 0.01)
    monkeypatch.setattr(_reporter, "SPACING", 60.0)
    reporter = Reporter()

    def put(number: int) -> None:
        for _ in range(number):
            reporter.segments.put(make_segment(segments))

    def sent(number: int, seconds: float = 10.0) -> bool:
        deadline = time.monotonic() + seconds
        while reporter.counts()["segments"].sent < number and time.monotonic() < deadline:
            time.sleep(0.01)
        return reporter.counts()["segments"].sent == number

    with listening(Collector(), port):
        put(1)
        assert sent(1)  # at once, after a pause
        put(9)
        assert not sent(10, seconds=0.3)
        put(1)
        assert sent(11)  # half of what may wait
        put(1)
        assert reporter.flush()  # somebody waits


def test_a_batch_has_bounded_bytes(port: int, segments: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lane, "BATCH_BYTES", 10_000)
    monkeypatch.setattr(config, "agent_trace_reporter_max_buffer_size", 1000)
    collector = Collector()
    reporter = Reporter()
    for _ in range(600):
        reporter.segments.put(make_segment(segments))
    for _ in range(20):
        reporter.segments.put(make_segment(segments, value="x" * 3_000))
    reporter.segments.put(make_segment(segments, value="x" * 30_000))
    with listening(collector, port):
        assert reporter.flush(10)
    assert len(collector.segments) == 621
    assert sorted(size > 10_000 for _, size in collector.sizes)[-2:] == [False, True]  # the last, alone
    assert len(collector.sizes) < 40


def test_what_waits_has_bounded_bytes(port: int, segments: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lane, "QUEUE_BYTES", 10_000)
    collector = Collector()
    reporter = Reporter()
    for _ in range(10):
        reporter.segments.put(make_segment(segments, value="x" * 3_000))
    assert reporter.counts()["segments"] == Counts(0, 4, 6)
    with listening(collector, port):
        assert reporter.flush(10)
        for _ in range(3):  # there is room again
            reporter.segments.put(make_segment(segments, value="x" * 3_000))
        assert reporter.flush(10)
    assert reporter.counts()["segments"] == Counts(7, 0, 6)


@pytest.mark.parametrize(
    "status", ["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "CANCELLED", "INTERNAL", "UNKNOWN", "OUT_OF_RANGE"]
)
def test_what_oap_will_never_take_is_found_dropped_and_named(
    port: int, segments: list[Any], caplog: pytest.LogCaptureFixture, status: str
) -> None:
    def judge(found: list[Any], context: Any) -> None:
        if any(span.operationName == "poison" for segment in found for span in segment.spans):
            context.abort(grpc.StatusCode[status], "no")

    collector = Collector(judge)
    reporter = Reporter()
    bad = [make_segment(segments, "poison") for _ in range(2)]
    for number in range(17):
        reporter.segments.put(make_segment(segments))
        if number in {3, 11}:
            reporter.segments.put(bad.pop())
    with listening(collector, port):
        patiently(reporter, lambda: len(collector.segments) == 17)
        for _ in range(2):  # OAP takes others: it is these two that it does not take
            reporter.segments.put(make_segment(segments))
            reporter.flush()
        assert patiently(reporter, lambda: reporter.counts()["segments"] == Counts(19, 0, 2))
    assert len({segment.traceSegmentId for segment in collector.segments}) == len(collector.segments) == 19
    lines = [line for line in caplog.messages if "will never take" in line]
    assert len(lines) == 2
    assert all(f"({status}: no)" in line and "'poison' of trace" in line and " bytes" in line for line in lines)
    assert f"{port} is not reachable" not in caplog.text


def test_what_is_too_large_is_dropped_at_once(port: int, segments: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector()
    reporter = Reporter()
    with listening(collector, port):
        reporter.segments.put(make_segment(segments, "huge", "x" * 11_000_000))
        assert reporter.flush(10)
        assert reporter.counts()["segments"] == Counts(0, 0, 1)
        for _ in range(5):
            reporter.segments.put(make_segment(segments))
        assert reporter.flush(10)
    assert reporter.counts()["segments"] == Counts(5, 0, 1)
    assert "too large" in caplog.text
    assert "'huge' of trace" in caplog.text
    assert f"{port} is not reachable" not in caplog.text


def test_an_oap_that_refuses_everything_gets_everything_later(
    port: int, segments: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    ill = True

    def judge(_found: list[Any], context: Any) -> None:
        if ill:
            context.abort(grpc.StatusCode.INTERNAL, "disk full")

    collector = Collector(judge)
    reporter = Reporter()
    with listening(collector, port):
        for _ in range(20):
            reporter.segments.put(make_segment(segments))
        for _ in range(4):
            assert not reporter.flush(0.3)
        assert reporter.counts()["segments"] == Counts(0, 20, 0)
        assert len(collector.sizes) < 200  # it is not stormed
        ill = False
        assert patiently(reporter, lambda: reporter.counts()["segments"] == Counts(20, 0, 0))
    assert len({segment.traceSegmentId for segment in collector.segments}) == 20
    assert "refuses all segments (INTERNAL: disk full)" in caplog.text
    assert f"{port} is not reachable" not in caplog.text


def test_a_batch_that_takes_too_long_is_sent_in_halves(
    port: int, segments: list[Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_grpc, "CALL_TIMEOUT", 0.2)
    collector = Collector(lambda found, _context: time.sleep(0.5 if len(found) > 5 else 0))
    reporter = Reporter()
    with listening(collector, port):
        for _ in range(20):
            reporter.segments.put(make_segment(segments))
        assert patiently(reporter, lambda: reporter.counts()["segments"] == Counts(20, 0, 0), 20)
    assert "is connected but slow" in caplog.text
    assert f"{port} is not reachable" not in caplog.text


@pytest.mark.parametrize("status", ["UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"])
def test_a_wrong_setting_is_named_and_the_other_lane_goes_on(
    port: int, segments: list[Any], caplog: pytest.LogCaptureFixture, status: str
) -> None:
    def judge(found: list[Any], context: Any) -> None:
        if not isinstance(found, list):
            context.abort(grpc.StatusCode[status], "who are you")

    collector = Collector(judge)
    reporter = Reporter()
    with listening(collector, port):
        reporter.segments.put(make_segment(segments))
        reporter.put_log(LogData(service="shop"))
        assert not reporter.flush(0.5)
        assert reporter.counts() == {"segments": Counts(0, 1, 0), "logs": Counts(1, 0, 0)}
    assert f"does not accept the segments of this process ({status}: who are you)" in caplog.text


def test_what_is_no_oap_is_named(port: int, segments: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    def answer() -> None:
        for _ in range(2):
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            connection.close()

    with socket.create_server(("127.0.0.1", port)) as server:
        threading.Thread(target=answer).start()
        reporter = Reporter()
        reporter.segments.put(make_segment(segments))
        assert not reporter.flush(1)
    assert "does not speak gRPC" in caplog.text
    assert reporter.counts()["segments"] == Counts(0, 1, 0)


@pytest.mark.parametrize("case", ["refused", "unresolvable", "swallowed", "no address"])
def test_without_oap_a_flush_is_short(
    port: int, segments: list[Any], monkeypatch: pytest.MonkeyPatch, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    address = {"unresolvable": "nowhere.invalid:11800", "no address": "oap_host:oap_port"}.get(case)
    if address:
        monkeypatch.setattr(config, "agent_collector_backend_services", address)
    monkeypatch.setattr(_reporter, "FIRST_CONTACT", USUAL_FIRST_CONTACT)
    with socket.create_server(("127.0.0.1", port)) if case == "swallowed" else socket.socket():  # nobody accepts
        reporter = Reporter()
        for _ in range(3):  # as many contexts of a TestClient
            reporter.begin()
            reporter.segments.put(make_segment(segments))
            began = time.monotonic()
            assert not reporter.flush(5)
            assert time.monotonic() - began < 4  # a busy machine's; an idle one's is 0.2
        began = time.monotonic()
        reporter.flush_at_exit()
        assert time.monotonic() - began < 0.1
    assert "3 kept" in caplog.text


def test_an_oap_that_was_there_is_waited_for(port: int, segments: list[Any]) -> None:
    collector = Collector()
    reporter = Reporter()
    reporter.segments.put(make_segment(segments))
    with listening(collector, port):
        assert reporter.flush()
    reporter.segments.put(make_segment(segments))

    def restart() -> None:
        time.sleep(0.5)
        with listening(collector, port):
            ended.wait(10)

    ended = threading.Event()
    thread = threading.Thread(target=restart)
    thread.start()
    assert reporter.flush()
    ended.set()
    thread.join()
    assert len(collector.segments) == 2


def test_without_a_thread_the_flush_delivers(
    port: int, segments: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_self: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    collector = Collector()
    reporter = Reporter()
    with listening(collector, port):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for _ in range(3):
                reporter.segments.put(make_segment(segments))
        reporter.put_log(LogData(service="shop"))
        assert reporter.flush()
    assert reporter.counts() == {"segments": Counts(3, 0, 0), "logs": Counts(1, 0, 0)}
    assert caplog.text.count("thread can't start") == 1


def test_the_thread_starts_later_when_it_can_not_at_first(
    port: int, segments: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reporter, "RETRY_MAX", 0.0)
    collector = Collector()
    reporter = Reporter()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _self: (_ for _ in ()).throw(RuntimeError("no")))
        reporter.segments.put(make_segment(segments))
    with listening(collector, port):
        reporter.segments.put(make_segment(segments))
        deadline = time.monotonic() + 5
        while len(collector.segments) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert len(collector.segments) == 2


def test_many_threads_lose_and_double_nothing(port: int, segments: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "agent_trace_reporter_max_buffer_size", 100_000)
    collector = Collector()
    reporter = Reporter()
    made = [[make_segment(segments) for _ in range(300)] for _ in range(8)]
    with listening(collector, port):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda mine: [reporter.segments.put(segment) for segment in mine], made))
        assert reporter.flush()
    assert reporter.counts()["segments"] == Counts(2400, 0, 0)
    assert len({segment.traceSegmentId for segment in collector.segments}) == len(collector.segments) == 2400
    assert reporter.segments._bytes_in == reporter.segments._bytes_out


def test_lines_about_the_delivery_are_not_delivered(port: int) -> None:
    reporter = Reporter()

    class Delivered(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reporter.put_log(LogData(service=record.getMessage()))

    handler = Delivered()
    logging.getLogger("skywalking_background").addHandler(handler)
    try:
        reporter.put_log(LogData(service="shop"))
        for _ in range(3):
            assert not reporter.flush(0.3)
        # Kafka's client says in a thread of its own that it reaches nobody.
        client = threading.Thread(
            target=reporter.put_log, args=(LogData(),), name="skywalking-background-kafka-network-thread"
        )
        client.start()
        client.join()
        assert reporter.counts()["logs"] == Counts(0, 1, 0)
    finally:
        logging.getLogger("skywalking_background").removeHandler(handler)


def test_a_connection_that_was_closed_while_idle_costs_nothing(
    port: int, segments: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    collector = Collector()
    reporter = Reporter()
    for _ in range(3):
        with listening(collector, port):
            reporter.segments.put(make_segment(segments))
            assert reporter.flush()
    assert len(collector.segments) == 3
    assert not [line for line in caplog.messages if str(port) in line]


def test_a_goodbye_before_other_frames_is_called_one(
    port: int, segments: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    settings = bytes(3) + b"\x04" + bytes(5)
    goaway = b"\x00\x00\x08\x07" + bytes(13)
    window_update = b"\x00\x00\x04\x08" + bytes(5) + b"\x00\x00\x01\x00"

    def say_goodbye(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(settings + goaway + window_update)
            connection.recv(65_536)

    with socket.create_server(("127.0.0.1", port)) as listener:
        threading.Thread(target=say_goodbye, args=(listener,), daemon=True).start()
        reporter = Reporter()
        reporter.segments.put(make_segment(segments))
        assert not reporter.flush(1)
    assert "not reachable (the connection was lost, closed by the other side)" in caplog.text


def test_a_process_with_thousands_of_open_files_reports_too(port: int, segments: list[Any]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4_096)), hard))
    files = [os.dup(0) for _ in range(1_100)]
    try:
        collector = Collector()
        reporter = Reporter()
        with listening(collector, port):
            for _ in range(2):
                reporter.segments.put(make_segment(segments))
                assert reporter.flush(5)
        assert reporter.counts()["segments"] == Counts(2, 0, 0)
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# The end of a process, and a flush without a thread.


def test_the_end_does_not_wait_again_for_an_oap_that_was_given_up(
    port: int, segments: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = Reporter()
    asked: list[tuple[float, ...]] = []
    monkeypatch.setattr(reporter, "flush", lambda *seconds: asked.append(seconds))
    reporter.flush_at_exit()
    reporter.flush_at_exit(3.0, 1.0)
    reporter._gave_up_with = reporter.counts()
    reporter.flush_at_exit()
    reporter._gave_up_with = {}  # something came since
    reporter.flush_at_exit()
    assert asked == [(5.0, 2.0), (3.0, 1.0), (0.0, 0.0)]


class Clock:
    """The time in seconds, which only sleeping lets pass."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.mark.parametrize(("reached", "errors", "settles_at", "done", "rounds", "sleeps"), [
    (True, [True, True, False], 3, True, 3, 2),
    (True, [True] * 9, 99, False, 5, 4),  # at 0, 0.25, 0.5, 0.75 and 1 s
    (False, [True] * 9, 99, False, 1, 0),  # an OAP that was never there
    (True, [False], 99, False, 1, 0),  # nothing fails, and nothing more is to be done
    (False, [True], 1, True, 1, 0),
])  # fmt: skip
def test_who_flushes_without_a_thread_tries_until_the_time_is_over(  # noqa: PLR0913, PLR0917
    port: int, segments: list[Any], monkeypatch: pytest.MonkeyPatch,
    reached: bool, errors: list[bool], settles_at: int, done: bool, rounds: int, sleeps: int,
) -> None:  # fmt: skip
    clock, wanted = Clock(), []

    def one_round(**how: bool) -> Exception | None:
        wanted.append(how)
        return ValueError() if errors[len(wanted) - 1] else None

    reporter = Reporter(reached=reached)
    monkeypatch.setattr(_reporter, "time", clock)
    monkeypatch.setattr(_reporter, "RETRY_FLUSHING", 0.25)
    monkeypatch.setattr(reporter, "_round", one_round)
    lane: Any = SimpleNamespace(has_settled=lambda goal: goal == 7 and len(wanted) >= settles_at)
    assert reporter._deliver_here([(lane, 7), (lane, 7)], 1.0) is done
    assert wanted == [{"wanted": True}] * rounds
    assert clock.slept == [_reporter.RETRY_FLUSHING] * sleeps


def test_what_is_kept_is_described(port: int, segments: list[Any]) -> None:
    reporter = Reporter()
    reporter.segments.begin = lambda: True
    reporter.segments.put(segment := make_segment(segments, "x" * 300))
    assert reporter._describe() == "segments: 0 sent, 1 kept, 0 dropped; logs: 0 sent, 0 kept, 0 dropped"
    described = _reporter._describe_segment(_reporter.encode_segment(segment))
    assert described == f"{'x' * 200!r} of trace {segment.related_traces[0]}, segment {segment.segment_id}"
    log = LogData(endpoint="y" * 300)
    assert _reporter._describe_log(log.SerializeToString()) == f"a line of {'y' * 200!r} in trace none"
    log.traceContext.traceId = "abc"
    assert _reporter._describe_log(log.SerializeToString()).endswith(" in trace abc")


def test_its_own_lines_are_not_delivered(port: int, segments: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter()
    reporter.logs.begin = lambda: True
    said: list[logging.LogRecord] = []

    class Copy(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record)
            reporter.put_log(LogData())

    logger, copy = logging.getLogger("skywalking_background"), Copy()
    logger.addHandler(copy)
    try:
        reporter._say("OAP at %s %r", "here", 1, exc_info=ValueError("x"))
        logger.warning("another's")
    finally:
        logger.removeHandler(copy)
    assert (said[0].getMessage(), said[0].levelname) == ("OAP at here 1", "WARNING")
    assert said[0].exc_info
    assert reporter.counts()["logs"] == Counts(0, 1, 0)


def test_a_handler_that_raises_stops_no_delivery(port: int, segments: list[Any]) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002
            raise ValueError

    logger, broken = logging.getLogger("skywalking_background"), Broken()
    logger.addHandler(broken)
    collector, reporter = Collector(), Reporter()
    try:
        reporter.segments.put(make_segment(segments))
        assert not reporter.flush(0.5)  # it would be said that OAP is away
        assert reporter._thread is not None
        with listening(collector, port):
            assert reporter.flush(10)
            assert reporter._thread.is_alive()
            # That OAP is away, that the flush has given up, that it is back.
            deadline = time.monotonic() + 5
            while sum(_faults.faults().values()) < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
    finally:
        logger.removeHandler(broken)
    assert len(collector.segments) == 1
    assert _faults.faults() == {"writing a log line": 3}
    _faults._seen.clear()


# What is said, and when: with a stand-in for the way to OAP, and without the thread.


class Scripted:
    """A transport that fails as it is told to, one time each."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.tried = 0

    def introduce(self, *_batch: object) -> None:
        self.tried += 1
        if self.errors:
            raise self.errors.pop(0)

    send_segments = send_logs = introduce

    def close(self) -> None: ...


class Still(Reporter):
    """A reporter without a thread."""

    def begin(self) -> bool:
        return True


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "agent_collector_backend_services", "oap:1")
    monkeypatch.setattr(config, "agent_trace_reporter_max_buffer_size", 7)
    monkeypatch.setattr(_reporter, "RETRY_MAX", 0.01)
    monkeypatch.setattr(_reporter, "RETRY_FLUSHING", 0.01)


KEPT = "they are kept and sent again"
NOTHING_DONE = "segments: 0 sent, 0 kept, 0 dropped; logs: 0 sent, 0 kept, 0 dropped"
ONE_KEPT = "segments: 0 sent, 1 kept, 0 dropped; logs: 0 sent, 0 kept, 0 dropped"


@pytest.mark.parametrize(
    ("error", "reached", "text"),
    [
        (UnreachableError("a"), False, "OAP at oap:1 is not reachable (a): up to 7 segments are kept until it is back"),
        (
            TimedOutError("no answer"),
            False,
            "OAP at oap:1 is connected but slow, a batch of segments got no answer: it is kept and sent again",
        ),
        (
            UnwelcomeError("b"),
            False,
            "OAP at oap:1 does not accept the segments of this process (b): they are kept: correct the setting",
        ),
        (RefusedError("c"), True, f"OAP at oap:1 refuses all segments (c): {KEPT}"),
        (OSError("d"), False, f"the segments can't be sent to OAP at oap:1, {KEPT}: OSError('d')"),
    ],
)
@pytest.mark.usefixtures("settings")
def test_a_trouble_is_said_once_and_so_is_its_end(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    reached: bool,
    text: str,
) -> None:
    events: list[Any] = []
    monkeypatch.setattr(_reporter, "event", lambda *what, **how: events.append((what, how)))
    reporter = Still(Scripted())
    for _ in range(2):
        reporter._failed(reporter.segments, error)
    assert (reporter.reached, reporter.delivers) == (reached, False)
    (record,) = caplog.records
    assert (record.getMessage(), bool(record.exc_info)) == (text, isinstance(error, OSError))
    caplog.clear()
    reporter._recovered(set())  # nothing was taken
    assert not caplog.records
    (about,) = reporter._troubles
    reporter._troubles[about] -= 90
    for _ in range(2):
        reporter._recovered({"segments"})
    assert [one.getMessage() for one in caplog.records] == [f"OAP at oap:1 is back after 90 s: {NOTHING_DONE}"]
    if isinstance(error, UnreachableError) and about == "OAP":
        ((what, how),) = events
        assert what == ("OapAway", "not reachable for 90 s")
        assert (how["failed"], round(how["seconds"])) == (True, 90)
    else:
        assert events == []


def test_what_a_flush_left_is_said_and_not_waited_for_again(
    settings: None, segments: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    transport = Scripted(*[UnreachableError("away")] * 3)
    reporter = Still(transport)
    assert reporter.flush()
    reporter.segments.put(make_segment(segments))
    assert not reporter.flush()  # never reached: one try
    assert (transport.tried, reporter.delivers) == (1, False)
    assert caplog.records[-1].getMessage() == f"OAP at oap:1 took nothing for 0.0 s: {ONE_KEPT}"
    reporter.flush_at_exit()
    assert transport.tried == 1
    reporter.segments.put(make_segment(segments))
    reporter.flush_at_exit()  # there is more than before
    assert transport.tried == 2
    assert reporter.flush(0.1) is False
    assert reporter.flush()
    assert (reporter.reached, reporter.delivers) == (True, True)
    assert reporter.counts()["segments"] == Counts(2, 0, 0)


def test_a_flush_wakes_the_thread_and_waits_for_an_oap_that_was_there(
    settings: None, segments: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reporter, "INTERVAL", 3_600.0)
    reporter = Reporter(Scripted(*[UnreachableError("away")] * 3), reached=True)
    reporter.segments.put(make_segment(segments))
    assert reporter.flush(8.0, first_contact=0.0)
    assert reporter.counts()["segments"] == Counts(1, 0, 0)
    with reporter._delivering:  # the thread says that OAP is back: not in the next test
        pass


def test_behind_kafka_it_is_another_address(settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Still(Scripted()).address == "oap:1"
    monkeypatch.setattr(config, "agent_protocol", "kafka")
    monkeypatch.setattr(config, "kafka_bootstrap_servers", "broker:9092")
    assert Still(Scripted()).address == "the other end of Kafka, broker:9092,"


def test_the_thread_goes_on_whatever_happens_in_a_round(
    settings: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_reporter, "INTERVAL", 0.01)
    rounds, firsts, over = [], [], threading.Event()

    def look() -> None:
        rounds.append(threading.current_thread())
        if len(rounds) <= 2:
            raise ZeroDivisionError
        if len(rounds) == 6:
            over.set()

    reporter = Reporter(Scripted(), on_round=look, on_first_round=lambda: firsts.append(len(rounds)))
    reporter._met = False
    assert reporter.begin()
    assert reporter.begin()
    assert over.wait(10)
    monkeypatch.setattr(_reporter, "INTERVAL", 3_600.0)
    (thread,) = set(rounds)
    assert (thread.name, thread.daemon, firsts) == ("skywalking-background-reporter", True, [1])
    first, *more = [one for one in caplog.records if one.thread == thread.ident]
    assert first.getMessage() == "the delivery to OAP at oap:1 failed, and is tried again"
    assert first.exc_info is not None
    assert [one.getMessage() for one in more] == [f"OAP at oap:1 is back after 0 s: {NOTHING_DONE}"]
