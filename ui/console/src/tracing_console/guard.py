"""Who may use the console: its own pages and programs on this machine. Requests from other sites are refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from request_guard import HEADERS, AsgiGuard, Rule

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# NiceGUI compiles Vue templates in the browser: hence eval and inline scripts. All of them must come from the console.
_HEADERS: Final = {
    **HEADERS,
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
}


class Guard(AsgiGuard):
    """Middleware around the whole app and its WebSocket, over which every click on a NiceGUI page is sent."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        pages = re.compile(".*")  # opening a page changes nothing; changes are sent over the WebSocket
        rule = Rule(hosts, "ALLOWED_HOSTS (CONSOLE_ALLOWED_HOSTS)", pages, health=re.compile("/health"))
        super().__init__(app, rule, _HEADERS)
