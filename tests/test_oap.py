"""What OAP makes of the service: metrics, meters, logs, events; and that it keeps them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from harness import OapServer, Server, eventually, serve
from oap_query import Metric, read

if TYPE_CHECKING:
    from collections.abc import Iterator

TASK = 1.0  # s


@pytest.fixture(scope="module")
def service(oap: OapServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo service, asked ten times for `/test`."""
    environment: dict[str, Any] = {"SW_AGENT_METER_REPORTER_PERIOD": "1", "SW_AGENT_LOG_REPORTER_LEVEL": "INFO"}
    with serve(
        tmp_path_factory.mktemp("service"),
        f"service-{uuid4().hex[:6]}",
        oap.grpc,
        app="demo_service.app:create_app",
        arguments=("--factory",),
        health="/health/live",
        **environment,
    ) as server:
        for _ in range(10):
            httpx.get(f"{server.url}/test?duration={TASK}", trust_env=False)
        yield server


def metric(oap: OapServer, expression: str, **entity: Any) -> float | None:
    """Read the highest value of a metric in the last minutes; `None` when there is none."""
    (points,) = read(oap.client, [Metric(expression, **entity)], datetime.now(UTC) - timedelta(minutes=3))
    return max(points.values(), default=None)


def test_requests_count_for_the_service_and_tasks_as_endpoints_of_their_own(oap: OapServer, service: Server) -> None:
    task = {"service": service.name, "endpoint": "background_sleep_task"}
    task_time = eventually(lambda: metric(oap, "endpoint_resp_time", **task))
    service_time = eventually(lambda: metric(oap, "service_resp_time", service=service.name))
    assert task_time is not None
    assert service_time is not None
    assert task_time >= TASK * 1000 > service_time
    assert eventually(lambda: metric(oap, "endpoint_sla", **task)) == 10_000
    assert eventually(lambda: metric(oap, "service_sla", service=service.name)) == 10_000
    request = {**task, "endpoint": "HTTP GET /test"}
    assert eventually(lambda: metric(oap, "endpoint_cpm", **request)) is not None


@pytest.mark.parametrize("name", ["service_apdex", "service_percentile{p='99'}", "service_cpm"])
def test_what_the_ui_asks_of_a_service_is_there(oap: OapServer, service: Server, name: str) -> None:
    assert eventually(lambda: metric(oap, name, service=service.name)) is not None


def test_the_python_process_is_metered(oap: OapServer, service: Server) -> None:
    trace_id = httpx.get(f"{service.url}/test?duration=0", trust_env=False).headers["X-Trace-Id"]
    instance = oap.client.wait_for_trace(trace_id, bool)[0].instance
    entity = {"service": service.name, "instance": instance}
    assert eventually(lambda: metric(oap, "meter_instance_pvm_thread_active_count", **entity)) is not None


def test_log_lines_lie_beside_their_trace(oap: OapServer, service: Server) -> None:
    trace_id = httpx.get(f"{service.url}/test?duration=0", trust_env=False).headers["X-Trace-Id"]

    def lines() -> list[str]:
        found = oap.client.query(
            "query ($c: LogQueryCondition) { found: queryLogs(condition: $c) { logs { content } } }",
            c={"relatedTrace": {"traceId": trace_id}, "paging": {"pageNum": 1, "pageSize": 10}},
        )["found"]["logs"]
        return [item["content"] for item in found] if len(found) >= 2 else []

    assert sorted(line.split(" - ")[-1] for line in eventually(lines)) == [
        "Background task completed: background_sleep_task",
        "Background task started: background_sleep_task",
    ]


def test_events_are_taken(oap: OapServer, service: Server) -> None:
    now = int(time.time() * 1000)
    event = {
        "uuid": uuid4().hex,
        "source": {"service": service.name, "serviceInstance": "", "endpoint": ""},
        "name": "Deployed",
        "type": "Normal",
        "message": "a new version",
        "parameters": {},
        "startTime": now,
        "endTime": now,
        "layer": "GENERAL",
    }
    assert httpx.post(f"{oap.url}/v3/events", json=[event], trust_env=False).is_success

    def events() -> list[Any]:
        condition = {"uuid": event["uuid"], "paging": {"pageNum": 1, "pageSize": 5}}
        text = "query ($c: EventQueryCondition) { found: queryEvents(condition: $c) { events { name message } } }"
        found: list[Any] = oap.client.query(text, c=condition)["found"]["events"]
        return found

    assert eventually(events) == [{"name": "Deployed", "message": "a new version"}]


def test_the_health_check_speaks_of_the_storage(oap: OapServer) -> None:
    assert oap.client.healthy()
    assert eventually(lambda: oap.client.query("{ checkHealth { score } }") == {"checkHealth": {"score": 0}})
