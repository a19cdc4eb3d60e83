"""The console in a real Chromium, over the real OAP and the real service."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
from consoles import SOON_MS, answering, ask, forward, run_console
from harness import OapServer, Server, eventually, free_port, serve
from playwright.sync_api import Error, expect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Locator, Page

PAGES = (
    "/",
    "/running",
    "/traces",
    "/try",
    "/overview",
    "/dead-letters",
    "/alarms",
    "/crash",
    "/faults",
    "/incidents",
    "/incidents/killed",
    "/traces/unknown",
)
EVIL = "<script>window.hacked = true</script><img src=x onerror='window.hacked = true'>"


@pytest.fixture(scope="module")
def service(oap: OapServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo service, with 12 traces of `/test` and one of `/complex-action` in OAP."""
    with serve(
        tmp_path_factory.mktemp("service"),
        f"demo-{uuid4().hex[:6]}",
        oap.grpc,
        app="demo_service.app:create_app",
        arguments=("--factory",),
        health="/health/live",
        SW_AGENT_LOG_REPORTER_LEVEL="INFO",
    ) as server:
        ids = [ask(server, "/test?duration=1") for _ in range(12)]
        ids.append(ask(server, "/complex-action?duration=1.5", "POST"))
        for trace_id in ids:
            oap.client.wait_for_trace(trace_id, lambda spans: len(spans) >= 3)
        yield server


@pytest.fixture(scope="module")
def console(oap: OapServer, service: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_console(
        tmp_path_factory.mktemp("console"),
        CONSOLE_OAP_URL=oap.url,
        CONSOLE_SERVICE_URL=service.url,
        CONSOLE_SERVICE_NAME=service.name,
    ) as url:
        yield url


def bars(page: Page, least: int) -> None:
    """Wait until the timeline has drawn so many bars."""
    page.wait_for_function(f"Number(document.querySelector('.timeline')?.dataset.bars) >= {least}", timeout=SOON_MS)


def test_the_timeline_draws_a_bar_for_each_task_and_a_click_opens_its_trace(page: Page, console: str) -> None:
    page.goto(console)
    bars(page, 15)
    expect(page.locator(".tile", has_text="tasks in view")).to_contain_text("15")
    expect(page.locator(".chip", has_text="background_sleep_task")).to_contain_text("12")
    # Where the first bar is, by the chart's own word.
    x, y = page.evaluate(
        """() => {
            const vm = Object.values(mounted_app.$refs).flat().find(one => one?.pieces);
            const bar = vm.pieces.all.find(piece => piece.slot && !piece.request);
            const place = [(bar.start + bar.end) / 2, bar.slot[3]];
            const [x, y] = vm.chart.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, place);
            const box = vm.$refs.plot.getBoundingClientRect();
            return [box.x + x, box.y + y];
        }"""
    )
    page.mouse.move(x, y)
    expect(page.locator(".tip")).to_contain_text("click opens the trace")
    page.mouse.click(x, y)
    page.wait_for_url(re.compile(r"/traces/[0-9a-f]+"))
    expect(page.locator("h1")).to_contain_text("HTTP")
    expect(page.locator(".waterfall")).to_be_visible()


def test_the_timeline_can_be_filtered_by_endpoint_task_and_outcome(page: Page, console: str) -> None:
    page.goto(console)
    bars(page, 15)
    page.get_by_label("Endpoint").select_option("HTTP POST /complex-action")
    expect(page.locator(".tile", has_text="tasks in view")).to_contain_text("3")
    expect(page.locator(".tile", has_text="at once")).to_contain_text("3")
    page.get_by_label("Task", exact=True).select_option("task2")
    expect(page.locator(".tile", has_text="tasks in view")).to_contain_text("1")
    page.get_by_label("Outcome").select_option("failed")
    expect(page.locator(".tile", has_text="tasks in view")).to_contain_text("0")


def test_the_timeline_follows_what_happens_and_can_be_held(page: Page, console: str, service: Server) -> None:
    page.goto(console)
    bars(page, 15)
    count = int(page.locator(".timeline").get_attribute("data-bars") or 0)
    ask(service, "/action?duration=0.5", "POST")
    bars(page, count + 1)
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("button", name="Paused")).to_have_attribute("aria-pressed", "false")
    ask(service, "/action?duration=0.1", "POST")
    page.wait_for_timeout(5000)
    assert int(page.locator(".timeline").get_attribute("data-bars") or 0) == count + 1


