"""After `make up` the archive for the next start is made by itself, and `make down` ends that."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import psutil
import pytest
from stack.runtime import NativeRuntime
from stack.runtime.native import class_data
from stack.runtime.processes import stack_processes
from standins import wait_for, web_part

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack.runtime.native.parts import Part
    from stack.settings import Settings

SLOW = "import sys, time; print(sys.argv, flush=True); time.sleep(600)"


@pytest.fixture
def oap(settings: Settings, use_parts: Callable[..., list[Part]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A part in OAP's place, which has written down what it loads; what makes an archive of that takes its time."""
    use_parts(web_part(settings, "oap"))
    monkeypatch.setattr(class_data, "command_for", lambda data: [sys.executable, "-c", SLOW, str(data)])
    (settings.run_dir / "oap").mkdir(parents=True)
    (settings.run_dir / "oap" / "classes.txt").touch()
    (settings.run_dir / ".background-tracing-stack").touch()


@pytest.mark.usefixtures("oap")
def test_it_goes_on_after_up_and_ends_with_down(settings: Settings) -> None:
    log = settings.run_dir / "log" / "class-data.log"
    assert NativeRuntime(settings).up() == 0
    wait_for(lambda: str(settings.run_dir / "oap") in log.read_text())
    assert len(stack_processes(settings.run_dir)) == 3
    assert NativeRuntime(settings).up() == 0
    assert len(stack_processes(settings.run_dir)) == 3, "OAP was not started, so nothing is new"
    assert NativeRuntime(settings).down() == 0
    assert stack_processes(settings.run_dir) == []


@pytest.mark.usefixtures("oap")
def test_without_memory_for_it_nothing_is_made(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_data, "MEMORY_MEGABYTES", psutil.virtual_memory().total)
    assert NativeRuntime(settings).up() == 0
    assert not (settings.run_dir / "log" / "class-data.log").exists()
