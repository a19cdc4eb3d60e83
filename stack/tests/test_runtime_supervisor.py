"""Whatever the folders and names: supervisor's own parser, and then the part, get them as they are."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stack.runtime.native import become
from stack.runtime.native.parts import Part
from stack.runtime.native.supervisor import Supervisor
from standins import ODD
from supervisor.options import ServerOptions

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
NAMES = WORDS.map(lambda word: word.replace("/", "|")).filter(lambda name: name not in {"", ".", ".."})


def short(name: str) -> str:
    """Cut a name to what a file system takes."""
    return name.encode()[:120].decode(errors="ignore")


@settings(deadline=None, max_examples=60)
@example(ODD, ODD, ODD)
@example(" ;x", "x ", '"')
@given(NAMES, WORDS, WORDS)
def test_what_supervisor_reads_is_what_was_meant(folder: str, value: str, word: str) -> None:
    with tempfile.TemporaryDirectory() as top:
        supervisor = Supervisor(Path(top) / short(folder))
        (supervisor.run_dir / "log").mkdir(parents=True)
        python = f"/{folder}/bin/python"
        part = Part("oap", (python, word), "http://127.0.0.1", {}, {"SW_AGENT_NAME": value}, stop_seconds=7)
        supervisor._make_socket_folder()
        supervisor._write([part])
        with mock.patch.object(sys, "executable", python):
            environment = supervisor.environment
        with mock.patch.dict("os.environ", environment):
            read = _read_by_supervisor(supervisor.configuration)
            became = _become(str(supervisor.parts_file), "oap")
        try:
            assert read.logfile == str(supervisor.run_dir / "log" / "supervisord.log")
            assert read.pidfile == str(supervisor.pid_file)
            assert read.server_configs[0]["file"] == str(supervisor.socket)
            ((program,),) = [group.process_configs for group in read.process_group_configs]
            assert program.stdout_logfile == str(supervisor.log_of("oap"))
            assert shlex.split(program.command) == [*(python, "-P", become.__file__, str(supervisor.parts_file), "oap")]
            assert program.stopwaitsecs == 7
            assert became[0] == python
            assert became[1] == [python, word]
            assert became[2]["SW_AGENT_NAME"] == value
        finally:
            supervisor.forget()


def _read_by_supervisor(file: Path) -> Any:
    options = ServerOptions()
    options.realize(["-c", str(file)])
    return options.configroot.supervisord


def _become(*arguments: str) -> tuple[Any, ...]:
    with mock.patch("os.execve") as execve, mock.patch.object(sys, "argv", ["become.py", *arguments]):
        become.main()
    return execve.call_args.args


@pytest.mark.parametrize("changed", [{"environment": {"COLOUR": "red"}}, {"command": ("/bin/true", "x")}])
def test_what_changes_in_a_part_changes_what_supervisor_reads(tmp_path: Path, changed: dict[str, Any]) -> None:
    supervisor = Supervisor(tmp_path)
    texts = []
    for values in ({}, {}, changed):
        supervisor._write([Part(**{"name": "oap", "command": ("/bin/true",), "health": "", "ports": {}, **values})])
        texts.append(supervisor.configuration.read_text())
    assert texts[0] == texts[1] != texts[2]


def test_the_command_and_its_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    Supervisor(tmp_path)._write([])
    assert (tmp_path / "parts.json").stat().st_mode & 0o077 == 0
