"""The rule around a WSGI app, as Locust's page is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from request_guard._rule import HEADERS, SENT

if TYPE_CHECKING:
    from request_guard._rule import Rule

Environ = dict[str, Any]
Start = Callable[..., Any]
App = Callable[[Environ, Start], Iterable[bytes]]


class WsgiGuard:
    """Middleware around a whole app."""

    def __init__(self, app: App, rule: Rule) -> None:
        self.app = app
        self.rule = rule

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Pass a request on, or refuse it."""
        keys = {name: f"HTTP_{name.upper().replace('-', '_')}" for name in SENT}
        sent = {name: environ[key] for name, key in keys.items() if key in environ}
        reason = self.rule.objection(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), sent)
        if reason is not None:
            body = f"{reason}\n".encode()
            lines = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
            start("403 Forbidden", [*lines, *HEADERS.items()])
            return [body]

        def starting(status: str, headers: list[tuple[str, str]], *rest: object) -> object:
            return start(status, [*headers, *HEADERS.items()], *rest)

        return self.app(environ, starting)
