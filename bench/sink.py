"""The receiver that all variants report to: it counts SkyWalking's segments and OTLP's spans, and keeps none."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from skywalking.protocol.common.Command_pb2 import Commands
from skywalking.protocol.language_agent import Tracing_pb2_grpc as tracing

if TYPE_CHECKING:
    from collections.abc import Callable


class Segments(tracing.TraceSegmentReportServiceServicer):
    """SkyWalking's receiver: a stream of segments (the agent's way), or a batch of them (ours)."""

    def __init__(self, count: Callable[[int], None]) -> None:
        self.count = count

    def collect(self, request_iterator: Any, _context: grpc.ServicerContext) -> Commands:  # noqa: ANN401
        """Take a stream."""
        for segment in request_iterator:
            self.count(len(segment.spans))
        return Commands()

    def collectInSync(self, request: Any, _context: grpc.ServicerContext) -> Commands:  # noqa: ANN401, N802
        """Take a batch."""
        for segment in request.segments:
            self.count(len(segment.spans))
        return Commands()


class Spans(otlp_grpc.TraceServiceServicer):
    """OTLP's receiver."""

    def __init__(self, count: Callable[[int], None]) -> None:
        self.count = count

    def Export(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: ANN401, N802
        """Take a batch."""
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.count(len(scope.spans))
        return otlp.ExportTraceServiceResponse()


class Anything(grpc.GenericRpcHandler):
    """Answers heartbeats, meters and properties, so that no client spends time on an error."""

    def service(self, _call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Answer any other method with an empty message."""
        return grpc.stream_unary_rpc_method_handler(lambda requests, _context: b"".join(b"" for _ in requests))


def main() -> None:
    """Print the port; then the count of spans for each line that is read."""
    spans = 0

    def count(more: int) -> None:
        nonlocal spans
        spans += more

    server = grpc.server(ThreadPoolExecutor(4))
    tracing.add_TraceSegmentReportServiceServicer_to_server(Segments(count), server)
    otlp_grpc.add_TraceServiceServicer_to_server(Spans(count), server)
    server.add_generic_rpc_handlers((Anything(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    for _ in sys.stdin:
        print(json.dumps(spans), flush=True)


if __name__ == "__main__":
    main()
