"""`/crash`: pick one of the ways to run work, pick a fault, and watch what becomes of what was accepted."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui
from tracing_claims.variants import BY_NAME, FAULTS, VARIANTS

from tracing_console.data import OrderError, last_crash
from tracing_console.pages.elements import Grid
from tracing_console.pages.forms import choice, options
from tracing_console.pages.frame import frame, tag, text, trace_path

if TYPE_CHECKING:
    from tracing_claims.variants import Variant

    from tracing_console.data import Crash, LostTrace, Sources

REFRESH_SECONDS: Final = 0.5
LEAD: Final = (
    "Kill what does the work, and see what of it is done, done twice or lost, and whether SkyWalking shows it."
)
SAFE: Final = (
    "A run starts a service, a worker, a consumer and a broker of its own and kills those; the stack's own are left "
    "alone. It sends 200 requests, and takes a minute or so."
)
ABSENT: Final = (
    "Not available here: only a stack that runs without containers (`make up RUNTIME=native`) may start and kill "
    "processes for this page. `make crash` in a terminal does the same, and counts all of them."
)
BARS: Final = (
    {"key": "what", "label": "Of the requests"},
    {"key": "count", "label": "", "align": "right"},
)
TRACES: Final = (
    {"key": "trace", "label": "Trace of work that was lost"},
    {"key": "state", "label": "SkyWalking shows"},
)


def add(sources: Sources) -> None:
    """Add the page."""

    @ui.page("/crash")
    def crash() -> None:
        with frame(sources, "Crash", "/crash", LEAD):
            if not sources.orders.possible:
                text("p", ABSENT, "note").props('role="status"')
                return
            page = _Crash(sources)
            ui.timer(REFRESH_SECONDS, page.refresh, immediate=True)


class _Crash:
    """The page. It follows a run, whoever has started it."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        run = last_crash(sources.settings.run_dir)
        with tag("div", "tools").props('style="margin-bottom: 4px"'):
            self.variant = choice(
                "Way to run the work", {one.name: one.title for one in VARIANTS}, run.variant if run else ""
            )
            self.fault = choice("Fault", {})
            self.begin = text("button", "Let it happen", "button primary").props('type="button"')
            self.end = text("button", "End it", "button danger").props('type="button"')
        fields = json.dumps([self.variant.html_id, self.fault.html_id])
        chosen = f"() => emit(...{fields}.map(id => document.getElementById(id).value))"
        self.variant.on("change", self.choose, js_handler=chosen)
        self.begin.on("click", self.start, js_handler=chosen)
        self.end.on("click", self.stop)
        self.how = text("p", "", "note")
        text("p", SAFE, "note")
        self.heading = text("h2", "")
        self.step = text("p", "", "note").props('role="status" style="margin: 0 2px 12px"')
        with tag("div", "card") as self.card:
            self.bars = Grid(BARS, "")
        with tag("div").props('style="margin-top: 14px"') as self.lost, tag("div", "card"):
            self.traces = Grid(TRACES, "")
        self._offer(BY_NAME.get(run.variant if run else "", VARIANTS[0]), run.fault if run else "")
        self._show(run)

    async def refresh(self) -> None:
        """Read how it stands."""
        self._show(await asyncio.to_thread(last_crash, self.sources.settings.run_dir))

    def choose(self, event: Any) -> None:  # noqa: ANN401  # NiceGUI's own
        """Take a way; offer the faults that it can have."""
        variant, fault = event.args
        if variant in BY_NAME:
            self._offer(BY_NAME[variant], fault)

    async def start(self, event: Any) -> None:  # noqa: ANN401  # NiceGUI's own
        """Have the runner let it happen."""
        variant, fault = event.args
        if variant not in BY_NAME or fault not in BY_NAME[variant].faults:
            return
        try:
            await self.sources.orders.give("crash", "--variants", variant, "--faults", fault)
        except OrderError as error:
            ui.notify(str(error), type="negative")
        await self.refresh()

    async def stop(self) -> None:
        """End the run."""
        self.sources.orders.end()
        await self.refresh()

    def _offer(self, variant: Variant, fault: str) -> None:
        options(self.fault, {each: FAULTS[each] for each in variant.faults}, fault)
        safe = "; ".join(FAULTS[fault] for fault, survives in variant.faults.items() if survives)
        self.how.text = f"{variant.how} It {f'loses nothing at: {safe}' if safe else 'promises nothing'}."

    def _show(self, run: Crash | None) -> None:
        order = self.sources.orders.running
        busy = bool(order or (run and not run.ended))
        self.begin.props("disabled" if busy else "", remove="" if busy else "disabled")
        self.end.set_visibility(order.startswith("crash"))
        for part in (self.card, self.heading):
            part.set_visibility(run is not None)
        self.lost.set_visibility(bool(run and run.traces))
        if run is None:
            self.step.text = f"“{order}” runs." if order else ""
            return
        title = BY_NAME[run.variant].title if run.variant in BY_NAME else run.variant
        self.heading.text = f"{title}: {FAULTS[run.fault]}"
        self.step.text = f"It can’t go on: {run.error}." if run.error else verdict(run)
        self.bars.show(bars(run))
        self.traces.show([_trace(one) for one in run.traces])


def verdict(run: Crash) -> str:
    """Say in a sentence how far a run is, or what has come out."""
    if not run.ended:
        return f"Now: {run.step}."
    if not run.lost:
        return "Over: nothing that was accepted is lost."
    shown = run.shown
    seen = "SkyWalking was not asked" if shown is None else f"SkyWalking shows {shown} of them as failed"
    return f"Over: {run.lost} of {run.accepted} that were accepted are lost; {seen}."


def bars(run: Crash) -> list[dict[str, Any]]:
    """Make the rows: a count and a bar for each thing that can become of a request."""
    lost = run.lost
    rows = {
        "accepted": ("answered by 200", run.accepted),
        "refused": ("refused: the client knows", run.refused),
        "done": ("done", run.done),
        "twice": ("done twice", run.done_twice),
        "dead": ("dead letters", run.dead),
        "open": ("accepted, and not done yet", run.open if lost is None else 0),
        "lost": ("lost", lost),
        "shown": ("lost, and failed in SkyWalking", run.shown),
    }
    return [
        {
            "key": key,
            "what": {"text": label, **({"share": 100 * count / run.requests} if count else {})},
            "count": "…" if count is None else f"{count:,}",
        }
        for key, (label, count) in rows.items()
    ]


def _trace(one: LostTrace) -> dict[str, Any]:
    failed = {"text": "a failed span", "tone": "warn"}
    return {
        "key": one.id,
        "trace": {"text": one.id, "href": trace_path(one.id), "mono": True},
        "state": failed if one.failed else {"text": "a request without the end of its work", "tone": "bad"},
    }
