"""`/traces/<id>`: one trace with all its segments and services, and its tasks that still run."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui
from oap_query import OapError, has_arrived, is_request, log_lines, started, started_of

from tracing_console.data import UI, ServiceError, ui_link
from tracing_console.pages.elements import Waterfall
from tracing_console.pages.frame import frame, tag, text
from tracing_console.pages.logs import lines_path
from tracing_console.pages.profile import profiled_service
from tracing_console.pages.rows import Links, running_rows, span_rows

if TYPE_CHECKING:
    from oap_query import LogLine, Oap, Span, Started

    from tracing_console.data import RunningTask, Sources

REFRESH_SECONDS: Final = 1.5
"""While the trace may still grow."""
GROWS_SECONDS: Final = 75
"""After the end of its last span a trace may get another one for so long: the demo's tasks run up to 60 s, and then
their segments must arrive."""
MAX_LINES: Final = 200
"""Log lines of a trace that are shown, the latest ones."""


def add(sources: Sources) -> None:
    """Add the page."""

    @ui.page("/traces/{trace_id}")
    def trace(trace_id: str) -> None:
        with frame(sources, "Trace", "/traces") as heading:
            _TracePage(sources, trace_id, heading)


class _TracePage:
    """One open page. It refreshes as long as its trace may grow."""

    def __init__(self, sources: Sources, trace_id: str, heading: ui.label) -> None:
        self.sources, self.trace_id, self.heading = sources, trace_id, heading
        self.opened = time.time()
        self.drawn: list[dict[str, Any]] = []
        self.lines: list[LogLine] = []
        self.facts = tag("div", "facts")
        with tag("div", "facts").props('style="margin: 6px 0 16px"'):
            text("span", trace_id, "mono")
            self.link = text("a", "").props('rel="noreferrer"')
            self.advice = text("span", "")
            self.link.set_visibility(False)
            self.advice.set_visibility(False)
        self.message = tag("div", "card empty")
        self.waterfall = Waterfall()
        self.waterfall.on_cancel(self.cancel)
        self.waterfall.set_visibility(False)
        self.logs = tag("div")
        self._show_message("Searching.", "")
        self.timer = ui.timer(REFRESH_SECONDS, self.refresh, immediate=True)

    async def refresh(self) -> None:
        """Read the trace again and show what is new."""
        try:
            spans, lines, running = await asyncio.to_thread(self._read)
            await self._link(spans)
        except OapError as error:
            if not self.drawn:
                self._show_message(f"{error}.", "This page refreshes by itself.")
            return
        newest = max((span.end / 1000 for span in spans), default=self.opened)
        growing = time.time() - newest < GROWS_SECONDS or any(not item.lost for item in running)
        if spans or running:
            await self._show(spans, lines, running, growing=growing)
        elif growing:
            self._show_message("No span of this trace has arrived yet.", _ADVICE + " This page refreshes by itself.")
        else:
            self._show_message("There is no such trace.", _ADVICE)
        if not growing:
            self.timer.cancel()

    async def cancel(self, task_id: str) -> None:
        """Cancel a task that runs."""
        await cancel(self.sources, task_id)

    def _read(self) -> tuple[list[Span], list[LogLine], list[RunningTask]]:
        oap = self.sources.oap
        spans, lines = oap.trace(self.trace_id), log_lines(oap, self.trace_id, MAX_LINES)
        arrived = {(span.segment_id, span.name) for span in spans}
        reports = {task.segment_id: task for task in _reports(oap, self.trace_id, lines)}
        running = [task for task in reports.values() if not has_arrived(task, arrived)]
        return spans, lines, self.sources.running.states(running)

    async def _link(self, spans: list[Span]) -> None:
        """Link to SkyWalking's UI while it answers. The link needs the trace's service."""
        sources = self.sources
        await sources.check()
        shown = bool(spans) and sources.works(UI)
        if shown and not self.link.text:
            service = min(spans, key=lambda span: span.start).service
            link = await asyncio.to_thread(ui_link, sources.settings, sources.oap, self.trace_id, service)
            self.link.text, self.link.props["href"], self.advice.text = link.words, link.url, link.advice
        self.link.set_visibility(shown)
        self.advice.set_visibility(shown)

    def _show_message(self, sentence: str, advice: str) -> None:
        self.message.clear()
        with self.message:
            text("strong", sentence)
            text("span", advice)
            if advice:
                text("a", "See the latest traces").props('href="/traces"')

    async def _show(
        self, spans: list[Span], lines: list[LogLine], running: list[RunningTask], *, growing: bool
    ) -> None:
        links = Links(self.sources.settings, has_ui=self.sources.works(UI))
        cancellable = await cancellable_service(self.sources) if running else ""
        profiled = await profiled_service(self.sources) if running else ""
        drawn = span_rows(spans, links) + running_rows(running, links, 1 if spans else 0, cancellable, profiled)
        self.message.set_visibility(False)
        self.waterfall.set_visibility(True)
        if drawn != self.drawn:
            self.waterfall.show(drawn, sorted({row["service"] for row in drawn}), int(time.time() * 1000))
        self.drawn = drawn
        self.heading.text = drawn[0]["name"]
        self._show_facts(spans, running, growing=growing)
        self._show_logs(lines)

    def _show_facts(self, spans: list[Span], running: list[RunningTask], *, growing: bool) -> None:
        entry = next((span for span in spans if span.kind == "Entry" and is_request(span.name)), None)
        failed = sum(span.error for span in spans)
        lost = sum(item.lost for item in running)
        facts = []
        if entry is not None:
            facts.append(("answered in", f"{entry.duration:,} ms" if entry.duration else "less than 1 ms"))
        if spans and not running:
            begin, end = min(span.start for span in spans), max(span.end for span in spans)
            facts.append(("all done after", f"{end - begin:,} ms"))
        facts += [
            ("spans", str(len(spans))),
            ("segments", str(sum(span.span_id == 0 for span in spans))),
            ("services", str(len({row["service"] for row in self.drawn}))),
        ]
        badges = [
            (len(running) - lost, "running", "info"),
            (lost, "without news", "warn"),
            (failed, "failed", "bad"),
        ]
        self.facts.clear()
        with self.facts:
            for label, value in facts:
                with tag("span"):
                    ui.label(f"{label} ").style("display: inline")
                    text("b", value)
            for count, label, tone in badges:
                if count:
                    text("span", f"{count} {label}", f"badge {tone}")
            if growing:
                text("span", "may still grow: refreshing", "badge info")

    def _show_logs(self, lines: list[LogLine]) -> None:
        if lines == self.lines:
            return
        self.lines = lines
        self.logs.clear()
        with self.logs:
            text("h2", "Log lines of this trace")
            with tag("div", "card loglines mono"):
                for line in lines:
                    clock = time.strftime("%H:%M:%S", time.localtime(line.time / 1000))
                    with tag("div"):
                        text("span", f"{clock}  {line.level:<7} {line.content} ")
                        if task_id := line.tags.get("task.id"):
                            text("a", "its task’s lines").props["href"] = lines_path(task_id)


def _reports(oap: Oap, trace_id: str, lines: list[LogLine]) -> list[Started]:
    """Return the start reports of a trace: from its log lines, or by a search where these are not all."""
    if len(lines) < MAX_LINES:
        return started_of(lines)
    return [task for page in started(oap, datetime.now(UTC), trace_id=trace_id) for task in page]


async def cancellable_service(sources: Sources) -> str:
    """Return the name of the service whose tasks can be cancelled; nothing where it has no such endpoint."""
    try:
        endpoints = await sources.service.endpoints()
    except ServiceError:
        return ""
    return sources.settings.service_name if ("POST", "/tasks/{task_id}/cancel") in endpoints else ""


async def cancel(sources: Sources, task_id: str) -> None:
    """Cancel a task and tell the reader what came of it."""
    try:
        await sources.service.cancel(task_id)
    except ServiceError as error:
        ui.notify(f"{error}.", type="negative")
    else:
        ui.notify(f"Task {task_id} is cancelled. Its span arrives in some seconds.", type="positive")


_ADVICE: Final = (
    "A trace can be read some seconds after its first segment ended. Check that the id is complete (the X-Trace-Id of "
    "an answer), that the service reports to this OAP, and that the trace is younger than OAP's retention (3 days)."
)
