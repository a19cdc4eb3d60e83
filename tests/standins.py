"""Small processes in the place of the real parts, in a run folder of their own, for a real supervisord."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest
from harness import free_port
from stack.runtime import NativeRuntime
from stack.runtime.native import runtime as native_runtime
from stack.runtime.native.parts import Part
from stack.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings with ports of their own; whatever runs in their folder is ended."""
    for name in ("SERVICE_PORT", "OAP_GRPC_PORT", "OAP_HTTP_PORT", "LOCUST_PORT", "CONSOLE_PORT"):
        monkeypatch.setenv(name, str(free_port()))
    monkeypatch.setenv("RUN_DIR", str(tmp_path / "run"))
    found = Settings()
    yield found
    NativeRuntime(found).down()


@pytest.fixture
def use_parts(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Part]]:
    """Let the stack consist of other parts."""

    def use(*parts: Part) -> list[Part]:
        monkeypatch.setattr(native_runtime, "native_parts", lambda _settings: list(parts))
        monkeypatch.setattr(native_runtime, "fetch", lambda: None)
        return list(parts)

    return use