def test_the_timeline_zooms_and_pans_by_keyboard(page: Page, console: str) -> None:
    page.goto(console)
    bars(page, 15)
    zoom = "() => { const z = Object.values(mounted_app.$refs).flat().find(one => one?.pieces).chart.getOption().dataZoom[0]; return [z.start, z.end]; }"  # noqa: E501
    page.locator(".plot").focus()
    page.keyboard.press("+")
    start, end = page.evaluate(zoom)
    assert end - start < 100
    page.keyboard.press("ArrowRight")
    assert page.evaluate(zoom)[0] > start
    page.keyboard.press("0")
    assert page.evaluate(zoom) == [0, 100]


def test_the_trace_page_shows_all_segments_with_tags_and_references(page: Page, console: str, service: Server) -> None:
    trace_id = ask(service, "/complex-action?duration=0.2", "POST")
    page.goto(f"{console}/traces/{trace_id}")
    rows = page.locator(".span-row")
    expect(rows).to_have_count(5)
    expect(rows.first).to_contain_text("HTTP POST /complex-action")
    expect(page.locator(".span-row", has_text="task3")).to_contain_text("⇢")
    page.locator(".span-row", has_text="task3").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".detail")).to_contain_text("HTTP POST /complex-action (CROSS_THREAD)")
    rows.first.click()
    expect(page.locator(".detail").first).to_contain_text("http.status_code")
    expect(page.locator(".services")).to_contain_text(service.name)
    expect(page.locator(".loglines")).to_contain_text("Background task started: task3")


def test_a_trace_grows_on_the_open_page(page: Page, console: str, service: Server) -> None:
    trace_id = ask(service, "/test?duration=6")
    page.goto(f"{console}/traces/{trace_id}")
    expect(page.locator(".span-row")).to_have_count(2)
    expect(page.locator(".badge", has_text="may still grow")).to_be_visible()
    expect(page.locator(".span-row")).to_have_count(3)


def test_an_unknown_trace_is_said_to_be_unknown_and_what_to_do(page: Page, console: str) -> None:
    page.goto(f"{console}/traces/no-such-trace")
    expect(page.locator("#main")).to_contain_text("No span of this trace has arrived yet")
    expect(page.locator("#main")).to_contain_text("Check that the id is complete")
    page.get_by_label("Open a trace by its id").fill("a/b?c")
    page.keyboard.press("Enter")
    page.wait_for_url("**/traces/a%2Fb%3Fc")


def test_what_services_send_is_shown_as_text(page: Page, oap: OapServer, console: str) -> None:
    program = (
        "import skywalking_background as sw; sw.start()\n"
        f"evil = {EVIL!r}\n"
        "try:\n"
        "    with sw.background_span(evil, tags={'tag': evil}):\n"
        "        print(sw.current_trace_id())\n"
        "        raise ValueError(evil)\n"
        "except ValueError: pass\n"
    )
    environment = {"SW_AGENT_NAME": f"evil-{uuid4().hex[:6]}", "SW_AGENT_COLLECTOR_BACKEND_SERVICES": oap.grpc}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    trace_id = done.stdout.strip()
    oap.client.wait_for_trace(trace_id, bool)
    page.goto(f"{console}/traces/{trace_id}")
    expect(page.locator("h1")).to_have_text(EVIL)
    expect(page.locator(".span-row .badge")).to_have_text("failed")
    detail = page.locator(".detail")  # a failed span is open from the start
    expect(detail.locator("dd", has_text="window.hacked").first).to_be_visible()
    expect(detail.locator("pre")).to_contain_text("ValueError: <script>")
    assert page.evaluate("window.hacked") is None
    page.goto(f"{console}/traces?endpoint=window.hacked")
    expect(page.locator("table a").first).to_have_text(EVIL)
    assert page.evaluate("window.hacked") is None


