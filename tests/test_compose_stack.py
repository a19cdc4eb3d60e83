"""The stack of containers under load and restarted, as `make up RUNTIME=compose LOCUST_WORKERS=2` has brought it up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from harness import ROOT, eventually
from oap_query import Oap, Span
from stack.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from stack.settings import Settings

LOAD = 400
"""s after which the load would end by itself: both restarts fit into it."""
REST = 5
"""s of load before the restarts, and after them."""


@pytest.fixture
def settings() -> Settings:
    """The settings of the running stack; `.ci/run` says that there is one."""
    if not os.environ.get("COMPOSE_STACK"):
        pytest.skip("COMPOSE_STACK=1 says that `make up RUNTIME=compose LOCUST_WORKERS=2` was run")
    found = load_settings(running=True)
    assert found.runtime == "compose"
    return found


def request_trace(settings: Settings, seconds: float) -> list[Span]:
    """Ask for `/test` with a short task until the whole trace of one such request can be read."""
    oap = Oap(settings.oap_url)
    deadline = time.monotonic() + seconds
    while True:
        response = httpx.get(f"{settings.service_url}/test?duration=0.1", trust_env=False)
        spans = oap.wait_for_trace(response.headers["X-Trace-Id"], complete, timeout=15)
        if complete(spans) or time.monotonic() > deadline:
            return spans


def complete(spans: list[Span]) -> bool:
    return len(spans) == 3


def restart(part: str) -> None:
    """Restart a container as a user does; it is healthy again afterwards."""
    subprocess.run([sys.executable, "-m", "stack", "restart", part], cwd=ROOT, check=True, timeout=240)


def start_load(settings: Settings, results: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"), "--headless"]
    command += ["--host", settings.service_url, "--users", "20", "--spawn-rate", "20", "--run-time", f"{LOAD}s"]
    command += ["--json-file", str(results), "--only-summary", "--exit-code-on-error", "0"]
    return subprocess.Popen(command)


def test_the_workers_behind_locusts_page_share_the_load(settings: Settings) -> None:
    with httpx.Client(base_url=settings.locust_url, trust_env=False) as page:

        def stats() -> Any:  # Locust's own JSON
            return page.get("/stats/requests").json()

        def workers(state: str) -> list[int]:
            """Return how many users each worker has that is in this state."""
            return [worker["user_count"] for worker in stats()["workers"] if worker["state"] == state]

        assert eventually(lambda: len(workers("ready")) == settings.locust_workers == 2)
        form = {"user_classes": "Smoke", "user_count": 20, "spawn_rate": 20, "host": "http://service:8000"}
        assert page.post("/swarm", data=form).json()["success"]
        try:
            assert eventually(lambda: workers("running") == [10, 10])
            assert eventually(lambda: stats()["stats"][-1]["num_requests"] > 100)
            assert stats()["stats"][-1]["num_failures"] == 0
        finally:
            page.get("/stop")


def test_no_request_fails_while_storage_and_oap_restart_and_old_traces_stay(settings: Settings, tmp_path: Path) -> None:
    before = request_trace(settings, 30)
    assert complete(before)
    load = start_load(settings, tmp_path / "load")
    try:
        time.sleep(REST)
        restart(settings.storage)
        restart("oap")
        assert load.poll() is None, "the load ended before the restarts did: it proves nothing"
        time.sleep(REST)
        load.send_signal(signal.SIGTERM)
        load.wait(30)
    finally:
        load.kill()
        load.wait()
    rows = json.loads((tmp_path / "load.json").read_text())
    assert sum(row["num_requests"] for row in rows) > 2 * REST * 10
    assert sum(row["num_failures"] for row in rows) == 0
    after = Oap(settings.oap_url).wait_for_trace(before[0].trace_id, complete, timeout=60)
    assert sorted(span.name for span in after) == sorted(span.name for span in before)
    assert complete(request_trace(settings, 90)), "the agent has not come back"
