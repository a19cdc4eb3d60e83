"""Load with a real Locust against a real service that reports to a real OAP."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from harness import OapServer, free_port, serve
from oap_query import build, outline
from stack.load import LOCUSTFILE, Load, chaos, load, read_requests, scenarios, traces
from stack.runtime import NativeRuntime
from stack.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def settings_for(folder: Path, oap_url: str, service_url: str, name: str) -> Settings:
    """Make the settings of a stack whose parts run elsewhere."""
    service, oap = (urlsplit(url).port for url in (service_url, oap_url))
    ports: dict[str, Any] = {
        "service_port": service,
        "oap_http_port": oap,
        "oap_grpc_port": free_port(),
        "locust_port": free_port(),
    }
    return Settings(run_dir=folder / "run", service_name=name, **ports)


@pytest.fixture
def settings(oap: OapServer, tmp_path: Path) -> Iterator[Settings]:
    """The demo service, running on its own."""
    name = f"load-{uuid4().hex[:6]}"
    service = serve(
        tmp_path,
        name,
        oap.grpc,
        app="demo_service.app:create_app",
        arguments=("--factory",),
        health="/health/live",
        SERVICE_TASK_SECONDS="2",
    )
    with service as server:
        yield settings_for(tmp_path, oap.url, server.url, name)


def test_a_burst_is_answered_and_every_trace_of_it_is_complete(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = Load("burst", users=200)
    assert load(settings, wanted) == 0
    sent = read_requests(settings, wanted)
    assert len({request.trace_id for request in sent}) == 200
    assert max(request.start for request in sent) - min(request.start for request in sent) < 1  # all at once
    output = capfd.readouterr().out
    assert "complete 200 of 200" in output
    assert "of 200 that were started" in output
    assert (wanted.folder(settings) / "locust.html").stat().st_size > 1000
    assert "GET /test" in (wanted.folder(settings) / "locust_stats.csv").read_text()


def test_locust_is_the_root_of_the_traces_also_with_workers(settings: Settings, oap: OapServer) -> None:
    wanted = Load("mixed", users=8, duration_seconds=4, processes=2, tags=("complex",), trace_client=True)
    assert load(settings, wanted) == 0
    assert len(list(wanted.folder(settings).glob("requests-*.jsonl"))) >= 2  # each worker has asked
    sent = read_requests(settings, wanted)
    assert {request.name for request in sent} == {"POST /complex-action"}
    trace = oap.client.wait_for_trace(sent[0].trace_id, lambda spans: len(spans) >= 6, 15)
    assert outline(build(trace)).splitlines()[:2] == [
        "Exit POST /complex-action 200",
        "  Entry HTTP POST /complex-action 200 CROSS_PROCESS",
    ]
    assert len(trace) == 6


def test_waiting_users_are_told_from_those_who_leave_a_task_behind(settings: Settings) -> None:
    wanted = Load("blocking-vs-background", users=4, duration_seconds=4)
    assert load(settings, wanted) == 0
    slow = [request.ms for request in read_requests(settings, wanted) if request.name == "GET /test/blocking"]
    fast = [request.ms for request in read_requests(settings, wanted) if request.name == "GET /test"]
    assert min(slow) >= 2000
    assert max(fast) < 1000


def test_a_broken_promise_is_exit_code_1_with_the_reason_and_a_link_to_the_trace(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    # A task of 61 s is more than the service allows.
    wanted = Load("parallel", rate=20, duration_seconds=3, task_seconds=61)
    assert load(settings, wanted) == 1
    output = capfd.readouterr()
    sent = read_requests(settings, wanted)[0]
    assert "requests failed" in output.err
    assert f"GET /test failed: status 422 (http://127.0.0.1:8088/traces/{sent.trace_id})" in output.err


def test_the_web_page_offers_every_scenario() -> None:
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--class-picker", "--list"]
    users = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    for scenario in scenarios():
        name = scenario.replace("blocking-vs-background", "background").title()
        assert name in users


def test_faults_cost_only_what_they_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chaos, "REST_SECONDS", 6.0)
    monkeypatch.setattr(chaos, "FAULT_SECONDS", 3.0)
    monkeypatch.setattr(traces, "SETTLED_SECONDS", 8.0)
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # NiceGUI would take itself for the thing under test
    names = (
        "service_port", "console_port", "oap_http_port", "oap_grpc_port", "locust_port",
        "redis_port", "consumer_port", "worker_port",
    )  # fmt: skip
    ports: dict[str, Any] = {name: free_port() for name in names}
    settings = Settings(runtime="native", run_dir=tmp_path / "run", **ports)
    try:
        assert NativeRuntime(settings).up() == 0
        assert load(settings, Load("chaos", users=20, rate=20)) == 0
    finally:
        assert NativeRuntime(settings).down() == 0
    output = capfd.readouterr().out
    lines = {
        line[:23].strip(): line[23:].replace(",", "").split()
        for line in output.splitlines()
        if "OAP" in line or "none" in line
    }
    _, _, failed, lost = map(int, lines["OAP stopped and started"])
    assert failed == 0  # the service does not notice
    assert lost < 20 * chaos.UNSTORED_SECONDS  # at most what OAP had acknowledged and not stored when it was stopped
    _, _, failed, lost = map(int, lines["OAP's disk full"])
    assert failed == 0
    assert lost > 0  # the loss is seen
    assert lines["none"][1:] == ["0", "0"]
