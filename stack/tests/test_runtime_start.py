"""How many parts start at the same time, and what becomes of those behind one that fails."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import psutil
from harness import free_port
from stack.runtime import NativeRuntime
from stack.runtime.native import start
from standins import HTTP, wait_for, web_part

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from stack.runtime.native.parts import Part
    from stack.settings import Settings

SLOW = f"import time; time.sleep(0.5); {HTTP}"


def slow_part(settings: Settings, name: str) -> Part:
    """A part that listens half a second after its start."""
    port = free_port()
    command = (sys.executable, "-c", SLOW, str(port))
    return web_part(settings, name, command=command, health=f"http://127.0.0.1:{port}", ports={})


def began(settings: Settings, name: str) -> float:
    return psutil.Process(NativeRuntime(settings).pids()[name]).create_time()


def test_a_part_begins_when_the_one_before_it_answers(
    settings: Settings, use_parts: Callable[..., list[Part]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "SIDE_BY_SIDE", 1)
    use_parts(*(slow_part(settings, name) for name in ("first", "second", "third")))
    assert NativeRuntime(settings).up() == 0
    assert began(settings, "second") - began(settings, "first") >= 0.5
    assert began(settings, "third") - began(settings, "second") >= 0.5


def test_a_part_that_hangs_does_not_hold_up_the_others(
    settings: Settings, use_parts: Callable[..., list[Part]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "SIDE_BY_SIDE", 1)
    monkeypatch.setattr(start, "BUSY_SECONDS", 1)
    hangs = (sys.executable, "-c", "import time; time.sleep(60)")
    use_parts(web_part(settings, "hangs", command=hangs, quiet_seconds=5), slow_part(settings, "behind"))
    assert NativeRuntime(settings).up() == 1
    assert began(settings, "behind") - began(settings, "hangs") < 5


def test_what_is_behind_a_broken_part_starts_all_the_same(
    settings: Settings, use_parts: Callable[..., list[Part]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "SIDE_BY_SIDE", 1)
    ends = (sys.executable, "-c", "raise SystemExit(3)")
    use_parts(web_part(settings, "ends", command=ends), slow_part(settings, "behind"))
    assert NativeRuntime(settings).up() == 1
    wait_for(lambda: "behind" in NativeRuntime(settings).pids())
