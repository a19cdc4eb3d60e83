"""`/logs`: log lines by level, service and task, each with the way to its trace."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from nicegui import ui
from oap_query import OapError, search_lines, services

from tracing_console.pages.elements import Grid
from tracing_console.pages.forms import choice, entry, names_or_all, options
from tracing_console.pages.frame import frame, tag, text, trace_path

if TYPE_CHECKING:
    from oap_query import LogLine

    from tracing_console.data import Sources

MAX_LINES: Final = 200
REFRESH_SECONDS: Final = 5.0
TIMES: Final = {"15": "15 minutes", "60": "hour", "360": "6 hours", "1440": "day", "4320": "3 days"}
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
TONES: Final = {"CRITICAL": "bad", "ERROR": "bad", "WARNING": "warn"}
COLUMNS: Final = (
    {"key": "time", "label": "Time"},
    {"key": "level", "label": "Level"},
    {"key": "line", "label": "Line"},
    {"key": "service", "label": "Service"},
)


def add(sources: Sources) -> None:
    """Add the page."""

    @ui.page("/logs")
    def logs(service: str = "", level: str = "", task: str = "", id: str = "", minutes: str = "60") -> None:  # noqa: A002  # each is a field of the form
        level, minutes = level if level in LEVELS else "", minutes if minutes in TIMES else "60"
        tags = {"level": level, "task.name": task.strip(), "task.id": id.strip()}
        with frame(sources, "Log lines", "/traces", "What the services have logged, the newest first, with its trace."):
            page = _Logs(sources, service, tags, minutes)
            ui.timer(REFRESH_SECONDS, page.refresh, immediate=True)


class _Logs:
    def __init__(self, sources: Sources, service: str, tags: dict[str, str], minutes: str) -> None:
        self.sources, self.service, self.minutes = sources, service, int(minutes)
        self.tags = {key: value for key, value in tags.items() if value}
        self.filled = False
        self.choice = _form(service, tags, minutes)
        with tag("div", "card"):
            self.grid = Grid(COLUMNS, "Searching.")
        self.note = text("p", "", "note")

    async def refresh(self) -> None:
        """Search again: lines come in, and OAP does not know a new service at once."""
        since = datetime.now(UTC) - timedelta(minutes=self.minutes)
        try:
            if not self.filled:  # once: filled anew, the field would lose what its reader chooses
                known = await asyncio.to_thread(services, self.sources.oap)
                options(self.choice, names_or_all(sorted({*known, self.service} - {""})), self.service)
                self.filled = True
            found = await asyncio.to_thread(
                search_lines, self.sources.oap, since, service=self.service, tags=self.tags, limit=MAX_LINES
            )
        except OapError as error:
            self.grid.show_when_empty(f"{error}. This page refreshes by itself.")
            return
        same_time: Counter[int] = Counter()
        rows = []
        for line in reversed(found):
            same_time[line.time] += 1
            rows.append(_row(f"{line.time} {same_time[line.time]}", line))
        self.grid.show(rows[::-1])
        self.grid.show_when_empty("No line fits. Choose a longer time or fewer conditions.")
        self.note.text = f"The latest {MAX_LINES} are shown." if len(found) >= MAX_LINES else ""


def lines_path(task_id: str) -> str:
    """Return the path of a task's log lines."""
    return f"/logs?{urlencode({'id': task_id, 'minutes': '4320'})}"


def _form(service: str, tags: dict[str, str], minutes: str) -> ui.element:
    with tag("form", "tools").props('method="get" action="/logs" style="margin-bottom: 16px"'):
        chosen = choice("Service", names_or_all([service] if service else []), service).props("name=service")
        choice("Level", names_or_all(LEVELS), tags["level"]).props("name=level")
        for name, key, label in (("task", "task.name", "Task’s name"), ("id", "task.id", "Task’s id")):
            entry(label, tags[key]).props(f'name="{name}" type="search" autocomplete="off"')
        choice("In the last", TIMES, minutes).props("name=minutes")
        text("button", "Search", "button primary").props('type="submit"')
    return chosen


def _row(key: str, line: LogLine) -> dict[str, Any]:
    links = [{"text": "its trace", "href": trace_path(line.trace_id)}] if line.trace_id else []
    if task_id := line.tags.get("task.id"):
        links.append({"text": f"all lines of {line.tags.get('task.name') or 'its task'}", "href": lines_path(task_id)})
    return {
        "key": key,
        "time": {"time": line.time},
        "level": {"text": line.level.lower() or "none", "tone": TONES.get(line.level, "info")},
        "line": {"text": line.content, "mono": True, **({"links": links} if links else {})},
        "service": {"text": line.service, "note": line.instance},
    }
