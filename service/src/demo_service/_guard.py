"""Who may give the service orders: programs, its own pages, and nobody else's."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from request_guard import AsgiGuard, Rule, names

from demo_service._problems import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp


class Guard(AsgiGuard):
    """Middleware around the whole app; what it refuses gets a problem document."""

    def __init__(self, app: ASGIApp, allowed_hosts: str) -> None:
        rule = Rule(
            names(allowed_hosts),
            "ALLOWED_HOSTS (SERVICE_ALLOWED_HOSTS)",
            # A link to what only shows something; `GET /test` starts a task.
            pages=re.compile("/docs|/redoc|/openapi.json|/tasks.*|/dead-letters.*|/health/.*"),
            health=re.compile("/health/(live|ready)"),
        )
        super().__init__(app, rule, refusal=partial(problem, 403))
