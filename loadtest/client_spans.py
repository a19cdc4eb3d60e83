"""`--trace-client`: every request is an Exit span of Locust's own, and the service's spans hang below it.

The spans are sent in batches to OAP's HTTP receiver, as the agent's threads and gRPC do not work with gevent. With the
header alone the root of each trace would never arrive.
"""

from __future__ import annotations

import base64
import logging
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from uuid import uuid4

import gevent
import requests
from locust import events

if TYPE_CHECKING:
    from locust.env import Environment

logger = logging.getLogger(__name__)

SERVICE = "locust"
INSTANCE = f"{os.getpid()}@{socket.gethostname()}"
HTTP_CLIENT = 2
"""SkyWalking's number of the component `HttpClient`."""
BATCH_SEGMENTS = 500
SEND_SECONDS = 1.0
"""Time between two deliveries."""
OAP_TIMEOUT_SECONDS = 10.0
"""How long OAP may take for a batch, and for all that is left at the end."""

_waiting: list[dict[str, Any]] = []


class Span:
    """An open request, from Locust's point of view."""

    def __init__(self, name: str, peer: str) -> None:
        self.name, self.peer = name, peer
        self.trace_id, self.segment_id = uuid4().hex, uuid4().hex
        self.start = time.time()

    @property
    def headers(self) -> dict[str, str]:
        """The header by which the service continues the trace."""
        fields = (SERVICE, INSTANCE, self.name, self.peer)
        ids = f"{_base64(self.trace_id)}-{_base64(self.segment_id)}"
        return {"sw8": f"1-{ids}-0-" + "-".join(map(_base64, fields))}

    def close(self, status: int) -> None:
        """End the span with the response's status, 0 for no answer."""
        span = {
            "spanId": 0,
            "parentSpanId": -1,
            "operationName": self.name,
            "startTime": int(self.start * 1000),
            "endTime": int(time.time() * 1000),
            "spanType": "Exit",
            "spanLayer": "Http",
            "componentId": HTTP_CLIENT,
            "peer": self.peer,
            "isError": not 0 < status < 400,  # noqa: PLR2004  # HTTP
            "tags": [{"key": "http.status_code", "value": str(status)}],
        }
        ids = {"traceId": self.trace_id, "traceSegmentId": self.segment_id}
        _waiting.append({**ids, "service": SERVICE, "serviceInstance": INSTANCE, "spans": [span]})


def open_span(environment: Environment, name: str, host: str) -> Span | None:
    """Start the span of a request to `host`; `None` without `--trace-client`."""
    return Span(name, urlparse(host).netloc) if environment.parsed_options.trace_client else None


@events.init.add_listener
def _start(environment: Environment, **_: object) -> None:
    if environment.parsed_options.trace_client and not environment.parsed_options.oap_url:
        logger.error("--trace-client needs --oap-url, such as http://127.0.0.1:12800: there Locust's spans go")
        sys.exit(2)
    if environment.parsed_options.oap_url:
        gevent.spawn(_send_regularly, environment.parsed_options.oap_url)


def _send_regularly(oap_url: str) -> None:
    while True:
        gevent.sleep(SEND_SECONDS)
        _send(oap_url)


@events.quitting.add_listener
def _finish(environment: Environment, **_: object) -> None:
    deadline = time.monotonic() + OAP_TIMEOUT_SECONDS
    while _waiting and time.monotonic() < deadline:
        if not _send(environment.parsed_options.oap_url):
            gevent.sleep(SEND_SECONDS)
    if _waiting:
        logger.error("OAP did not take %d of Locust's own spans: their traces have no root", len(_waiting))


def _send(oap_url: str) -> bool:
    """Send all waiting segments; what OAP does not take is kept."""
    with requests.Session() as session:
        session.trust_env = False
        while batch := _waiting[:BATCH_SEGMENTS]:
            try:
                session.post(f"{oap_url}/v3/segments", json=batch, timeout=OAP_TIMEOUT_SECONDS).raise_for_status()
            except requests.RequestException:
                return False
            del _waiting[: len(batch)]
    return True


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
