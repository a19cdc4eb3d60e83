"""Who may talk to the console: browsers that show the console itself, and nobody else's pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from request_guard import HEADERS, AsgiGuard, Rule

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# NiceGUI compiles Vue templates in the browser, hence eval and inline; everything must come from here all the same.
_HEADERS: Final = {
    **HEADERS,
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
}


class Guard(AsgiGuard):
    """Middleware around the whole app, its websocket included: every click of a NiceGUI page comes over that."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        pages = re.compile(".*")  # a page shows something; orders come over the websocket
        rule = Rule(hosts, "ALLOWED_HOSTS (CONSOLE_ALLOWED_HOSTS)", pages, health=re.compile("/health"))
        super().__init__(app, rule, _HEADERS)
