"""The console's page `/crash`, in a real Chromium: a real service is killed, and the page says what was lost."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest
from consoles import run_console
from harness import OapServer, eventually
from playwright.sync_api import expect
from stack.compare import find_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

RUN_MS = 240_000  # on a machine that does other things too


@pytest.fixture
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A stack's run folder; nothing that a run has started is left in it."""
    if find_redis() is None:
        pytest.skip("there is no Redis here: apt-get install redis-server")
    folder = tmp_path_factory.mktemp("c")
    yield folder
    assert eventually(lambda: not left_in(folder))


def left_in(folder: Path) -> list[int]:
    """Return the processes that a run has started and not ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SERVICE_LEDGER_DIR", "").startswith(str(folder)):
                found.append(process.pid)
    return found


def test_what_a_killed_service_loses_is_seen_while_it_happens(
    page: Page, oap: OapServer, run_dir: Path, tmp_path: Path
) -> None:
    grpc, http = (where.rpartition(":")[2] for where in (oap.grpc, oap.url))
    stack = {"CONSOLE_RUN_DIR": str(run_dir), "OAP_GRPC_PORT": grpc, "OAP_HTTP_PORT": http}
    with run_console(tmp_path, CONSOLE_OAP_URL=oap.url, **stack) as url:
        page.goto(f"{url}/crash")
        page.get_by_label("Way to run the work").select_option(label="Threads")
        expect(page.get_by_label("Fault").locator("option")).to_have_count(2)  # there is no broker to restart
        page.get_by_label("Way to run the work").select_option(label="BackgroundTasks")
        expect(page.locator("#main")).to_contain_text("FastAPI runs it in the service's event loop")
        page.get_by_role("button", name="Let it happen").click()
        expect(page.get_by_role("button", name="Let it happen")).to_be_disabled()
        expect(page.get_by_role("button", name="End it")).to_be_visible()
        expect(page.locator("h2").first).to_have_text("BackgroundTasks: kill -9 of the process that does the work")
        status = page.locator("p[role=status]")
        expect(status).to_contain_text("waiting until nothing happens any more", timeout=RUN_MS)
        accepted = page.locator("tr", has_text="answered by 200").locator("td").nth(1)
        assert 0 < int(accepted.inner_text()) <= 200  # while it happens
        expect(status).to_contain_text("that were accepted are lost; SkyWalking shows", timeout=RUN_MS)
        lost = page.locator("tr", has_text="lost").first.locator("td").nth(1)
        assert int(lost.inner_text()) > 0
        shown = page.locator("tr", has_text="failed in SkyWalking").locator("td").nth(1)
        assert 0 < int(shown.inner_text()) <= int(lost.inner_text())
        expect(page.get_by_role("button", name="Let it happen")).to_be_enabled()
        row = page.locator("tr", has_text="a failed span").first
        row.locator("a").click()
        expect(page.locator(".span-row .badge")).to_have_text("crashed")

        page.goto(f"{url}/crash")
        page.get_by_role("button", name="Let it happen").click()
        eventually(lambda: left_in(run_dir))
        assert left_in(run_dir)
        page.get_by_role("button", name="End it").click()
        expect(page.locator("p[role=status]")).to_contain_text("It can’t go on: it was ended", timeout=RUN_MS)
        assert left_in(run_dir) == []


def test_where_there_is_no_such_part_the_page_says_so(page: Page, oap: OapServer, tmp_path: Path) -> None:
    with run_console(tmp_path, CONSOLE_OAP_URL=oap.url) as url:
        page.goto(f"{url}/crash")
        expect(page.locator("#main")).to_contain_text("Not available here: only a stack that runs without containers")
        expect(page.get_by_role("button", name="Let it happen")).to_have_count(0)
