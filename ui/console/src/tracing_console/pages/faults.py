"""`/faults`: faults for a share of all requests, for a time, and what they do."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui
from oap_query import OapError

from tracing_console.data import ServiceError, trends
from tracing_console.pages.curves import curves
from tracing_console.pages.elements import Trend
from tracing_console.pages.forms import choice, number
from tracing_console.pages.frame import frame, tag, text

if TYPE_CHECKING:
    from tracing_console.data import Sources

REFRESH_SECONDS: Final = 1.0
METRICS_SECONDS: Final = 5.0
FAULTS: Final = {
    "error": "every attempt fails: a dead letter",
    "error;times=2": "fails twice, then works",
    "delay=500ms": "a slow neighbour",
    "hang": "a call that never returns",
    "exit": "the process dies",
}
SCHEDULES: Final = {"steady": "all the time", "random": "in random spans, one fault each"}


def add(sources: Sources) -> None:
    """Add the page."""

    @ui.page("/faults")
    def faults() -> None:
        lead = (
            "Faults on purpose for a share of all requests that start work, for a time. Their traces have the tag "
            "fault.from. A request with an X-Fault header of its own is left alone."
        )
        with frame(sources, "Faults", "/faults", lead):
            page = _Faults(sources)
            ui.timer(REFRESH_SECONDS, page.refresh, immediate=True)
            ui.timer(METRICS_SECONDS, page.refresh_metrics, immediate=True)


class _Faults:
    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        with tag("div", "tiles"):
            self.state = _tile("rule")
            self.remaining = _tile("left")
            self.requests = _tile("requests seen")
            self.struck = _tile("requests with a fault")
            self.dead = _tile("dead letters")
        self.rule = text("p", "", "note").props('role="status"')
        text("h2", "A new rule")
        self._form()
        text("h2", "The effect")
        with tag("div", "trends"):
            self.rates = Trend("Succeeded", "%", top=100)
            self.loads = Trend("Load per minute", "/min")
        text("p", _EFFECT, "note")

    async def refresh(self) -> None:
        """Read the board again."""
        try:
            board = await self.sources.service.faults()
            letters = await self.sources.service.dead_letters(1)
        except ServiceError as error:
            self.rule.text = f"{error}."
            return
        if board is None:
            self.rule.text = "This service has no fault board."
            return
        rule = board["rule"]
        self.state.text = "active" if rule else "none"
        self.remaining.text = f"{board['remaining_seconds']:.0f} s"
        self.requests.text = f"{board['requests']:,}"
        share = f" ({board['struck'] / board['requests']:.0%})" if board["requests"] else ""
        self.struck.text = f"{board['struck']:,}{share}"
        self.dead.text = f"{letters['total']:,}" if letters else "0"
        self.rule.text = _sentence(board)

    async def refresh_metrics(self) -> None:
        """Read what became of requests and tasks."""
        try:
            found = await asyncio.to_thread(trends, self.sources.oap, self.sources.settings.services)
        except OapError:
            return  # the banner says so
        self.rates.show(curves(found.rates))
        self.loads.show(curves(found.loads))

    async def set(self, event: Any) -> None:  # noqa: ANN401  # NiceGUI's own
        """Set the rule of the form."""
        chosen, percent, seconds, seed, schedule = event.args
        wanted = [fault for fault in chosen if fault in FAULTS]
        try:
            rule = {"faults": wanted, "share": float(percent) / 100, "seconds": float(seconds), "seed": int(seed)}
        except (TypeError, ValueError):
            ui.notify("Give a share, a time and a seed as numbers.", type="negative")
            return
        if not wanted:
            ui.notify("Choose at least one fault.", type="negative")
            return
        await self._order(lambda: self.sources.service.set_faults({**rule, "schedule": str(schedule)}))

    async def clear(self) -> None:
        """Clear the rule."""
        await self._order(self.sources.service.clear_faults)

    async def _order(self, give: Any) -> None:  # noqa: ANN401  # a coroutine function
        try:
            await give()
        except ServiceError as error:
            ui.notify(f"{error}.", type="negative")
        await self.refresh()

    def _form(self) -> None:
        with tag("form", "card own board") as form:
            with tag("fieldset", "checks"):
                text("legend", "Faults, each as likely as the others")
                for fault, meaning in FAULTS.items():
                    with tag("label", "check"):
                        box = tag("input").props('type="checkbox" name="fault"')
                        box.props["value"] = fault
                        if fault == "error":
                            box.props["checked"] = True
                        text("code", fault)
                        text("small", meaning)
            with tag("div", "tools"):
                share = number("Share (%)", "20", 0, 100)
                seconds = number("For (s)", "60", 1, 3600)
                seed = number("Seed", "1", 0, 2**53 - 1, step="1")
                schedule = choice("When", SCHEDULES, "steady")
                text("button", "Set the rule", "button primary").props('type="submit"')
                text("button", "Clear", "button").props('type="button"').on("click", self.clear)
        fields = json.dumps([item.html_id for item in (share, seconds, seed, schedule)])
        form.on(
            "submit.prevent",
            self.set,
            js_handler="(event) => emit([...event.target.querySelectorAll('[name=fault]:checked')]"
            f".map(box => box.value), ...{fields}.map(id => document.getElementById(id).value))",
        )


def _sentence(board: dict[str, Any]) -> str:
    rule = board["rule"]
    if not board["enabled"]:
        return "Faults are switched off in this service: SERVICE_FAULTS_ENABLED=true allows them."
    if rule is None:
        return "No rule is active: no request gets a fault."
    share = f"{rule['share'] * 100:.3g} %"
    words = f"{', '.join(rule['faults'])} for {share} of the requests, {rule['seconds']:g} s long, seed {rule['seed']}."
    if rule["schedule"] == "random":
        words += f" In random spans; in this moment: {', '.join(board['now']) or 'none'}."
    return words


def _tile(label: str) -> ui.label:
    with tag("div", "tile"):
        number = text("b", "…")
        text("span", label)
    return number


_EFFECT: Final = (
    "A fault strikes the task, not the answer: the requests stay good, the curves of the tasks fall. “Try it” and "
    "“make load” send requests."
)
