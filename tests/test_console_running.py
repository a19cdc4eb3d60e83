"""Work that still runs, was killed or failed for good, and alarms: in the console, in a real Chromium."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from consoles import answering, run_console
from harness import OapServer, eventually
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

EVIL = "<img src=x onerror='window.hacked = true'>"
PROGRAM = """
import sys, threading
import skywalking_background as sw
sw.start()
def work(name, task_id, end):
    with sw.background_span(name, tags={"task.id": task_id}):
        print(sw.current_trace_id(), flush=True)
        end.wait()
ends = []
for order in sys.stdin:
    kind, _, name = order.strip().partition(" ")
    if kind == "begin":
        ends.append(threading.Event())
        threading.Thread(target=work, args=(name, f"id-{len(ends)}", ends[-1]), daemon=True).start()
    else:
        for end in ends:
            end.set()
"""


class Worker:
    """A service that is not ours and uses the library; its tasks end when they are told to."""

    def __init__(self, name: str, grpc: str, journal: Path) -> None:
        environment = {
            **os.environ,
            "SW_AGENT_NAME": name,
            "SW_AGENT_COLLECTOR_BACKEND_SERVICES": grpc,
            "SKYWALKING_BACKGROUND_JOURNAL": str(journal),
        }
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def begin(self, task: str) -> str:
        """Begin a task; return its trace id."""
        self._say(f"begin {task}")
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end_all(self) -> None:
        self._say("end")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()


@dataclass
class StandIn:
    """A service as the console sees it, which notes what it is told to do."""

    url: str = ""
    letters: list[dict[str, Any]] = field(default_factory=list)
    alarms: list[dict[str, Any]] = field(default_factory=list)
    orders: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    cancel_status: int = 202
    paused: set[str] = field(default_factory=set)
    endpoints: tuple[tuple[str, str], ...] = (
        ("post", "/tasks/{task_id}/cancel"),
        ("get", "/dead-letters"),
        ("delete", "/dead-letters"),
        ("post", "/dead-letters/replay"),
    )

    def answer(self, method: str, path: str, query: dict[str, str]) -> tuple[int, Any]:
        if method != "GET":
            self.orders.append((method, path, query))
        paths: dict[str, dict[str, Any]] = {}
        for verb, each in self.endpoints:
            paths.setdefault(each, {})[verb] = {}
        known: dict[tuple[str, str], Any] = {
            ("GET", "/health/ready"): {},
            ("GET", "/openapi.json"): {"paths": paths},
            ("GET", "/tasks"): {"tasks": [], "counts": {}, "running": 0},
            ("GET", "/alarms"): self.alarms,
            ("GET", "/dead-letters"): {"dead_letters": self.letters, "total": len(self.letters)},
            ("DELETE", "/dead-letters"): {"deleted": 2},
            ("POST", "/dead-letters/replay"): {"task_ids": ["a", "b"], "skipped": 1, "refused": None},
        }
        if path == "/jobs":
            return 200, {"jobs": [{"name": name, "paused": name in self.paused} for name in ("resize", "send")]}
        if path.startswith("/jobs/"):
            _, _, name, order = path.split("/")
            (self.paused.add if order == "pause" else self.paused.discard)(name)
            return 200, {"name": name, "paused": order == "pause"}
        if path.endswith("/cancel"):
            return self.cancel_status, {"detail": "the task has ended"}
        found = known.get((method, path))
        return (404, {"detail": "nothing here"}) if found is None else (200, found)


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    made = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            status, answer = made.answer(self.command, parts.path, query)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815  # as the standard library names them

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def worker(oap: OapServer, tmp_path: Path) -> Iterator[Worker]:
    made = Worker(f"worker-{uuid4().hex[:6]}", oap.grpc, tmp_path / "journal")
    yield made
    made.kill()


@contextmanager
def console_of(oap_url: str, service: StandIn, name: str, folder: Path) -> Iterator[str]:
    with run_console(
        folder, CONSOLE_OAP_URL=oap_url, CONSOLE_SERVICE_URL=service.url, CONSOLE_SERVICE_NAME=name
    ) as url:
        yield url


def seconds_of(page: Page) -> float:
    """Return how long the running bar of the page says that it is."""
    text = page.locator(".lane span").last.inner_text().replace(",", "")
    number, unit = text.split()
    return float(number) / (1000 if unit == "ms" else 1)


def test_a_task_of_any_service_is_seen_while_it_runs(
    page: Page, oap: OapServer, stand_in: StandIn, worker: Worker, tmp_path: Path
) -> None:
    first, second = worker.begin("resize"), worker.begin(EVIL)
    with console_of(oap.url, stand_in, worker.name, tmp_path) as url:
        page.goto(f"{url}/running?service={worker.name}")
        rows = page.locator("table tbody tr")
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text("resize")  # the oldest
        expect(rows.first).to_contain_text("id-1")
        expect(rows.first).to_contain_text(worker.name)
        expect(rows.first.locator("[role=timer]")).to_have_text(re.compile(r"\d s"))
        expect(rows.nth(1)).to_contain_text(EVIL)
        rows.first.locator("a").click()
        page.wait_for_url(f"**/traces/{first}")
        expect(page.locator(".span-row .badge")).to_have_text("running")
        before = seconds_of(page)
        eventually(lambda: seconds_of(page) > before + 1)
        assert seconds_of(page) > before + 1

        page.goto(url)
        expect(page.locator(".tile", has_text="tasks in view")).to_contain_text("2")
        expect(page.locator(".chip", has_text="resize")).to_be_visible()

        page.goto(f"{url}/traces/{second}")
        expect(page.locator("h1")).to_have_text(EVIL)
        expect(page.locator(".badge", has_text="1 running")).to_be_visible()
        worker.end_all()
        expect(page.locator(".span-row .badge")).to_have_count(0)
        expect(page.locator(".span-row")).to_have_count(1)
        page.goto(f"{url}/running?service={worker.name}")
        expect(page.locator("#main")).to_contain_text("No task runs")
        assert page.evaluate("window.hacked") is None


def test_a_killed_task_is_shown_as_crashed(
    page: Page, oap: OapServer, stand_in: StandIn, worker: Worker, tmp_path: Path
) -> None:
    trace_id = worker.begin("resize")
    with console_of(oap.url, stand_in, worker.name, tmp_path) as url:
        page.goto(f"{url}/traces/{trace_id}")
        expect(page.locator(".span-row .badge")).to_have_text("running")
        worker.kill()
        again = Worker(worker.name, oap.grpc, tmp_path / "journal")
        try:
            again.begin("other")
            expect(page.locator(".span-row .badge")).to_have_text("crashed")
            expect(page.locator(".detail")).to_contain_text("its process was alive until then")
            expect(page.locator(".badge", has_text="1 failed")).to_be_visible()
            page.goto(url)
            expect(page.locator(".tile", has_text="failed")).to_contain_text("1 crashed")
            expect(page.locator(".grid .badge", has_text="crashed")).to_be_visible()
        finally:
            again.kill()


def test_a_running_task_is_cancelled_by_two_presses(
    page: Page, oap: OapServer, stand_in: StandIn, worker: Worker, tmp_path: Path
) -> None:
    trace_id = worker.begin("resize")
    with console_of(oap.url, stand_in, worker.name, tmp_path) as url:
        page.goto(f"{url}/traces/{trace_id}")
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("button", name="Really cancel?")).to_be_visible()
        assert stand_in.orders == []
        page.get_by_role("button", name="Really cancel?").click()
        expect(page.locator(".q-notification")).to_contain_text("Task id-1 is cancelled")
        assert stand_in.orders == [("POST", "/tasks/id-1/cancel", {})]

        stand_in.cancel_status = 409
        page.goto(f"{url}/running")
        row = page.locator("tr", has_text=worker.name)
        row.get_by_role("button", name="Cancel").click()
        row.get_by_role("button", name="Really cancel?").click()
        expect(page.locator(".q-notification")).to_contain_text("The service answers 409: the task has ended")


def test_a_job_is_paused_and_resumed_by_two_presses_each(
    page: Page, oap: OapServer, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.endpoints += (("get", "/jobs"), ("post", "/jobs/{name}/pause"), ("post", "/jobs/{name}/resume"))
    with console_of(oap.url, stand_in, "demo", tmp_path) as url:
        page.goto(f"{url}/running")
        row = page.locator("section tr", has_text="resize")
        expect(row).to_contain_text("begins tasks")
        row.get_by_role("button", name="Pause").click()
        expect(row.get_by_role("button", name="Really pause?")).to_be_visible()
        assert stand_in.orders == []
        row.get_by_role("button", name="Really pause?").click()
        expect(page.locator(".q-notification").first).to_contain_text("resize is paused")
        expect(row.locator(".badge")).to_have_text("paused")
        row.get_by_role("button", name="Resume").click()
        row.get_by_role("button", name="Really resume?").click()
        expect(row).to_contain_text("begins tasks")
        assert stand_in.orders == [("POST", "/jobs/resize/pause", {}), ("POST", "/jobs/resize/resume", {})]
        expect(page.locator("section tr", has_text="send")).to_contain_text("begins tasks")


def letter(number: int, name: str, error: str, minutes_ago: float) -> dict[str, Any]:
    died = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    return {
        "id": f"l{number}",
        "name": name,
        "died_at": died.isoformat(),
        "error": {"type": error, "message": EVIL, "stack": "…"},
        "reason": "failed",
        "attempts": 3,
        "arguments": {},
        "trace_id": None,
    }


def test_dead_letters_are_filtered_and_replayed_or_deleted_in_bulk(
    page: Page, oap: OapServer, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.letters = [
        letter(1, "resize", "ValueError", 1),
        letter(2, "resize", "TimeoutError", 2),
        letter(3, "send", "ValueError", 600),
    ]
    with console_of(oap.url, stand_in, "demo", tmp_path) as url:
        page.goto(f"{url}/dead-letters")
        rows = page.locator("table tbody tr")
        expect(rows).to_have_count(3)
        page.get_by_label("Task").select_option("resize")
        expect(rows).to_have_count(2)
        page.get_by_label("Error").select_option("ValueError")
        expect(rows).to_have_count(1)

        page.get_by_role("button", name="Delete all").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Delete 1 dead letter of resize with ValueError?")
        dialog.get_by_role("button", name="Back").click()
        expect(dialog).to_be_hidden()
        page.get_by_role("button", name="Delete all").click()
        expect(dialog.get_by_role("button", name="Back")).to_be_focused()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        assert stand_in.orders == []
        page.get_by_role("button", name="Delete all").click()
        dialog.get_by_role("button", name="Delete").click()
        expect(page.locator(".q-notification").first).to_contain_text("2 dead letters are deleted")
        assert stand_in.orders == [("DELETE", "/dead-letters", {"name": "resize", "error": "ValueError"})]

        page.get_by_role("button", name="Clear").click()
        expect(rows).to_have_count(3)
        page.get_by_label("Died from").fill(f"{datetime.now().astimezone() - timedelta(hours=1):%Y-%m-%dT%H:%M:%S}")
        expect(rows).to_have_count(2)
        page.get_by_role("button", name="Replay all").click()
        expect(dialog).to_contain_text("Run 2 dead letters from")
        dialog.get_by_role("button", name="Replay").click()
        said = page.locator(".q-notification", has_text="2 tasks run again. 1 could not be run and stay.")
        expect(said).to_be_visible()
        method, path, query = stand_in.orders[-1]
        assert (method, path, list(query)) == ("POST", "/dead-letters/replay", ["after", "limit"])
        since = datetime.fromisoformat(query["after"])
        assert abs((datetime.now(UTC) - since).total_seconds() - 3600) < 120
        assert page.evaluate("window.hacked") is None


def test_without_bulk_endpoints_there_are_no_bulk_buttons(
    page: Page, oap: OapServer, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.letters = [letter(1, "resize", "ValueError", 1)]
    stand_in.endpoints = (("get", "/dead-letters"),)
    with console_of(oap.url, stand_in, "demo", tmp_path) as url:
        page.goto(f"{url}/dead-letters")
        expect(page.locator("table tbody tr")).to_have_count(1)
        expect(page.get_by_role("button", name="Delete all")).to_be_hidden()


def alarm(start: int, message: str, **more: object) -> dict[str, object]:
    identity = "ZGVtbw==.1_cmVzaXpl"  # demo, resize
    tags = [{"key": "level", "value": "CRITICAL"}]
    return {"id": identity, "message": message, "startTime": start, "scope": "Endpoint", "tags": tags, **more}


@pytest.mark.parametrize("tells", [True, False], ids=["an OAP that tells recovery", "one that does not"])
def test_alarms_are_listed_with_their_recovery(
    page: Page, oap: OapServer, stand_in: StandIn, tmp_path: Path, *, tells: bool
) -> None:
    now = int(time.time() * 1000)
    recovery = {"recoveryTime": now - 30_000} if tells else {}
    raised = [alarm(now - 60_000, EVIL), alarm(now - 90_000, "queue delay", **recovery)]
    if not tells:  # but the service was told by the webhook
        stand_in.alarms = [
            {
                "message": "queue delay",
                "started_at": datetime.fromtimestamp((now - 90_000) / 1000, UTC).isoformat(),
                "recovered_at": datetime.fromtimestamp((now - 30_000) / 1000, UTC).isoformat(),
            }
        ]
    fields = [{"name": "recoveryTime"}] if tells else [{"name": "startTime"}]
    answers = {"getAlarm": {"msgs": raised}, "__type": {"fields": fields}}
    with answering(oap, answers) as oap_url, console_of(oap_url, stand_in, "demo", tmp_path) as url:
        page.goto(f"{url}/alarms")
        rows = page.locator("table tbody tr")
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text(EVIL)
        expect(rows.first.locator(".badge").first).to_have_text("active" if tells else "not known")
        expect(rows.first.locator(".badge").nth(1)).to_have_text("critical")
        expect(rows.nth(1).locator(".badge").first).to_have_text("recovered")
        link = rows.first.get_by_role("link", name="traces")
        assert link.get_attribute("href") == "/traces?service=demo&endpoint=resize&minutes=1440"
        expect(page.locator("#main")).to_contain_text("does not report when" if not tells else "Alarms")
        assert page.evaluate("window.hacked") is None
