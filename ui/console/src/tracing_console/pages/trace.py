"""`/traces/<id>`: one trace with all its segments and services."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui
from oap_query import OapError, build, is_request, log_lines

from tracing_console.data import UI, ui_link
from tracing_console.pages.elements import Waterfall
from tracing_console.pages.frame import frame, tag, text

if TYPE_CHECKING:
    from oap_query import LogLine, Span

    from tracing_console.data import Sources

REFRESH_SECONDS: Final = 1.5
"""While the trace may still grow."""
GROWS_SECONDS: Final = 75
"""After the end of its last span a trace may get another one for so long: the demo's tasks run up to 60 s, and then
their segments must arrive."""


def rows(spans: list[Span]) -> list[dict[str, Any]]:
    """Make the rows of the waterfall, parents before their children; times in ms since the epoch."""
    names = {(span.segment_id, span.span_id): span.name for span in spans}
    return [
        {
            "key": f"{span.segment_id} {span.span_id}",
            "depth": depth,
            "name": span.name,
            "kind": span.kind,
            "component": "" if span.component == "Unknown" else span.component,
            "peer": span.peer,
            "service": span.service,
            "instance": span.instance,
            "segment": span.segment_id,
            "span": span.span_id,
            "start": span.start,
            "duration": span.duration,
            "error": span.error,
            "refs": [
                {"segment": segment, "span": number, "type": kind, "name": names.get((segment, number), "")}
                for segment, number, kind in span.refs
            ],
            "tags": sorted(span.tags.items()),
            "logs": [
                {
                    "time": moment,
                    "event": log.get("event", ""),
                    "data": [pair for pair in log.items() if pair[0] != "event"],
                }
                for moment, log in zip(span.log_times, span.logs, strict=False)
            ],
        }
        for root in build(spans)
        for depth, node in root.walk()
        for span in [node.span]
    ]


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
        self.shown: list[Span] | None = None
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
        self.waterfall.set_visibility(False)
        self.logs = tag("div")
        self._show_message("Searching.", "")
        self.timer = ui.timer(REFRESH_SECONDS, self.refresh, immediate=True)

    async def refresh(self) -> None:
        """Read the trace again and show what is new."""
        try:
            spans = await asyncio.to_thread(self.sources.oap.trace, self.trace_id)
            lines = await asyncio.to_thread(log_lines, self.sources.oap, self.trace_id) if spans else []
            await self._link(spans)
        except OapError as error:
            if self.shown is None:
                self._show_message(f"{error}.", "This page refreshes by itself.")
            return
        newest = max((span.end / 1000 for span in spans), default=self.opened)
        growing = time.time() - max(newest, self.opened if not spans else 0) < GROWS_SECONDS
        if spans:
            self._show(spans, lines, growing=growing)
        elif growing:
            self._show_message("No span of this trace has arrived yet.", _ADVICE + " This page refreshes by itself.")
        else:
            self._show_message("There is no such trace.", _ADVICE)
        if not growing:
            self.timer.cancel()

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

    def _show(self, spans: list[Span], lines: list[LogLine], *, growing: bool) -> None:
        drawn = rows(spans)
        self.message.set_visibility(False)
        self.waterfall.set_visibility(True)
        if self.shown is None or len(spans) != len(self.shown):
            self.waterfall.show(drawn, sorted({span.service for span in spans}))
        self._show_facts(spans, drawn, growing=growing)
        self._show_logs(lines)
        self.shown = spans

    def _show_facts(self, spans: list[Span], drawn: list[dict[str, Any]], *, growing: bool) -> None:
        begin, end = min(span.start for span in spans), max(span.end for span in spans)
        entry = next((span for span in spans if span.kind == "Entry" and is_request(span.name)), None)
        firsts = [span for span in spans if span.span_id == 0]
        failed = sum(span.error for span in spans)
        self.heading.text = drawn[0]["name"]
        words = []
        if entry is not None:
            words.append(("answered in", f"{entry.duration:,} ms" if entry.duration else "less than 1 ms"))
        words += [
            ("all done after", f"{end - begin:,} ms"),
            ("spans", str(len(spans))),
            ("segments", str(len(firsts))),
            ("services", str(len({span.service for span in spans}))),
        ]
        self.facts.clear()
        with self.facts:
            for label, value in words:
                with tag("span"):
                    ui.label(f"{label} ").style("display: inline")
                    text("b", value)
            if failed:
                text("span", f"{failed} failed", "badge bad")
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
                    text("div", f"{clock}  {line.level:<7} {line.content}")


_ADVICE: Final = (
    "A trace can be read some seconds after its first segment ended. Check that the id is complete (the X-Trace-Id of "
    "an answer), that the service reports to this OAP, and that the trace is younger than OAP's retention (3 days)."
)
