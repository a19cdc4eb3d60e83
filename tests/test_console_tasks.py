"""What a task waits for, and what it has logged: in the console, in a real Chromium, of a real service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import pytest
from consoles import ask, run_console
from harness import OapServer, Server, serve
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page


class Stack(NamedTuple):
    """The service, the console, and a trace whose task runs on."""

    server: Server
    console: str
    trace_id: str


@pytest.fixture(scope="module")
def stack(oap: OapServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder, name = tmp_path_factory.mktemp("tasks"), f"tasks-{uuid4().hex[:6]}"
    more: dict[str, Any] = {
        "SERVICE_DATA_DIR": str(folder / "data"),
        "SERVICE_PROFILING_ENABLED": "true",
        "SW_AGENT_LOG_REPORTER_LEVEL": "INFO",
    }
    with (
        serve(folder, name, oap.grpc, module="demo_service", health="/health/ready", **more) as server,
        run_console(folder, CONSOLE_OAP_URL=oap.url, CONSOLE_SERVICE_URL=server.url, CONSOLE_SERVICE_NAME=name) as url,
    ):
        trace_id, *_ = [ask(server, "/test?duration=60") for _ in range(4)]
        yield Stack(server, url, trace_id)


def test_a_flame_picture_of_running_tasks_and_the_line_they_sit_in(page: Page, stack: Stack) -> None:
    url = stack.console
    page.goto(f"{url}/traces/{stack.trace_id}")
    expect(page.get_by_role("link", name="What is it waiting for?")).to_be_visible()
    page.goto(f"{url}/running?service={stack.server.name}")
    page.get_by_role("link", name="waiting for what?").first.click()
    page.wait_for_url("**/profile?task=background_sleep_task")
    expect(page.locator("input[name=task]")).to_have_value("background_sleep_task")
    page.locator("select[name=seconds]").select_option("1")
    page.get_by_role("button", name="Look", exact=True).click()

    frames = page.locator(".flame g")
    expect(frames.filter(has_text="background_sleep_task").first).to_be_visible()
    expect(frames.first).to_contain_text("execution.py")  # the service's own, and not the server's above it
    sat = page.locator(".flame g.sits")
    expect(sat).to_have_count(1)
    expect(sat).to_contain_text("sleep")
    expect(page.locator(".facts", has_text="tasks seen")).to_contain_text("tasks seen 4")
    row = page.locator("table tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("tasks.py")
    expect(row).to_contain_text("100.0 %")
    widest = frames.first.locator("rect").evaluate("one => one.getBoundingClientRect().width")
    assert sat.locator("rect").evaluate("one => one.getBoundingClientRect().width") == widest
    sat.click()
    page.get_by_role("button", name="Show all").click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the stacks").click()
    assert "background_sleep_task" in saved.value.path().read_text()

    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    expect(sat).to_contain_text("sleep")  # drawn anew, readable

    page.locator("input[name=task]").fill("nobody")
    page.get_by_role("button", name="Look", exact=True).click()
    expect(page.locator("#main")).to_contain_text("No task 'nobody' ran in this process of the service meanwhile.")
    page.goto(f"{url}/profile?task=%3Cimg%20src%3Dx%20onerror%3D%22window.hacked%3Dtrue%22%3E&seconds=nonsense")
    expect(page.locator("select[name=seconds]")).to_have_value("5")
    assert page.evaluate("window.hacked") is None


def test_from_a_log_line_to_its_trace_and_back(page: Page, stack: Stack) -> None:
    url, name = stack.console, stack.server.name
    lines = page.locator("table tbody tr")
    page.goto(f"{url}/logs?service={name}&level=INFO&task=background_sleep_task")
    expect(lines.filter(has_text="Background task started: background_sleep_task")).to_have_count(4)
    expect(page.locator("input[name=task]")).to_have_value("background_sleep_task")
    expect(page.locator("select[name=level]")).to_have_value("INFO")
    lines.filter(has_text="Background task started").first.get_by_role("link", name="its trace").click()
    page.wait_for_url("**/traces/*")
    expect(page.locator("h1")).to_have_text("HTTP GET /test")
    line = page.locator(".loglines div", has_text="Background task started")
    line.get_by_role("link", name="its task’s lines").click()
    page.wait_for_url("**/logs?id=*")
    expect(lines.first).to_be_visible()
    expect(lines.filter(has_text="task started: background_sleep_task (")).to_have_count(1)  # the start report
    expect(lines.filter(has_text="Background task started")).to_have_count(1)  # of this task only
    page.goto(f"{url}/logs?service={name}&level=ERROR")
    expect(page.locator("#main")).to_contain_text("No line fits.")
    page.goto(f"{url}/logs?service=nobody&level=nonsense&minutes=-1")
    expect(page.locator("#main")).to_contain_text("No line fits.")
