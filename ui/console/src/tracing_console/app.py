"""The app: its pages, its data, its guard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import HTTPException
from fastapi.responses import RedirectResponse
from nicegui import app
from oap_query import OapError

from tracing_console.data import Sources
from tracing_console.guard import Guard
from tracing_console.pages import PAGES, WEB

if TYPE_CHECKING:
    from tracing_console.settings import Settings


def create(settings: Settings) -> None:
    """Put everything onto NiceGUI's app."""
    sources = Sources(settings)
    app.add_middleware(Guard, hosts=settings.hosts)
    app.add_static_files("/assets", WEB)
    for page in PAGES:
        page.add(sources)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/data/timeline")
    async def timeline(epoch: str = "", after: int = 0) -> dict[str, Any]:
        try:
            await sources.feed.refresh()
        except OapError as error:
            return {"error": str(error)}
        return sources.feed.data(epoch, after)

    @app.get("/data/trace/{number}")
    async def trace(number: int) -> RedirectResponse:
        trace_id = sources.feed.trace_id(number)
        if trace_id is None:
            raise HTTPException(404, "The timeline no longer holds this trace. Open the timeline again.")
        return RedirectResponse(f"/traces/{quote(trace_id, safe='')}", 303)