def test_traces_are_found_by_what_one_knows_of_them(page: Page, console: str, service: Server) -> None:
    page.goto(f"{console}/traces")
    expect(page.locator("table tbody tr").first).to_be_visible()
    page.get_by_label("Service").select_option(service.name)
    page.get_by_label("Endpoint or task contains").fill("task2")
    page.get_by_label("From (ms)").fill("1400")
    page.get_by_label("To (ms)").fill("2900")
    page.get_by_label("State").select_option("succeeded")
    page.get_by_role("button", name="Search").click()
    rows = page.locator("table tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("HTTP POST /complex-action")
    expect(rows.locator("td").nth(2)).to_have_text(service.name)
    expect(rows.locator("td").nth(3)).to_have_text("3")
    rows.locator("a").click()
    expect(page.locator(".span-row")).to_have_count(5)
    page.goto(f"{console}/traces?service={service.name}&state=failed")
    expect(page.locator("#main")).to_contain_text("No trace matches")
    page.goto(f"{console}/traces?least=many")
    expect(page.locator("#main")).to_contain_text("From can't be 'many': give a whole number")


def test_a_button_sends_a_request_and_links_its_trace(page: Page, console: str) -> None:
    page.goto(f"{console}/try")
    expect(page.get_by_role("button", name="Send: Celery")).to_be_visible()
    expect(page.get_by_role("button", name="Send: In a thread")).to_be_visible()
    page.get_by_role("button", name="Send: Three, side by side").click()
    row = page.locator("aside table tbody tr").first
    expect(row).to_contain_text("POST /complex-action?mode=parallel&duration=3")
    expect(row).to_contain_text("200")
    expect(row).to_contain_text(re.compile(r"\d ms"))
    page.get_by_role("button", name="Send: 50 at once").click()
    expect(page.locator("aside table tbody tr").first).to_contain_text("200 ×50")
    page.locator("aside table tbody tr").nth(1).locator("a").click()
    expect(page.locator("h1")).to_have_text("HTTP POST /complex-action")


def test_the_overview_holds_the_claims_against_measurements(page: Page, console: str, service: Server) -> None:
    page.goto(f"{console}/overview")
    row = page.locator("tr", has_text="Response time")
    expect(row).to_contain_text("< 100 ms")
    expect(row).to_contain_text(re.compile(r"median \d+ ms"))
    expect(page.locator("tr", has_text="Concurrent capacity")).to_contain_text("not tried")
    expect(page.locator(".trend", has_text="Load per minute")).to_contain_text(
        "background_sleep_task", timeout=2 * SOON_MS
    )
    assert service.name not in page.locator(".trend").first.inner_text()


def test_an_absent_oap_is_said_and_its_return_needs_no_reload(
    page: Page, oap: OapServer, service: Server, tmp_path: Path
) -> None:
    port = free_port()
    with run_console(
        tmp_path,
        CONSOLE_OAP_URL=f"http://127.0.0.1:{port}",
        CONSOLE_SERVICE_URL=service.url,
        CONSOLE_SERVICE_NAME=service.name,
    ) as url:
        page.goto(url)
        banner = page.locator(".banner")
        expect(banner).to_contain_text(f"OAP at http://127.0.0.1:{port} does not answer")
        with forward(port, int(oap.url.rpartition(":")[2])):
            expect(banner).to_be_hidden(timeout=SOON_MS)
            bars(page, 15)
        expect(banner).to_be_visible(timeout=SOON_MS)
        expect(banner).to_contain_text("last seen")
        assert int(page.locator(".timeline").get_attribute("data-bars") or 0) >= 15  # what was there stays
    log = (tmp_path / "console.log").read_text()
    assert log.count("OAP does not answer") == 2


@pytest.fixture(scope="module")
def unsteady(oap: OapServer, service: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A console, and the port at which it looks for its service: it is there while somebody forwards it."""
    folder, port = tmp_path_factory.mktemp("unsteady"), free_port()
    with run_console(
        folder,
        CONSOLE_OAP_URL=oap.url,
        CONSOLE_SERVICE_URL=f"http://127.0.0.1:{port}",
        CONSOLE_SERVICE_NAME=service.name,
        CONSOLE_RUN_DIR=str(folder),
    ) as url:
        yield url, port


TYPED = {"number": "7", "datetime-local": "2026-01-02T03:04:05"}
FORMS = {
    "/": 4, "/running": 2, "/traces?endpoint=one&least=1&most=2": 7, "/logs?task=one&id=two": 6, "/try": 5,
    "/dead-letters": 6, "/alarms": 2, "/crash": 3, "/faults": 10, "/profile?task=one": 3,
}  # fmt: skip
"""How many fields each page has, with the one in its head."""


@pytest.mark.parametrize("path", FORMS)
def test_what_is_typed_stays_while_the_page_is_updated(
    page: Page, service: Server, unsteady: tuple[str, int], path: str
) -> None:
    console, port = unsteady
    banner = page.locator(".banner")
    with forward(port, int(service.url.rpartition(":")[2])):
        page.goto(console + path)
        expect(page.locator(".pill.up")).to_have_count(2)
        expect(banner).to_be_hidden()
        fields = [one for one in page.locator("input, select").all() if one.is_visible()]
        assert len(fields) == FORMS[path]
        typed = [fill(field) for field in fields]
    expect(banner).to_be_visible()
    assert [value(field) for field in fields] == typed
    with forward(port, int(service.url.rpartition(":")[2])):
        expect(banner).to_be_hidden()
        assert [value(field) for field in fields] == typed


def fill(field: Locator) -> object:
    """Change a field, and return what is in it then."""
    kind = field.get_attribute("type") or field.evaluate("one => one.localName")
    if kind == "select":
        expect(field.locator("option")).not_to_have_count(0)  # what it offers may come with the first answer
        field.select_option(index=field.locator("option").count() - 1)
    elif kind == "checkbox":
        field.set_checked(not field.is_checked())
    else:
        field.fill(TYPED.get(kind, "typed"))
    changed = value(field)
    if kind == "select":
        field.page.wait_for_timeout(500)  # it may change what the next one offers
    return changed


def value(field: Locator) -> object:
    return field.evaluate("one => one.type === 'checkbox' ? one.checked : one.value")


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"[]", b'{"data": {}}', b'{"data": {"time": null}}'])
def test_an_oap_that_answers_garbage_is_said_though_its_health_check_is_fine(
    page: Page, oap: OapServer, service: Server, tmp_path: Path, body: bytes
) -> None:
    garbage = [body]
    with (
        answering(oap, {}, garbage) as oap_url,
        run_console(
            tmp_path, CONSOLE_OAP_URL=oap_url, CONSOLE_SERVICE_URL=service.url, CONSOLE_SERVICE_NAME=service.name
        ) as url,
    ):
        assert httpx.get(f"{oap_url}/healthcheck", trust_env=False).is_success
        page.goto(url)
        banner = page.locator(".banner")
        expect(banner).to_contain_text(f"OAP at {oap_url} answers its health check, but not the console's queries")
        expect(page.locator(".pill", has_text="OAP")).to_have_class(re.compile("down"))
        expect(page.locator(".pill", has_text="service")).to_have_class(re.compile("up"))
        garbage.clear()
        expect(banner).to_be_hidden()
        expect(page.locator(".pill", has_text="OAP")).to_have_class(re.compile("up"))


@pytest.fixture
def fresh(oap: OapServer, tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A service of its own, whose tasks may be made to fail, and the console that shows it."""
    environment: dict[str, Any] = {"SERVICE_FAULTS_ENABLED": "true", "SERVICE_DATA_DIR": str(tmp_path)}
    name = f"fresh-{uuid4().hex[:6]}"
    with (
        serve(tmp_path, name, oap.grpc, module="demo_service", health="/health/ready", **environment) as server,
        run_console(
            tmp_path, CONSOLE_OAP_URL=oap.url, CONSOLE_SERVICE_URL=server.url, CONSOLE_SERVICE_NAME=name
        ) as url,
    ):
        yield server, url


def dead_letters(server: Server) -> list[Any]:
    found: list[Any] = httpx.get(f"{server.url}/dead-letters", trust_env=False).json()["dead_letters"]
    return found


def test_a_dead_letter_can_be_replayed_and_deleted_but_not_by_one_slip(page: Page, fresh: tuple[Server, str]) -> None:
    server, url = fresh
    for body in ({"id": EVIL}, {"id": "other"}):
        httpx.post(f"{server.url}/process?duration=0.1", json=body, headers={"X-Fault": "error"}, trust_env=False)
    assert eventually(lambda: len(dead_letters(server)) == 2)
    ids = {letter["arguments"]["data"]["id"]: letter["id"] for letter in dead_letters(server)}
    page.goto(f"{url}/dead-letters")

    row = page.locator("tr", has_text=ids[EVIL])
    expect(row).to_contain_text("InjectedError: X-Fault: attempt")
    row.get_by_text("Arguments and stack trace").click()
    expect(row).to_contain_text("<script>")
    row.get_by_role("button", name="Replay").click()
    said = page.locator(".q-notification", has_text="Runs again as task")
    expect(said).to_be_visible()
    task_id = (said.text_content() or "").rpartition(" ")[2].rstrip(".")
    expect(row).to_have_count(0)
    task = httpx.get(f"{server.url}/tasks/{task_id}", trust_env=False).json()
    assert (task["name"], task["state"]) in {("process_data", "running"), ("process_data", "succeeded")}
    assert task["replay_of"]

    row = page.locator("tr", has_text=ids["other"])
    row.get_by_role("button", name="Delete").click()
    expect(row.get_by_role("button", name="Really delete?")).to_be_visible()
    assert len(dead_letters(server)) == 1
    row.get_by_role("button", name="Really delete?").click()
    expect(page.locator("#main")).to_contain_text("No task has failed for good")
    assert dead_letters(server) == []
    assert page.evaluate("window.hacked") is None


def test_a_running_task_is_drawn_before_its_segment_exists(page: Page, fresh: tuple[Server, str]) -> None:
    server, url = fresh
    ask(server, "/test?duration=30")
    page.goto(url)
    bars(page, 1)
    expect(page.locator(".tile", has_text="run right now")).to_contain_text("1")
    expect(page.locator(".chip")).to_contain_text("background_sleep_task")


def test_a_running_task_is_cancelled_and_dead_letters_are_replayed_in_bulk(
    page: Page, fresh: tuple[Server, str]
) -> None:
    server, url = fresh
    trace_id = ask(server, "/test?duration=50")
    page.goto(f"{url}/traces/{trace_id}")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Really cancel?").click()
    expect(page.locator(".q-notification", has_text="is cancelled")).to_be_visible()
    expect(page.locator(".span-row .badge")).to_have_text("cancelled")
    (task,) = httpx.get(f"{server.url}/tasks", trust_env=False).json()["tasks"]
    assert task["state"] == "cancelled"

    for number in range(3):
        httpx.post(
            f"{server.url}/process?duration=0.1", json={"id": number}, headers={"X-Fault": "error"}, trust_env=False
        )
    httpx.get(f"{server.url}/test?duration=0", headers={"X-Fault": "error"}, trust_env=False)
    assert eventually(lambda: len(dead_letters(server)) == 4)
    page.goto(f"{url}/dead-letters")
    page.get_by_label("Task").select_option("process_data")
    expect(page.locator("table tbody tr")).to_have_count(3)
    page.get_by_role("button", name="Replay all").click()
    page.get_by_role("dialog").get_by_role("button", name="Replay").click()
    expect(page.locator(".q-notification", has_text="3 tasks run again.")).to_be_visible()
    assert [letter["name"] for letter in dead_letters(server)] == ["background_sleep_task"]
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("table tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Delete all").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#main")).to_contain_text("No task has failed for good")
    assert dead_letters(server) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_phone(browser: Browser, console: str, scheme: Any) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    for path in PAGES:
        page.goto(console + path)
        page.wait_for_timeout(2500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor").startswith("rgb(13,")
    assert dark == (scheme == "dark")
    context.close()


def test_nothing_comes_from_outside_and_no_page_complains(page: Page, console: str) -> None:
    urls: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.on("console", lambda line: complaints.append(line.text) if line.type in {"error", "warning"} else None)
    for path in PAGES:
        page.goto(console + path)
        page.wait_for_timeout(1500)
    assert [url for url in urls if not url.startswith((console, "data:", "blob:"))] == []
    assert complaints == []


def test_every_page_has_a_heading_and_named_controls(page: Page, console: str) -> None:
    nameless = """() => [...document.querySelectorAll('button, a, input, select')].filter(one => one.offsetParent
        && !(one.innerText?.trim() || one.getAttribute('aria-label') || one.title || one.labels?.length))
        .map(one => one.outerHTML)"""
    for path in PAGES:
        page.goto(console + path)
        page.wait_for_timeout(1000)
        assert page.locator("h1").count() == 1
        assert page.evaluate(nameless) == []
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.innerText") == "Skip to the content"


@pytest.mark.parametrize(
    "path", ["/", "/data/timeline", "/traces/x", "/_nicegui_ws/socket.io/?EIO=4&transport=polling"]
)
def test_a_name_that_is_not_the_consoles_is_refused(console: str, path: str) -> None:
    response = httpx.get(console + path, headers={"Host": "rebound.example:8088"}, trust_env=False)
    assert response.status_code == 403
    assert "CONSOLE_ALLOWED_HOSTS" in response.text


def test_another_site_can_neither_connect_nor_read(browser: Browser, console: str, service: Server) -> None:
    response = httpx.get(
        f"{console}/_nicegui_ws/socket.io/?EIO=4&transport=polling",
        headers={"Origin": "http://other.example"},
        trust_env=False,
    )
    assert response.status_code == 403
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{service.url}/health/live")  # another origin, whatever it answers
    socket_url = console.replace("http", "ws") + "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    outcome = page.evaluate(
        """url => new Promise(done => {
            const socket = new WebSocket(url);
            socket.onopen = () => done('open');
            socket.onerror = () => done('refused');
        })""",
        socket_url,
    )
    assert outcome == "refused"
    with pytest.raises(Error, match="Failed to fetch"):
        page.evaluate("url => fetch(url).then(answer => answer.text())", f"{console}/data/timeline")
    page.set_content(f"<iframe src='{console}/try'></iframe>")
    page.wait_for_timeout(1500)
    assert not any("try" in frame.url for frame in page.frames[1:])
    context.close()


def test_the_lanes_hold_what_they_promise(page: Page, console: str) -> None:
    """500 random intervals in random order: none overlaps another of its lane, each is found again."""
    page.goto(f"{console}/overview")
    result = page.evaluate(
        """async () => {
            const { Lanes, concurrency } = await import('console-picture');
            const lanes = new Lanes();
            const placed = Array.from({ length: 500 }, (_, what) => {
                const start = Math.floor(Math.random() * 10000);
                return lanes.place(start, start + 1 + Math.floor(Math.random() * 400), what);
            });
            const clash = (a, b) => a !== b && a[3] === b[3] && a[0] < b[1] && b[0] < a[1];
            const overlaps = placed.filter(a => placed.some(b => clash(a, b)));
            const lost = placed.filter(one => lanes.at(one[3], (one[0] + one[1]) / 2) !== one[2]);
            const { peak } = concurrency(placed);
            const truth = Math.max(...placed.map(one => placed.filter(b => b[0] <= one[0] && one[0] < b[1]).length));
            return [overlaps.length, lost.length, peak - truth, lanes.lanes.length < 2 * peak];
        }"""
    )
    assert result == [0, 0, 0, True]


def test_a_wrong_setting_is_one_sentence() -> None:
    environment = {**os.environ, "CONSOLE_PORT": "many"}
    done = subprocess.run(
        [sys.executable, "-m", "tracing_console"], env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("console: CONSOLE_PORT='many' is not valid")


@pytest.mark.parametrize("whole", [False, True])
def test_a_trace_links_to_what_the_ui_can_show(
    page: Page, oap: OapServer, service: Server, tmp_path: Path, *, whole: bool
) -> None:
    """With the OAP as it is, which has no whole traces, and as if its storage were BanyanDB."""
    trace_id = ask(service, "/test?duration=0")
    answers = {"hasQueryTracesV2Support": True} if whole else {}
    with (
        answering(oap, answers) as url,
        run_console(
            tmp_path, CONSOLE_OAP_URL=url, CONSOLE_UI_URL=service.url, CONSOLE_UI_CHECK_URL=f"{service.url}/docs"
        ) as console,
    ):
        page.goto(f"{console}/traces/{trace_id}")
        link = page.locator("a", has_text="in the SkyWalking UI")
        expect(link).to_be_visible()
        target = link.get_attribute("href")
        advice = page.get_by_text("paste the id into Trace ID")
        if whole:
            assert target == f"{service.url}/traces/{trace_id}"
            expect(advice).to_have_count(0)
        else:
            service_id = quote(oap.client.service_id(service.name) or "", safe="")
            assert target == f"{service.url}/dashboard/GENERAL/Service/{service_id}/General-Service/tab/4"
            expect(advice).to_contain_text("The UI must be 10.1.0 as OAP is")


def test_a_configured_name_is_let_in(oap: OapServer, tmp_path: Path) -> None:
    with run_console(tmp_path, CONSOLE_OAP_URL=oap.url, CONSOLE_ALLOWED_HOSTS="console, stack.example") as url:
        assert httpx.get(url, headers={"Host": "stack.example:1234"}, trust_env=False).status_code == 200
        assert httpx.get(url, headers={"Host": "other.example"}, trust_env=False).status_code == 403
