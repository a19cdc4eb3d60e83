"""The native runtime: a real supervisord with real processes."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from stack.runtime import NativeRuntime, checks
from stack.runtime.native import progress
from stack.runtime.native.health import answers
from stack.runtime.native.supervisor import Supervisor
from stack.runtime.processes import RUN_DIR_VARIABLE, stack_processes
from stack.runtime.protocol import NOT_RUNNING
from stack.runtime.run_dir import prepare
from standins import HTTP, ODD, wait_for, web_part

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stack.runtime.native.parts import Part
    from stack.settings import Settings


def pid_of(settings: Settings, name: str = "service") -> int:
    return int(NativeRuntime(settings).pids().get(name, 0))


def test_up_twice_then_down_leaves_nothing(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    use_parts(web_part(settings))
    assert NativeRuntime(settings).status() == NOT_RUNNING
    assert NativeRuntime(settings).up() == 0
    assert NativeRuntime(settings).status() == 0
    first = pid_of(settings)
    assert NativeRuntime(settings).up() == 0
    assert pid_of(settings) == first
    assert settings.service_url in capsys.readouterr().out
    assert len(stack_processes(settings.run_dir)) == 2
    assert NativeRuntime(settings).down() == 0
    assert stack_processes(settings.run_dir) == []
    assert NativeRuntime(settings).down() == 0
    assert "nothing runs" in capsys.readouterr().out


def test_a_killed_part_is_shown_and_started_again(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    (part,) = use_parts(web_part(settings))
    assert NativeRuntime(settings).up() == 0
    first = pid_of(settings)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: pid_of(settings) not in {0, first})
    wait_for(lambda: Supervisor(settings.run_dir).infos()["service"]["statename"] == "RUNNING")
    wait_for(lambda: answers(part))
    assert NativeRuntime(settings).status() == 0
    assert "1x, last: terminated by SIGKILL" in " ".join(capsys.readouterr().out.split())


def test_a_part_that_ends_is_named_with_its_last_words(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    command = (sys.executable, "-c", "import sys; print('no such 100% thing'); sys.exit(7)")
    use_parts(web_part(settings, "broken", command=command))
    assert NativeRuntime(settings).up() == 1
    out = capsys.readouterr().out
    assert "broken is not up: it ended each time it was started (exit status 7)" in out
    assert "no such 100% thing" in out
    assert NativeRuntime(settings).status() == 1


def test_a_part_that_never_answers_is_named(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    command = (sys.executable, "-c", "import time; print('thinking'); time.sleep(60)")
    use_parts(web_part(settings, "slow", command=command, quiet_seconds=2))
    assert NativeRuntime(settings).up() == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "and there was no progress for 2 s" in out
    assert "thinking" in out


def test_a_busy_port_is_reported_before_anything_starts(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    use_parts(web_part(settings))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.service_port))
        taken.listen()
        assert NativeRuntime(settings).up() == 1
    out = " ".join(capsys.readouterr().out.split())
    assert f"(pid {os.getpid()})" in out
    assert f"make up SERVICE_PORT={settings.service_port + 1}" in out
    assert stack_processes(settings.run_dir) == []


def test_a_changed_setting_restarts_the_part_that_it_changes(
    settings: Settings, use_parts: Callable[..., list[Part]]
) -> None:
    use_parts(web_part(settings))
    assert NativeRuntime(settings).up() == 0
    first = pid_of(settings)
    use_parts(web_part(settings, environment={"COLOUR": "100% red"}))
    assert NativeRuntime(settings).up() == 0
    assert pid_of(settings) != first
    assert psutil.Process(pid_of(settings)).environ()["COLOUR"] == "100% red"


def test_more_workers_are_said_and_nothing_else_is_restarted(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    def part(name: str, port: int) -> Part:
        command = (sys.executable, "-c", HTTP, str(port))
        return web_part(settings, name, command=command, health=f"http://127.0.0.1:{port}", ports={})

    worker, consumer = part("worker", settings.service_port), part("consumer", settings.locust_port)
    use_parts(worker, consumer)
    assert NativeRuntime(settings).up() == 0
    assert "Celery workers" not in capsys.readouterr().out
    before = [pid_of(settings, name) for name in ("worker", "consumer")]
    use_parts(worker, part("worker-2", settings.console_port), consumer)
    assert NativeRuntime(settings).up() == 0
    out = capsys.readouterr().out
    assert "Celery workers: 1 → 2" in out
    assert "OAP did not take the event of it" in out  # there is none
    assert [pid_of(settings, name) for name in ("worker", "consumer")] == before


def test_restart_gives_a_new_process(settings: Settings, use_parts: Callable[..., list[Part]]) -> None:
    use_parts(web_part(settings))
    assert NativeRuntime(settings).restart("service") == 1  # not up
    assert NativeRuntime(settings).up() == 0
    first = pid_of(settings)
    assert NativeRuntime(settings).restart("service") == 0
    assert pid_of(settings) != first


def test_what_a_killed_supervisord_leaves_behind_is_ended(
    settings: Settings, use_parts: Callable[..., list[Part]]
) -> None:
    use_parts(web_part(settings))
    assert NativeRuntime(settings).up() == 0
    supervisord = Supervisor(settings.run_dir).process
    assert supervisord is not None
    supervisord.kill()
    supervisord.wait()
    assert len(stack_processes(settings.run_dir)) == 1
    assert NativeRuntime(settings).down() == 0
    assert stack_processes(settings.run_dir) == []


def test_an_on_demand_part_waits_until_it_is_asked_for(
    settings: Settings, use_parts: Callable[..., list[Part]]
) -> None:
    (part,) = use_parts(web_part(settings, "loadtest", on_demand=True))
    assert NativeRuntime(settings).up() == 0
    assert not answers(part)
    assert NativeRuntime(settings).status() == 0
    assert NativeRuntime(settings).start_part("loadtest") == 0
    assert answers(part)


def test_a_long_path_gets_a_short_socket(
    settings: Settings, use_parts: Callable[..., list[Part]], tmp_path: Path
) -> None:
    settings.run_dir = tmp_path / ("x" * 100)
    use_parts(web_part(settings))
    assert NativeRuntime(settings).up() == 0
    socket_folder = Supervisor(settings.run_dir).socket.parent
    assert socket_folder.stat().st_mode & 0o77 == 0
    assert NativeRuntime(settings).down() == 0
    assert stack_processes(settings.run_dir) == []


def test_logs_of_all_parts_carry_their_names(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    use_parts(web_part(settings))
    assert NativeRuntime(settings).logs(None, 5, follow=False) == 0
    assert "no logs yet" in capsys.readouterr().out
    log = Supervisor(settings.run_dir).log_of("service")
    prepare(settings.run_dir)
    log.parent.mkdir()
    log.write_text("one\ntwo [bold]\nthree\n")
    NativeRuntime(settings).logs(None, 2, follow=False)
    assert capsys.readouterr().out.splitlines() == ["service | two [bold]", "service | three"]


def test_the_mark_is_the_run_folder(settings: Settings, use_parts: Callable[..., list[Part]]) -> None:
    use_parts(web_part(settings))
    assert NativeRuntime(settings).up() == 0
    assert psutil.Process(pid_of(settings)).environ()[RUN_DIR_VARIABLE] == str(settings.run_dir)


SLOW_START = """
import http.server as web, sys, time
for number in range(12):
    print("step", number, flush=True)
    time.sleep(0.5)
