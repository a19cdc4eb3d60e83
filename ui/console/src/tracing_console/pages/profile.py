"""`/profile`: what the running tasks of one name are waiting for, as a flame picture and the lines that they sit in."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from nicegui import ui

from tracing_console.data import ServiceError, frames, split
from tracing_console.pages.elements import Flame, Grid
from tracing_console.pages.forms import choice, entry
from tracing_console.pages.frame import frame, tag, text

if TYPE_CHECKING:
    from tracing_console.data import Sources, TaskProfile

PATH: Final = "/profile"
ENDPOINT: Final = ("POST", "/profiles")
SECONDS: Final = {"1": "1 s", "5": "5 s", "15": "15 s", "60": "1 min"}
MAX_NAME: Final = 150
"""Characters of a task's name that the service takes."""
COLUMNS: Final = (
    {"key": "line", "label": "Line"},
    {"key": "share", "label": "Share"},
    {"key": "samples", "label": "Samples", "align": "right"},
)


def add(sources: Sources) -> None:
    """Add the page."""

    @ui.page(PATH)
    def profile(task: str = "", seconds: str = "5") -> None:
        lead = "What the tasks of one name wait for: each is followed through its coroutines to the line it sits in."
        with frame(sources, "Waiting for what?", "/running", lead):
            _Profile(sources, task[:MAX_NAME], seconds if seconds in SECONDS else "5")


async def profiled_service(sources: Sources) -> str:
    """Return the name of the service whose tasks can be looked at; nothing where it has no such endpoint."""
    try:
        endpoints = await sources.service.endpoints()
    except ServiceError:
        return ""
    return sources.settings.service_name if ENDPOINT in endpoints else ""


def profile_path(task: str) -> str:
    """Return the path of the page for the tasks of one name."""
    return f"{PATH}?{urlencode({'task': task})}"


class _Profile:
    """One open page."""

    def __init__(self, sources: Sources, task: str, seconds: str) -> None:
        self.sources = sources
        self.found: TaskProfile | None = None
        with tag("form", "tools").props('style="margin-bottom: 16px"') as form:
            entry("Task", task).props(f'name="task" list="tasks" required maxlength={MAX_NAME} size=36')
            choice("For", SECONDS, seconds).props('name="seconds"')
            self.button = text("button", "Look", "button primary").props('type="submit"')
        form.on(
            "submit.prevent",
            self.look,
            js_handler="event => { const all = new FormData(event.target); "
            "emit(all.get('task').trim(), all.get('seconds')); }",
        )
        with tag("datalist").props('id="tasks"'):
            for name in self._running():
                tag("option").props["value"] = name
        self.message = tag("div", "card empty")
        self._say("Nothing was looked at yet.", _ABOUT)
        with tag("div") as self.result:
            self.facts = tag("div", "facts").props('style="margin-bottom: 14px"')
            with tag("div", "card flame-card"):
                self.flame = Flame()
            text("h2", "Where they sat")
            with tag("div", "card"):
                self.waits = Grid(COLUMNS, "")
            text("button", "Save the stacks for a flame graph tool", "button").props(
                'type="button" style="margin-top: 12px"'
            ).on("click", self.save)
            text("p", _NOTE, "note")
        self.result.set_visibility(False)

    async def look(self, event: Any) -> None:  # noqa: ANN401  # NiceGUI's own
        """Have the service look, and show what it saw."""
        task, seconds = event.args
        if not task or seconds not in SECONDS:
            return
        ui.navigate.history.replace(f"{PATH}?{urlencode({'task': task, 'seconds': seconds})}")
        self.button.props["disabled"] = True
        self.result.set_visibility(False)
        self._say(f"Looking at {task} for {SECONDS[seconds]}.", "")
        try:
            found = await self.sources.service.profile(task, float(seconds))
        except ServiceError as error:
            self._say(f"{error}.", _OFF if "SERVICE_PROFILING_ENABLED" in str(error) else "")
        else:
            self._show(found)
        finally:
            self.button.props.pop("disabled", None)
            self.button.update()

    def save(self) -> None:
        """Give the reader the stacks as a file."""
        if self.found is not None:
            ui.download.content(self.found.collapsed, "stacks.txt")

    def _show(self, found: TaskProfile) -> None:
        self.found = found
        if not found.samples:
            self._say(f"No task {found.task!r} ran in this process of the service meanwhile.", _ABOUT)
            return
        self.message.set_visibility(False)
        self.result.set_visibility(True)
        self.flame.show([asdict(one) for one in frames(found.stacks)], found.samples)
        self.waits.show([_row(line, times, found) for line, times in found.waits])
        self.facts.clear()
        with self.facts:
            for label, value in (
                ("tasks seen", found.tasks),
                ("looked", f"{found.rounds:,} times in {found.seconds:g} s"),
                ("stacks", f"{found.samples:,}"),
                ("most sat in", " ".join(split(found.waits[0][0])) if found.waits else "nothing"),
            ):
                with tag("span"):
                    ui.label(f"{label} ").style("display: inline")
                    text("b", str(value))

    def _say(self, sentence: str, advice: str) -> None:
        self.message.set_visibility(True)
        self.message.clear()
        with self.message:
            text("strong", sentence)
            text("span", advice)

    def _running(self) -> list[str]:
        mine = self.sources.settings.service_name
        return sorted({item.task.name for item in self.sources.running.all() if item.task.service == mine})


def _row(line: str, samples: int, found: TaskProfile) -> dict[str, Any]:
    function, place = split(line)
    caller = next((lines[-2] for lines, _ in found.stacks if len(lines) > 1 and lines[-1] == line), "")
    called_by = f", called by {' '.join(split(caller))}" if caller else ""
    share = 100 * samples / found.samples
    return {
        "key": line,
        "line": {"text": function, "mono": True, "note": f"{place}{called_by}"},
        "share": {"text": f"{share:.1f} %", "share": share},
        "samples": {"text": f"{samples:,}"},
    }


_ABOUT: Final = (
    "A task is seen while it runs. Of a service with several processes the one that answers is looked at; "
    "Celery’s and the queue’s tasks run in other processes."
)
_OFF: Final = "Start the stack with SERVICE_PROFILING_ENABLED=true make up: it costs nothing until somebody looks."
_NOTE: Final = (
    "Each frame is as wide as the share of stacks in which it was seen; the outermost call is on top, and a strong "
    "frame is a line in which tasks sat. Up to 50 tasks are looked at, 20 times a second, at the cost of 2 % of a core."
)
