"""What reaches OAP when processes end, multiply or find OAP away."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from signal import SIGKILL
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from harness import EmbeddedOap, OapServer, Server, eventually, make_python, serve, trace_ids
from oap_query import instances

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


MINUTE = 60  # seconds that OAP is away: far beyond gRPC's own first reconnections


def name(text: str) -> str:
    return f"{text}-{uuid4().hex[:6]}"


def ask(server: Server, path: str, times: int) -> list[str]:
    """Ask for a path many times at once; return the trace ids, empty for a request that was not sampled."""

    def one(_number: int) -> str:
        response = httpx.get(server.url + path, trust_env=False)
        assert response.status_code == 200
        return str(response.headers.get("X-Trace-Id", ""))

    with ThreadPoolExecutor(20) as pool:
        return list(pool.map(one, range(times)))


def workers(server: Server) -> set[str]:
    """Return the process ids of the workers that answer, of 40 requests at once."""
    with ThreadPoolExecutor(20) as pool:
        return set(pool.map(lambda _: httpx.get(f"{server.url}/pid", trust_env=False).text, range(40)))


def complete(oap: OapServer, trace_ids: list[str], spans: int = 3) -> int:
    """Count the traces that have exactly that many spans, waiting for those that have not."""
    return sum(
        len(oap.client.wait_for_trace(trace_id, lambda found: len(found) >= spans, 15)) == spans
        for trace_id in trace_ids
    )


def test_running_tasks_end_before_the_service_and_everything_arrives(oap: OapServer, tmp_path: Path) -> None:
    service = serve(
        tmp_path,
        name("ending"),
        oap.grpc,
        app="demo_service.app:create_app",
        arguments=("--factory",),
        health="/health/live",
    )
    with service as server:
        ids = ask(server, "/test?duration=2", 40)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began > 1  # it waited
        assert complete(oap, ids) == 40
        assert server.log.count("Background task completed") == 40


def test_several_workers_are_several_instances_and_lose_nothing(oap: OapServer, tmp_path: Path) -> None:
    with serve(tmp_path, name("workers"), oap.grpc, arguments=("--workers", "2")) as server:
        began = datetime.now(UTC)
        deadline = time.monotonic() + 30
        while len(workers(server)) < 2 and time.monotonic() < deadline:
            pass  # the first worker answers while the second one is still starting
        ids = ask(server, "/task", 60)
        assert complete(oap, ids) == len(ids)
        assert trace_ids(oap, server.name, began, set(ids)) == set(ids)
        instances = {span.instance for trace_id in ids for span in oap.client.trace(trace_id)}
        assert len(instances) == 2


def test_what_is_not_sampled_leaves_nothing_neither_request_nor_task(oap: OapServer, tmp_path: Path) -> None:
    with serve(tmp_path, name("sampled"), oap.grpc, SW_SAMPLE_N_PER_3_SECS="2") as server:
        began = datetime.now(UTC)
        answers = ask(server, "/task", 20)
        ids = [trace_id for trace_id in answers if trace_id]
        assert 2 <= len(ids) < 20
        assert complete(oap, ids) == len(ids)
        server.stop()
        assert trace_ids(oap, server.name, began, set(ids)) == set(ids)


@pytest.mark.parametrize("version", ["", "3.12"], ids=["this Python", "Python 3.12"])
def test_a_process_without_an_app_delivers_what_it_has_when_it_ends(
    oap: OapServer, tmp_path: Path, version: str
) -> None:
    program = (
        "import logging, skywalking_background as sw; sw.start()\n"
        "with sw.background_span('job') as span:\n"
        "    logging.warning('working')\n"
        "    print(sw.current_trace_id())\n"
    )
    python = make_python(version, (), tmp_path / "venv") if version else sys.executable
    environment = {"SW_AGENT_NAME": "script", "SW_AGENT_COLLECTOR_BACKEND_SERVICES": oap.grpc}
    done = subprocess.run([python, "-c", program], env=environment, check=True, capture_output=True, text=True)
    assert complete(oap, [done.stdout.strip()], spans=1) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_dead_proxy_in_the_environment_is_not_asked_for_an_oap_on_this_machine(
    oap: OapServer, tmp_path: Path, protocol: str
) -> None:
    proxies: dict[str, Any] = dict.fromkeys(
        ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY"), "http://127.0.0.1:9"
    )
    address = oap.grpc if protocol == "grpc" else oap.url.removeprefix("http://")
    service = serve(tmp_path, name(protocol), address, SW_AGENT_PROTOCOL=protocol, **proxies)
    with service as server:
        began = datetime.now(UTC)
        ids = ask(server, "/task", 20)
        assert complete(oap, ids) == 20
        # Also the agent's heartbeat.
        assert eventually(lambda: len(instances(oap.client, server.name, began)) == 1)
        spans = [span for trace_id in ids for span in oap.client.trace(trace_id)]
        assert {kind for span in spans for _, _, kind in span.refs} == {"CROSS_THREAD"}
        server.stop()
        assert "OAP" not in server.log


def run(program: str, oap: str, service: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"SW_AGENT_NAME": service, "SW_AGENT_COLLECTOR_BACKEND_SERVICES": oap, **variables}
    command = [sys.executable, "-W", "ignore", "-c", program]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True)


def test_a_message_above_the_limit_of_oap_is_dropped_and_named_and_holds_up_nothing(oap: OapServer) -> None:
    program = """if True:
        import skywalking_background as sw
        from skywalking.protocol.language_agent.Tracing_pb2 import SegmentCollection
        from skywalking_background import _agent
        sw.start()
        lane = _agent._reporter.segments
        encode = lane.encode
        ids = []
        for n in range(40):
            if n in {0, 20}:  # as no encoder of ours makes it any more
                sw.flush(30)  # both together are more than the queue holds
                huge = SegmentCollection()
                one = huge.segments.add(traceId="huge", traceSegmentId=f"huge-{n}", service="huge")
                one.spans.add(operationName="upload", spanType=2).tags.add(key="body", value="x" * 55_000_000)
                lane.encode = lambda _item: huge.SerializeToString()
                lane.put(None)
                lane.encode = encode
            with sw.background_span("job"):
                ids.append(sw.current_trace_id())
        print(sw.flush(30), sw.counts()["segments"]); print(*ids)
    """
    done = run(program, oap.grpc, name("huge"))
    first, ids = done.stdout.splitlines()
    assert first == "True Counts(sent=40, queued=0, dropped=2)"
    assert complete(oap, ids.split(), spans=1) == 40
    assert done.stderr.count("will never take one of the segments, it is dropped (CANCELLED, too large)") == 2
    assert "'upload' of trace huge, segment huge-20, 55000" in done.stderr
    assert "not reachable" not in done.stderr


@pytest.mark.parametrize("case", ["refused", "unresolvable", "swallowed"])
def test_without_oap_an_app_starts_and_stops_at_once(case: str) -> None:
    program = """if True:
        import atexit, time
        atexit.register(lambda: print(time.monotonic()))  # the last of all
        from fastapi import BackgroundTasks, FastAPI
        from fastapi.testclient import TestClient
        from skywalking_background import _agent, instrument
        app = instrument(FastAPI())
        @app.get("/")
        def answer(tasks: BackgroundTasks):
            tasks.add_task(print)
        for _ in range(4):
            began = time.monotonic()
            with TestClient(app) as client:
                _agent.begin_reporting()
                client.get("/")
            print(time.monotonic() - began)
        print(time.monotonic())
    """
    with socket.create_server(("127.0.0.1", 0), backlog=1) as server:
        port = server.getsockname()[1]
        address = {"refused": "127.0.0.1:9", "unresolvable": "nowhere.invalid:11800"}.get(case, f"127.0.0.1:{port}")
        fill = [socket.socket() for _ in range(4)]  # then the rest of it gets no answer at all
        for one in fill:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        done = run(program, address, name(case))
    *seconds, left, ended = (float(line) for line in done.stdout.split())
    assert min(seconds) < 0.3  # what it costs; a busy machine adds to some of them
    assert max(*seconds, ended - left) < 3  # and the process's end as well
    assert "segments: 0 sent, 12 kept, 0 dropped" in done.stderr.splitlines()[-1]


@pytest.fixture
def own_oap(tmp_path: Path) -> Iterator[EmbeddedOap]:
    """An OAP, not started, that may be stopped and killed."""
    found = EmbeddedOap(tmp_path / "oap")
    yield found
    found.stop()


def test_oap_may_come_late_be_away_for_a_minute_and_come_back(own_oap: EmbeddedOap, tmp_path: Path) -> None:
    with serve(tmp_path, name("patient"), own_oap.grpc) as server:
        early = ask(server, "/task", 20)
        time.sleep(3)
        assert server.log.count("is not reachable") == 1
        own_oap.start()
        assert complete(own_oap, early) == 20
        assert "is back after" in server.log

        time.sleep(2)  # H2 writes a second behind: what a kill takes from the storage is not ours to keep
        own_oap.stop(SIGKILL)
        meanwhile, began = [], time.monotonic()
        while time.monotonic() < began + MINUTE:
            meanwhile += ask(server, "/task", 10)
            time.sleep(5)
        assert server.log.count("is not reachable") == 2
        own_oap.start()
        assert complete(own_oap, meanwhile) == len(meanwhile) > 100
        assert complete(own_oap, early) == 20
        assert server.log.count("is back after") == 2
        away = int(re.findall(r"is back after (\d+) s", server.log)[-1])
        assert away >= MINUTE
        assert f"segments: {2 * len(early + meanwhile)} sent, 0 kept, 0 dropped" in server.log
        assert "Traceback" not in server.log

    own_oap.stop()  # as `make down` does, soon after the kill: H2 2.1.212 could often not open its file after that
    own_oap.start()
    assert complete(own_oap, early + meanwhile) == len(early + meanwhile)
    assert not list(own_oap.data.glob("db.broken-*"))


def test_what_does_not_fit_while_oap_is_away_is_counted_and_said(own_oap: EmbeddedOap, tmp_path: Path) -> None:
    with serve(tmp_path, name("full"), own_oap.grpc, SW_AGENT_TRACE_REPORTER_MAX_BUFFER_SIZE="30") as server:
        ask(server, "/task", 20)
        time.sleep(1)
        server.stop()
        assert "segments: 0 sent, 30 kept, 10 dropped" in server.log
