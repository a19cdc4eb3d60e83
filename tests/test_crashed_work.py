"""Work that runs, and work that was killed, as OAP shows them."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import psutil
import pytest
from harness import OapServer, Server, T, eventually, serve
from oap_query import log_lines, segments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oap_query import Segment, Span

TASKS = 200
EVENTS = """query ($condition: EventQueryCondition) { data: queryEvents(condition: $condition) { events {
    uuid source { service serviceInstance } name type message parameters { key value } startTime endTime layer } } }"""


def ask(server: Server, path: str, times: int) -> list[str]:
    """Ask for a path many times at once; return the trace ids."""
    with ThreadPoolExecutor(20) as pool:
        answers = pool.map(lambda _: httpx.get(server.url + path, trust_env=False, timeout=30), range(times))
        return [answer.headers["X-Trace-Id"] for answer in answers]


def events(oap: OapServer, service: str) -> list[dict[str, Any]]:
    """Return a service's events, with their parameters by name."""
    duration = oap.client.duration(datetime.now(UTC) - timedelta(minutes=10), step="MINUTE")
    condition = {"source": {"service": service}, "name": "BackgroundTask", "time": duration}
    answer = oap.client.query(EVENTS, condition={**condition, "paging": {"pageNum": 1, "pageSize": 50}})
    found: list[dict[str, Any]] = answer["data"]["events"]
    for event in found:
        event["parameters"] = {item["key"]: item["value"] for item in event["parameters"]}
    return found


def rows_of_crashed(oap: OapServer, service: str, start: datetime) -> list[Segment]:
    """Search a service's crashed tasks as SkyWalking's UI does, by their tag."""
    pages = segments(oap.client, start, service=service, tag=("task.outcome", "crashed"))
    return [segment for page in pages for segment in page if segment.error]


def all_of(rows: list[T], count: int) -> list[T]:
    """Return the rows when they are as many."""
    return rows if len(rows) >= count else []


def kill(server: Server) -> float:
    """Kill a server and its workers as the kernel does; return when that was."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    server.process.kill()
    for child in children:
        child.kill()
    server.process.wait()
    return time.time()


def crashed(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.tags.get("task.outcome") == "crashed"]


@pytest.fixture(params=["grpc", "http"])
def service(oap: OapServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A service whose tasks get an event after 3 s already."""
    address = oap.grpc if request.param == "grpc" else oap.url.removeprefix("http://")
    name = f"running-{uuid4().hex[:6]}"
    variables: dict[str, Any] = {"SKYWALKING_BACKGROUND_EVENT_SECONDS": "3", "SW_AGENT_PROTOCOL": request.param}
    with serve(tmp_path, name, address, **variables) as server:
        yield server


def test_a_task_is_seen_while_it_runs_and_its_event_ends_with_it(oap: OapServer, service: Server) -> None:
    began = time.time() * 1000
    (trace_id,) = ask(service, "/task/12", 1)
    (line,) = eventually(lambda: log_lines(oap.client, trace_id))
    assert line.content.startswith("task started: work (")
    assert line.level == "INFO"
    (event,) = eventually(lambda: events(oap, service.name))
    assert "work" not in {span.name for span in oap.client.trace(trace_id)}  # it runs
    assert (event["endTime"], event["type"], event["layer"]) == (0, "Normal", "GENERAL")
    assert event["parameters"]["trace.id"] == trace_id
    assert event["parameters"]["task.outcome"] == "running"
    assert abs(event["startTime"] - began) < 10_000
    (instance,) = {span.instance for span in oap.client.trace(trace_id)}
    assert event["source"] == {"service": service.name, "serviceInstance": instance}

    (ended,) = eventually(lambda: [one for one in events(oap, service.name) if one["endTime"]])
    spans = oap.client.wait_for_trace(trace_id, lambda found: any(span.name == "work" for span in found))
    (task,) = [span for span in spans if span.name == "work"]
    assert (ended["uuid"], ended["startTime"] // 1000, ended["type"]) == (event["uuid"], task.start // 1000, "Normal")
    assert 0 <= task.end - ended["endTime"] < 1_000
    assert ended["parameters"]["segment.id"] == task.segment_id == ended["uuid"]
    assert len(events(oap, service.name)) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_200_tasks_of_a_killed_service_are_200_crashed_spans_and_200_dead_letters_after_its_restart(
    oap: OapServer, tmp_path: Path, workers: int
) -> None:
    name = f"killed-{uuid4().hex[:6]}"
    variables: dict[str, Any] = {
        "SERVICE_DATA_DIR": str(tmp_path / "data"),
        "SERVICE_JOURNAL": "written",
        "SKYWALKING_BACKGROUND_EVENT_SECONDS": "3",
        "app": "demo_service.app:create_app",
        "health": "/health/live",
    }
    arguments = ("--factory", *(("--workers", "2") if workers == 2 else ()))
    running = tmp_path / "data" / "running"

    def written() -> int:
        return sum(path.read_bytes().count(b'"begun"') for path in running.glob("*.journal"))

    def letters(server: Server) -> list[dict[str, Any]]:
        answer = httpx.get(f"{server.url}/dead-letters?limit=1000", trust_env=False).json()
        found: list[dict[str, Any]] = answer["dead_letters"]
        return found

    with serve(tmp_path, name, oap.grpc, arguments=arguments, **variables) as server:
        trace_ids = ask(server, "/test?duration=60", TASKS)
        assert eventually(lambda: written() >= TASKS)
        assert eventually(lambda: len(events(oap, name)) == 50)  # the first page
        killed = kill(server) * 1000
    began = datetime.now(UTC) - timedelta(minutes=5)
    assert rows_of_crashed(oap, name, began) == []
    with serve(tmp_path, name, oap.grpc, arguments=arguments, **variables) as server:
        assert eventually(lambda: all_of(letters(server), TASKS))
        rows = eventually(lambda: all_of(rows_of_crashed(oap, name, began), TASKS))
        assert {letter["trace_id"] for letter in letters(server)} == set(trace_ids)
        assert {(one["reason"], one["attempts"], one["replayable"]) for one in letters(server)} == {
            ("crashed", 1, True)
        }
        assert len(letters(server)) == TASKS
        assert {row.trace_id for row in rows} == set(trace_ids)
        assert len({row.segment_id for row in rows}) == len(rows) == TASKS
        assert {row.name for row in rows} == {"background_sleep_task"}
        said = eventually(lambda: re.findall(r"(\d+) tasks ended with their processes", server.log))
        assert sum(map(int, said)) == TASKS
        ended = eventually(lambda: [e for e in events(oap, name) if e["parameters"]["task.outcome"] == "crashed"])
        assert {event["type"] for event in ended} == {"Error"}
    for trace_id in trace_ids[::20]:
        spans = oap.client.trace(trace_id)
        ((task,), (entry,)) = crashed(spans), [span for span in spans if span.kind == "Entry"]
        assert (task.name, task.error, task.instance) == ("background_sleep_task", True, entry.instance)
        assert task.refs == ((entry.segment_id, entry.span_id, "CROSS_THREAD"),)
        assert entry.end <= task.start
        assert task.start < task.end <= killed
        assert killed - task.end < 10_000  # a quarter of a second, on a machine with time for it
        assert len(spans) == 3, trace_id
    assert list(running.glob("*.journal")) == []
