"""The native runtime: a real supervisord with real processes."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

import psutil
from stack._marked import MARK, ours
from stack._supervisor import Supervisor
from standins import web_part

from stack import _logs, _native, _start, _status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest
    from stack._parts import Part
    from stack._settings import Settings


def pid_of(settings: Settings, name: str = "service") -> int:
    return int(Supervisor(settings.run_dir).info(name)["pid"])


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def test_up_twice_then_down_leaves_nothing(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    use_parts(web_part(settings))
    assert _status.status(settings) == _status.NOT_RUNNING
    assert _native.up(settings) == 0
    assert _status.status(settings) == 0
    first = pid_of(settings)
    assert _native.up(settings) == 0
    assert pid_of(settings) == first
    assert settings.service_url in capsys.readouterr().out
    assert len(ours(settings.run_dir)) == 2
    assert _native.down(settings) == 0
    assert ours(settings.run_dir) == []
    assert _native.down(settings) == 0
    assert "nothing runs" in capsys.readouterr().out


def test_a_killed_part_is_shown_and_started_again(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    (part,) = use_parts(web_part(settings))
    assert _native.up(settings) == 0
    first = pid_of(settings)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: pid_of(settings) not in {0, first})
    wait_for(lambda: Supervisor(settings.run_dir).state("service") == "RUNNING")
    wait_for(lambda: _start.answers(part))
    assert _status.status(settings) == 0
    assert "1x, last: terminated by SIGKILL" in " ".join(capsys.readouterr().out.split())


def test_a_part_that_ends_is_named_with_its_last_words(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    command = (sys.executable, "-c", "import sys; print('no such 100% thing'); sys.exit(7)")
    use_parts(web_part(settings, "broken", command=command))
    assert _native.up(settings) == 1
    out = capsys.readouterr().out
    assert "broken is not up: it ended each time it was started (exit status 7)" in out
    assert "no such 100% thing" in out
    assert _status.status(settings) == 1


def test_a_part_that_never_answers_is_named(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    command = (sys.executable, "-c", "import time; print('thinking'); time.sleep(60)")
    use_parts(web_part(settings, "slow", command=command, start_seconds=2))
    assert _native.up(settings) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "does not answer after 2 s" in out
    assert "thinking" in out


def test_a_busy_port_is_reported_before_anything_starts(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    use_parts(web_part(settings))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.service_port))
        taken.listen()
        assert _native.up(settings) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert f"(pid {os.getpid()})" in out
    assert f"make up SERVICE_PORT={settings.service_port + 1}" in out
    assert ours(settings.run_dir) == []


def test_a_changed_setting_restarts_the_part_that_it_changes(
    settings: Settings, use_parts: Callable[..., list[Part]]
) -> None:
    use_parts(web_part(settings))
    assert _native.up(settings) == 0
    first = pid_of(settings)
    use_parts(web_part(settings, environment={"COLOUR": "100% red"}))
    assert _native.up(settings) == 0
    assert pid_of(settings) != first
    assert psutil.Process(pid_of(settings)).environ()["COLOUR"] == "100% red"


def test_restart_gives_a_new_process(settings: Settings, use_parts: Callable[..., list[Part]]) -> None:
    use_parts(web_part(settings))
    assert _native.restart(settings, "service") == 1  # not up
    assert _native.up(settings) == 0
    first = pid_of(settings)
    assert _native.restart(settings, "service") == 0
    assert pid_of(settings) != first


def test_what_a_killed_supervisord_leaves_behind_is_ended(
    settings: Settings, use_parts: Callable[..., list[Part]]
) -> None:
    use_parts(web_part(settings))
    assert _native.up(settings) == 0
    supervisord = Supervisor(settings.run_dir).process
    assert supervisord is not None
    supervisord.kill()
    supervisord.wait()
    assert len(ours(settings.run_dir)) == 1
    assert _native.down(settings) == 0
    assert ours(settings.run_dir) == []


def test_an_on_demand_part_waits_until_it_is_asked_for(
    settings: Settings, use_parts: Callable[..., list[Part]]
) -> None:
    (part,) = use_parts(web_part(settings, "loadtest", on_demand=True))
    assert _native.up(settings) == 0
    assert not _start.answers(part)
    assert _status.status(settings) == 0
    assert _native.start_part(settings, "loadtest") == 0
    assert _start.answers(part)


def test_a_long_path_gets_a_short_socket(
    settings: Settings, use_parts: Callable[..., list[Part]], tmp_path: Path
) -> None:
    settings.run_dir = tmp_path / ("x" * 100)
    use_parts(web_part(settings))
    assert _native.up(settings) == 0
    socket_folder = Supervisor(settings.run_dir).socket.parent
    assert socket_folder.stat().st_mode & 0o77 == 0
    assert _native.down(settings) == 0
    assert ours(settings.run_dir) == []


def test_logs_of_all_parts_carry_their_names(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    use_parts(web_part(settings))
    assert _logs.logs(settings, None, 5, follow=False) == 0
    assert "no logs yet" in capsys.readouterr().out
    log = Supervisor(settings.run_dir).log_of("service")
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo [bold]\nthree\n")
    _logs.logs(settings, None, 2, follow=False)
    assert capsys.readouterr().out.splitlines() == ["service | two [bold]", "service | three"]


def test_the_mark_is_the_run_folder(settings: Settings, use_parts: Callable[..., list[Part]]) -> None:
    use_parts(web_part(settings))
    assert _native.up(settings) == 0
    assert psutil.Process(pid_of(settings)).environ()[MARK] == str(settings.run_dir)
