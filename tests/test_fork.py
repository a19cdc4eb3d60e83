"""What reaches OAP from processes that were forked: every segment, once, each process as an instance of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from harness import OapServer, Server, answers, eventually, free_port, wait_until
from oap_query import Oap, instances

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECES = 1000
BIN = Path(sys.executable).parent
SEGMENTS = """query ($condition: TraceQueryCondition) {
    data: queryBasicTraces(condition: $condition) { traces { segmentId endpointNames traceIds } } }"""


def name(text: str) -> str:
    return f"{text}-{uuid4().hex[:6]}"


def environment(service: str, oap: OapServer, case: str, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "SW_AGENT_NAME": service,
        "SW_AGENT_INSTANCE_NAME": "main",
        "SW_AGENT_COLLECTOR_BACKEND_SERVICES": oap.grpc,
        "FORK_CASE": case,
        "PYTHONPATH": str(Path(__file__).parent),
        "PYTHONUNBUFFERED": "1",
        **more,
    }


def segments(oap: Oap, service: str, start: datetime) -> list[dict[str, Any]]:
    """Return all segments that OAP has of a service."""
    service_id = oap.service_id(service)
    condition = {"serviceId": service_id, "traceState": "ALL", "queryOrder": "BY_START_TIME"}
    return [row for page in oap.pages(SEGMENTS, condition, start) for row in page] if service_id else []


def arrived(oap: OapServer, service: str, start: datetime, expected: int) -> list[dict[str, Any]]:
    """Wait for so many segments of a service, a moment longer for more than these, and return them."""
    eventually(lambda: len(segments(oap.client, service, start)) >= expected, 150)
    time.sleep(1.5)
    found = segments(oap.client, service, start)
    assert len({row["segmentId"] for row in found}) == len(found)
    return found


def seen(oap: OapServer, service: str, start: datetime) -> set[str]:
    """Return the names of the service's instances, which OAP writes down a little later than the segments."""
    return set(instances(oap.client, service, start))


@contextmanager
def running(command: list[str], variables: dict[str, str], log: Path) -> Iterator[Server]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield Server("", variables["SW_AGENT_NAME"], process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_gunicorn_forks_workers_of_an_app_that_it_has_loaded(oap: OapServer, tmp_path: Path) -> None:
    began, service, port = datetime.now(UTC), name("preload"), free_port()
    command = [str(BIN / "gunicorn"), "fork_app:app", "--preload", "-w", "2", "-b", f"127.0.0.1:{port}"]
    command += ["-k", "uvicorn.workers.UvicornWorker", "--log-level", "error"]
    with running(command, environment(service, oap, "web"), tmp_path / "gunicorn.log") as server:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/up"), server.process, server.log_file, 30)
        # Only instrumented: nothing that a fork could break.
        assert httpx.get(f"{url}/up", trust_env=False).json() == ["MainThread"]
        # They appear before their first request.
        assert eventually(lambda: len(seen(oap, service, began)) == 2)

        def ask(_number: int) -> str:
            # A connection for each, so that both workers get their share.
            response = httpx.get(f"{url}/piece", trust_env=False)
            assert response.status_code == 200
            return response.headers["X-Trace-Id"]

        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(ask, range(PIECES)))
        clock = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - clock < 2.5
    found = arrived(oap, service, began, 2 * PIECES)
    assert len(found) == 2 * PIECES  # a request and its task
    assert {row["traceIds"][0] for row in found} == set(ids)
    counts = [json.loads(text) for text in re.findall(r"COUNTS \d+ (.*)", server.log)]
    assert sum(sent + queued for sent, queued, _ in counts) == 2 * PIECES
    assert all(dropped == 0 for _, _, dropped in counts)
    pids = set(re.findall(r"COUNTS (\d+) \[[1-9]", server.log))
    assert eventually(lambda: seen(oap, service, began) == {f"main-child({pid})" for pid in pids})
    assert len(pids) == 2
    assert "Traceback" not in server.log


