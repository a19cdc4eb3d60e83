"""A real gRPC server in OAP's place, which records what it gets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from skywalking.protocol.common.Command_pb2 import Commands
from skywalking.protocol.language_agent import Tracing_pb2_grpc as tracing
from skywalking.protocol.logging import Logging_pb2_grpc as logging_grpc
from skywalking.protocol.management import Management_pb2_grpc as management

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Collector(
    tracing.TraceSegmentReportServiceServicer,
    logging_grpc.LogReportServiceServicer,
    management.ManagementServiceServicer,
):
    """An OAP; `judge` may refuse what it gets, by way of the call's context, or take its time."""

    def __init__(self, judge: Callable[[Any, Any], object] = lambda _segments, _context: None) -> None:
        self.segments: list[Any] = []
        self.logs: list[Any] = []
        self.instances: list[str] = []
        self.sizes: list[tuple[int, int]] = []  # of each call: items and bytes
        self.judge = judge

    def collectInSync(self, request: Any, context: Any) -> Commands:  # noqa: N802
        self.sizes.append((len(request.segments), request.ByteSize()))
        self.judge(request.segments, context)
        if context.is_active():
            self.segments.extend(request.segments)
        return Commands()

    def collect(self, request: Any, context: Any) -> Commands:
        found = list(request)
        self.judge(found, context)
        self.logs.extend(found)
        return Commands()

    def keepAlive(self, request: Any, _context: Any) -> Commands:  # noqa: N802
        self.instances.append(request.serviceInstance)
        return Commands()


@contextmanager
def listening(collector: Collector, port: int, credentials: grpc.ServerCredentials | None = None) -> Iterator[int]:
    """Let it listen at a port, or at any (0), which is yielded."""
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", 10_000_000)])
    tracing.add_TraceSegmentReportServiceServicer_to_server(collector, server)
    logging_grpc.add_LogReportServiceServicer_to_server(collector, server)
    management.add_ManagementServiceServicer_to_server(collector, server)
    if credentials is None:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()
