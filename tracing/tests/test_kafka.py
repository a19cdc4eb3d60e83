"""What travels through Kafka, and what its client's errors mean: with a stand-in for the client."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from skywalking import config
from skywalking.protocol.language_agent.Tracing_pb2 import SegmentCollection, SegmentObject
from skywalking.protocol.logging.Logging_pb2 import LogData, TraceContext
from skywalking.protocol.management.Management_pb2 import InstancePingPkg
from skywalking_background import _kafka
from skywalking_background._failures import DeliveryError, RefusedError, TimedOutError, UnreachableError
from skywalking_background._kafka import KafkaTransport, require_kafka
from skywalking_background._reporter import OWN_THREADS


class KafkaError(Exception): ...


class NoBrokersAvailable(KafkaError): ...  # noqa: N818  # its name there


class KafkaTimeoutError(KafkaError): ...


class MessageSizeTooLargeError(KafkaError): ...


class Producer:
    made: list[Producer]
    fails: Exception | None = None

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.sent: list[tuple[str, bytes, bytes]] = []
        self.waits: list[float] = []
        self.made.append(self)

    def send(self, *, topic: str, key: bytes, value: bytes) -> Producer:
        self.sent.append((topic, key, value))
        return self  # stands for the message's future too

    def get(self, timeout: float) -> None:
        self.waits.append(timeout)
        if self.fails is not None:
            raise self.fails


@pytest.fixture
def producers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The producers that were made."""
    package, errors = ModuleType("kafka"), ModuleType("kafka.errors")

    class Own(Producer):
        made: list[Producer] = []  # noqa: RUF012  # one test's

    package.KafkaProducer, package.errors = Own, errors  # type: ignore[attr-defined]
    for kind in (KafkaError, NoBrokersAvailable, KafkaTimeoutError, MessageSizeTooLargeError):
        setattr(errors, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "kafka", package)
    monkeypatch.setitem(sys.modules, "kafka.errors", errors)
    monkeypatch.setattr(_kafka, "kafka_settings", lambda: {"bootstrap_servers": "broker:9092"})
    monkeypatch.setattr(config, "agent_name", "shop")
    monkeypatch.setattr(config, "agent_instance_name", "one")
    return Own.made


def test_a_process_introduces_itself_in_the_topic_of_management(producers: list[Any]) -> None:
    KafkaTransport().introduce()
    (producer,) = producers
    assert producer.settings == {"bootstrap_servers": "broker:9092"}
    ((topic, key, value),) = producer.sent
    assert (topic, key) == (config.kafka_topic_management, b"one")
    assert InstancePingPkg.FromString(value) == InstancePingPkg(service="shop", serviceInstance="one")


def test_each_segment_is_a_message_and_each_is_waited_for(producers: list[Any]) -> None:
    segments = [SegmentObject(traceId="t", traceSegmentId=name) for name in ("a", "b", "c")]
    batch = [
        SegmentCollection(segments=segments[:2]).SerializeToString(),
        SegmentCollection(segments=segments[2:]).SerializeToString(),
    ]
    transport = KafkaTransport()
    transport.send_segments(batch)
    transport.send_segments([])
    (producer,) = producers
    assert [(topic, key) for topic, key, _ in producer.sent] == [
        (config.kafka_topic_segment, key) for key in (b"a", b"b", b"c")
    ]
    assert [SegmentObject.FromString(value) for _, _, value in producer.sent] == segments
    assert producer.waits == [10.0] * 3


def test_each_log_line_is_a_message(producers: list[Any]) -> None:
    logs = [LogData(service="shop", traceContext=TraceContext(traceSegmentId=name)) for name in ("a", "")]
    KafkaTransport().send_logs([log.SerializeToString() for log in logs])
    assert [(topic, key) for topic, key, _ in producers[0].sent] == [
        (config.kafka_topic_log, b"a"),
        (config.kafka_topic_log, b""),
    ]
    assert [LogData.FromString(value) for _, _, value in producers[0].sent] == logs


def test_meters_are_one_message(producers: list[Any]) -> None:
    KafkaTransport().send_meters(b"meters")
    assert producers[0].sent == [(config.kafka_topic_meter, b"one", b"meters")]


def test_after_a_close_there_is_a_producer_of_its_own(producers: list[Any]) -> None:
    transport = KafkaTransport()
    transport.introduce()
    transport.introduce()
    assert len(producers) == 1
    transport.close()
    transport.introduce()
    assert len(producers) == 2


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (MessageSizeTooLargeError("2 MB"), RefusedError, "Kafka takes no message of that size, 2 MB"),
        (KafkaTimeoutError("10 s"), TimedOutError, "Kafka did not answer, 10 s"),
        (NoBrokersAvailable("none"), UnreachableError, "Kafka at broker:9092: none"),
    ],
)
def test_what_the_clients_errors_mean(
    producers: list[Any], monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[DeliveryError], text: str
) -> None:
    monkeypatch.setattr(config, "kafka_bootstrap_servers", "broker:9092")
    monkeypatch.setattr(Producer, "fails", error)
    with pytest.raises(kind) as caught:
        KafkaTransport().introduce()
    assert str(caught.value) == text
    assert type(caught.value) is kind


def test_without_the_client_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kafka.importlib.util, "find_spec", lambda name: None if name == "kafka" else object())
    with pytest.raises(RuntimeError) as caught:
        require_kafka()
    assert str(caught.value) == "SW_AGENT_PROTOCOL=kafka needs the package kafka-python: pip install kafka-python"


def test_with_it_all_is_imported_before_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []
    monkeypatch.setattr(_kafka.importlib.util, "find_spec", lambda name: object() if name == "kafka" else None)
    monkeypatch.setattr(_kafka.importlib, "import_module", imported.append)
    settings: dict[str, object] = {}
    monkeypatch.setattr(_kafka, "kafka_settings", lambda: settings)
    require_kafka()
    assert imported == ["kafka.errors", "skywalking.agent.protocol.kafka"]
    assert str(settings["client_id"]).startswith(OWN_THREADS)  # after which the client names its threads
    settings["client_id"] = "theirs"
    require_kafka()
    assert settings == {"client_id": "theirs"}
