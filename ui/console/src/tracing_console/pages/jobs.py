"""The service's jobs on the page `/running`: one whose tasks should not begin is paused there, and resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nicegui import ui

from tracing_console.data import ServiceError
from tracing_console.pages.elements import Grid
from tracing_console.pages.frame import tag, text

if TYPE_CHECKING:
    from tracing_console.data import Sources

COLUMNS: Final = (
    {"key": "name", "label": "Job"},
    {"key": "state", "label": "State"},
    {"key": "actions", "label": "Actions", "align": "right"},
)
NEEDED: Final = frozenset({("GET", "/jobs"), ("POST", "/jobs/{name}/pause"), ("POST", "/jobs/{name}/resume")})
"""The endpoints without which there is nothing to show."""


class JobList:
    """The jobs, each with a button; not to be seen where the service has no such endpoints."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        with tag("section") as self.section:
            text("h2", "Jobs")
            lead = "A paused job's tasks are accepted and wait, in all processes of the service. Those that run go on."
            text("p", lead, "note").props('style="margin: 0 2px 12px"')
            with tag("div", "card"):
                self.grid = Grid(COLUMNS, "")
                self.grid.on_action(self.act)
        self.section.set_visibility(False)

    async def refresh(self) -> None:
        """Read the jobs again."""
        try:
            jobs = await self.sources.service.jobs() if await self.sources.service.endpoints() >= NEEDED else {}
        except ServiceError:  # the banner says it; the buttons would do nothing
            jobs = {}
        self.grid.show([_row(name, paused=paused) for name, paused in jobs.items()])
        self.section.set_visibility(bool(jobs))

    async def act(self, action: str, name: str) -> None:
        """Pause or resume a job."""
        try:
            await self.sources.service.pause(name, paused=action == "pause")
        except ServiceError as error:
            ui.notify(str(error), type="negative")
        else:
            ui.notify(f"{name} is {'paused' if action == 'pause' else 'resumed'}.", type="positive")
        await self.refresh()


def _row(name: str, *, paused: bool) -> dict[str, Any]:
    pause = {"name": "pause", "label": "Pause", "sure": "Really pause?"}
    resume = {"name": "resume", "label": "Resume", "sure": "Really resume?"}
    return {
        "key": name,
        "name": {"text": name, "mono": True},
        "state": {"text": "paused", "tone": "warn"} if paused else "begins tasks",
        "actions": {"actions": [resume if paused else pause]},
    }
