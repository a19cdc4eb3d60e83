"""`/try`: buttons that send requests. Each answer links to its trace."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui
from tracing_claims import RESPONSE_LIMIT_MS

from tracing_console.data import Answer, Request, ServiceError
from tracing_console.pages.elements import Grid
from tracing_console.pages.forms import choice, number
from tracing_console.pages.frame import frame, tag, text, trace_path

if TYPE_CHECKING:
    from tracing_console.data import Sources

MAX_RESULTS: Final = 40
"""Shown on the page."""
MAX_REQUESTS: Final = 1000
"""Sent by one press."""
SPACING_SECONDS: Final = 0.004
"""Between two requests of one press. Sent faster, they would wait for each other in the console, and the times would
include that. Tasks of some seconds run at the same time nevertheless."""
BODY: Final = {"id": "order-1", "lines": 3}


@dataclass(frozen=True)
class Preset:
    """A button: its texts, what it sends, and how often."""

    title: str
    description: str
    request: Request
    times: int = 1


PRESETS: Final = (
    Preset("1 request", "Answers at once. Its task sleeps for 10 s.", Request("GET", "/test")),
    Preset("50 at once", "50 parallel tasks: see the timeline.", Request("GET", "/test"), 50),
    Preset("1,000 at once", "1,000 parallel tasks.", Request("GET", "/test"), 1000),
    Preset("Blocking", "The same sleep without a task. The client waits.", Request("GET", "/test/blocking", 3)),
    Preset(
        "Three, side by side",
        "One request, three parallel tasks.",
        Request("POST", "/complex-action", 3, params={"mode": "parallel"}),
    ),
    Preset(
        "Three, one by one",
        "One request, three tasks, as Starlette runs them.",
        Request("POST", "/complex-action", 2, params={"mode": "sequential"}),
    ),
    Preset("Fire and forget", "A request that starts one task.", Request("POST", "/action", 5)),
    Preset(
        "With data",
        "The task gets the data. The same id again gives the same answer and no second run.",
        Request("POST", "/process", 3, body=BODY),
    ),
    Preset("In a thread", "The same sleep in a thread, in the same trace.", Request("GET", "/test/threading", 5)),
    Preset("Celery", "The same sleep as a Celery task in the worker.", Request("GET", "/test/celery", 5)),
    Preset("Queue", "The same sleep as a message that the worker consumes.", Request("GET", "/test/queue", 5)),
)
FAULTS: Final = (
    Preset(
        "A failing task",
        "Every attempt fails and the task becomes a dead letter. The answer is a success nevertheless.",
        Request("GET", "/test", 1, "error"),
    ),
    Preset(
        "Fails twice, then works", "Each attempt is a span of its own.", Request("GET", "/test", 1, "error;times=2")
    ),
    Preset("A slow start", "The task starts half a second late.", Request("GET", "/test", 1, "delay=500ms")),
    Preset(
        "A hanging task", "The task never ends by itself. A time limit ends it.", Request("GET", "/test", 1, "hang")
    ),
    Preset(
        "The process dies",
        "The service ends while the task runs, and starts again.",
        Request("GET", "/test", 1, "exit"),
    ),
)
COLUMNS: Final = (
    {"key": "request", "label": "Request"},
    {"key": "status", "label": "Status"},
    {"key": "time", "label": "Answered after"},
    {"key": "trace", "label": "Trace"},
)


def add(sources: Sources) -> None:
    """Add the page."""

    @ui.page("/try")
    async def try_it() -> None:
        lead = "Each button sends real requests from the console’s server to the service."
        with frame(sources, "Try it", "/try", lead):
            page = _TryPage(sources)
        await ui.context.client.connected()
        await page.hide_missing()


@dataclass
class _TryPage:
    sources: Sources
    results: list[dict[str, Any]] = field(default_factory=list)
    needs: list[tuple[ui.element, str]] = field(default_factory=list)
    """Elements, each with the path that the service must have."""
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
                    self.grid = Grid(COLUMNS, "Press a button. The answers appear here, the newest first.")

    async def hide_missing(self) -> None:
        """Hide what needs an endpoint that this service does not have."""
        try:
            paths = await self.sources.service.paths()
        except ServiceError:
            return  # the banner says so
        for element, path in self.needs:
            element.set_visibility(path in paths)
        if "/dead-letters" not in paths:
            self.hint.text = "This service has no faults switched on. It ignores the X-Fault header."
            self.hint.set_visibility(True)

    def _card(self, preset: Preset) -> None:
        request = preset.request
        with tag("section", "card preset") as card:
            text("h3", preset.title)
            text("p", preset.description)
            text("code", request.title)
            if request.fault:
                text("code", f"X-Fault: {request.fault}")
            button = text("button", "Send" if preset.times == 1 else f"Send {preset.times:,}", "button primary")
            button.props["aria-label"] = f"Send: {preset.title}"
        self.needs.append((card, request.path))

        async def press() -> None:
            await self._send(button, request, preset.times)

        button.on("click", press)

    def _own(self) -> None:
        endpoints = list(dict.fromkeys((p.request.method, p.request.path) for p in PRESETS))
        with tag("form", "card own tools") as form:
            endpoint = choice("Endpoint", {f"{method} {path}": f"{method} {path}" for method, path in endpoints})
            self.needs += [(option, path) for option, (_, path) in zip(endpoint, endpoints, strict=True)]
            fault = choice("Fault", {"": "none", **{p.request.fault: p.request.fault for p in FAULTS}})
            duration = number("Task runs (s)", "10", 0, 60)
            times = number("Times", "1", 1, MAX_REQUESTS, step="1")
            button = text("button", "Send", "button primary").props('type="submit"')

        async def submit(event: Any) -> None:  # noqa: ANN401  # NiceGUI's own
            chosen, wrong, seconds, often = event.args
            known = dict(zip([f"{method} {path}" for method, path in endpoints], endpoints, strict=True))
            try:
                method, path = known[chosen]
                request = Request(
                    method,
                    path,
                    float(seconds),
                    wrong,
                    body=BODY if path == "/process" else None,
                )
                count = max(1, min(int(often), MAX_REQUESTS))
            except (KeyError, ValueError):
                ui.notify("Give a number of seconds and a number of requests.")
                return
            await self._send(button, request, count)

        fields = ", ".join(
            f"document.getElementById('{item.html_id}').value" for item in (endpoint, fault, duration, times)
        )
        form.on("submit.prevent", submit, js_handler=f"() => emit({fields})")

    async def _send(self, button: ui.element, request: Request, times: int) -> None:
        """Send a request so many times and show the answers. The button is disabled meanwhile."""
        if "disabled" in button.props:
            return
        button.props["disabled"] = True

        async def one(number: int) -> Answer:
            body = (
                {**request.body, "id": f"{request.body['id']}-{number}"} if times > 1 and request.body else request.body
            )
            await asyncio.sleep(number * SPACING_SECONDS)
            return await self.sources.service.send(replace(request, body=body))

        try:
            answers = await asyncio.gather(*(one(number) for number in range(times)))
        finally:
            del button.props["disabled"]
        self.count += 1
        self.results = [_row(self.count, request, answers), *self.results][:MAX_RESULTS]
        self.grid.show(self.results)


def _row(number: int, request: Request, answers: list[Answer]) -> dict[str, Any]:
    statuses = Counter(answer.status for answer in answers)
    times = sorted(answer.milliseconds for answer in answers)
    several = len(answers) > 1
    codes = (f"{code or 'no answer'}{f' ×{n:,}' if several else ''}" for code, n in sorted(statuses.items()))
    traced = next((answer.trace_id for answer in answers if answer.trace_id), None)
    return {
        "key": str(number),
        "request": {
            "text": (f"{len(answers):,} × " if several else "") + request.title,
            "note": time.strftime("%H:%M:%S") + (f", X-Fault: {request.fault}" if request.fault else ""),
        },
        "status": {
            "text": ", ".join(codes),
            "tone": "good" if set(statuses) <= {200, 202} else "bad",
            "note": "" if several else answers[0].text,
        },
        "time": {
            "text": f"median {median(times):.1f} ms" if several else f"{times[0]:.1f} ms",
            "note": _remark(request, times),
        },
        "trace": {
            "text": traced or "none",
            "href": trace_path(traced) if traced else "",
            "mono": True,
            "note": "the first of them" if several and traced else "",
        },
    }


def _remark(request: Request, times: list[float]) -> str:
    if len(times) > 1:
        return f"slowest {times[-1]:.1f} ms"
    if request.path.endswith("/blocking"):
        return "the client waited"
    return "at once" if times[0] < RESPONSE_LIMIT_MS else ""
