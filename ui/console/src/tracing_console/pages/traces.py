"""`/traces`: a search for whole traces. Its conditions are part of the page's address, so it can be bookmarked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from nicegui import ui
from oap_query import OapError, segments, services, summaries, whole

from tracing_console.pages.elements import Grid
from tracing_console.pages.forms import choice, entry, names_or_all, options
from tracing_console.pages.frame import frame, tag, text, trace_path

if TYPE_CHECKING:
    from oap_query import Oap, Segment, Summary

    from tracing_console.data import Sources

PAGE_SIZE: Final = 50
"""Traces shown at first, and more each time."""
MAX_SEGMENTS: Final = 10_000
"""Read for one search, the newest ones: a search over a busy day must end."""
MAX_WHOLE: Final = 1000
"""Traces that are read with all their segments for one search."""
BATCH_SIZE: Final = 50
"""Of these, in one query."""
TIMES: Final = {"5": "5 minutes", "15": "15 minutes", "60": "hour", "360": "6 hours", "1440": "day", "4320": "3 days"}
STATES: Final = {"": "all", "ok": "succeeded", "failed": "failed"}
COLUMNS: Final = (
    {"key": "start", "label": "Started"},
    {"key": "name", "label": "Trace"},
    {"key": "services", "label": "Services"},
    {"key": "tasks", "label": "Tasks", "align": "right"},
    {"key": "duration", "label": "Duration"},
    {"key": "state", "label": "State"},
)


@dataclass(frozen=True)
class Search:
    """The conditions of a search. Durations are of whole traces."""

    service: str
    endpoint: str
    state: str
    min_ms: int
    max_ms: int | None
    minutes: int
    limit: int

    def fits(self, trace: Summary) -> bool:
        """Say whether a trace meets the conditions, but for the service, which OAP has compared already."""
        return (
            trace.duration >= self.min_ms
            and (self.max_ms is None or trace.duration <= self.max_ms)
            and (not self.state or trace.error == (self.state == "failed"))
            and (not self.endpoint or any(self.endpoint.lower() in part.name.lower() for part in trace.segments))
        )


def find(oap: Oap, search: Search) -> tuple[list[Summary], bool, bool]:
    """Return the traces that fit, the newest first; whether there are more; and whether older ones were left out.

    OAP's filters compare segments on SQL storages and spans on others. So that a search means the same on all of them,
    OAP compares time and service only, and the other conditions are compared here, with whole traces.

    Raises:
        OapError: OAP does not answer.
    """
    start = datetime.now(UTC) - timedelta(minutes=search.minutes)
    rows: list[Segment] = []
    for page in segments(oap, start, service=search.service or None):
        rows += page
        if len(rows) >= MAX_SEGMENTS:
            break
    candidates = summaries(rows)
    if not search.service:  # with one, the rows hold only that service's part of each trace
        candidates = [trace for trace in candidates if search.fits(trace)]
    found: list[Summary] = []
    for first in range(0, min(len(candidates), MAX_WHOLE), BATCH_SIZE):
        ids = [trace.trace_id for trace in candidates[first : first + BATCH_SIZE]]
        found += [trace for trace in whole(oap, ids) if search.fits(trace)]
        if len(found) > search.limit:
            return found[: search.limit], True, False
    return found, False, len(rows) >= MAX_SEGMENTS or len(candidates) > MAX_WHOLE


def add(sources: Sources) -> None:
    """Add the page."""

    @ui.page("/traces")
    async def traces(  # noqa: PLR0913, PLR0917  # each is a field of the form
        service: str = "",
        endpoint: str = "",
        state: str = "",
        least: str = "",
        most: str = "",
        minutes: str = "15",
        limit: str = str(PAGE_SIZE),
    ) -> None:
        values = {
            "service": service, "endpoint": endpoint, "state": state, "least": least, "most": most, "minutes": minutes,
        }  # fmt: skip
        with frame(sources, "Traces", "/traces", "Each row is a request with all its background tasks."):
            choices = _form(values)
            with tag("div", "card"):
                grid = Grid(COLUMNS, "Searching.")
            note = text("p", "", "note")
            more_link = text("a", f"Show {PAGE_SIZE} more", "button")
            more_link.set_visibility(False)
        await ui.context.client.connected()
        search = _parse(values, limit)
        if isinstance(search, str):
            grid.show_when_empty(search)
            return
        try:
            known = await asyncio.to_thread(services, sources.oap)
            options(choices, names_or_all(known), service)
            found, is_more, is_cut = await asyncio.to_thread(find, sources.oap, search)
        except OapError as error:
            grid.show_when_empty(f"{error}. Reload the page when OAP is back.")
            return
        longest = max((trace.duration for trace in found), default=1) or 1
        grid.show([_row(trace, longest) for trace in found])
        grid.show_when_empty(
            "No trace matches. Choose a longer time or fewer conditions, or send a request on “Try it”."
        )
        summary = f"{len(found):,} traces." if found else ""
        if is_cut:
            summary += f" Only the newest {MAX_SEGMENTS:,} segments were searched: choose a shorter time."
        note.text = summary
        more_link.set_visibility(is_more)
        more_link.props["href"] = "/traces?" + urlencode({**values, "limit": search.limit + PAGE_SIZE})


def _form(values: dict[str, str]) -> ui.element:
    with tag("form", "tools").props('method="get" action="/traces" style="margin-bottom: 16px"'):
        service = values["service"]
        chosen = choice("Service", names_or_all([service] if service else []), service).props("name=service")
        name = entry("Endpoint or task contains", values["endpoint"])
        name.props('name="endpoint" type="search" autocomplete="off"')
        choice("State", STATES, values["state"]).props("name=state")
        for key, label in (("least", "From (ms)"), ("most", "To (ms)")):
            limit = entry(label, values[key]).classes("short")
            limit.props(f'name="{key}" type="number" autocomplete="off" min="0" step="1" placeholder="any"')
        choice("In the last", TIMES, values["minutes"]).props("name=minutes")
        text("button", "Search", "button primary").props('type="submit"')
        text("a", "Search log lines").props('href="/logs"')
    return chosen


def _parse(values: dict[str, str], limit: str) -> Search | str:
    """Read the form; return a sentence when a value is wrong."""
    numbers: dict[str, int] = {}
    for name, what in (("least", "From"), ("most", "To"), ("minutes", "The time"), ("limit", "The limit")):
        value = {**values, "limit": limit}[name].strip()
        if value and not (value.isascii() and value.isdigit() and len(value) < 10):  # noqa: PLR2004
            return f"{what} can't be {value!r}: give a whole number."
        if value:
            numbers[name] = int(value)
    return Search(
        values["service"],
        values["endpoint"].strip(),
        values["state"] if values["state"] in STATES else "",
        numbers.get("least", 0),
        numbers.get("most"),
        max(1, min(numbers.get("minutes", 15), 4320)),
        max(1, min(numbers.get("limit", PAGE_SIZE), 500)),
    )


def _row(trace: Summary, longest: int) -> dict[str, Any]:
    failed = sum(part.error for part in trace.segments)
    return {
        "key": trace.trace_id,
        "start": {"time": trace.start},
        "name": {"text": trace.name or "(no name)", "href": trace_path(trace.trace_id)},
        "services": ", ".join(trace.services),
        "tasks": str(trace.tasks),
        "duration": {"text": f"{trace.duration:,} ms", "share": round(100 * trace.duration / longest, 1)},
        "state": {"text": "failed", "tone": "bad", "note": f"{failed} of {len(trace.segments)} segments"}
        if trace.error
        else {"text": "succeeded", "tone": "good"},
    }
