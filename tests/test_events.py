"""What happens to processes, as events that are read back from the real OAP; and the prefix of tasks' names."""

from __future__ import annotations

import re
import signal
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
from consoles import forward
from harness import OapServer, Server, eventually, free_port, serve
from oap_query import endpoints, started
from rich.console import Console
from stack.runtime import tell_scaled
from stack.settings import Settings
from work_stack import run

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = """query ($condition: EventQueryCondition) { data: queryEvents(condition: $condition) { events {
    source { service serviceInstance } name type message parameters { key value } startTime endTime } } }"""


def events(oap: OapServer, service: str, name: str) -> list[dict[str, Any]]:
    """Return a service's events of this name."""
    duration = oap.client.duration(datetime.now(UTC) - timedelta(minutes=10), step="MINUTE")
    condition = {"source": {"service": service}, "name": name, "time": duration}
    answer = oap.client.query(EVENTS, condition={**condition, "paging": {"pageNum": 1, "pageSize": 50}})
    found: list[dict[str, Any]] = answer["data"]["events"]
    return found


def pids(found: list[dict[str, Any]]) -> set[int]:
    """Return the processes that events are about, which must say the same in their text and in their instance."""
    said = {int(re.findall(r"process (\d+) ", event["message"])[0]) for event in found}
    assert said == {int(re.findall(r"\d+", event["source"]["serviceInstance"])[-1]) for event in found}
    return said


def ask(server: Server, path: str) -> str:
    answer = httpx.get(server.url + path, trust_env=False)
    assert answer.is_success
    return answer.headers["X-Trace-Id"]


def test_a_crash_is_an_event_of_the_process_that_finds_it_and_tasks_have_their_prefix(
    oap: OapServer, tmp_path: Path
) -> None:
    name = f"crash-{uuid4().hex[:6]}"
    options: dict[str, Any] = {"SKYWALKING_BACKGROUND_JOURNAL": str(tmp_path / "journal")}
    options["SKYWALKING_BACKGROUND_TASK_PREFIX"] = "task/"
    with serve(tmp_path, name, oap.grpc, **options) as server:
        trace_ids = [ask(server, "/task/60") for _ in range(3)]
        (report,) = eventually(lambda: [one for page in reports(oap, trace_ids[0]) for one in page])
        assert report.name == "task/work"
        short = ask(server, "/task")
        spans = oap.client.wait_for_trace(short, lambda found: len(found) == 3)
        assert sorted(span.name for span in spans) == ["FastAPI request handling", "HTTP GET /task", "task/work"]
        killed = server.process.pid
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with serve(tmp_path, name, oap.grpc, **options) as server:
        (event,) = eventually(lambda: events(oap, name, "CrashFound"))
        assert event["type"] == "Error"
        assert event["message"].startswith(f"3 tasks ended with their processes: {killed} (")
        assert event["source"]["serviceInstance"].endswith(f":{server.process.pid}")
        spans = oap.client.wait_for_trace(trace_ids[0], lambda found: any(span.error for span in found))
        assert [span.name for span in spans if span.error] == ["task/work"]
        found = eventually(lambda: {"task/work", "HTTP GET /task"} <= set(endpoints(oap.client, name)))
        assert found
        assert "work" not in endpoints(oap.client, name)


def reports(oap: OapServer, trace_id: str) -> Any:
    return started(oap.client, datetime.now(UTC) - timedelta(minutes=5), trace_id=trace_id)


def test_that_oap_was_away_is_an_event_as_long_as_it_was(oap: OapServer, tmp_path: Path) -> None:
    name, port = f"away-{uuid4().hex[:6]}", free_port()
    target = int(oap.grpc.rpartition(":")[2])
    with ExitStack() as reachable, serve(tmp_path, name, f"127.0.0.1:{port}") as server:
        reachable.enter_context(forward(port, target))
        assert eventually(lambda: events(oap, name, "Start"))
        reachable.close()
        began = time.time() * 1000
        ask(server, "/plain")
        assert eventually(lambda: "is not reachable" in server.log, 60), server.log
        with forward(port, target):
            (event,) = eventually(lambda: events(oap, name, "OapAway"), 90)
        seconds = int(re.fullmatch(r"not reachable for (\d+) s", event["message"])[1])  # type: ignore[index]
        assert event["type"] == "Error"
        assert abs((event["endTime"] - event["startTime"]) / 1000 - seconds) <= 1
        assert began - 1_000 < event["startTime"] < event["endTime"] <= time.time() * 1000


def test_workers_and_consumers_tell_of_their_start_and_their_end(oap: OapServer, tmp_path: Path) -> None:
    with run("redis", tmp_path, oap.grpc, "worker", "consumer", SERVICE_WORKER_PROCESSES="2") as works:
        worker, consumer = (part.environment["SW_AGENT_NAME"] for part in (works.worker, works.consumer))
        pool = {one.pid for one in works.worker.family()[1:]}
        assert len(pool) == 2
        assert eventually(lambda: pids(events(oap, worker, "Start")) >= pool)
        assert pids(events(oap, worker, "Start")) == pool
        (own,) = [one.pid for one in works.consumer.family()]
        assert eventually(lambda: pids(events(oap, consumer, "Start"))) == {own}
        for part in (works.worker, works.consumer):
            part.terminate()
        assert eventually(lambda: pids(events(oap, worker, "Shutdown")) >= pool)
        assert eventually(lambda: pids(events(oap, consumer, "Shutdown"))) == {own}
        # Each was asked for its health again and again as it started: no request that anybody counts.
        assert [endpoints(oap.client, name) for name in (worker, consumer)] == [[], []]


def test_a_changed_number_of_workers_is_an_event_with_both_numbers(oap: OapServer, tmp_path: Path) -> None:
    name = f"scaled-{uuid4().hex[:6]}"
    port = int(oap.url.rpartition(":")[2])
    settings = Settings(_env_file=None, run_dir=tmp_path, service_name=name, oap_http_port=port)
    said = Console(record=True, quiet=False, width=100)
    began = time.time() - 2
    tell_scaled(said, settings, 0, 2, began)  # a start
    tell_scaled(said, settings, 2, 2, began)
    tell_scaled(said, settings, 1, 4, began)
    (event,) = eventually(lambda: events(oap, f"{name}-worker", "Scaled"))
    assert {one["key"]: one["value"] for one in event["parameters"]} == {"workers.before": "1", "workers.after": "4"}
    assert (event["message"], event["type"]) == ("1 → 4 Celery workers", "Normal")
    assert event["startTime"] == round(began * 1000) < event["endTime"]
    assert said.export_text() == "Celery workers: 1 → 4\n"
