"""Small processes in the place of the real parts."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from stack.runtime.native.parts import Part

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack.settings import Settings

ODD = "a \"b\" 'c' ;d #e %f %(here)s %%g \\h ünï 中 $HOME `i` =j,k [/b] [red]"
"""A name with every sign in it that something in between could take for its own."""
HTTP = (
    "import http.server as web, sys; "
    "web.HTTPServer(('127.0.0.1', int(sys.argv[1])), web.SimpleHTTPRequestHandler).serve_forever()"
)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def web_part(settings: Settings, name: str = "service", **changes: object) -> Part:
    """Make a part that answers on the service's port."""
    values = {
        "name": name,
        "command": (sys.executable, "-c", HTTP, str(settings.service_port)),
        "health": settings.service_url,
        "ports": {"SERVICE_PORT": settings.service_port},
        **changes,
    }
    return Part(**values)  # type: ignore[arg-type]
