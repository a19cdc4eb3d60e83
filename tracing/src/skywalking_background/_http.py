"""Delivery over OAP's HTTP port, in JSON: for whoever can't get gRPC through. It costs several times as much CPU."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any, Final

from google.protobuf import json_format
from skywalking.protocol.event.Event_pb2 import Event
from skywalking.protocol.language_agent.Tracing_pb2 import SegmentCollection
from skywalking.protocol.logging.Logging_pb2 import LogData

from skywalking_background._failures import RefusedError, TimedOutError, UnreachableError, UnwelcomeError
from skywalking_background._internals import config
from skywalking_background._network import Address, connect, find_proxy, parse_addresses

CALL_TIMEOUT: Final = 10.0
"""Seconds that OAP may take for one call."""
_NO_OAP: Final = "SW_AGENT_PROTOCOL=http wants OAP's HTTP port, by default 12800"
_TRY_LATER: Final = {429, 502, 503, 504}  # what gateways answer when there is nobody behind them
_UNWELCOME: Final = {401, 403, 404, 405, 407}
_TEXT_MAX: Final = 10_000  # bytes of an answer
_DONE: Final = range(200, 300)


class _Connection(http.client.HTTPConnection):
    """A connection that is made as all of ours are."""

    def __init__(self, address: Address) -> None:
        super().__init__(address.host, address.port)
        self._address = address

    def connect(self) -> None:
        tls = bool(config.agent_force_tls)
        # A proxy passes requests on; only what is encrypted needs a tunnel.
        self.sock = connect(
            [self._address], proxies=_proxies(), tunnel=tls, tls=tls, deadline=time.monotonic() + CALL_TIMEOUT
        )


def _proxies() -> tuple[str, ...]:
    return ("https", "https_proxy", "all") if config.agent_force_tls else ("http", "http_proxy", "all")


class HttpTransport:
    """Segments, logs and heartbeats over HTTP."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection: _Connection | None = None

    def introduce(self) -> None:
        """Send a first heartbeat."""
        self.post(
            "/v3/management/keepAlive",
            {"service": config.agent_name, "serviceInstance": config.agent_instance_name},
        )

    def send_segments(self, batch: list[bytes]) -> None:
        """Send collections of segments as one list."""
        segments = SegmentCollection.FromString(b"".join(batch)).segments
        self.post("/v3/segments", [json_format.MessageToDict(segment) for segment in segments])

    def send_logs(self, batch: list[bytes]) -> None:
        """Send log lines as one list."""
        self.post("/v3/logs", [json_format.MessageToDict(LogData.FromString(log)) for log in batch])

    def send_events(self, batch: list[bytes]) -> None:
        """Send events as one list."""
        self.post("/v3/events", [json_format.MessageToDict(Event.FromString(event)) for event in batch])

    def close(self) -> None:
        """Close the connection; the next batch makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.sock is not None:
            connection.sock.close()

    def post(self, path: str, content: Any) -> None:  # noqa: ANN401  # whatever JSON can say
        """Send JSON to OAP and wait until it has taken it.

        Raises:
            DeliveryError: it has not.
        """
        body = json.dumps(content).encode()
        fresh = self._connection is None
        try:
            self._post(path, body)
        except UnreachableError:
            if fresh:
                raise
            self._post(path, body)  # the other side had closed what was idle

    def _post(self, path: str, body: bytes) -> None:
        try:
            status, text = self._exchange(path, body)
        except UnreachableError:
            self.close()
            raise
        except TimeoutError:
            self.close()
            raise TimedOutError(f"no answer within {CALL_TIMEOUT:.0f} s") from None
        except (http.client.RemoteDisconnected, OSError) as error:
            self.close()
            raise UnreachableError(f"the connection was lost, {error}") from error
        except http.client.HTTPException as error:
            self.close()
            raise UnwelcomeError(f"what listens there does not speak HTTP: {_NO_OAP}") from error
        self._judge(status, text)

    def _exchange(self, path: str, body: bytes) -> tuple[int, str]:
        try:
            address = parse_addresses(self._address)[0]
        except ValueError as error:
            raise UnwelcomeError(str(error)) from error
        connection = self._connection = self._connection or _Connection(address)
        headers = {"Content-Type": "application/json"}
        if config.agent_authentication:
            headers["authentication"] = config.agent_authentication
        through_proxy = not config.agent_force_tls and find_proxy(address, _proxies())
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(CALL_TIMEOUT)
        connection.request("POST", f"http://{address}{path}" if through_proxy else path, body, headers)
        response = connection.getresponse()
        text = response.read(_TEXT_MAX).decode("utf-8", "replace")
        if response.will_close or not response.isclosed():
            self.close()
        return response.status, text

    def _judge(self, status: int, text: str) -> None:
        if status in _DONE:
            return
        cause = f"HTTP status {status}: {' '.join(text.split())[:200]}"
        if status in _TRY_LATER:
            raise UnreachableError(cause)
        if status in _UNWELCOME:
            raise UnwelcomeError(f"{cause} ({_NO_OAP})")
        raise RefusedError(cause)
