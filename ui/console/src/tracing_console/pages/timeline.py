"""`/`: the timeline of all tasks of the last minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicegui import ui

from tracing_console.pages.elements import Timeline
from tracing_console.pages.frame import frame

if TYPE_CHECKING:
    from tracing_console.data import Sources


def add(sources: Sources) -> None:
    """Add the page."""

    @ui.page("/")
    def timeline() -> None:
        lead = "Each bar is a background task. Each dot is the request that started it."
        with frame(sources, "Timeline", "/", lead):
            Timeline(sources.settings.service_url)