def test_celery_forks_its_workers_from_a_master_that_reports(oap: OapServer, tmp_path: Path) -> None:
    began, service, queue = datetime.now(UTC), name("celery"), tmp_path / "queue"
    queue.mkdir()
    variables = environment(service, oap, "celery-worker", QUEUE_FOLDER=str(queue))
    command = [str(BIN / "celery"), "-A", "fork_app:cel", "worker", "-P", "prefork", "-c", "4", "-l", "WARNING"]
    with running(command, variables, tmp_path / "celery.log") as server:
        client = environment("client", oap, "celery-client", QUEUE_FOLDER=str(queue))
        subprocess.run([sys.executable, "-m", "fork_app", str(PIECES)], env=client, check=True)

        def done() -> list[str]:
            return [line for file in queue.glob("done-*") for line in file.read_text().splitlines()]

        assert eventually(lambda: len(done()) == PIECES, 90), len(done())
        clock = time.monotonic()
        server.stop()
        assert time.monotonic() - clock < 60  # 6.5 s of them are Celery's own, on this transport
    found = arrived(oap, service, began, PIECES + 1)
    assert len(found) == PIECES + 1
    assert [row["endpointNames"] for row in found].count(["celery/piece"]) == PIECES
    pids = {file.name.rpartition("-")[2] for file in queue.glob("done-*")}
    assert len(pids) == 4
    assert eventually(lambda: seen(oap, service, began) == {"main", *(f"main-child({pid})" for pid in pids)})


def test_a_pool_forked_by_a_process_that_reports(oap: OapServer, tmp_path: Path) -> None:
    began, service = datetime.now(UTC), name("pool")
    command = [sys.executable, "-m", "fork_app", str(PIECES)]
    clock = time.monotonic()
    run = subprocess.run(
        command, env=environment(service, oap, "pool"), capture_output=True, text=True, check=True, timeout=120
    )
    seconds = time.monotonic() - clock
    told = json.loads(run.stdout)
    assert seconds < 60
    found = arrived(oap, service, began, PIECES + 3)
    # Those of the children are traces of their own, also below a span that was open while they were forked.
    assert len(found) == PIECES + 3
    assert {trace_id for trace_id, _ in told["done"]} < {row["traceIds"][0] for row in found}
    assert len({trace_id for trace_id, _ in told["done"]}) == PIECES
    assert told["counts"] == [3, 0, 0]  # the parent's own
    pids = {pid for _, pid in told["done"]}
    assert eventually(lambda: seen(oap, service, began) == {"main", *(f"main-child({pid})" for pid in pids)})
    assert not re.search("Traceback|Error", run.stderr)


@pytest.mark.parametrize("end", ["exit", "flush", "terminate", "process"])
def test_a_child_delivers_at_its_end(oap: OapServer, end: str) -> None:
    began, service = datetime.now(UTC), name(end)
    command = [sys.executable, "-m", "fork_app", end]
    run = subprocess.run(command, env=environment(service, oap, "plain"), capture_output=True, text=True, check=True)
    done, status = map(json.loads, run.stdout.splitlines())
    assert status == (signal.SIGTERM if end == "terminate" else 0)  # it still dies by the signal
    found = arrived(oap, service, began, 11)
    assert {row["traceIds"][0] for row in found} > {trace_id for trace_id, _ in done}
    assert len(found) == 11


def test_forks_in_the_midst_of_everything(oap: OapServer) -> None:
    """Whatever the parent's threads do while it forks, each child reports, and so does the parent."""
    service, began = name("midst"), datetime.now(UTC)
    program = """if True:
        import json, os, threading, time
        import skywalking_background as sw
        sw.start()
        def work():
            while not stop:
                with sw.background_span("parent"): pass
                time.sleep(0.002)
        stop = False
        thread = threading.Thread(target=work); thread.start()
        failed = 0
        for n in range(50):
            time.sleep(0.01)
            pid = os.fork()
            if not pid:
                for _ in range(4):
                    with sw.background_span("child"): pass
                os._exit(0 if sw.flush() else 1)
            failed += os.waitpid(pid, 0)[1] != 0
        stop = True
        thread.join()
        assert sw.flush()
        print(json.dumps([failed, *sw.counts()["segments"]]))
    """
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, env=environment(service, oap, ""), capture_output=True, text=True, check=True)
    failed, sent, queued, dropped = json.loads(run.stdout)
    assert (failed, queued, dropped) == (0, 0, 0)
    found = arrived(oap, service, began, sent + 200)
    names = [row["endpointNames"] for row in found]
    assert (names.count(["parent"]), names.count(["child"])) == (sent, 200)
    assert not run.stderr


def test_subprocesses_are_left_alone(oap: OapServer) -> None:
    program = """if True:
        import json, os, signal, subprocess, sys
        import skywalking_background as sw
        sw.start()
        with sw.background_span("before"): pass
        sw.flush()
        ask = "import signal; print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
        for more in ({}, {"preexec_fn": lambda: None}, {"close_fds": False}):
            print(subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, **more).stdout.strip())
        with sw.background_span("after"): pass
        print(sw.flush(), sw._agent.config.agent_instance_name)
    """
    variables = environment(name("sub"), oap, "")
    run = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True"] * 3 + ["True", "main"]
