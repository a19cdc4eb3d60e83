"""Delivery through Kafka, of which OAP fetches: the package `kafka-python` talks to it."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Final

from skywalking.protocol.language_agent.Tracing_pb2 import SegmentCollection
from skywalking.protocol.logging.Logging_pb2 import LogData
from skywalking.protocol.management.Management_pb2 import InstancePingPkg

from skywalking_background._failures import RefusedError, TimedOutError, UnreachableError
from skywalking_background._internals import config, kafka_settings
from skywalking_background._reporter import OWN_THREADS

CALL_TIMEOUT: Final = 10.0
"""Seconds that Kafka may take for one batch."""


def require_kafka() -> None:
    """Check that there is a client.

    Raises:
        RuntimeError: there is none.
    """
    if importlib.util.find_spec("kafka") is None:
        message = "SW_AGENT_PROTOCOL=kafka needs the package kafka-python: pip install kafka-python"
        raise RuntimeError(message)
    # Now: a process that is forked while a thread imports a module has half of that module for good.
    importlib.import_module("kafka.errors")
    importlib.import_module("skywalking.agent.protocol.kafka")
    # The client logs in a thread that is named after it: what it says of the delivery is not to be delivered.
    kafka_settings().setdefault("client_id", f"{OWN_THREADS}kafka")


class KafkaTransport:
    """Segments, logs and meters through Kafka, each acknowledged by it. Whether OAP fetches them is not known here."""

    def __init__(self) -> None:
        self._producer: Any = None

    def introduce(self) -> None:
        """Send a first heartbeat."""
        ping = InstancePingPkg(service=config.agent_name, serviceInstance=config.agent_instance_name)
        self._send(config.kafka_topic_management, [(config.agent_instance_name, ping.SerializeToString())])

    def send_segments(self, batch: list[bytes]) -> None:
        """Send each segment as a message of its own, which is how OAP wants them."""
        segments = SegmentCollection.FromString(b"".join(batch)).segments
        self._send(config.kafka_topic_segment, [(one.traceSegmentId, one.SerializeToString()) for one in segments])

    def send_logs(self, batch: list[bytes]) -> None:
        """Send each log line as a message of its own."""
        keys = [LogData.FromString(log).traceContext.traceSegmentId for log in batch]
        self._send(config.kafka_topic_log, list(zip(keys, batch, strict=True)))

    def send_meters(self, collection: bytes) -> None:
        """Send a `MeterDataCollection` as one message."""
        self._send(config.kafka_topic_meter, [(config.agent_instance_name, collection)])

    def close(self) -> None:
        """Leave the producer alone: it belongs to a parent, whose threads are not here."""
        self._producer = None

    def _send(self, topic: str, messages: list[tuple[str, bytes]]) -> None:
        # Packages that only this one needs; `require_kafka` has loaded them.
        from kafka import KafkaProducer, errors  # noqa: PLC0415

        kafka_configs = kafka_settings()

        try:
            if self._producer is None:
                self._producer = KafkaProducer(**kafka_configs)
            waiting = [self._producer.send(topic=topic, key=key.encode(), value=value) for key, value in messages]
            for one in waiting:
                one.get(timeout=CALL_TIMEOUT)
        except errors.MessageSizeTooLargeError as error:
            raise RefusedError(f"Kafka takes no message of that size, {error}") from error
        except errors.KafkaTimeoutError as error:
            raise TimedOutError(f"Kafka did not answer, {error}") from error
        except errors.KafkaError as error:
            raise UnreachableError(f"Kafka at {config.kafka_bootstrap_servers}: {error}") from error
