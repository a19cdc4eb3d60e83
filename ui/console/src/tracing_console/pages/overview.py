"""`/overview`: requests beside tasks, the document's claims beside what was measured, alarms, dead letters."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui
from oap_query import OapError, alarms

from tracing_console._elements import Grid, Trend
from tracing_console._frame import frame, tag, text, trace_path
from tracing_console._measures import MINUTES, claims, trends
from tracing_console._service import ServiceError

if TYPE_CHECKING:
    from oap_query import Alarm, Points

    from tracing_console._console import Console
    from tracing_console._measures import Claim

LOOK: Final = 5.0
"""s between two looks."""
ALARM_HOURS: Final = 24
CUT: Final = "its arguments were too large to keep"
CLAIMS: Final = (
    {"key": "metric", "label": "Metric"},
    {"key": "claimed", "label": "Claimed"},
    {"key": "measured", "label": f"Measured, last {MINUTES} minutes"},
    {"key": "verdict", "label": "Verdict"},
)
ALARMS: Final = (
    {"key": "start", "label": "Raised"},
    {"key": "level", "label": "Level"},
    {"key": "message", "label": "What"},
)
LETTERS: Final = (
    {"key": "died", "label": "Died"},
    {"key": "name", "label": "Task"},
    {"key": "error", "label": "Error"},
    {"key": "attempts", "label": "Attempts", "align": "right"},
    {"key": "actions", "label": "", "align": "right"},
)


def add(console: Console) -> None:
    """Add the page."""

    @ui.page("/overview")
    def overview() -> None:
        lead = "What the service’s clients feel, beside the tasks that they never wait for; from OAP’s metrics."
        with frame(console, "Overview", "/overview", lead):
            page = _Page(console)
            ui.timer(LOOK, page.look, immediate=True)


class _Page:
    def __init__(self, console: Console) -> None:
        self.console = console
        with tag("div", "trends"):
            self.times = Trend("Answers and tasks", "ms", logarithmic=True)
            self.loads = Trend("Load per minute", "/min")
            self.rates = Trend("Succeeded", "%", top=100)
        text("h2", "What the overview claims")
        with tag("div", "card"):
            self.claims = Grid(CLAIMS, "Reading OAP’s metrics")
        text("h2", "Dead letters")
        with tag("div", "card"):
            self.letters = Grid(LETTERS, "Asking the service")
            self.letters.on_action(self.act)
        text("h2", "Alarms")
        with tag("div", "card"):
            self.alarms = Grid(ALARMS, "Asking OAP")

    async def look(self) -> None:
        """Read everything anew; what can't be read stays as it was."""
        await asyncio.gather(self._look_at_oap(), self._look_at_letters())

    async def act(self, action: str, task_id: str) -> None:
        """Replay or delete a dead letter."""
        try:
            if action == "replay":
                new = await self.console.service.replay(task_id)
                ui.notify(f"Runs again as task {new}.", type="positive")
            elif action == "delete":
                await self.console.service.discard(task_id)
                ui.notify("Deleted.")
        except ServiceError as error:
            ui.notify(str(error), type="negative")
        await self._look_at_letters()

    async def _look_at_oap(self) -> None:
        oap, feed = self.console.oap, self.console.feed
        try:
            found = await asyncio.to_thread(trends, oap, self.console.settings.services)
            self.times.show(_curves(found.times))
            self.loads.show(_curves(found.loads))
            self.rates.show(_curves(found.rates))
            raised = await asyncio.to_thread(alarms, oap, datetime.now(UTC) - timedelta(hours=ALARM_HOURS))
            self.alarms.say(f"No alarm in the last {ALARM_HOURS} hours.")
            self.alarms.show([_alarm(alarm) for alarm in raised])
            await feed.refresh()
        except OapError:
            return  # the banner says it
        segments = [row.segment for row in feed.rows()]
        self.claims.show([_claim(claim) for claim in claims(segments, feed.running or 0, found.cpu)])

    async def _look_at_letters(self) -> None:
        try:
            answer = await self.console.service.dead_letters()
        except ServiceError as error:
            self.letters.say(f"{error}.")
            return
        self.letters.say("No task has failed for good." if answer else "This service keeps no dead letters.")
        self.letters.show([_letter(item) for item in answer["dead_letters"]] if answer else [])


def _curves(named: dict[str, Points]) -> list[dict[str, Any]]:
    """Make curves of the last minutes, with a gap where a minute has no value."""
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
