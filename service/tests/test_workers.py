"""Two real processes of the service on one port: what one of them is told holds for the other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from harness import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

START_SECONDS = 60.0


def until(look: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Look again and again until there is something to see."""
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("workers")
    port = free_port()
    environment = {
        **os.environ,
        "SERVICE_WORKERS": "2",
        "SERVICE_PORT": str(port),
        "SERVICE_KEEP_ALIVE_SECONDS": "60",
        "SERVICE_DATA_DIR": str(folder / "data"),
        "SW_AGENT_COLLECTOR_BACKEND_SERVICES": "127.0.0.1:9",
    }
    with (folder / "log").open("wb") as log:
        service = subprocess.Popen(
            [sys.executable, "-m", "demo_service", "serve"], env=environment, stdout=log, stderr=log
        )
    try:
        base = f"http://127.0.0.1:{port}"
        assert until(lambda: processes(base) == 2, START_SECONDS), (folder / "log").read_text()[-2_000:]
        yield base
    finally:
        service.send_signal(signal.SIGTERM)
        try:
            service.wait(40)
        finally:
            service.kill()


def processes(base: str) -> int:
    """Count how many of the processes answer, by their own tasks: each has one that no other knows."""
    try:
        one, other = clients(base)
    except (httpx.HTTPError, TimeoutError):
        return 0
    one.close()
    other.close()
    return 2


def clients(base: str) -> tuple[httpx.Client, httpx.Client]:
    """Return two clients, each with a connection that another process answers."""
    one = httpx.Client(base_url=base, trust_env=False)
    task = begin(one, 0)
    for _ in range(40):
        other = httpx.Client(base_url=base, trust_env=False)
        if other.get(f"/tasks/{task}").status_code == 404:
            return one, other
        other.close()
    one.close()
    raise TimeoutError


@pytest.fixture
def pair(url: str) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    one, other = clients(url)
    yield one, other
    one.close()
    other.close()


def begin(client: httpx.Client, seconds: float) -> str:
    """Begin a task in the process of a client's connection; return its id."""
    answer = client.get("/test", params={"duration": seconds})
    answer.raise_for_status()
    trace = answer.headers["X-Trace-Id"]
    tasks = client.get("/tasks").json()["tasks"]
    return str(next(task["id"] for task in tasks if task["trace_id"] == trace))


def state(client: httpx.Client, task: str) -> str:
    return str(client.get(f"/tasks/{task}").json()["state"])


def test_a_task_is_cancelled_by_the_process_that_runs_it(pair: tuple[httpx.Client, httpx.Client]) -> None:
    one, other = pair
    task = begin(one, 60)
    answer = other.post(f"/tasks/{task}/cancel")
    assert (answer.status_code, answer.json()) == (202, {"status": "cancelling", "task_id": task})
    assert until(lambda: state(one, task) == "cancelled")
    again = other.post(f"/tasks/{task}/cancel")
    assert (again.status_code, again.json()["detail"]) == (409, "the task has ended already: cancelled")
    assert other.post(f"/tasks/{'0' * 32}/cancel").status_code == 404


def test_a_job_is_paused_and_resumed_in_both(pair: tuple[httpx.Client, httpx.Client]) -> None:
    one, other = pair
    assert one.post("/jobs/background_sleep_task/pause").status_code == 200
    for client in pair:
        jobs = client.get("/jobs").json()["jobs"]
        assert [job["name"] for job in jobs if job["paused"]] == ["background_sleep_task"]
    waiting = begin(other, 0)
    running = begin(one, 0)
    time.sleep(0.3)
    assert (state(other, waiting), state(one, running)) == ("accepted", "accepted")
    assert other.post("/jobs/background_sleep_task/resume").status_code == 200
    assert until(lambda: state(other, waiting) == state(one, running) == "succeeded")
