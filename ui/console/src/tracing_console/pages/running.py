"""`/running`: the tasks that run now, the oldest first, in all services that use the library."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui
from oap_query import OapError

from tracing_console.pages.elements import Grid
from tracing_console.pages.forms import choice, names_or_all, options
from tracing_console.pages.frame import frame, tag, text, trace_path
from tracing_console.pages.jobs import JobList
from tracing_console.pages.profile import profile_path, profiled_service
from tracing_console.pages.trace import cancel, cancellable_service

if TYPE_CHECKING:
    from tracing_console.data import RunningTask, Sources

REFRESH_SECONDS: Final = 2.0
MAX_ROWS: Final = 200
COLUMNS: Final = (
    {"key": "name", "label": "Task"},
    {"key": "runs", "label": "Runs for"},
    {"key": "start", "label": "Since"},
    {"key": "service", "label": "Service"},
    {"key": "instance", "label": "Instance"},
    {"key": "actions", "label": "Actions", "align": "right"},
)
LOST_COLUMNS: Final = (
    {"key": "name", "label": "Task"},
    {"key": "start", "label": "Started"},
    {"key": "alive", "label": "Last heard of"},
    {"key": "service", "label": "Service"},
    {"key": "instance", "label": "Instance"},
)


def add(sources: Sources) -> None:
    """Add the page."""

    @ui.page("/running")
    def running(service: str = "") -> None:
        lead = "Tasks that have started and not ended, the oldest first: of every service that uses the library."
        with frame(sources, "Running", "/running", lead):
            page = _Running(sources, service)
            ui.timer(REFRESH_SECONDS, page.refresh, immediate=True)


class _Running:
    def __init__(self, sources: Sources, service: str) -> None:
        self.sources, self.service = sources, service
        self.services: list[str] = []
        with tag("div", "tools").props('style="margin-bottom: 16px"'):
            self.choice = choice("Service", {})
        self.choice.on("change", self.choose, js_handler="event => emit(event.target.value)")
        self._fill([service] if service else [])
        with tag("div", "card"):
            self.grid = Grid(COLUMNS[:-1], "Reading the start reports.")
            self.grid.on_action(self.act)
        self.note = text("p", "", "note")
        with tag("div") as self.lost:
            text("h2", "Without news")
            text("p", _LOST, "note").props('style="margin: 0 2px 12px"')
            with tag("div", "card"):
                self.lost_grid = Grid(LOST_COLUMNS, "")
        self.lost.set_visibility(False)
        self.jobs = JobList(sources)

    async def refresh(self) -> None:
        """Read what runs."""
        await self.jobs.refresh()
        try:
            await self.sources.feed.refresh()  # it knows which segments of its services have arrived
        except OapError as error:
            self.grid.show_when_empty(f"{error}. This page refreshes by itself.")
            return
        cancellable = await cancellable_service(self.sources)
        self._show(cancellable, await profiled_service(self.sources))

    async def choose(self, event: Any) -> None:  # noqa: ANN401  # NiceGUI's own
        """Show one service's tasks, or all."""
        self.service = str(event.args)
        ui.navigate.history.replace(f"/running?service={self.service}" if self.service else "/running")
        await self.refresh()

    async def act(self, _action: str, key: str) -> None:
        """Cancel a task."""
        await cancel(self.sources, key.partition(" ")[2])

    def _show(self, cancellable: str, profiled: str) -> None:
        tasks = self.sources.running.all()
        self._fill(sorted({item.task.service for item in tasks} | ({self.service} - {""})))
        chosen = [item for item in tasks if self.service in {"", item.task.service}]
        running = [item for item in chosen if not item.lost]
        lost = [item for item in chosen if item.lost]
        self.grid.show_columns(COLUMNS if cancellable else COLUMNS[:-1])
        unknown = self.sources.running.unknown
        none = "No task runs. A task appears here about 3 s after it started."
        self.grid.show_when_empty("Looking up which earlier tasks still run." if unknown else none)
        self.grid.show([_row(item, cancellable, profiled) for item in running[:MAX_ROWS]], int(time.time() * 1000))
        self.note.text = _note(len(running), unknown, limited=self.sources.running.limited)
        self.lost_grid.show([_lost_row(item) for item in reversed(lost[-MAX_ROWS:])])
        self.lost.set_visibility(bool(lost))

    def _fill(self, services: list[str]) -> None:
        if services != self.services or not self.choice.default_slot.children:
            self.services = services
            options(self.choice, names_or_all(services), self.service)


def _row(item: RunningTask, cancellable: str, profiled: str) -> dict[str, Any]:
    task = item.task
    profile = [{"text": "waiting for what?", "href": profile_path(task.name)}]
    action = {"name": "cancel", "label": "Cancel", "sure": "Really cancel?", "tone": "danger"}
    return {
        **_identity(item),
        "runs": {"since": task.start, **({"links": profile} if task.service == profiled else {})},
        "actions": {"actions": [action] if task.service == cancellable else []},
    }


def _lost_row(item: RunningTask) -> dict[str, Any]:
    return {**_identity(item), "alive": {"time": item.task.alive}}


def _identity(item: RunningTask) -> dict[str, Any]:
    """What is shown of a task, whether it runs or is lost."""
    task = item.task
    return {
        "key": " ".join(item.key),
        "name": {"text": task.name or "(no name)", "href": trace_path(task.trace_id), "note": f"task {task.task_id}"},
        "start": {"time": task.start},
        "service": task.service,
        "instance": {"text": task.instance, "mono": True},
    }


def _note(count: int, unknown: int, *, limited: bool) -> str:
    sentences = [f"{count:,} tasks run." if count != 1 else "1 task runs."] if count else []
    if count > MAX_ROWS:
        sentences.append(f"The oldest {MAX_ROWS} are shown.")
    if unknown:
        sentences.append(f"{unknown:,} earlier ones are being looked up: those that still run appear then.")
    if limited:
        sentences.append("There are more start reports than the console reads: some tasks are missing.")
    return " ".join(sentences)


_LOST: Final = (
    "OAP has not heard of their process for more than 90 seconds. It was killed, or it can't reach OAP. With a journal "
    "(SKYWALKING_BACKGROUND_JOURNAL) the next start of a process closes such tasks as crashed."
)
