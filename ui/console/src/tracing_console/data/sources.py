"""Where the console reads from: OAP, the service, SkyWalking's UI; and whether each of them works."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import httpx
from oap_query import Oap, OapError

from tracing_console.data.feed import Feed
from tracing_console.data.log import logger
from tracing_console.data.orders import Orders
from tracing_console.data.running import RunningTasks
from tracing_console.data.service import Service

if TYPE_CHECKING:
    from tracing_console.settings import Settings

OAP, SERVICE, UI = "OAP", "service", "SkyWalking UI"
CHECK_SECONDS: Final = 2.0
"""Between two checks, however many pages are open."""


class Sources:
    """The connections that all pages share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.oap = Oap(settings.oap_url)
        self.service = Service(settings.service_url)
        self.running = RunningTasks(self.oap)
        self.orders = Orders(settings.run_dir)
        self.feed = Feed(self.oap, self.service, settings.services, self.running)
        self.problems: dict[str, str] = {OAP: "", SERVICE: "", UI: "is not known yet"}
        """What is wrong with each source, as a sentence's end; empty while it works."""
        self.seen: dict[str, datetime] = {}
        """When each source worked last."""
        self._checked = 0.0
        self._lock = asyncio.Lock()

    def works(self, name: str) -> bool:
        """Say whether a source worked at the last check."""
        return not self.problems[name]

    async def check(self) -> None:
        """Ask all sources whether they work. Each change is one line in the log."""
        async with self._lock:
            if time.monotonic() - self._checked < CHECK_SECONDS:
                return
            found = await asyncio.gather(self._check_oap(), self._check_service(), self._check_ui())
            for name, problem in zip((OAP, SERVICE, UI), found, strict=True):
                if not problem:
                    self.seen[name] = datetime.now(UTC)
                if bool(problem) != bool(self.problems[name]):
                    logger.log(logging.WARNING if problem else logging.INFO, "%s %s", name, problem or "answers")
                self.problems[name] = problem
            self._checked = time.monotonic()

    async def _check_oap(self) -> str:
        """Its health check alone proves little: another server on that port may answer it, and nothing else."""
        healthy, wrong = await asyncio.gather(asyncio.to_thread(self.oap.healthy), asyncio.to_thread(self._ask_oap))
        if wrong is None:
            return "" if healthy else "reports that it is not healthy: its storage may not answer"
        if healthy:
            return f"answers its health check, but not the console's queries ({wrong})"
        return "does not answer"

    def _ask_oap(self) -> str | None:
        """Ask OAP two cheap questions that every page asks; return what is wrong with the answers."""
        try:
            self.oap.duration(datetime.now(UTC))
            self.oap.service_id(self.settings.service_name)
        except OapError as error:
            return str(error)
        return None

    async def _check_service(self) -> str:
        return await self.service.problem()

    async def _check_ui(self) -> str:
        url = self.settings.ui_check_url or self.settings.ui_url
        if url is None:
            return "is not configured"
        try:
            async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
                return "" if (await client.get(url)).is_success else "does not answer"
        except httpx.HTTPError:
            return "does not answer"
