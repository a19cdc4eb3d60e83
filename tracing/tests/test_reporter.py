"""The reporter against a real gRPC server that records what it gets."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from skywalking import config
from skywalking.protocol.common.Command_pb2 import Commands
from skywalking.protocol.language_agent import Tracing_pb2_grpc as tracing
from skywalking.protocol.logging import Logging_pb2_grpc as logging_grpc
from skywalking.protocol.logging.Logging_pb2 import LogData
from skywalking_background import _reporter, background_span
from skywalking_background._reporter import Counts, Reporter

if TYPE_CHECKING:
    from collections.abc import Iterator


class Collector(tracing.TraceSegmentReportServiceServicer, logging_grpc.LogReportServiceServicer):
    def __init__(self) -> None:
        self.segments: list[Any] = []
        self.logs: list[Any] = []

    def collectInSync(self, request: Any, _context: Any) -> Commands:  # noqa: N802
        self.segments.extend(request.segments)
        return Commands()

    def collect(self, request: Any, _context: Any) -> Commands:
        self.logs.extend(request)
        return Commands()


@contextmanager
def listening(collector: Collector, port: int) -> Iterator[None]:
    server = grpc.server(ThreadPoolExecutor(2))
    tracing.add_TraceSegmentReportServiceServicer_to_server(collector, server)
    logging_grpc.add_LogReportServiceServicer_to_server(collector, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield
    finally:
        server.stop(0).wait()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    monkeypatch.setattr(config, "agent_collector_backend_services", f"127.0.0.1:{number}")
    monkeypatch.setattr(config, "agent_trace_reporter_max_buffer_size", 20)
    monkeypatch.setattr(_reporter, "RETRY_MAX", 0.2)
    return number


def make_segment(segments: list[Any]) -> Any:
    with background_span("task", tags={"key": "value"}):
        pass
    return segments.pop()


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
    assert not reporter.flush(1.5)
    with listening(collector, port):
        assert reporter.flush(10)
        deadline = time.monotonic() + 5
        while caplog.text.count("is back after") < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert len({message.traceSegmentId for message in collector.segments}) == 11
    # Once for each time it was away, however often it was tried.
    assert caplog.text.count("is not reachable") == 2
    assert caplog.text.count("is back after") == 2


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
