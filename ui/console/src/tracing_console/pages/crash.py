"""`/crash`: pick one of the ways to run work, pick a fault, and watch what becomes of what was accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nicegui import ui

from tracing_console.data import CrashError
from tracing_console.pages.elements import Grid
from tracing_console.pages.frame import frame, options, tag, text, trace_path

if TYPE_CHECKING:
    from tracing_console.data import Sources

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
    {"key": "bar", "label": ""},
)
TRACES: Final = (
    {"key": "trace", "label": "Trace of work that was lost"},
    {"key": "state", "label": "SkyWalking shows"},
)


def add(sources: Sources) -> None:
    """Add the page."""

    @ui.page("/crash")
    async def crash() -> None:
        with frame(sources, "Crash", "/crash", LEAD):
            if not sources.crash.available:
                text("p", ABSENT, "note").props('role="status"')
                return
            page = _Crash(sources)
            await page.refresh()
            ui.timer(REFRESH_SECONDS, page.refresh)


class _Crash:
    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.variants: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, str] = {}
        self.variant = self.fault = ""
        with tag("div", "tools").props('style="margin-bottom: 4px"'):
            self.variant_choice = _labelled("Way to run the work")
            self.fault_choice = _labelled("Fault")
            self.begin = text("button", "Let it happen", "button primary").props('type="button"')
            self.end = text("button", "End it", "button danger").props('type="button"')
        self.variant_choice.on("change", self.choose_variant, js_handler="event => emit(event.target.value)")
        self.fault_choice.on("change", self.choose_fault, js_handler="event => emit(event.target.value)")
        self.begin.on("click", self.start)
        self.end.on("click", self.stop)
        self.how = text("p", "", "note")
        text("p", SAFE, "note")
        self.heading = text("h2", "")
        self.step = text("p", "", "note").props('role="status" style="margin: 0 2px 12px"')
        with tag("div", "card") as self.card:
            self.bars = Grid(BARS, "")
        with tag("div").props('style="margin-top: 14px"') as self.lost, tag("div", "card"):
            self.traces = Grid(TRACES, "")
        self._show({"running": False, "run": None})

    async def refresh(self) -> None:
        """Read how it stands."""
        try:
            state = await self.sources.crash.state()
        except CrashError as error:
            self.step.text = str(error)
            return
        if not self.variants:
            self._offer(state)
        self._show(state)

    def choose_variant(self, event: Any) -> None:  # noqa: ANN401  # NiceGUI's own
        """Take a variant; offer the faults that it can have."""
        self._choose(str(event.args))

    def choose_fault(self, event: Any) -> None:  # noqa: ANN401  # NiceGUI's own
        """Take a fault."""
        self.fault = str(event.args)

    async def start(self) -> None:
        """Let the fault happen."""
        await self._order(self.sources.crash.begin(self.variant, self.fault))

    async def stop(self) -> None:
        """End the run."""
        await self._order(self.sources.crash.end())

    async def _order(self, order: Any) -> None:  # noqa: ANN401  # a coroutine
        try:
            await order
        except CrashError as error:
            ui.notify(str(error), type="negative")
        await self.refresh()

    def _offer(self, state: dict[str, Any]) -> None:
        self.variants = {one["name"]: one for one in state["variants"]}
        self.faults = state["faults"]
        run = state["run"] or {}
        chosen = run.get("variant") or next(iter(self.variants))
        options(self.variant_choice, {name: one["title"] for name, one in self.variants.items()}, chosen)
        self._choose(chosen, run.get("fault", ""))

    def _choose(self, variant: str, fault: str = "") -> None:
        if variant not in self.variants:
            return
        one = self.variants[variant]
        self.variant = variant
        self.fault = next((each for each in (fault, self.fault) if each in one["faults"]), one["faults"][0])
        self.fault_choice.clear()
        options(self.fault_choice, {each: self.faults[each] for each in one["faults"]}, self.fault)
        promise = "loses nothing at: " + "; ".join(self.faults[each] for each in one["faults"] if one["survives"][each])
        self.how.text = f"{one['how']} It {promise if any(one['survives'].values()) else 'promises nothing'}."

    def _show(self, state: dict[str, Any]) -> None:
        run, running = state["run"], state["running"]
        self.begin.props("disabled" if running else "", remove="" if running else "disabled")
        self.end.set_visibility(running)
        for part in (self.card, self.heading):
            part.set_visibility(run is not None)
        self.lost.set_visibility(bool(run and run["traces"]))
        if run is None:
            self.step.text = "A run begins." if running else ""
            return
        title = self.variants.get(run["variant"], {}).get("title", run["variant"])
        self.heading.text = f"{title}: {self.faults.get(run['fault'], run['fault'])}"
        self.step.text = f"It can't go on: {run['error']}." if run["error"] else verdict(run)
        self.bars.show(bars(run))
        self.traces.show([_trace(one) for one in run["traces"]])


def verdict(run: dict[str, Any]) -> str:
    """Say in a sentence how far a run is, or what has come out."""
    if not run["ended"]:
        return f"Now: {run['step']}."
    if not run["lost"]:
        return "Over: nothing that was accepted is lost."
    shown = run["shown"]
    seen = "SkyWalking was not asked" if shown is None else f"SkyWalking shows {shown} of them as failed"
    return f"Over: {run['lost']} of {run['accepted']} that were accepted are lost; {seen}."


def bars(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Make the rows: a count and a bar for each thing that can become of a request."""
    lost = run["lost"]
    rows = {
        "accepted": ("answered by 200", run["accepted"]),
        "refused": ("refused: the client knows", run["refused"]),
        "done": ("done", run["done"]),
        "twice": ("done twice", run["done_twice"]),
        "dead": ("dead letters", run["dead"]),
        "open": ("accepted, and not done yet", run["open"] if lost is None else 0),
        "lost": ("lost", lost),
        "shown": ("lost, and failed in SkyWalking", run["shown"]),
    }
    return [
        {
            "key": key,
            "what": label,
            "count": "…" if count is None else f"{count:,}",
            "bar": {"text": "", "share": 100 * (count or 0) / run["requests"]},
        }
        for key, (label, count) in rows.items()
    ]


def _trace(one: dict[str, Any]) -> dict[str, Any]:
    failed = {"text": "a failed span", "tone": "warn"}
    return {
        "key": one["id"],
        "trace": {"text": one["id"], "href": trace_path(one["id"]), "mono": True},
        "state": failed if one["failed"] else {"text": "a request without the end of its work", "tone": "bad"},
    }


def _labelled(label: str) -> ui.element:
    with tag("label"):
        text("span", label)
        return tag("select")
