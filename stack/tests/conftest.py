"""A run folder and small stand-in parts under a real supervisord."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from harness import free_port
from stack.runtime import NativeRuntime
from stack.runtime.native import runtime as native_runtime
from stack.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stack.runtime.native.parts import Part


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
        monkeypatch.setattr(native_runtime, "fetch", lambda **_: None)
        return list(parts)

    return use
