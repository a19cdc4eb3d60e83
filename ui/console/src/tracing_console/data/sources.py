"""What all pages share: the connections, and whether they work."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import httpx
from oap_query import Oap

from tracing_console._feed import Feed
from tracing_console._service import Service

if TYPE_CHECKING:
    from tracing_console._settings import Settings

logger = logging.getLogger("tracing_console")

CHECK: Final = 2.0
"""s between two looks at whether the others answer, however many pages are open."""


class Console:
    """The console's connections."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.oap = Oap(settings.oap_url)
        self.service = Service(settings.service_url)
        self.feed = Feed(self.oap, self.service, settings.services)
        self.up = {"OAP": True, "service": True, "SkyWalking UI": False}
        self.seen: dict[str, datetime] = {}
        self._checked = 0.0
        self._lock = asyncio.Lock()

    async def check(self) -> dict[str, bool]:
        """Say who answers; each change is one line in the log."""
        async with self._lock:
            if time.monotonic() - self._checked < CHECK:
                return self.up
            oap, service, ui = await asyncio.gather(
                asyncio.to_thread(self.oap.healthy), self.service.ready(), self._ui_answers()
            )
            for name, answers in (("OAP", oap), ("service", service), ("SkyWalking UI", ui)):
                if answers:
                    self.seen[name] = datetime.now(UTC)
                if answers != self.up[name]:
                    logger.log(logging.INFO if answers else logging.WARNING, "%s %s", name, _word(answers))
                self.up[name] = answers
            self._checked = time.monotonic()
            return self.up

    async def _ui_answers(self) -> bool:
        url = self.settings.ui_check_url or self.settings.ui_url
        if url is None:
            return False
        try:
            async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
                return (await client.get(url)).is_success
        except httpx.HTTPError:
            return False


def _word(answers: bool) -> str:
    return "answers" if answers else "does not answer"
