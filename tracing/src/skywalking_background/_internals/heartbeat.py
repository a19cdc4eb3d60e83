"""How the agent's own threads (heartbeat, meters, profiles) talk to OAP: never through gRPC's library, see `_http2`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skywalking import config
from skywalking.agent.protocol import Protocol
from skywalking.agent.protocol.grpc import GrpcProtocol
from skywalking.client import ServiceManagementClient
from skywalking.client.grpc import (
    GrpcLogDataReportService,
    GrpcMeterReportService,
    GrpcProfileTaskChannelService,
    GrpcServiceManagementClient,
    GrpcTraceSegmentReportService,
)

from skywalking_background._failures import UnreachableError
from skywalking_background._grpc import Channel
from skywalking_background._http import HttpTransport

if TYPE_CHECKING:
    from queue import Queue


class OverGrpc(GrpcProtocol):  # type: ignore[misc]  # the agent has no types
    """The agent's own, with our channel."""

    def __init__(self) -> None:
        self.properties_sent = False
        self.state = None
        self.channel = Channel(config.agent_collector_backend_services)
        self.service_management = GrpcServiceManagementClient(self.channel)
        self.traces_reporter = GrpcTraceSegmentReportService(self.channel)
        self.profile_channel = GrpcProfileTaskChannelService(self.channel)
        self.log_reporter = GrpcLogDataReportService(self.channel)
        self.meter_reporter = GrpcMeterReportService(self.channel)

    def close(self) -> None:
        """Let go of the connection."""
        self.channel.close()


class _HttpManagement(ServiceManagementClient):  # type: ignore[misc]  # the agent has no types
    def __init__(self, transport: HttpTransport) -> None:
        super().__init__()
        self.transport = transport

    def send_instance_props(self) -> None:
        properties = self.get_instance_properties()
        self.transport.post("/v3/management/reportProperties", {**self._who(), "properties": properties})

    def send_heart_beat(self) -> None:
        self.refresh_instance_props()
        self.transport.post("/v3/management/keepAlive", self._who())

    def _who(self) -> dict[str, str]:
        return {"service": config.agent_name, "serviceInstance": config.agent_instance_name}


class _WithoutMore(Protocol):  # type: ignore[misc]  # the agent has no types
    """The agent's calls that our lanes make superfluous, or that only gRPC has."""

    def report_segment(self, queue: Queue[Any], block: bool = True) -> None: ...
    def report_log(self, queue: Queue[Any], block: bool = True) -> None: ...
    def report_meter(self, queue: Queue[Any], block: bool = True) -> None: ...
    def report_snapshot(self, queue: Queue[Any], block: bool = True) -> None: ...
    def query_profile_commands(self) -> None: ...
    def notify_profile_task_finish(self, task: object) -> None: ...
    def close(self) -> None: ...


class OverHttp(_WithoutMore):
    """Heartbeats alone: OAP takes no meters over HTTP from Python, and the agent turns them off."""

    def __init__(self) -> None:
        self.transport = HttpTransport(config.agent_collector_backend_services)
        self.management = _HttpManagement(self.transport)
        self.properties_sent = False

    def heartbeat(self) -> None:
        if not self.properties_sent:
            self.management.send_instance_props()
            self.properties_sent = True
        self.management.send_heart_beat()

    def close(self) -> None:
        """Let go of the connection."""
        self.transport.close()


class OverKafka(_WithoutMore):
    """The agent's own, made when it is wanted: it looks for Kafka at once, and fails when that is away."""

    def __init__(self) -> None:
        self._made: Any = None

    def heartbeat(self) -> None:
        self._call("heartbeat")

    def report_meter(self, queue: Queue[Any], block: bool = True) -> None:
        self._call("report_meter", queue, block)

    def _call(self, name: str, *arguments: object) -> None:
        from kafka.errors import KafkaError  # noqa: PLC0415  # a package that only this one needs

        try:
            if self._made is None:
                from skywalking.agent.protocol.kafka import KafkaProtocol  # noqa: PLC0415

                self._made = KafkaProtocol()
            getattr(self._made, name)(*arguments)
        except KafkaError as error:
            raise UnreachableError(str(error)) from error
