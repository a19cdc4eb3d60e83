"""Each alarm of background tasks: raised by the real OAP, sent to the service, told to people, and over again."""

from __future__ import annotations

import json
import re
import shutil
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
import yaml
from harness import ROOT, EmbeddedOap, Server, eventually, free_port, serve
from oap_query import alarms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = ROOT / "oap" / "config"
RULES = {n: r for n, r in yaml.safe_load((CONFIG / "alarm-settings.yml").read_text())["rules"].items() if "backgr" in n}
ABOUT = {
    "background_task_failure_rate_rule": "failing",
    "background_queue_delay_rule": "waiting",
    "background_dead_letters_rule": "failing",
    "background_crashed_tasks_rule": "failing",
    "background_segments_dropped_rule": None,
    "background_loop_lag_rule": None,
}
SECRET = "s3cret-of-the-test"
FIRED, OVER = 200.0, 240.0  # s: OAP looks once a minute, and a rule's window is two


@pytest.fixture(scope="module")
def told() -> Iterator[list[dict[str, Any]]]:
    """What people are told by Apprise: here a server that takes its JSON."""
    found: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.append({"port": server.server_port})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()


def quick_rules(folder: Path) -> Path:
    """Copy the configuration with the same rules over two minutes, repeated at every look."""
    overlay = folder / "overlay"
    shutil.copytree(CONFIG, overlay)
    path = overlay / "alarm-settings.yml"
    text = re.sub(r"silence-period: 1\n", "silence-period: 0\n", path.read_text())
    text = re.sub(r"(expression: .*meter_background.*) >= 2\n    period: 5", r"\1 >= 1\n    period: 2", text)
    path.write_text(text)
    return overlay


@pytest.fixture(scope="module")
def service(
    told: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, EmbeddedOap]]:
    """The demo service that is told, after another service has had its trouble."""
    folder = tmp_path_factory.mktemp("alarms")
    port = free_port()
    webhook = f"http://127.0.0.1:{port}/alarms?secret={SECRET}"
    oap = EmbeddedOap(folder / "data", quick_rules(folder), OAP_EMBEDDED_WEBHOOK=webhook)
    oap.start()
    environment: dict[str, Any] = {
        "SERVICE_PORT": str(port),
        "SERVICE_ALARM_SECRET": SECRET,
        "SERVICE_ALARM_QUIET_SECONDS": "75",
        "SERVICE_DATA_DIR": str(folder / "service"),
        "SERVICE_NOTIFY_URLS": json.dumps([f"json://127.0.0.1:{told[0]['port']}/"]),
    }
    name = f"troubled-{uuid4().hex[:6]}"
    reporting: dict[str, Any] = {"SW_AGENT_METER_REPORTER_PERIOD": "1", "SW_AGENT_TRACE_REPORTER_MAX_BUFFER_SIZE": "50"}
    try:
        with (
            serve(
                folder, "told", oap.grpc, module="demo_service", health="/health/live", port=port, **environment
            ) as demo,
            serve(folder, name, oap.grpc, app="alarms_app:app", **reporting) as troubled,
        ):
            httpx.post(f"{troubled.url}/trouble", trust_env=False, timeout=30)
            demo.name = name
            yield demo, oap
    finally:
        oap.stop()


def received(server: Server) -> dict[str, dict[str, Any]]:
    found = httpx.get(f"{server.url}/alarms", trust_env=False).json()["alarms"]
    return {one["rule"]: one for one in found if server.name in one["message"]}


def test_each_alarm_is_raised_told_and_over(service: tuple[Server, EmbeddedOap], told: list[dict[str, Any]]) -> None:
    demo, oap = service
    assert set(ABOUT) == set(RULES)
    eventually(lambda: set(received(demo)) >= set(RULES), FIRED)
    fired = received(demo)
    assert set(fired) == set(RULES)
    for rule, about in ABOUT.items():
        alarm = fired[rule]
        assert alarm["name"] == (f"{about} in {demo.name}" if about else demo.name)
        assert alarm["message"] == RULES[rule]["message"].replace("{name}", alarm["name"])
        assert alarm["level"] == RULES[rule]["tags"]["level"]
    kept = {one.message for one in alarms(oap.client, datetime.now(UTC) - timedelta(minutes=20), 100)}
    assert kept >= {alarm["message"] for alarm in fired.values()}

    def lines() -> list[str]:
        return [line for message in told[1:] for line in message["message"].splitlines()]

    for alarm in fired.values():
        text = f"{alarm['level'].lower()}: {alarm['message']}"
        assert eventually(lambda: text in lines()), text  # noqa: B023  # now
    eventually(lambda: all(one["recovered_at"] for one in received(demo).values()), OVER)
    assert not [one for one in received(demo).values() if one["recovered_at"] is None]
    for alarm in fired.values():
        text = f"recovered: {alarm['message']}"
        assert eventually(lambda: text in lines()), text  # noqa: B023  # now


def test_nobody_else_may_send_alarms(service: tuple[Server, EmbeddedOap]) -> None:
    demo, _ = service
    alarm = [{"ruleName": "x_rule", "startTime": 1}]
    guesses: tuple[dict[str, Any], ...] = (
        {},
        {"params": {"secret": "guess"}},
        {"headers": {"Authorization": "Bearer guess"}},
    )
    for options in guesses:
        answer = httpx.post(f"{demo.url}/alarms", json=alarm, trust_env=False, **options)
        assert answer.status_code == 403
        assert "SERVICE_ALARM_SECRET" in answer.json()["detail"]
