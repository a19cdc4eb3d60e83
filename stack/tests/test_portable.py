"""What only Linux has is hidden here: the native runtime goes another way, or says in a sentence what it leaves out."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from rich.console import Console
from stack.load import chaos
from stack.runtime import NativeRuntime, choice
from stack.runtime.native import status
from stack.settings import Settings, UsageError
from standins import web_part

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from stack.runtime.native.parts import Part


@pytest.fixture
def macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what psutil does not have, or not without root, on macOS."""

    def refused(*_: object, **__: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refused)
    monkeypatch.setattr(psutil, "LINUX", False)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(psutil.Process, "rlimit")
    monkeypatch.setattr(psutil.Process, "memory_full_info", refused)


@pytest.mark.usefixtures("macos")
def test_the_stack_comes_up_twice_and_knows_its_own_ports(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    use_parts(web_part(settings))
    assert NativeRuntime(settings).up() == 0
    assert NativeRuntime(settings).up() == 0
    assert NativeRuntime(settings).doctor() in {0, 1}
    pid = NativeRuntime(settings).pids()["service"]
    assert f"held by the running stack, pid {pid}" in " ".join(capsys.readouterr().out.split())
    assert NativeRuntime(settings).status() == 0
    assert NativeRuntime(settings).down() == 0


@pytest.mark.usefixtures("macos")
def test_the_holder_of_a_port_is_named(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    use_parts(web_part(settings))
    with socket.create_server(("127.0.0.1", settings.service_port)):
        assert NativeRuntime(settings).up() == 1
    assert f"(pid {os.getpid()})" in capsys.readouterr().out


@pytest.mark.usefixtures("macos")
def test_memory_of_a_family_is_known() -> None:
    assert status._resident_megabytes(os.getpid()) > 0


@pytest.mark.usefixtures("macos")
def test_images_of_ones_own_are_refused_in_a_sentence(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "check_engine", lambda: pytest.fail("the engine is not asked"))
    settings.runtime, settings.images = "compose", "local"
    with pytest.raises(UsageError, match="which is for Linux: leave it out, or take RUNTIME=native"):
        choice.choose_runtime(settings, None)


class Ended:
    """A load that can be ended."""

    def terminate(self) -> None:
        """End."""


@pytest.mark.usefixtures("macos")
def test_chaos_leaves_out_the_full_disk_and_says_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeRuntime, "is_up", True)
    monkeypatch.setattr(NativeRuntime, "restart_quietly", lambda *_, **__: None)
    monkeypatch.setattr(chaos.Chaos, "_catch_up", lambda _: None)
    monkeypatch.setattr(chaos, "REST_SECONDS", 0)
    console = Console(record=True, width=160)
    played = chaos.Chaos(settings, console)
    load: subprocess.Popen[bytes] | Any = Ended()
    played.play(load)
    assert [fault.name for fault in played.faults] == ["OAP stopped and started", "service restarted"]
    assert "left out: OAP's disk full" in console.export_text()
