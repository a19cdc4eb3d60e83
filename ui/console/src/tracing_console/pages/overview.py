"""`/overview`: charts of requests and tasks, claims beside measurements, counts of what needs attention."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui
from oap_query import OapError, alarms

from tracing_console.data import MINUTES, ServiceError, claims, trends
from tracing_console.pages.curves import curves
from tracing_console.pages.elements import Grid, Trend
from tracing_console.pages.frame import frame, tag, text

if TYPE_CHECKING:
    from tracing_console.data import Claim, Sources

REFRESH_SECONDS: Final = 5.0
ALARM_HOURS: Final = 24
MAX_ALARMS: Final = 1000
CLAIMS: Final = (
    {"key": "metric", "label": "Metric"},
    {"key": "claimed", "label": "Claimed"},
    {"key": "measured", "label": f"Measured, last {MINUTES} minutes"},
    {"key": "verdict", "label": "Verdict"},
)


def add(sources: Sources) -> None:
    """Add the page."""

    @ui.page("/overview")
    def overview() -> None:
        lead = "Requests, which clients wait for, beside background tasks, which they do not. From OAP’s metrics."
        with frame(sources, "Overview", "/overview", lead):
            page = _Overview(sources)
            ui.timer(REFRESH_SECONDS, page.refresh, immediate=True)


class _Overview:
    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        with tag("div", "tiles"):
            self.running = _tile("tasks run now", "/running")
            self.letters = _tile("dead letters", "/dead-letters")
            self.alarms = _tile(f"alarms in the last {ALARM_HOURS} hours", "/alarms")
        with tag("div", "trends"):
            self.times = Trend("Durations", "ms", logarithmic=True)
            self.loads = Trend("Load per minute", "/min")
            self.rates = Trend("Succeeded", "%", top=100)
        text("h2", "Claims and measurements")
        with tag("div", "card"):
            self.claims = Grid(CLAIMS, "Reading OAP’s metrics.")

    async def refresh(self) -> None:
        """Read everything again. What can't be read stays as it was."""
        await asyncio.gather(self._refresh_metrics(), self._refresh_letters())

    async def _refresh_metrics(self) -> None:
        oap, feed = self.sources.oap, self.sources.feed
        try:
            found = await asyncio.to_thread(trends, oap, self.sources.settings.services)
            self.times.show(curves(found.times))
            self.loads.show(curves(found.loads))
            self.rates.show(curves(found.rates))
            since = datetime.now(UTC) - timedelta(hours=ALARM_HOURS)
            _count(self.alarms, len(await asyncio.to_thread(alarms, oap, since, MAX_ALARMS)), MAX_ALARMS)
            await feed.refresh()
        except OapError:
            return  # the banner says so
        _count(self.running, feed.running_count or 0)
        segments = [row.segment for row in feed.rows()]
        self.claims.show([_claim(claim) for claim in claims(segments, feed.running_count or 0, found.cpu_percent)])

    async def _refresh_letters(self) -> None:
        try:
            answer = await self.sources.service.dead_letters(1)
        except ServiceError:
            return  # the banner says so
        _count(self.letters, answer["total"] if answer else 0)


def _tile(label: str, path: str) -> ui.label:
    with tag("a", "tile").props(f'href="{path}"'):
        number = text("b", "…")
        text("span", label)
    return number


def _count(number: ui.label, count: int, limit: int | None = None) -> None:
    number.text = f"{count:,}" if limit is None or count < limit else f"{limit:,} or more"


def _claim(claim: Claim) -> dict[str, Any]:
    verdict = {"text": claim.verdict, "tone": claim.tone} if claim.tone else claim.verdict
    return {
        "key": claim.metric,
        "metric": claim.metric,
        "claimed": claim.claimed,
        "measured": claim.measured,
        "verdict": verdict,
    }
