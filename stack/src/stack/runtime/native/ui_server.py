"""Serves SkyWalking's UI and passes its questions on to OAP.

`python -m stack.runtime.native.ui_server FOLDER OAP_URL PORT [ALLOWED_HOSTS]`
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import uvicorn
from request_guard import HEADERS, AsgiGuard, Rule, names
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from stack.settings import HOST

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Scope

_SECONDS: Final = 60.0  # for one question


class _Page(StaticFiles):
    """The files of the page; every other path is one of its own views."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        try:
            return await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code != httpx.codes.NOT_FOUND or "." in path.rpartition("/")[2]:
                raise
            return FileResponse(Path(str(self.directory)) / "index.html")


def create_app(page: Path, oap_url: str, allowed_hosts: str = "") -> Any:  # noqa: ANN401  # an ASGI app
    """Make the app.

    Args:
        page: the folder with the page's `index.html`.
        oap_url: where OAP answers.
        allowed_hosts: names by which it may be called beside the loopback ones, separated by commas.
    """
    client = httpx.AsyncClient(base_url=oap_url, timeout=_SECONDS, trust_env=False)

    async def ask(request: Request) -> Response:
        try:
            answer = await client.post(
                "/graphql", content=await request.body(), headers={"Content-Type": "application/json"}
            )
        except httpx.HTTPError as error:
            return Response(f"OAP at {oap_url} does not answer ({type(error).__name__})", 502)
        return Response(answer.content, answer.status_code, media_type="application/json")

    async def health(_request: Request) -> Response:
        return Response("ok")

    app = Starlette(
        routes=[
            Route("/graphql", ask, methods=["POST"]),
            Route("/internal/l7check", health),
            Mount("/", _Page(directory=page, html=True)),
        ]
    )
    rule = Rule(names(allowed_hosts), "ALLOWED_HOSTS", pages=re.compile(".*"), health=re.compile("/internal/l7check"))
    policy = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; object-src 'none'"
    return AsgiGuard(app, rule, {**HEADERS, "Content-Security-Policy": policy})


def main() -> None:
    """Serve until SIGTERM."""
    page, oap_url, port, *hosts = sys.argv[1:]
    app = create_app(Path(page), oap_url, ",".join(hosts))
    uvicorn.run(app, host=HOST, port=int(port), access_log=False, ws="none", log_level="warning")


if __name__ == "__main__":
    main()
