"""The app without a server, without OAP and with tasks that take no time."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import pytest
from demo_service import app as app_module
from demo_service.tasks import Retry
from skywalking import config
from skywalking.agent import agent
from skywalking_background import _agent
from skywalking_background._internals import use_context_class
from skywalking_background._segments import Context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from skywalking.trace.segment import Segment
    from skywalking.trace.span import Span


class Service(httpx.AsyncClient):
    """A client of one app. A request returns when its tasks have ended: there is no server in between.

    Retries go on apart from their request: they are waited for too.
    """

    def __init__(self, app: Any) -> None:
        super().__init__(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://service")
        self.app = app

    async def send(self, *args: Any, **kwargs: Any) -> httpx.Response:
        """Send a request, and wait for the retries of all tasks."""
        response = await super().send(*args, **kwargs)
        for execution in list(self.app.state.room._unfinished.values()):
            await execution.apart()
        return response

    async def tasks(self) -> list[dict[str, Any]]:
        """Return all tasks, the oldest first."""
        return list(reversed((await self.get("/tasks")).json()["tasks"]))

    async def letters(self) -> list[dict[str, Any]]:
        """Return all dead letters."""
        letters: list[dict[str, Any]] = (await self.get("/dead-letters")).json()["dead_letters"]
        return letters


class NewService(Protocol):
    """Makes a service with these settings; they are lower case here."""

    async def __call__(self, **settings: object) -> Service: ...


@pytest.fixture
def segments() -> list[Segment]:
    """What would have been sent to OAP."""
    return []


@pytest.fixture
def spans(segments: list[Segment]) -> Callable[[str], list[Span]]:
    def of_name(name: str) -> list[Span]:
        return sorted(
            (span for segment in segments for span in segment.spans if span.op == name),
            key=lambda span: span.start_time,
        )

    return of_name


@pytest.fixture
async def new_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, segments: list[Segment]
) -> AsyncIterator[NewService]:
    monkeypatch.setenv("SKYWALKING_BACKGROUND_JOURNAL", "set by the service")
    monkeypatch.delenv("SKYWALKING_BACKGROUND_JOURNAL")  # and it is gone after the test
    monkeypatch.setattr(_agent, "start", lambda: None)
    monkeypatch.setattr(_agent, "tracing", lambda: True)
    use_context_class(Context)
    monkeypatch.setattr(config, "agent_profile_active", False)
    monkeypatch.setattr(agent, "is_segment_queue_full", lambda: False)
    monkeypatch.setattr(agent, "archive_segment", segments.append)
    monkeypatch.setattr(app_module, "configure_logging", lambda: None)
    monkeypatch.setattr(Retry, "wait_seconds", lambda _retry, _failed: 0.0)
    defaults = {"task_seconds": 0, "faults_enabled": True, "data_dir": tmp_path, "drain_seconds": 1}
    defaults["allowed_hosts"] = "service"
    async with AsyncExitStack() as stack:

        async def make(**settings: object) -> Service:
            for name, value in {**defaults, **settings}.items():
                monkeypatch.setenv(f"SERVICE_{name.upper()}", str(value))
            app = app_module.create_app()
            await stack.enter_async_context(app.router.lifespan_context(app))
            return await stack.enter_async_context(Service(app))

        yield make


@pytest.fixture
async def service(new_service: NewService) -> Service:
    return await new_service()
