"""`/traces`: whole traces, found by what one knows of them. The search is the page's address, so it can be kept."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from nicegui import ui
from oap_query import OapError, segments, services, summaries, whole

from tracing_console._elements import Grid
from tracing_console._frame import frame, tag, text, trace_path

if TYPE_CHECKING:
    from oap_query import Oap, Segment, Summary

    from tracing_console._console import Console

PAGE: Final = 50
"""Traces shown, and how many more each time."""
SCAN: Final = 10_000
"""Segments looked at for one search, the newest: a search of a busy day must end."""
OPENED: Final = 1000
"""Traces that are read as a whole for one search."""
BATCH: Final = 50
"""How many of them at a time."""
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
    """What a trace must be like; durations in ms, of the whole trace."""

    service: str
    endpoint: str
    state: str
    least: int
    most: int | None
    minutes: int
    limit: int

    def fits(self, trace: Summary) -> bool:
        """Say whether a trace is wanted; its services are asked for elsewhere."""
        return (
            trace.duration >= self.least
            and (self.most is None or trace.duration <= self.most)
            and (not self.state or trace.error == (self.state == "failed"))
            and (not self.endpoint or any(self.endpoint.lower() in part.name.lower() for part in trace.segments))
        )


def find(oap: Oap, search: Search) -> tuple[list[Summary], bool, bool]:
    """Return the traces that fit, the newest first; whether there are more, and whether older ones were not looked at.

    OAP's own filters are about segments (on SQL stores) or about spans. So that a search means the same on every
    storage, OAP is asked for a time and a service only, and traces are compared as wholes here.

    Raises:
        OapError: OAP does not answer.
    """
    start = datetime.now(UTC) - timedelta(minutes=search.minutes)
    rows: list[Segment] = []
    for page in segments(oap, start, service=search.service or None):
        rows += page
        if len(rows) >= SCAN:
            break
    candidates = summaries(rows)
    if not search.service:  # or the rows are only that service's part of each trace
        candidates = [trace for trace in candidates if search.fits(trace)]
    found: list[Summary] = []
    for first in range(0, min(len(candidates), OPENED), BATCH):
        ids = [trace.trace_id for trace in candidates[first : first + BATCH]]
        found += [trace for trace in whole(oap, ids) if search.fits(trace)]
        if len(found) > search.limit:
            return found[: search.limit], True, False
    return found, False, len(rows) >= SCAN or len(candidates) > OPENED


def add(console: Console) -> None:
    """Add the page."""

    @ui.page("/traces")
    async def traces(  # noqa: PLR0913, PLR0917  # each is a field of the form
        service: str = "",
        endpoint: str = "",
        state: str = "",
        least: str = "",
        most: str = "",
        minutes: str = "15",
        limit: str = str(PAGE),
    ) -> None:
        given = {
            "service": service, "endpoint": endpoint, "state": state, "least": least, "most": most, "minutes": minutes,
        }  # fmt: skip
        with frame(console, "Traces", "/traces", "Whole traces: a request and all that it left behind, in one row."):
            choices = _form(given)
            with tag("div", "card"):
                grid = Grid(COLUMNS, "Looking for traces")
            note = text("p", "", "note")
            more = text("a", f"Show {PAGE} more", "button")
            more.set_visibility(False)
        await ui.context.client.connected()
        search = _parse(given, limit)
        if isinstance(search, str):
            grid.say(search)
            return
        try:
            known = await asyncio.to_thread(services, console.oap)
            _fill(choices, known, service)
            found, is_more, cut = await asyncio.to_thread(find, console.oap, search)
        except OapError as error:
            grid.say(f"{error}. Load the page again when it does.")
            return
        longest = max((trace.duration for trace in found), default=1) or 1
        grid.show([_row(trace, longest) for trace in found])
        grid.say("No trace fits. Choose a longer time or fewer conditions, or send a request on “Try it”.")
        words = f"{len(found):,} traces." if found else ""
        if cut:
            words += f" Older ones than the newest {SCAN:,} segments were not looked at: choose a shorter time."
        note.text = words
        more.set_visibility(is_more)
        more.props["href"] = "/traces?" + urlencode({**given, "limit": search.limit + PAGE})


def _form(given: dict[str, str]) -> ui.element:
    with tag("form", "tools").props('method="get" action="/traces" style="margin-bottom: 16px"'):
        with _field("Service"):
            chosen = tag("select").props("name=service")
            _fill(chosen, [given["service"]] if given["service"] else [], given["service"])
        with _field("Endpoint or task contains"):
            _input("endpoint", given, "search")
        with _field("State"):
            _options(tag("select").props("name=state"), STATES, given["state"])
        with _field("From (ms)"):
            _input("least", given, "number")
        with _field("To (ms)"):
            _input("most", given, "number")
        with _field("In the last"):
            _options(tag("select").props("name=minutes"), TIMES, given["minutes"])
        text("button", "Search", "button primary").props('type="submit"')
    return chosen


def _field(label: str) -> ui.element:
    with tag("label") as field:
        text("span", label)
    return field


def _input(name: str, given: dict[str, str], kind: str) -> None:
    field = tag("input").props(f'name="{name}" type="{kind}" autocomplete="off"')
    if kind == "number":
        field.classes("short").props('min="0" step="1" placeholder="any"')
    field.props["value"] = given[name]


def _options(select: ui.element, choices: dict[str, str], chosen: str) -> None:
    with select:
        for value, label in choices.items():
            option = text("option", label)
            option.props["value"] = value
            if value == chosen:
                option.props["selected"] = True


def _fill(select: ui.element, names: list[str], chosen: str) -> None:
    select.clear()
    _options(select, {"": "all", **{name: name for name in names}}, chosen)


def _parse(given: dict[str, str], limit: str) -> Search | str:
    """Read the form; a sentence about what is wrong with it."""
    numbers: dict[str, int] = {}
    for name, what in (("least", "From"), ("most", "To"), ("minutes", "The time"), ("limit", "The limit")):
        value = {**given, "limit": limit}[name].strip()
        if value and not (value.isascii() and value.isdigit() and len(value) < 10):  # noqa: PLR2004
            return f"{what} can't be {value!r}: give a whole number."
        if value:
            numbers[name] = int(value)
    return Search(
        given["service"],
        given["endpoint"].strip(),
        given["state"] if given["state"] in STATES else "",
        numbers.get("least", 0),
        numbers.get("most"),
        max(1, min(numbers.get("minutes", 15), 4320)),
        max(1, min(numbers.get("limit", PAGE), 500)),
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
