"""`/`: all tasks of the last minutes side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicegui import ui

from tracing_console._elements import Timeline
from tracing_console._frame import frame

if TYPE_CHECKING:
    from tracing_console._console import Console


def add(console: Console) -> None:
    """Add the page."""

    @ui.page("/")
    def timeline() -> None:
        lead = "Each bar is a background task, each dot the request that started it and was answered at once."
        with frame(console, "Timeline", "/", lead):
            Timeline(console.settings.service_url)
