"""`SW_AGENT_PROTOCOL`: each of its values works, or is refused in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from skywalking import config
from skywalking.protocol.language_agent.Tracing_pb2 import SegmentObject
from skywalking.protocol.logging.Logging_pb2 import LogData
from skywalking_background import _reporter, background_span
from skywalking_background._http import HttpTransport
from skywalking_background._reporter import Counts, Reporter

if TYPE_CHECKING:
    from collections.abc import Iterator

FAKE_KAFKA = """
import sys, types
sent, away = [], [False]
class KafkaError(Exception): pass
class NoBrokersAvailable(KafkaError): pass
class KafkaTimeoutError(KafkaError): pass
class MessageSizeTooLargeError(KafkaError): pass
class Future:
    def __init__(self, error=None): self.error = error
    def get(self, timeout):
        if self.error: raise self.error
class KafkaProducer:
    def __init__(self, **settings):
        if away[0]: raise NoBrokersAvailable("NoBrokersAvailable")
    def send(self, topic, key, value):
        if len(value) > 1_000_000: return Future(MessageSizeTooLargeError("too large"))
        sent.append((topic, key, value)); return Future()
kafka = types.ModuleType("kafka"); errors = types.ModuleType("kafka.errors")
kafka.__path__ = []; kafka.__spec__ = types.SimpleNamespace(name="kafka")
kafka.KafkaProducer = KafkaProducer; kafka.errors = errors; kafka.KafkaConsumer = object
for kind in (KafkaError, NoBrokersAvailable, KafkaTimeoutError, MessageSizeTooLargeError):
    setattr(errors, kind.__name__, kind)
sys.modules["kafka"], sys.modules["kafka.errors"] = kafka, errors
import skywalking_background as sw
"""


def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"SW_AGENT_COLLECTOR_BACKEND_SERVICES": "127.0.0.1:9", "SW_AGENT_DISABLE_PLUGINS": "sw_kafka"}
    environment |= variables
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"SW_AGENT_PROTOCOL": "grcp"}, "SW_AGENT_PROTOCOL='grcp' is none of grpc, http and kafka"),
        ({"SW_AGENT_PROTOCOL": "Kafka"}, "SW_AGENT_PROTOCOL=kafka needs the package kafka-python: pip install"),
    ],
)
def test_what_can_not_work_is_refused_at_the_start(variables: dict[str, str], sentence: str) -> None:
    done = run("import skywalking_background as sw; sw.start()", **variables)
    assert done.returncode == 1
    assert sentence in done.stderr.splitlines()[-1]


def test_the_case_does_not_matter() -> None:
    program = "import skywalking_background as sw; sw.start(); print(sw._agent._reporter.transport)"
    assert "HttpTransport" in run(program, SW_AGENT_PROTOCOL="HTTP").stdout
    assert "GrpcTransport" in run(program, SW_AGENT_PROTOCOL="gRPC").stdout


def test_kafka_gets_every_segment_and_what_it_will_not_take_is_counted() -> None:
    program = FAKE_KAFKA + (
        "sw.start(); away[0] = True\n"
        "for n in range(3):\n"
        "    with sw.background_span('task', tags={str(i): 'x' * 4_000 for i in range(500 if n == 1 else 1)}): pass\n"
        "assert not sw.flush(1); print(sw.counts()['segments'])\n"
        "away[0] = False\n"
        "import time\n"
        "for _ in range(100):\n"
        "    sw.flush(1)\n"
        "    if sw.counts()['segments'].queued == 0: break\n"
        "    time.sleep(0.05)\n"
        "print(sw.counts()['segments']); print([topic for topic, _, _ in sent])\n"
        "from skywalking.protocol.language_agent.Tracing_pb2 import SegmentObject\n"
        "print([SegmentObject.FromString(v).spans[0].operationName for t, _, v in sent if t.endswith('segments')])\n"
    )
    done = run(program, SW_AGENT_PROTOCOL="kafka", SW_AGENT_METER_REPORTER_ACTIVE="false")
    assert done.returncode == 0, done.stderr
    away, counts, topics, names = done.stdout.splitlines()
    assert away == "Counts(sent=0, queued=3, dropped=0)"
    assert counts == "Counts(sent=2, queued=0, dropped=1)"
    assert "skywalking-managements" in topics  # the instance itself
    assert names == "['task', 'task']"
    assert "Kafka, localhost:9092, is not reachable (Kafka at localhost:9092: NoBrokersAvailable)" in done.stderr
    assert "will never take one of the segments" in done.stderr


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, Any]]
    answers: list[int]

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        poison = self.path == "/v3/segments" and any(s["spans"][0]["operationName"] == "poison" for s in content)
        status = self.answers.pop(0) if self.answers else 500 if poison else 200
        if status == 200:
            self.asked.append((self.path, content))
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def http_oap(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Handler]]:
    class Own(Handler):
        pass

    Own.asked, Own.answers = [], []
    monkeypatch.setattr(_reporter, "RETRY_FLUSHING", 0.05)
    monkeypatch.setattr(_reporter, "RETRY_ASIDE_FLUSHING", 0.1)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(config, "agent_collector_backend_services", f"127.0.0.1:{server.server_port}")
    yield Own
    server.shutdown()


def finish(reporter: Reporter, segments: list[Any], name: str) -> None:
    with background_span(name):
        pass
    reporter.segments.put(segments.pop())


def test_http_delivers_and_halves_as_grpc_does(
    http_oap: type[Handler], segments: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    reporter = Reporter(HttpTransport(config.agent_collector_backend_services))
    for name in ("one", "poison", "two"):
        finish(reporter, segments, name)
    reporter.put_log(LogData(service="shop"))
    reporter.flush()
    finish(reporter, segments, "three")
    assert reporter.flush() or reporter.flush()
    assert reporter.counts() == {"segments": Counts(3, 0, 1), "logs": Counts(1, 0, 0)}
    found = [one for path, content in http_oap.asked if path == "/v3/segments" for one in content]
    assert sorted(one["spans"][0]["operationName"] for one in found) == ["one", "three", "two"]
    assert {path for path, _ in http_oap.asked} == {"/v3/segments", "/v3/logs", "/v3/management/keepAlive"}
    assert "will never take one of the segments, it is dropped (HTTP status 500" in caplog.text
    assert SegmentObject(traceId=found[0]["traceId"]).traceId


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (503, "is not reachable (HTTP status 503"),
        (404, "does not accept the segments of this process (HTTP status 404: {} (SW_AGENT_PROTOCOL=http wants"),
        (401, "does not accept the segments of this process (HTTP status 401"),
    ],
)
def test_http_answers_are_understood(
    http_oap: type[Handler], segments: list[Any], caplog: pytest.LogCaptureFixture, status: int, line: str
) -> None:
    http_oap.answers[:] = [200] + [status] * 2
    reporter = Reporter(HttpTransport(config.agent_collector_backend_services))
    finish(reporter, segments, "one")
    assert reporter.flush()
    assert line in caplog.text
    assert reporter.counts()["segments"] == Counts(1, 0, 0)