web.HTTPServer(("127.0.0.1", int(sys.argv[1])), web.SimpleHTTPRequestHandler).serve_forever()
"""
BUSY_START = """
import http.server as web, sys, time
while time.process_time() < 4:
    pass
web.HTTPServer(("127.0.0.1", int(sys.argv[1])), web.SimpleHTTPRequestHandler).serve_forever()
"""


@pytest.mark.parametrize("program", [SLOW_START, BUSY_START])
def test_a_part_gets_as_long_as_it_gets_on(
    settings: Settings, use_parts: Callable[..., list[Part]], monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(progress, "CPU_STEP_SECONDS", 0.1)  # on a busy machine 1 s of CPU time may take minutes
    command = (sys.executable, "-c", program, str(settings.service_port))
    use_parts(web_part(settings, command=command, quiet_seconds=3))
    assert NativeRuntime(settings).up() == 0


def test_a_machine_that_stands_still_for_a_while_is_waited_for(
    settings: Settings, use_parts: Callable[..., list[Part]]
) -> None:
    command = (sys.executable, "-c", SLOW_START, str(settings.service_port))
    use_parts(web_part(settings, command=command, quiet_seconds=8))

    def stand_still() -> None:
        wait_for(lambda: bool(pid_of(settings)))
        process = psutil.Process(pid_of(settings))
        process.suspend()
        time.sleep(5)
        process.resume()

    thread = threading.Thread(target=stand_still)
    thread.start()
    assert NativeRuntime(settings).up() == 0
    thread.join()


def test_work_without_an_end_has_an_end_and_names_the_variable(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    settings.start_seconds = 4
    use_parts(web_part(settings, command=(sys.executable, "-c", "while True: print('busy', flush=True)")))
    assert NativeRuntime(settings).up() == 1
    assert "but it still makes progress: give it more time with START_SECONDS=8" in " ".join(
        capsys.readouterr().out.split()
    )


def test_the_last_lines_are_those_of_this_start(
    settings: Settings, use_parts: Callable[..., list[Part]], capsys: pytest.CaptureFixture[str]
) -> None:
    log = Supervisor(settings.run_dir).log_of("service")
    prepare(settings.run_dir)
    log.parent.mkdir()
    log.write_text("a trouble of yesterday\n")
    use_parts(web_part(settings, command=(sys.executable, "-c", "print('a trouble of today')")))
    assert NativeRuntime(settings).up() == 1
    out = capsys.readouterr().out
    assert "a trouble of today" in out
    assert "a trouble of yesterday" not in out


@pytest.mark.parametrize("name", [ODD.replace("\\", ""), "x" * 200])
def test_a_stack_runs_in_a_folder_of_any_name(
    settings: Settings, use_parts: Callable[..., list[Part]], tmp_path: Path, name: str
) -> None:
    settings.run_dir = tmp_path / name  # without a \ that H2 would not find again
    use_parts(web_part(settings, environment={"COLOUR": ODD}))
    assert NativeRuntime(settings).up() == 0
    assert psutil.Process(pid_of(settings)).environ()["COLOUR"] == ODD
    assert NativeRuntime(settings).status() == 0
    assert Supervisor(settings.run_dir).log_of("service").is_file()
    assert NativeRuntime(settings).down() == 0
    assert stack_processes(settings.run_dir) == []


NOT_READY = """
import http.server as web, json, sys
class Handler(web.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if asked else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"detail": "the disk [/b] is full"}).encode())
        asked.append(1)
asked = []
web.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_status_says_why_a_part_is_not_healthy_and_what_a_full_disk_needs(
    settings: Settings,
    use_parts: Callable[..., list[Part]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_parts(web_part(settings, command=(sys.executable, "-c", NOT_READY, str(settings.service_port))))
    assert NativeRuntime(settings).up() == 0
    capsys.readouterr()
    assert NativeRuntime(settings).status() == 1
    out = capsys.readouterr().out
    assert "service answers 503: the disk [/b] is full: `make logs PART=service` may show why" in out
    assert "free some disk space" not in out
    monkeypatch.setattr(checks, "DISK_MEGABYTES", 10**12)
    assert NativeRuntime(settings).status() == 1
    assert "free some disk space, then `make restart PART=oap`" in capsys.readouterr().out
