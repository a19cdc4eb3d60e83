"""What gRPC's generated stubs want of a channel, over our own connection."""

from __future__ import annotations

import struct
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from skywalking.protocol.management.Management_pb2 import InstancePingPkg

from skywalking_background._failures import UnwelcomeError
from skywalking_background._http2 import Http2Connection, StaleConnectionError
from skywalking_background._internals import config
from skywalking_background._network import connect, parse_addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CALL_TIMEOUT: Final = 10.0
"""Seconds that OAP may take for one call."""
_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")  # those that gRPC looks at, in its order
_KEEP_ALIVE: Final = "/skywalking.v3.ManagementService/keepAlive"
_COLLECT: Final = "/skywalking.v3.TraceSegmentReportService/collectInSync"
_COLLECT_LOGS: Final = "/skywalking.v3.LogReportService/collect"
_COLLECT_EVENTS: Final = "/skywalking.v3.EventService/collect"
_COLLECT_METERS: Final = "/skywalking.v3.MeterReportService/collectBatch"


def frame(message: bytes) -> bytes:
    """Prefix a message as gRPC does: not compressed, and how many bytes it has."""
    return struct.pack(">BI", 0, len(message)) + message


class Channel:
    """Calls to OAP, one after the other, over a connection that is made when it is wanted."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.RLock()
        self._connection: Http2Connection | None = None

    def call(self, path: str, messages: Iterable[bytes], timeout: float | None = None) -> bytes:
        """Send messages that have their prefixes already; return the answer.

        Raises:
            DeliveryError: there is none.
        """
        metadata = [("authentication", config.agent_authentication)] if config.agent_authentication else []
        with self._lock:
            messages = list(messages)
            deadline = time.monotonic() + (CALL_TIMEOUT if timeout is None else timeout)
            while True:
                connection, fresh = self._connect(deadline)
                try:
                    return connection.call(path, messages, metadata, max(0.001, deadline - time.monotonic()))
                except StaleConnectionError:
                    if fresh:
                        raise
                finally:
                    if not connection.usable:
                        self.close()

    def _connect(self, deadline: float) -> tuple[Http2Connection, bool]:
        if self._connection is not None:
            return self._connection, False
        try:
            addresses = parse_addresses(self._address)
        except ValueError as error:
            raise UnwelcomeError(str(error)) from error
        tls = bool(config.agent_force_tls)
        connected = connect(addresses, proxies=_PROXIES, tls=tls, alpn="h2", deadline=deadline)
        self._connection = Http2Connection(connected, "https" if tls else "http", str(addresses[0]))
        return self._connection, True

    def close(self) -> None:
        """Close the connection; the next call makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # What generated stubs ask for. The agent's own calls get the messages' objects and one answer each.

    def unary_unary(
        self,
        path: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        **_options: object,
    ) -> Callable[..., Any]:
        def call(request: Any, timeout: float | None = None) -> Any:  # noqa: ANN401  # as in any stub
            return response_deserializer(self.call(path, [frame(request_serializer(request))], timeout))

        return call

    def stream_unary(
        self,
        path: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        **_options: object,
    ) -> Callable[..., Any]:
        def call(requests: Iterable[Any], timeout: float | None = None) -> Any:  # noqa: ANN401  # as in any stub
            # All of them first: the agent waits for the next one for up to a second, with the call open.
            messages = [frame(request_serializer(request)) for request in requests]
            return response_deserializer(self.call(path, messages, timeout))

        return call

    def stream_stream(self, path: str, **_options: object) -> Callable[..., Any]:
        def call(*_arguments: object) -> Any:  # noqa: ANN401  # as in any stub
            raise NotImplementedError(path)

        return call

    unary_stream = stream_stream

    def subscribe(self, *_arguments: object, **_options: object) -> None:
        """Do nothing: the agent wants to know about the connection only to log it."""

    unsubscribe = subscribe


class GrpcTransport:
    """Segments, logs and meters over gRPC."""

    def __init__(self, address: str) -> None:
        self._channel = Channel(address)

    def introduce(self) -> None:
        """Send a first heartbeat."""
        ping = InstancePingPkg(service=config.agent_name, serviceInstance=config.agent_instance_name)
        self._channel.call(_KEEP_ALIVE, [frame(ping.SerializeToString())])

    def send_segments(self, batch: list[bytes]) -> None:
        """Send collections of segments as one: put one after the other they are a larger collection."""
        self._channel.call(_COLLECT, [frame(b"".join(batch))])

    def send_logs(self, batch: list[bytes]) -> None:
        """Send log lines as one stream."""
        self._channel.call(_COLLECT_LOGS, [b"".join(map(frame, batch))])

    def send_events(self, batch: list[bytes]) -> None:
        """Send events as one stream."""
        self._channel.call(_COLLECT_EVENTS, [b"".join(map(frame, batch))])

    def send_meters(self, collection: bytes) -> None:
        """Send a `MeterDataCollection`."""
        self._channel.call(_COLLECT_METERS, [frame(collection)])

    def close(self) -> None:
        """Close the connection; the next batch makes a new one."""
        self._channel.close()
