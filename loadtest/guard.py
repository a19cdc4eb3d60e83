"""Locust's page takes orders from itself only: it has no password, and starts and stops loads."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from locust import events
from request_guard import Rule, WsgiGuard, names

if TYPE_CHECKING:
    from locust.env import Environment


@events.init.add_listener
def _guard(environment: Environment, **_: object) -> None:
    if environment.web_ui:
        more = os.environ.get("LOAD_ALLOWED_HOSTS", "")
        setting = "ALLOWED_HOSTS (LOAD_ALLOWED_HOSTS)"
        rule = Rule(names(more), setting, pages=re.compile("/"), health=re.compile(r"(?!)"))
        app = environment.web_ui.app
        app.wsgi_app = WsgiGuard(app.wsgi_app, rule)
