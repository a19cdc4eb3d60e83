"""`/overview`: charts of requests and tasks, claims beside measurements, dead letters, alarms."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui
from oap_query import OapError, alarms

from tracing_console.data import MINUTES, ServiceError, claims, trends
from tracing_console.pages.elements import Grid, Trend
from tracing_console.pages.frame import frame, tag, text, trace_path

if TYPE_CHECKING:
    from oap_query import Alarm, Points

    from tracing_console.data import Claim, Sources

REFRESH_SECONDS: Final = 5.0
ALARM_HOURS: Final = 24
CUT: Final = "Its arguments were too large to store."
CLAIMS: Final = (
    {"key": "metric", "label": "Metric"},
    {"key": "claimed", "label": "Claimed"},
    {"key": "measured", "label": f"Measured, last {MINUTES} minutes"},
    {"key": "verdict", "label": "Verdict"},
)
ALARMS: Final = (
    {"key": "start", "label": "Raised"},
    {"key": "level", "label": "Level"},
    {"key": "message", "label": "Alarm"},
)
LETTERS: Final = (
    {"key": "died", "label": "Died"},
    {"key": "name", "label": "Task"},
    {"key": "error", "label": "Error"},
    {"key": "attempts", "label": "Attempts", "align": "right"},
    {"key": "actions", "label": "Actions", "align": "right"},
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
        with tag("div", "trends"):
            self.times = Trend("Durations", "ms", logarithmic=True)
            self.loads = Trend("Load per minute", "/min")
            self.rates = Trend("Succeeded", "%", top=100)
        text("h2", "Claims and measurements")
        with tag("div", "card"):
            self.claims = Grid(CLAIMS, "Reading OAP’s metrics.")
        text("h2", "Dead letters")
        with tag("div", "card"):
            self.letters = Grid(LETTERS, "Reading the dead letters.")
            self.letters.on_action(self.act)
        text("h2", "Alarms")
        with tag("div", "card"):
            self.alarms = Grid(ALARMS, "Reading OAP’s alarms.")

    async def refresh(self) -> None:
        """Read everything again. What can't be read stays as it was."""
        await asyncio.gather(self._refresh_metrics(), self._refresh_letters())

    async def act(self, action: str, task_id: str) -> None:
        """Replay or delete a dead letter."""
        try:
            if action == "replay":
                new = await self.sources.service.replay(task_id)
                ui.notify(f"Runs again as task {new}.", type="positive")
            elif action == "delete":
                await self.sources.service.discard(task_id)
                ui.notify("The dead letter is deleted.")
        except ServiceError as error:
            ui.notify(str(error), type="negative")
        await self._refresh_letters()

    async def _refresh_metrics(self) -> None:
        oap, feed = self.sources.oap, self.sources.feed
        try:
            found = await asyncio.to_thread(trends, oap, self.sources.settings.services)
            self.times.show(_curves(found.times))
            self.loads.show(_curves(found.loads))
            self.rates.show(_curves(found.rates))
            raised = await asyncio.to_thread(alarms, oap, datetime.now(UTC) - timedelta(hours=ALARM_HOURS))
            self.alarms.show_when_empty(f"No alarm in the last {ALARM_HOURS} hours.")
            self.alarms.show([_alarm(alarm) for alarm in raised])
            await feed.refresh()
        except OapError:
            return  # the banner says so
        segments = [row.segment for row in feed.rows()]
        self.claims.show([_claim(claim) for claim in claims(segments, feed.running_count or 0, found.cpu_percent)])

    async def _refresh_letters(self) -> None:
        try:
            answer = await self.sources.service.dead_letters()
        except ServiceError as error:
            self.letters.show_when_empty(f"{error}.")
            return
        self.letters.show_when_empty(
            "No task has failed for good." if answer else "This service keeps no dead letters."
        )
        self.letters.show([_letter(item) for item in answer["dead_letters"]] if answer else [])


def _curves(named: dict[str, Points]) -> list[dict[str, Any]]:
    """Make one curve of each series, with a gap where a minute has no value."""
    this_minute = int(time.time() // 60) * 60_000
    minutes = range(this_minute - MINUTES * 60_000, this_minute + 1, 60_000)
    return [
        {"name": name, "points": [[moment, points.get(moment)] for moment in minutes]}
        for name, points in named.items()
        if points
    ]


def _claim(claim: Claim) -> dict[str, Any]:
    verdict = {"text": claim.verdict, "tone": claim.tone} if claim.tone else claim.verdict
    return {
        "key": claim.metric,
        "metric": claim.metric,
        "claimed": claim.claimed,
        "measured": claim.measured,
        "verdict": verdict,
    }


def _alarm(alarm: Alarm) -> dict[str, Any]:
    tone = {"CRITICAL": "bad", "WARNING": "warn"}.get(alarm.level, "info")
    return {
        "key": f"{alarm.start} {alarm.message}",
        "start": {"time": alarm.start},
        "level": {"text": (alarm.level or "alarm").lower(), "tone": tone},
        "message": {"text": alarm.message, "note": alarm.scope.lower()},
    }


def _letter(item: dict[str, Any]) -> dict[str, Any]:
    error = item.get("error") or {}
    trace_id = item.get("trace_id")
    return {
        "key": item["id"],
        "died": {"time": datetime.fromisoformat(item["died_at"]).timestamp() * 1000},
        "name": {
            "text": item["name"],
            "href": trace_path(trace_id) if trace_id else "",
            "note": f"{item['reason']}; task {item['id']}",
        },
        "error": {
            "text": ": ".join(part for part in (error.get("type"), error.get("message")) if part),
            "summary": "Arguments and stack trace",
            "more": f"{json.dumps(item.get('arguments'), indent=1, ensure_ascii=False)}\n\n{error.get('stack') or ''}",
        },
        "attempts": str(item["attempts"]),
        "actions": {
            "actions": [
                {"name": "replay", "label": "Replay", "off": "" if item.get("replayable", True) else CUT},
                {"name": "delete", "label": "Delete", "sure": "Really delete?", "tone": "danger"},
            ]
        },
    }
