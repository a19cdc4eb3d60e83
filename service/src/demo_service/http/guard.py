"""Who may give the service orders: programs, its own pages, and nobody else's."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final

from request_guard import HEADERS, AsgiGuard, Rule, names

from demo_service.http.problems import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp


# Swagger UI and Redoc have scripts and styles in their pages, and a worker in a blob; all must come from here.
_HEADERS: Final = {
    **HEADERS,
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' data: blob:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
}


class Guard(AsgiGuard):
    """Middleware around the whole app; what it refuses gets a problem document."""

    def __init__(self, app: ASGIApp, allowed_hosts: str) -> None:
        rule = Rule(
            names(allowed_hosts),
            "ALLOWED_HOSTS (SERVICE_ALLOWED_HOSTS)",
            # A link to what only shows something; `GET /test` starts a task.
            pages=re.compile("/docs|/redoc|/openapi.json|/tasks.*|/dead-letters.*|/alarms|/faults|/health/.*"),
            health=re.compile("/health/(live|ready)"),
        )
        super().__init__(app, rule, _HEADERS, partial(problem, 403))
