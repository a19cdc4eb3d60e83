"""Every page in a real Chromium: nothing comes from elsewhere, and nothing obeys a page of somebody else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from consoles import CHROMIUM, FLAGS, SOON_MS, answers, run_console
from harness import ROOT, OapServer, Server, eventually, free_port, serve, wait_until
from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

EVIL = "evil.example"


class Stack(NamedTuple):
    """Where the parts are, and the service's process."""

    service: str
    console: str
    locust: str
    server: Server


@contextmanager
def run_locust(folder: Path, service_url: str, **environment: str) -> Iterator[str]:
    """Run Locust's page as `make load-ui` does; yield its URL."""
    port, log = free_port(), folder / "locust.log"
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"), "--host", service_url]
    command += ["--class-picker", "--web-host", "127.0.0.1", "--web-port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(url), process, log, 120)
        yield url
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def stack(oap: OapServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder, name = tmp_path_factory.mktemp("pages"), f"pages-{uuid4().hex[:6]}"
    data: dict[str, Any] = {"SERVICE_DATA_DIR": str(folder / "data"), "SERVICE_TASK_SECONDS": "0"}
    with (
        serve(folder, name, oap.grpc, module="demo_service", health="/health/ready", **data) as server,
        run_console(folder, CONSOLE_OAP_URL=oap.url, CONSOLE_SERVICE_URL=server.url, CONSOLE_SERVICE_NAME=name) as url,
        run_locust(folder, server.url) as locust,
    ):
        yield Stack(server.url, url, locust, server)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for which the name of the hostile page leads to this machine."""
    flags = [*FLAGS, f"--host-resolver-rules=MAP {EVIL} 127.0.0.1"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield running
        running.close()


@pytest.mark.parametrize(
    ("part", "path", "sign"),
    [
        ("service", "/docs", ".opblock"),
        ("service", "/redoc", "[role=menu]"),
        ("console", "/", "h1"),
        ("console", "/traces", "h1"),
        ("console", "/traces/unknown", "h1"),
        ("console", "/try", "h1"),
        ("console", "/overview", "h1"),
        ("console", "/running", "h1"),
        ("console", "/profile", "h1"),
        ("console", "/logs", "h1"),
        ("console", "/dead-letters", "h1"),
        ("console", "/alarms", "h1"),
        ("console", "/faults", "h1"),
        ("console", "/incidents", "h1"),
        ("console", "/incidents/sequential", "h1"),
        ("locust", "/", "button[type=submit]"),
    ],
)
def test_a_page_needs_no_internet(browser: Browser, stack: Stack, part: str, path: str, sign: str) -> None:
    base = getattr(stack, part)
    outside: list[str] = []
    broken: list[str] = []
    context = browser.new_context()

    def guard(route: Any) -> None:
        url = route.request.url
        if url.startswith((base, "data:", "blob:")):
            route.continue_()
        else:
            outside.append(url)
            route.abort()

    context.route("**/*", guard)
    page = context.new_page()
    page.on("response", lambda answer: broken.append(answer.url) if answer.status >= 400 else None)
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.goto(base + path)
    expect(page.locator(sign).first).to_be_visible(timeout=SOON_MS)
    page.wait_for_timeout(1500)  # what is loaded late
    assert (outside, broken) == ([], [])
    context.close()


def is_swarming(locust: str) -> bool:
    return httpx.get(f"{locust}/stats/requests", trust_env=False).json()["state"] in {"spawning", "running"}


@pytest.mark.parametrize("path", ["/swarm", "/stop", "/edit", "/stats/reset", "/user", "/"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": f"http://{EVIL}"},
        {"Origin": "null"},
        {"Host": f"{EVIL}:8089"},
        {"Host": f"{EVIL}:8089", "Origin": f"http://{EVIL}:8089"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
    ids=["origin", "null", "rebound", "rebound-own-origin", "fetch-site"],
)
def test_locust_refuses_orders_from_elsewhere(stack: Stack, path: str, headers: dict[str, str]) -> None:
    data = {"user_count": "1", "spawn_rate": "1"}
    answer = httpx.post(stack.locust + path, headers=headers, data=data, trust_env=False)
    assert answer.status_code == 403
    assert not is_swarming(stack.locust)


def test_locust_obeys_its_own_page_and_programs(stack: Stack) -> None:
    order = {"user_count": "1", "spawn_rate": "1", "user_classes": "Smoke", "host": stack.service}
    for headers in ({"Origin": stack.locust}, {}):
        answer = httpx.post(f"{stack.locust}/swarm", headers=headers, data=order, trust_env=False)
        assert answer.json()["success"], answer.text
        assert eventually(lambda: is_swarming(stack.locust), 10)
        assert httpx.post(f"{stack.locust}/stop", headers=headers, trust_env=False).json()["success"]
        assert eventually(lambda: not is_swarming(stack.locust), 10)


def test_more_names_can_be_given_to_locust(stack: Stack, tmp_path: Path) -> None:
    with run_locust(tmp_path, stack.service, LOAD_ALLOWED_HOSTS="stack.example") as url:
        assert httpx.get(url, headers={"Host": "stack.example:8089"}, trust_env=False).status_code == 200
        assert httpx.get(url, headers={"Host": EVIL}, trust_env=False).status_code == 403


@contextmanager
def hostile(page: str) -> Iterator[str]:
    """Serve a page under the name of somebody else; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{EVIL}:{server.server_address[1]}"
    server.shutdown()


def test_a_hostile_page_gives_no_orders(browser: Browser, stack: Stack) -> None:
    page = f"""<form id=swarm method=post action="{stack.locust}/swarm" target=one>
        <input name=user_count value=1><input name=spawn_rate value=1><input name=user_classes value=Smoke>
        <input name=host value="{stack.service}"></form><iframe name=one></iframe>
        <form id=action method=post action="{stack.service}/action" target=two></form><iframe name=two></iframe>
        <img src="{stack.service}/test?duration=0">
        <script>
            document.getElementById('swarm').submit(); document.getElementById('action').submit();
            fetch('{stack.service}/test', {{mode: 'no-cors'}});
            fetch('{stack.service}/dead-letters', {{mode: 'no-cors'}});
        </script>"""
    asked: list[str] = []
    before = datetime.now(UTC).isoformat()
    with hostile(page) as url:
        context = browser.new_context()
        opened = context.new_page()
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(url)
        opened.wait_for_timeout(2000)
        context.close()
    assert {f"{stack.locust}/swarm", f"{stack.service}/action", f"{stack.service}/test"} <= set(asked)
    assert not is_swarming(stack.locust)
    tasks = httpx.get(f"{stack.service}/tasks", trust_env=False).json()["tasks"]
    assert [task for task in tasks if task["endpoint"] == "POST /action" or task["accepted_at"] >= before] == []


@pytest.mark.parametrize(("part", "path"), [("service", "/tasks"), ("console", "/"), ("locust", "/")])
def test_a_name_that_was_pointed_at_this_machine_is_refused(
    browser: Browser, stack: Stack, part: str, path: str
) -> None:
    context = browser.new_context()
    page = context.new_page()
    answer = page.goto(f"http://{EVIL}:{urlsplit(getattr(stack, part)).port}{path}")
    assert answer is not None
    assert (answer.status, "ALLOWED_HOSTS" in answer.text()) == (403, True)
    context.close()
