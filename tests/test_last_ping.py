"""What keeps OAP's list of endpoints whole: two files in oap/config and what they read (docs/upstream-last-ping.md).

OAP 10.1 has no list by time; here it is seen that what the library sends adds no endpoint by itself, and loses nothing.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from harness import eventually
from oap_query import endpoints

if TYPE_CHECKING:
    from harness import OapServer

CALLED, REQUEST = "HTTP GET /called", "HTTP GET /named-but-not-called"


@pytest.fixture
def name() -> str:
    return f"ping-{uuid4().hex[:6]}"


def send(oap: OapServer, path: str, **item: Any) -> None:
    assert httpx.post(oap.url + path, json=[item], trust_env=False).is_success


def send_segment(oap: OapServer, service: str, **span: Any) -> None:
    now = int(time.time() * 1000)
    spans = [{"spanId": 0, "parentSpanId": -1, "startTime": now, "endTime": now, **span}]
    trace = {"traceId": uuid4().hex, "traceSegmentId": uuid4().hex}
    send(oap, "/v3/segments", service=service, serviceInstance="one", spans=spans, **trace)


def send_log(oap: OapServer, service: str, trace_id: str, **more: Any) -> None:
    context = {"traceId": trace_id, "traceSegmentId": uuid4().hex, "spanId": 0}
    body = {"type": "text", "text": {"text": "hello"}}
    send(
        oap,
        "/v3/logs",
        timestamp=int(time.time() * 1000),
        service=service,
        serviceInstance="one",
        body=body,
        traceContext=context,
        **more,
    )


def endpoint_of_log(oap: OapServer, trace_id: str) -> str | None:
    found = eventually(
        lambda: oap.client.query(
            "query ($c: LogQueryCondition) { found: queryLogs(condition: $c) { logs { endpointName } } }",
            c={"relatedTrace": {"traceId": trace_id}, "paging": {"pageNum": 1, "pageSize": 5}},
        )["found"]["logs"]
    )
    (log,) = found
    name: str | None = log["endpointName"]
    return name


def test_a_log_line_lies_under_the_endpoint_that_its_tag_names(oap: OapServer, name: str) -> None:
    trace_id = uuid4().hex
    send_log(oap, name, trace_id, tags={"data": [{"key": "endpoint", "value": REQUEST}]})
    assert endpoint_of_log(oap, trace_id) == REQUEST


def test_a_log_line_of_another_agent_keeps_its_endpoint(oap: OapServer, name: str) -> None:
    trace_id = uuid4().hex
    send_log(oap, name, trace_id, endpoint=REQUEST)
    assert endpoint_of_log(oap, trace_id) == REQUEST


def test_a_task_leaves_its_requests_endpoint_alone_and_depends_on_it(oap: OapServer, name: str) -> None:
    reference = {
        "refType": "CrossThread",
        "traceId": uuid4().hex,
        "parentTraceSegmentId": uuid4().hex,
        "parentSpanId": 0,
        "parentService": name,
        "parentServiceInstance": "one",
        "parentEndpoint": REQUEST,
        "networkAddressUsedAtPeer": "background-task:1",
    }
    send_segment(oap, name, operationName=CALLED, spanType="Entry", spanLayer="Http")  # makes the service known
    send_segment(oap, name, operationName="task", spanType="Local", refs=[reference])
    # Behind an address that is no gateway, OAP would have added the request's endpoint, with its last ping at 0.
    assert eventually(lambda: "task" in endpoints(oap.client, name))
    assert endpoints(oap.client, name) == [CALLED, "task"]

    def dependencies() -> set[tuple[str, str]]:
        service_id = oap.client.service_id(name)
        text = 'query ($s: ID!) { found: findEndpoint(keyword: "task", serviceId: $s, limit: 5) { id } }'
        (task,) = oap.client.query(text, s=service_id)["found"]
        found = oap.client.query(
            "query ($e: ID!, $d: Duration!) { t: getEndpointDependencies(endpointId: $e, duration: $d) {"
            " nodes { id name } calls { source target } } }",
            e=task["id"],
            d=oap.client.duration(datetime.now(UTC) - timedelta(minutes=3), step="MINUTE"),
        )["t"]
        names = {node["id"]: node["name"] for node in found["nodes"]}
        return {(names[call["source"]], names[call["target"]]) for call in found["calls"]}

    assert eventually(dependencies) == {(REQUEST, "task")}
    services = oap.client.query("query { found: listServices { name } }")["found"]
    assert not [service for service in services if "background-task" in service["name"]]
