"""A guided incident on the real OAP, the console's pages of it, and the fault board, in a real Chromium."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from consoles import run_console
from harness import OapServer, Server, eventually, serve
from playwright.sync_api import expect
from stack.incidents import folder_of, play
from stack.settings import Settings
from tracing_claims.incidents import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page
    from stack.incidents.record import Record


@pytest.fixture(scope="module")
def settings(oap: OapServer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a stack of which only OAP is needed."""
    grpc, http = (int(address.rpartition(":")[2]) for address in (oap.grpc, oap.url))
    folder, name = tmp_path_factory.mktemp("incidents"), f"incident-{uuid4().hex[:6]}"
    return Settings(run_dir=folder, service_name=name, oap_grpc_port=grpc, oap_http_port=http)


@pytest.fixture(scope="module")
def record(settings: Settings) -> Record:
    return play(settings, BY_NAME["threads"], lambda _sentence: None)


@pytest.fixture(scope="module")
def service(oap: OapServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with two processes that share the requests."""
    folder, name = tmp_path_factory.mktemp("board"), f"board-{uuid4().hex[:6]}"
    variables: dict[str, Any] = {
        "SERVICE_WORKERS": "2",
        "SERVICE_FAULTS_ENABLED": "true",
        "SERVICE_TASK_SECONDS": "0",
        "SERVICE_DATA_DIR": str(folder / "data"),
    }
    with serve(folder, name, oap.grpc, module="demo_service", health="/health/ready", **variables) as found:
        yield found


@pytest.fixture(scope="module")
def console(
    oap: OapServer, service: Server, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A console of a stack whose runner would look for OAP where there is none."""
    with run_console(
        tmp_path_factory.mktemp("console"),
        CONSOLE_OAP_URL=oap.url,
        CONSOLE_SERVICE_URL=service.url,
        CONSOLE_SERVICE_NAME=service.name,
        CONSOLE_RUN_DIR=str(settings.run_dir),
        OAP_HTTP_PORT="1",
    ) as url:
        yield url


def test_the_switch_takes_the_symptom_away(oap: OapServer, settings: Settings, record: Record) -> None:
    before, after = record.before, record.after
    assert record.state == "done"
    assert before
    assert after
    assert before.symptom.value > 1_000, "the answers wait for a thread"
    assert before.symptom.value > 3 * after.symptom.value
    for side in (before, after):
        tones = [lane.pieces[0].tone for lane in side.lanes if lane.pieces]
        assert (tones.count("task"), tones.count("answer")) == (40, 10)
        assert any(span.name == "HTTP GET /plain" for span in oap.client.trace(side.trace_id))
    waiting = next(lane for lane in before.lanes if lane.pieces[0].tone == "answer")
    assert waiting.pieces[0].end - waiting.pieces[0].start > 1
    assert (folder_of(settings, "threads") / "run.json").is_file()


def test_the_page_shows_the_steps_and_both_sides(page: Page, console: str, record: Record) -> None:
    assert record.before
    page.goto(f"{console}/incidents")
    page.get_by_role("link", name="Open: The forty-first answer waits").click()
    expect(page.locator("h1")).to_have_text("The forty-first answer waits")
    for step in ("1. The symptom", "2. Find it in the trace", "3. One switch", "4. The same picture again"):
        expect(page.get_by_role("heading", name=step)).to_be_visible()
    expect(page.locator(".side")).to_have_count(2)
    expect(page.locator(".side .lane-line")).to_have_count(100)
    expect(page.locator(".tile.bad")).to_contain_text(f"{record.before.symptom.value:,.0f} ms")
    expect(page.get_by_text("make incident NAME=threads")).to_be_visible()
    page.get_by_role("link", name="Open the trace of the run before the switch").click()
    expect(page.locator("h1")).to_have_text("HTTP GET /plain")


def test_the_page_has_the_runner_play_it_and_follows(page: Page, console: str, record: Record) -> None:
    assert record.state == "done"  # the other one is played, and fails for want of an OAP
    page.goto(f"{console}/incidents/sequential")
    expect(page.get_by_role("status").filter(has_text="Not played yet")).to_be_visible()
    page.get_by_role("button", name="Play it").click()
    failed = "The last run was not played to its end: OAP at http://127.0.0.1:1 does not answer"
    expect(page.get_by_role("status").filter(has_text=failed)).to_be_visible()
    expect(page.get_by_role("button", name="Play it")).to_be_enabled()


def test_an_unknown_incident_is_not_found(console: str) -> None:
    assert httpx.get(f"{console}/incidents/flood", trust_env=False).status_code == 404


def send(service: Server, count: int) -> list[str]:
    """Send requests on connections of their own, so that both processes get some; return the ids of their traces."""
    found = []
    for _ in range(count):
        answer = httpx.get(f"{service.url}/test", trust_env=False)
        assert answer.is_success
        found.append(answer.headers["X-Trace-Id"])
    return found


def test_a_rule_strikes_in_all_processes_and_is_seen_in_the_traces(oap: OapServer, service: Server) -> None:
    rule = {"faults": ["error;times=1"], "share": 0.5, "seconds": 120, "seed": 5}
    assert httpx.put(f"{service.url}/faults", json=rule, trust_env=False).is_success
    traces = send(service, 40)
    board = httpx.get(f"{service.url}/faults", trust_env=False).json()
    assert board["requests"] == 40
    assert 8 < board["struck"] < 32

    def struck() -> dict[str, str]:
        found = {}
        for trace_id in traces:
            for span in oap.client.trace(trace_id):
                if span.name == "background_sleep_task" and span.tags.get("fault.from") == "fault board":
                    found[trace_id] = span.instance
        return found if len(found) == board["struck"] else {}

    found = eventually(struck, 60)
    assert len(found) == board["struck"]
    assert len(set(found.values())) == 2, "both processes"
    assert httpx.delete(f"{service.url}/faults", trust_env=False).json()["rule"] is None


def test_the_page_sets_a_rule_shows_what_it_does_and_clears_it(page: Page, console: str, service: Server) -> None:
    page.goto(f"{console}/faults")
    status = page.get_by_role("status")
    expect(status.filter(has_text="No rule is active")).to_be_visible()
    page.get_by_role("checkbox", name="error every attempt fails").uncheck()
    page.get_by_role("checkbox", name="delay=500ms").check()
    page.get_by_label("Share (%)").fill("100")
    page.get_by_label("For (s)").fill("300")
    page.get_by_label("Seed").fill("9")
    page.get_by_role("button", name="Set the rule").click()
    expect(status.filter(has_text="delay=500ms for 100 % of the requests, 300 s long, seed 9.")).to_be_visible()
    send(service, 3)
    expect(page.locator(".tile", has_text="requests with a fault")).to_contain_text("3 (100%)")
    page.get_by_role("button", name="Clear").click()
    expect(status.filter(has_text="No rule is active")).to_be_visible()
    page.get_by_role("checkbox", name="delay=500ms").uncheck()
    page.get_by_role("button", name="Set the rule").click()
    expect(page.get_by_text("Choose at least one fault.")).to_be_visible()


def test_a_foreign_page_can_not_set_a_rule(service: Server) -> None:
    rule = {"faults": ["error"], "share": 1}
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = httpx.put(f"{service.url}/faults", json=rule, headers=headers, trust_env=False)
        assert answer.status_code == 403
    assert httpx.get(f"{service.url}/faults", trust_env=False).json()["rule"] is None
