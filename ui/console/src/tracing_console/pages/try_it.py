"""`/try`: requests at the press of a button, each answer with the link to its trace."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui

from tracing_console._elements import Grid
from tracing_console._frame import frame, tag, text, trace_path
from tracing_console._service import Answer, Ask, ServiceError

if TYPE_CHECKING:
    from tracing_console._console import Console

SHOWN: Final = 40
"""Results kept on the page."""
MOST: Final = 1000
"""Requests at once."""
PACE: Final = 0.004
"""s between two requests of the same press: sent faster, they would wait for each other in the console, and it would
report its own slowness as the service's. Their tasks of some seconds run at the same time all the same."""
AT_ONCE: Final = 100
"""ms: the overview's limit for an answer that does not wait for its task."""
BODY: Final = {"id": "order-1", "lines": 3}


@dataclass(frozen=True)
class Preset:
    """A button: what it sends, how often at once, and what there is to see."""

    title: str
    words: str
    ask: Ask
    times: int = 1


PRESETS: Final = (
    Preset("1 request", "Answers at once; its task sleeps on for 10 s.", Ask("GET", "/test")),
    Preset("50 at once", "50 tasks side by side: look at the timeline.", Ask("GET", "/test"), 50),
    Preset("1,000 at once", "What the overview claims: 1,000 tasks run at the same time.", Ask("GET", "/test"), 1000),
    Preset("Blocking", "The same sleep without a task: the client waits.", Ask("GET", "/test/blocking", 3)),
    Preset(
        "Three, side by side",
        "One request, three parallel tasks.",
        Ask("POST", "/complex-action", 3, params={"mode": "parallel"}),
    ),
    Preset(
        "Three, one by one",
        "How Starlette runs several tasks of one response.",
        Ask("POST", "/complex-action", 2, params={"mode": "sequential"}),
    ),
    Preset("Fire and forget", "Pattern 1 of the overview.", Ask("POST", "/action", 5)),
    Preset(
        "With data",
        "Pattern 3. The same id again gives the same answer, and no second run.",
        Ask("POST", "/process", 3, body=BODY),
    ),
    Preset("In a thread", "The same sleep in a thread, joined to the trace.", Ask("GET", "/test/threading", 5)),
    Preset("Celery", "The same sleep as a Celery task in the worker.", Ask("GET", "/test/celery", 5)),
    Preset("Queue", "The same sleep, consumed from RabbitMQ by the worker.", Ask("GET", "/test/queue", 5)),
)
FAULTS: Final = (
    Preset(
        "A failing task",
        "Fails at every attempt and ends as a dead letter; the answer is a success all the same.",
        Ask("GET", "/test", 1, "error"),
    ),
    Preset("Fails twice, then works", "Each attempt is a span of its own.", Ask("GET", "/test", 1, "error;times=2")),
    Preset("A slow start", "The task is held up for half a second.", Ask("GET", "/test", 1, "delay=500ms")),
    Preset("A hanging task", "Never ends by itself: a time limit ends it.", Ask("GET", "/test", 1, "hang")),
    Preset(
        "The process dies",
        "The service ends while the task runs, and is started again.",
        Ask("GET", "/test", 1, "exit"),
    ),
)
COLUMNS: Final = (
    {"key": "request", "label": "Request"},
    {"key": "status", "label": "Status"},
    {"key": "took", "label": "Answer after"},
    {"key": "trace", "label": "Trace"},
)


def add(console: Console) -> None:
    """Add the page."""

    @ui.page("/try")
    async def try_it() -> None:
        lead = "Each button sends real requests to the service, from the console’s server side."
        with frame(console, "Try it", "/try", lead):
            page = _Page(console)
        await ui.context.client.connected()
        await page.look()


