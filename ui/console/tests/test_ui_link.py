"""Which page of SkyWalking's UI the console links, by what OAP says of itself."""

from __future__ import annotations

from typing import Any

import pytest
from oap_query import Oap, OapError
from tracing_console import Settings
from tracing_console.data import alarms_url, endpoint_url, service_url, tasks_url, ui_link

CLASSIC = Settings(ui_url="http://127.0.0.1:8080")
HORIZON = Settings(ui_url="http://127.0.0.1:8080", ui_trace_path="/layer/general/trace?traceId={trace_id}")
PAGE = "http://127.0.0.1:8080/traces/a%2Fb"
TAB = "http://127.0.0.1:8080/dashboard/GENERAL/Service/ZGVtbw%3D%3D.1/General-Service/tab/4"


class Answers(Oap):
    """An OAP of that version; `whole` is what it answers when asked for whole traces, `None` when it can't be asked."""

    def __init__(self, version: str, *, whole: bool | None) -> None:
        super().__init__("http://127.0.0.1:1")
        self.answers: dict[str, Any] = {"version": f"{version}-d28dfea", "service": {"id": "ZGVtbw==.1"}}
        if whole is not None:
            self.answers["hasQueryTracesV2Support"] = whole

    def query(self, text: str, **_: object) -> dict[str, Any]:
        found = {name: answer for name, answer in self.answers.items() if name in text}
        if not found:
            raise OapError(text)
        return found


@pytest.mark.parametrize(
    ("settings", "oap", "url"),
    [
        pytest.param(CLASSIC, Answers("10.4.0", whole=True), PAGE, id="BanyanDB: the page of the trace"),
        pytest.param(CLASSIC, Answers("10.4.0", whole=False), TAB, id="other storages: the search of its service"),
        pytest.param(CLASSIC, Answers("10.1.0", whole=None), TAB, id="an OAP before 10.3: the same"),
        pytest.param(HORIZON, Answers("11.0.0", whole=False), HORIZON.ui_link("a/b"), id="Horizon: its page, always"),
    ],
)
def test_the_link_leads_to_a_page_that_can_show_the_trace(settings: Settings, oap: Oap, url: str) -> None:
    link = ui_link(settings, oap, "a/b", "demo")
    assert link.url == url
    assert ("paste the id" in link.advice) == (url == TAB)


@pytest.mark.parametrize(("version", "said"), [("10.1.0", True), ("10.2.0", True), ("10.4.0", False), ("odd", False)])
def test_an_early_oap_wants_a_ui_of_its_own_version(version: str, said: bool) -> None:
    advice = ui_link(CLASSIC, Answers(version, whole=False), "a", "demo").advice
    assert (f"must be {version}" in advice) == said


@pytest.mark.parametrize(
    ("settings", "service", "tasks", "endpoint", "alarms"),
    [
        (
            CLASSIC,
            "/dashboard/GENERAL/Service/ZGVtbw%3D%3D.1/General-Service",
            "/dashboard/GENERAL/Service/ZGVtbw%3D%3D.1/Background-Tasks",
            "/dashboard/GENERAL/Endpoint/ZGVtbw%3D%3D.1/ZGVtbw%3D%3D.1_YSBi/General-Endpoint",
            "/alerting",
        ),
        (
            HORIZON,
            "/layer/general/service?service=ZGVtbw%3D%3D.1",
            "/overview/background-tasks",
            "/layer/general/endpoint?service=ZGVtbw%3D%3D.1&endpoint=a+b",
            "/alarms",
        ),
    ],
)
def test_services_endpoints_and_alarms_have_pages_in_either_ui(
    settings: Settings, service: str, tasks: str, endpoint: str, alarms: str
) -> None:
    assert service_url(settings, "demo") == f"http://127.0.0.1:8080{service}"
    assert tasks_url(settings, "demo") == f"http://127.0.0.1:8080{tasks}"
    assert endpoint_url(settings, "demo", "a b") == f"http://127.0.0.1:8080{endpoint}"
    assert alarms_url(settings) == f"http://127.0.0.1:8080{alarms}"
