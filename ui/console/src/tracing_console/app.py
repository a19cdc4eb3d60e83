"""The app: its pages, its data, its guard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from fastapi import HTTPException
from fastapi.responses import RedirectResponse
from nicegui import app
from oap_query import OapError

from tracing_console import _overview, _timeline, _trace, _traces, _try
from tracing_console._console import Console
from tracing_console._guard import Guard

if TYPE_CHECKING:
    from tracing_console._settings import Settings

WEB: Final = Path(__file__).parent / "web"


def create(settings: Settings) -> None:
    """Put everything onto NiceGUI's app."""
    console = Console(settings)
    app.add_middleware(Guard, hosts=settings.hosts)
    app.add_static_files("/assets", WEB)
    for page in (_timeline, _traces, _trace, _try, _overview):
        page.add(console)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/data/timeline")
    async def timeline(epoch: str = "", after: int = 0) -> dict[str, Any]:
        try:
            await console.feed.refresh()
        except OapError as error:
            return {"error": str(error)}
        return console.feed.data(epoch, after)

    @app.get("/data/trace/{number}")
    async def trace(number: int) -> RedirectResponse:
        trace_id = console.feed.trace_id(number)
        if trace_id is None:
            raise HTTPException(404, "the timeline has moved on: open it again and click once more")
        return RedirectResponse(f"/traces/{quote(trace_id, safe='')}", 303)
