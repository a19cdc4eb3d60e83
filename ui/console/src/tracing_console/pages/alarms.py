"""`/alarms`: the alarms that OAP raised, and which of them are over."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from nicegui import ui
from oap_query import OapError, alarms, tells_recovery

from tracing_console.data import UI, ServiceError, alarms_url
from tracing_console.pages.elements import Grid
from tracing_console.pages.forms import choice
from tracing_console.pages.frame import frame, tag, text
from tracing_console.pages.rows import Links

if TYPE_CHECKING:
    from oap_query import Alarm

    from tracing_console.data import Sources

REFRESH_SECONDS: Final = 5.0
MAX_ALARMS: Final = 200
TIMES: Final = {"1": "hour", "24": "day", "72": "3 days"}
TONES: Final = {"CRITICAL": "bad", "ERROR": "bad", "WARNING": "warn"}
COLUMNS: Final = (
    {"key": "start", "label": "Raised"},
    {"key": "state", "label": "State"},
    {"key": "level", "label": "Level"},
    {"key": "message", "label": "Alarm"},
    {"key": "about", "label": "About"},
)
SAME_SECONDS: Final = 120
"""Between the times that OAP and the service give one alarm, at most."""


def add(sources: Sources) -> None:
    """Add the page."""

    @ui.page("/alarms")
    def show_alarms(hours: str = "24") -> None:
        lead = "What OAP’s alarm rules have raised, the newest first, and what has recovered since."
        with frame(sources, "Alarms", "/alarms", lead):
            page = _Alarms(sources, hours if hours in TIMES else "24")
            ui.timer(REFRESH_SECONDS, page.refresh, immediate=True)


class _Alarms:
    def __init__(self, sources: Sources, hours: str) -> None:
        self.sources, self.hours = sources, hours
        with tag("form", "tools").props('method="get" action="/alarms" style="margin-bottom: 16px"'):
            choice("In the last", TIMES, hours).props("name=hours")
            text("button", "Show", "button").props('type="submit"')
            self.ui_link = text("a", "Alarms in the SkyWalking UI").props('rel="noreferrer"')
            self.ui_link.set_visibility(False)
        with tag("div", "card"):
            self.grid = Grid(COLUMNS, "Reading OAP’s alarms.")
        self.note = text("p", "", "note")

    async def refresh(self) -> None:
        """Read the alarms again."""
        sources = self.sources
        since = datetime.now(UTC) - timedelta(hours=int(self.hours))
        try:
            raised = await asyncio.to_thread(alarms, sources.oap, since, MAX_ALARMS)
            tells = await asyncio.to_thread(tells_recovery, sources.oap)
        except OapError as error:
            self.grid.show_when_empty(f"{error}. This page refreshes by itself.")
            return
        received = await self._received()
        has_ui = sources.works(UI)
        self.ui_link.set_visibility(has_ui)
        if has_ui:
            self.ui_link.props["href"] = alarms_url(sources.settings)
        self.grid.show_when_empty(f"No alarm in the last {TIMES[self.hours]}.")
        links = Links(sources.settings, has_ui)
        self.grid.show([_row(number, alarm, received, links, tells=tells) for number, alarm in enumerate(raised)])
        self.note.text = _note(len(raised), tells=tells)

    async def _received(self) -> list[dict[str, Any]]:
        """Return the alarms that the service has received from OAP's webhook; it may know of recoveries."""
        try:
            return await self.sources.service.alarms()
        except ServiceError:
            return []


def _row(number: int, alarm: Alarm, received: list[dict[str, Any]], links: Links, *, tells: bool) -> dict[str, Any]:
    is_known, recovered = (True, alarm.recovered) if tells else _recovery(alarm, received)
    if recovered:
        state: dict[str, Any] = {"text": "recovered", "tone": "good", "note": f"at {_clock(recovered)}"}
    elif is_known:
        state = {"text": "active", "tone": "bad"}
    else:
        state = {"text": "not known", "tone": "info"}
    return {
        "key": f"{alarm.start} {alarm.message} {number}",
        "start": {"time": alarm.start},
        "state": state,
        "level": {"text": (alarm.level or "alarm").lower(), "tone": TONES.get(alarm.level.upper(), "info")},
        "message": {"text": alarm.message, "note": alarm.scope.lower()},
        "about": _about(alarm, links),
    }


def _about(alarm: Alarm, links: Links) -> dict[str, Any]:
    if not alarm.service:
        return {"text": ""}
    if alarm.part and alarm.scope.lower() == "endpoint":
        query = urlencode({"service": alarm.service, "endpoint": alarm.part, "minutes": "1440"})
        found = [{"text": "traces", "href": f"/traces?{query}"}, *links.endpoint(alarm.service, alarm.part)[1:]]
        return {"text": alarm.part, "note": alarm.service, "links": found}
    query = urlencode({"service": alarm.service, "minutes": "1440"})
    found = [{"text": "traces", "href": f"/traces?{query}"}, *links.service(alarm.service)[1:]]
    return {"text": alarm.service, "note": alarm.part, "links": found}


def _recovery(alarm: Alarm, received: list[dict[str, Any]]) -> tuple[bool, int | None]:
    """Say whether the service has received this alarm, and when it was over, in ms since the epoch.

    OAP repeats an alarm while its cause lasts; to the service all of them are one.
    """
    for item in received:
        if item.get("message") == alarm.message:
            started, recovered = _milliseconds(item["started_at"]), _milliseconds(item.get("recovered_at"))
            is_after = started is not None and alarm.start >= started - SAME_SECONDS * 1000
            if is_after and (recovered is None or alarm.start <= recovered):
                return True, recovered
    return False, None


def _milliseconds(iso: str | None) -> int | None:
    return int(datetime.fromisoformat(iso).timestamp() * 1000) if iso else None


def _note(count: int, *, tells: bool) -> str:
    sentences = []
    if count >= MAX_ALARMS:
        sentences.append(f"The latest {MAX_ALARMS} are shown.")
    if count and not tells:
        sentences.append(
            "This OAP does not report when an alarm’s cause is over; 10.4 and later do. The states come from "
            "the service, to which OAP sends its alarms."
        )
    return " ".join(sentences)


def _clock(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment / 1000).astimezone():%Y-%m-%d %H:%M:%S}"
