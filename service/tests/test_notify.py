"""Notifications, received by a real HTTP server of the test's own."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from demo_service.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from skywalking.trace.span import Span

    from conftest import NewService

ERROR = {"X-Fault": "error"}


class Receiver:
    """An HTTP server that keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the base class calls it so
                receiver.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def urls(self) -> str:
        return json.dumps([f"json://127.0.0.1:{self.server.server_port}/"])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.server.shutdown()
    found.server.server_close()


async def told(receiver: Receiver, count: int) -> list[dict[str, Any]]:
    for _ in range(200):
        if len(receiver.messages) >= count:
            break
        await asyncio.sleep(0.02)
    return receiver.messages


async def test_a_dead_letter_is_told_with_the_way_to_its_trace(
    new_service: NewService, receiver: Receiver, spans: Callable[[str], list[Span]]
) -> None:
    service = await new_service(notify_urls=receiver.urls)
    trace_id = (await service.get("/test", headers=ERROR)).headers["X-Trace-Id"]
    (message,) = await told(receiver, 1)
    (task,) = await service.tasks()
    assert message["title"] == "background_sleep_task is a dead letter"
    for part in (task["id"], "InjectedError: X-Fault", f"/traces/{trace_id}"):
        assert part in message["message"]
    (span,) = spans("notify")
    assert [ref.trace_id for ref in span.refs] == [trace_id]  # it is part of that trace


async def test_a_storm_is_told_in_two_messages(new_service: NewService, receiver: Receiver) -> None:
    service = await new_service(notify_urls=receiver.urls, notify_seconds=3.0)
    await service.get("/test", headers=ERROR)
    await told(receiver, 1)
    for _ in range(3):
        await asyncio.gather(*(service.get("/test", headers=ERROR) for _ in range(10)))
        await asyncio.sleep(0.02)
    await service.post("/action", headers=ERROR)
    assert len(receiver.messages) == 1
    _, summary = await told(receiver, 2)
    assert summary["title"] == "31 background tasks are dead letters"
    assert "30x background_sleep_task: InjectedError" in summary["message"]
    assert "1x long_running_task: InjectedError" in summary["message"]
    assert summary["message"].count("/traces/") == 5
    await asyncio.sleep(3.1)
    assert len(receiver.messages) == 2


async def test_a_notifier_that_fails_hurts_no_task(
    new_service: NewService, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.server.shutdown()
    receiver.server.server_close()  # nobody answers there
    service = await new_service(notify_urls=receiver.urls, notify_seconds=0.01)
    for _ in range(2):
        assert (await service.get("/test", headers=ERROR)).status_code == 200
    assert len(await service.letters()) == 2
    for _ in range(200):
        if "Not everybody could be notified" in caplog.text:
            break
        await asyncio.sleep(0.02)
    assert "Not everybody could be notified" in caplog.text
    assert (await service.get("/test")).status_code == 200


async def test_an_url_that_apprise_does_not_know_stops_the_start_without_being_printed(new_service: NewService) -> None:
    with pytest.raises(ValueError, match="SERVICE_NOTIFY_URLS") as error:
        await new_service(notify_urls='["nonsense://user:hunter2@host"]')
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("package", "setting", "sentence"),
    [
        (
            "apprise",
            'SERVICE_NOTIFY_URLS=["json://user:hunter2@host"]',
            "SERVICE_NOTIFY_URLS needs the extra `notify`: pip install apprise",
        ),
        (
            "asyncpg",
            "SERVICE_DATABASE_URL=postgresql+asyncpg://user:hunter2@host/letters",
            "SERVICE_DATABASE_URL needs the extra `postgresql`: pip install asyncpg",
        ),
    ],
)
def test_a_setting_that_needs_an_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str, setting: str, sentence: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    monkeypatch.setattr(sys, "argv", ["demo_service"])
    monkeypatch.setenv(*setting.split("=", 1))
    assert main() == 2
    assert capsys.readouterr().err == f"demo_service: {sentence}\n"


async def test_nobody_to_notify_needs_no_apprise(new_service: NewService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    service = await new_service()
    assert (await service.get("/test", headers=ERROR)).status_code == 200
    assert len(await service.letters()) == 1
