"""Tasks that fail, as real processes, and what SkyWalking shows of them."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

import httpx
import pytest
from harness import ROOT, OapServer, Server, serve
from test_traces import read_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from oap_query import Span

ERROR = {"X-Fault": "error"}
FORKED = "  Local FastAPI request handling 200\n  Local background_sleep_task CROSS_THREAD"
DEAD = f"""Entry HTTP GET /test 200
{FORKED} failed
    Local attempt 1 failed
    Local attempt 2 failed
    Local attempt 3 failed"""


class Demo:
    """The demo service as a process, and short words for what is asked of it."""

    def __init__(self, server: Server, oap: OapServer) -> None:
        self.server = server
        self.oap = oap
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self.client = httpx.Client(base_url=server.url, trust_env=False, timeout=30, limits=limits)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.client.request(method, path, **options)

    def at_once(self, times: int, method: str, path: str, **options: Any) -> list[httpx.Response]:
        """Send the same request many times, each on a connection of its own."""
        with ThreadPoolExecutor(times) as pool:
            return list(pool.map(lambda _: self.ask(method, path, **options), range(times)))

    def task(self, trace_id: str) -> dict[str, Any]:
        """Return the one task of a trace."""
        (found,) = (
            task for task in self.ask("GET", "/tasks?limit=1000").json()["tasks"] if task["trace_id"] == trace_id
        )
        return dict(found)

    def letter(self, trace_id: str) -> dict[str, Any]:
        """Wait for the dead letter of a trace."""
        for _ in range(200):
            for letter in self.ask("GET", "/dead-letters?limit=1000").json()["dead_letters"]:
                if letter["trace_id"] == trace_id:
                    return dict(letter)
            time.sleep(0.05)
        pytest.fail(f"no dead letter of trace {trace_id}:\n{self.server.log[-3000:]}")

    def trace(self, response: httpx.Response, tree: str) -> dict[str, list[Span]]:
        """Hold the trace of a request against its tree; return its spans by name, the earliest first."""
        from oap_query import build, outline

        spans = read_trace(self.oap, response.headers["X-Trace-Id"], tree)
        assert outline(build(spans)) == tree
        found: dict[str, list[Span]] = {}
        for span in sorted(spans, key=lambda span: span.start):
            found.setdefault(span.name, []).append(span)
        return found


@pytest.fixture
def demo(oap: OapServer, tmp_path: Path) -> Callable[..., AbstractContextManager[Demo]]:
    """Run the demo service with these settings; two in one test share their dead letters."""

    @contextmanager
    def run(name: str, **settings: object) -> Iterator[Demo]:
        defaults = {"faults_enabled": True, "data_dir": tmp_path / "data", "task_seconds": 0.1}
        environment: dict[str, Any] = {
            f"SERVICE_{key.upper()}": str(value) for key, value in {**defaults, **settings}.items()
        }
        unique = f"{name}-{uuid4().hex[:6]}"
        with serve(tmp_path, unique, oap.grpc, module="demo_service", health="/health/ready", **environment) as server:
            yield Demo(server, oap)

    return run


New: TypeAlias = "Callable[..., AbstractContextManager[Demo]]"


def has_spans(count: int) -> Callable[[list[Span]], bool]:
    """Return a test of whether a trace has so many spans."""
    return lambda spans: len(spans) >= count


def test_a_task_that_is_retried_and_succeeds(demo: New) -> None:
    with demo("retried") as service:
        answer = service.ask("GET", "/test", headers={"X-Fault": "error;times=2"})
        tree = (
            f"Entry HTTP GET /test 200\n{FORKED}\n"
            "    Local attempt 1 failed\n    Local attempt 2 failed\n    Local attempt 3"
        )
        spans = service.trace(answer, tree)
        (task,) = spans["background_sleep_task"]
        attempts = [span for number in (1, 2, 3) for span in spans[f"attempt {number}"]]
        assert (task.tags["task.outcome"], task.tags["task.attempts"]) == ("succeeded", "3")
        assert [attempt.tags["task.attempt"] for attempt in attempts] == ["1", "2", "3"]
        for before, after in pairwise(attempts):
            assert after.start - before.end >= 500  # the wait is a gap, and says how long it was
            assert abs(int(after.tags["task.wait_ms"]) - (after.start - before.end)) <= 20
        assert task.start <= attempts[0].start
        assert attempts[-1].end <= task.end
        assert service.task(answer.headers["X-Trace-Id"])["state"] == "succeeded"


def test_every_tag_to_search_tasks_by_is_on_their_spans(demo: New) -> None:
    searchable = {
        tag
        for file in ("compose.yaml", "oap/embedded/src/oap_embedded/config/application.yml")
        for line in (ROOT / file).read_text().splitlines()
        if "SW_SEARCHABLE_TAG_KEYS" in line
        for tag in re.findall(r"task\.\w+", line)
    }
    assert searchable
    with demo("searched") as service:
        spans = service.trace(service.ask("GET", "/test", headers=ERROR), DEAD)
    tags = {tag: value for name in spans for span in spans[name] for tag, value in span.tags.items()}
    assert searchable <= tags.keys()
    # OAP keeps every value to suggest it in searches: what is another one for each task has no place there.
    assert not [tag for tag in searchable if len(tags[tag]) == len(uuid4().hex)]


def test_a_task_that_is_retried_and_dies_then_replayed(demo: New) -> None:
    with demo("dying") as service:
        answer = service.ask("GET", "/test", headers=ERROR)
        trace_id = answer.headers["X-Trace-Id"]
        letter = service.letter(trace_id)
        (task,) = service.trace(answer, DEAD)["background_sleep_task"]
        assert (task.tags["task.id"], task.tags["task.outcome"]) == (letter["id"], "dead")
        (log,) = task.logs
        assert log["error.kind"] == "InjectedError"
        assert log["stack"].endswith(letter["error"]["stack"].removeprefix("Traceback (most recent call last):\n"))
        line = next(line for line in map(json.loads, service.server.log.splitlines()) if line["level"] == "ERROR")
        assert (line["task_id"], line["trace_id"]) == (letter["id"], trace_id)
        assert "Traceback" in line["exc_info"]

        replay = service.ask("POST", f"/dead-letters/{letter['id']}/replay")
        assert replay.status_code == 202
        spans = service.trace(
            replay,
            f"Entry HTTP POST /dead-letters/{{task_id}}/replay 202\n{FORKED}".replace("handling 200", "handling 202"),
        )
        (again,) = spans["background_sleep_task"]
        assert (again.tags["replay.of"], again.tags["task.outcome"]) == (trace_id, "succeeded")
        assert again.tags["task.id"] == replay.json()["task_id"]
        assert service.ask("GET", "/dead-letters").json()["total"] == 0


def test_a_dead_letter_is_notified_within_its_trace(demo: New) -> None:
    messages: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    urls = json.dumps([f"json://127.0.0.1:{server.server_port}/hook"])
    with demo("notifying", notify_urls=urls) as service:
        answer = service.ask("GET", "/test", headers=ERROR)
        letter = service.letter(answer.headers["X-Trace-Id"])
        service.trace(answer, f"{DEAD}\n    Local notify CROSS_THREAD\n      Exit /hook 200")
        (message,) = messages
        assert message["title"] == "background_sleep_task is a dead letter"
        assert letter["id"] in message["message"]
        assert letter["trace_url"] in message["message"]
        # What is still to be told when the process ends is told then.
        late = [service.ask("GET", "/test", headers=ERROR) for _ in range(3)]
        for one in late:
            service.letter(one.headers["X-Trace-Id"])
        service.server.stop()
        assert [message["title"] for message in messages[1:]] == ["3 background tasks are dead letters"]
    server.shutdown()


def test_a_key_that_comes_twenty_times_at_once_runs_once(demo: New) -> None:
    with demo("keys") as service:
        answers = service.at_once(20, "POST", "/process", json={"id": "order-1", "lines": 3})
        assert {(answer.status_code, answer.text) for answer in answers} == {
            (200, '{"status":"accepted","id":"order-1"}')
        }
        (task,) = service.ask("GET", "/tasks").json()["tasks"]
        request = "Entry HTTP POST /process 200\n  Local FastAPI request handling 200"
        for answer in answers:
            if answer.headers["X-Trace-Id"] == task["trace_id"]:
                service.trace(answer, f"{request}\n  Local process_data CROSS_THREAD")
            else:  # refers to the one that ran
                (handling,) = service.trace(answer, request)["FastAPI request handling"]
                assert handling.tags["idempotency.first_trace"] == task["trace_id"]
        other = service.ask("POST", "/process", json={"id": "order-1", "lines": 4})
        assert other.status_code == 422
        assert other.json()["trace_id"] == other.headers["X-Trace-Id"]


def test_an_overload_is_refused_and_what_was_accepted_runs(demo: New) -> None:
    with demo("overload", max_running=20, max_queued=10, task_seconds=3) as service:
        answers = service.at_once(60, "GET", "/test")
        accepted = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 503]
        assert (len(accepted), len(refused)) == (30, 30)
        assert {answer.headers["Retry-After"] for answer in refused} == {"5"}
        state = service.ask("GET", "/tasks").json()
        assert (state["running"], state["counts"]["accepted"]) == (20, 10)
        time.sleep(6.5)
        tasks = service.ask("GET", "/tasks").json()["tasks"]
        assert Counter(task["state"] for task in tasks) == {"succeeded": 30}
        assert sum(task["queue_delay_ms"] > 1000 for task in tasks) == 10
        waited = []
        for answer in accepted:
            (task,) = service.trace(answer, f"Entry HTTP GET /test 200\n{FORKED}")["background_sleep_task"]
            waited.append(int(task.tags["task.queue_delay_ms"]) > 1000)
        assert sum(waited) == 10
        for answer in refused:
            service.trace(answer, "Entry HTTP GET /test 503 failed\n  Local FastAPI request handling 503 failed")
        assert service.ask("GET", "/test?duration=0").status_code == 200


def test_a_drain_is_not_ready_takes_nothing_new_and_lets_tasks_end(demo: New) -> None:
    with demo("draining", drain_seconds=20) as service:
        running = service.ask("GET", "/test?duration=2")
        began = time.monotonic()
        service.server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        for path in ("/health/ready", "/test"):
            answer = service.ask("GET", path)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "20")
        assert service.ask("GET", "/health/live").status_code == 200
        assert service.ask("GET", "/tasks").json()["running"] == 1
        service.server.process.wait(20)
        assert 1.5 < time.monotonic() - began < 10  # as long as the task, not as long as it might have taken
        (task,) = service.trace(running, f"Entry HTTP GET /test 200\n{FORKED}")["background_sleep_task"]
        assert task.tags["task.outcome"] == "succeeded"
        assert task.duration >= 2000


@pytest.mark.parametrize("signals", [1, 2], ids=["one SIGTERM", "a second one in the grace period"])
def test_of_200_tasks_each_ends_succeeded_or_as_a_dead_letter(demo: New, signals: int) -> None:
    settings = {"drain_seconds": 3, "max_running": 190, "max_queued": 100}
    with demo("terminated", **settings) as service:
        answers = [
            *service.at_once(80, "GET", "/test?duration=1.5"),
            *service.at_once(60, "GET", "/test?duration=50"),
            *service.at_once(20, "GET", "/test", headers={"X-Fault": "hang"}),
            *service.at_once(10, "POST", "/complex-action?duration=50&mode=sequential"),  # one runs, two come behind it
            *service.at_once(10, "POST", "/action?duration=50"),  # wait for a slot until the short ones have ended
        ]
        assert {answer.status_code for answer in answers} == {200}
        for _ in range(signals):
            service.server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        service.server.process.wait(30)
        log = service.server.log
        assert log.count("never started") >= 20
        assert "Traceback" not in "".join(line for line in log.splitlines() if '"uvicorn' in line)
    outcomes: Counter[str] = Counter()
    names = {"background_sleep_task", "long_running_task", "task1", "task2", "task3"}
    for answer in answers:
        size = 5 if "complex" in str(answer.url) else 3
        spans = service.oap.client.wait_for_trace(answer.headers["X-Trace-Id"], has_spans(size), 20)
        outcomes.update(span.tags["task.outcome"] for span in spans if span.name in names)
    assert outcomes.total() == 200  # 170 + 10 times 3
    with demo("restarted", **settings) as service:
        letters = service.ask("GET", "/dead-letters?limit=1000").json()
        assert letters["total"] == outcomes["interrupted"] == len(letters["dead_letters"])
        assert outcomes["succeeded"] == 80
        assert {letter["reason"] for letter in letters["dead_letters"]} == {"interrupted"}
        hung = next(letter for letter in letters["dead_letters"] if letter["arguments"] == {"seconds": 0.1})
        replay = service.ask("POST", f"/dead-letters/{hung['id']}/replay")
        time.sleep(0.5)
        assert service.task(replay.headers["X-Trace-Id"])["state"] == "succeeded"


def test_an_exit_on_purpose_ends_the_process_hard(demo: New) -> None:
    with demo("exiting") as service:
        assert service.ask("GET", "/test", headers={"X-Fault": "exit"}).json() == "ok"
        assert service.server.process.wait(10) == 70
