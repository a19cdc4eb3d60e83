"""`GET /health/ready` for a process without an app of its own, as orchestrators and `make status` ask for it."""

from __future__ import annotations

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from skywalking_background import untraced

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo_service.settings import Settings

logger = logging.getLogger(__name__)


def serve_health(settings: Settings, trouble: Callable[[], str | None]) -> None:
    """Answer in a thread, if a port is set: 200, or 503 with the trouble that there is.

    Raises:
        OSError: the port is taken.
    """
    if not settings.health_port:
        return

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def handle(self) -> None:
            """Leave no trace of a health check: it would count as a request of this service."""
            with untraced():
                super().handle()

        def do_GET(self) -> None:
            if self.path != "/health/ready":
                self.send_error(404)
                return
            reason = trouble()
            body = json.dumps({"status": reason or "ready"}).encode()
            self.send_response(503 if reason else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
            """Say nothing: somebody asks every few seconds."""

    server = ThreadingHTTPServer((settings.host, settings.health_port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    logger.info("Health on http://%s:%d/health/ready", settings.host, settings.health_port)