@dataclass
class _Page:
    console: Console
    results: list[dict[str, Any]] = field(default_factory=list)
    offers: list[tuple[ui.element, str]] = field(default_factory=list)
    """What is shown where the service has such a path."""
    count: int = 0

    def __post_init__(self) -> None:
        with tag("div", "beside"):
            with tag("div"):
                with tag("div", "presets"):
                    for preset in PRESETS:
                        self._card(preset)
                text("h2", "Faults")
                self.hint = text("p", "", "note")
                self.hint.set_visibility(False)
                with tag("div", "presets"):
                    for preset in FAULTS:
                        self._card(preset)
                text("h2", "Your own")
                self._own()
            with tag("aside").props('aria-label="Answers"'):
                text("h2", "Answers")
                with tag("div", "card").props('aria-live="polite"'):
                    self.grid = Grid(COLUMNS, "Press a button: the answers appear here, the newest first.")

    async def look(self) -> None:
        """Hide what this service does not have."""
        try:
            paths = await self.console.service.paths()
        except ServiceError:
            return  # the banner says it
        for element, path in self.offers:
            element.set_visibility(path in paths)
        if "/dead-letters" not in paths:
            self.hint.text = "This service knows no faults: it ignores the X-Fault header and does the work."
            self.hint.set_visibility(True)

    def _card(self, preset: Preset) -> None:
        ask = preset.ask
        with tag("section", "card preset") as card:
            text("h3", preset.title)
            text("p", preset.words)
            text("code", ask.title)
            if ask.fault:
                text("code", f"X-Fault: {ask.fault}")
            button = text("button", "Send" if preset.times == 1 else f"Send {preset.times:,}", "button primary")
            button.props["aria-label"] = f"Send: {preset.title}"
        self.offers.append((card, ask.path))

        async def press() -> None:
            await self._send(button, ask, preset.times)

        button.on("click", press)

    def _own(self) -> None:
        asks = list(dict.fromkeys((p.ask.method, p.ask.path) for p in PRESETS))
        with tag("form", "card own tools") as form:
            endpoint = _choice("Endpoint", [f"{method} {path}" for method, path in asks])
            self.offers += [(option, path) for option, (_, path) in zip(endpoint, asks, strict=True)]
            fault = _choice("Fault", ["none", *(p.ask.fault for p in FAULTS)])
            duration = _number("Task runs (s)", "10", "0", "60", "any")
            times = _number("Times", "1", "1", str(MOST), "1")
            button = text("button", "Send", "button primary").props('type="submit"')

        async def submit(event: Any) -> None:  # noqa: ANN401  # NiceGUI's own
            chosen, wrong, seconds, often = event.args
            known = dict(zip([f"{method} {path}" for method, path in asks], asks, strict=True))
            try:
                method, path = known[chosen]
                ask = Ask(
                    method,
                    path,
                    float(seconds),
                    "" if wrong == "none" else wrong,
                    body=BODY if path == "/process" else None,
                )
                count = max(1, min(int(often), MOST))
            except (KeyError, ValueError):
                ui.notify("Give a number of seconds and a number of requests.")
                return
            await self._send(button, ask, count)

        fields = ", ".join(
            f"document.getElementById('{item.html_id}').value" for item in (endpoint, fault, duration, times)
        )
        form.on("submit.prevent", submit, js_handler=f"() => emit({fields})")

    async def _send(self, button: ui.element, ask: Ask, times: int) -> None:
        """Send, and show what came; the button rests meanwhile."""
        if "disabled" in button.props:
            return
        button.props["disabled"] = True

        async def one(number: int) -> Answer:
            body = {**ask.body, "id": f"{ask.body['id']}-{number}"} if times > 1 and ask.body else ask.body
            await asyncio.sleep(number * PACE)
            return await self.console.service.send(replace(ask, body=body))

        try:
            answers = await asyncio.gather(*(one(number) for number in range(times)))
        finally:
            del button.props["disabled"]
        self.count += 1
        self.results = [_row(self.count, ask, answers), *self.results][:SHOWN]
        self.grid.show(self.results)


def _row(number: int, ask: Ask, answers: list[Answer]) -> dict[str, Any]:
    statuses = Counter(answer.status for answer in answers)
    times = sorted(answer.took for answer in answers)
    several = len(answers) > 1
    codes = (f"{code or 'no answer'}{f' ×{n:,}' if several else ''}" for code, n in sorted(statuses.items()))
    traced = next((answer.trace_id for answer in answers if answer.trace_id), None)
    return {
        "key": str(number),
        "request": {
            "text": (f"{len(answers):,} × " if several else "") + ask.title,
            "note": time.strftime("%H:%M:%S") + (f", X-Fault: {ask.fault}" if ask.fault else ""),
        },
        "status": {
            "text": ", ".join(codes),
            "tone": "good" if set(statuses) <= {200, 202} else "bad",
            "note": "" if several else answers[0].text,
        },
        "took": {
            "text": f"median {median(times):.1f} ms" if several else f"{times[0]:.1f} ms",
            "note": _remark(ask, times),
        },
        "trace": {
            "text": traced or "none",
            "href": trace_path(traced) if traced else "",
            "mono": True,
            "note": "the first of them" if several and traced else "",
        },
    }


def _remark(ask: Ask, times: list[float]) -> str:
    if len(times) > 1:
        return f"slowest {times[-1]:.1f} ms"
    if ask.path.endswith("/blocking"):
        return "the client waited"
    return "at once" if times[0] < AT_ONCE else ""


def _choice(label: str, values: list[str]) -> ui.element:
    with tag("label"):
        text("span", label)
        with tag("select") as select:
            for value in values:
                text("option", value)
    return select


def _number(label: str, value: str, least: str, most: str, step: str) -> ui.element:
    with tag("label"):
        text("span", label)
        field = tag("input").props(
            f'type="number" required min="{least}" max="{most}" step="{step}" style="width: 110px"'
        )
        field.props["value"] = value
    return field
