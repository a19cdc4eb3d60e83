"""supervisord: its configuration, its start, and the talk with it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from configparser import RawConfigParser
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
from supervisor.xmlrpc import SupervisorTransport

from stack._marked import MARK, is_ours
from stack._part import FILE
from stack._settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stack._parts import Part

SOCKET_LIMIT: Final = 90
"""Bytes of a unix socket's path that every system takes, with room for the suffix that supervisord adds for a while."""
START_SECONDS: Final = 60
ALIVE: Final = frozenset({"STARTING", "RUNNING", "BACKOFF"})
"""The states in which supervisord itself sees to a part's start."""
SOCKET: Final = "TRACING_STACK_SOCKET"
PYTHON: Final = "TRACING_STACK_PYTHON"
DIGEST: Final = "TRACING_STACK_PART"


class Supervisor:
    """The supervisord of one run folder, running or not."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.configuration = run_dir / "supervisord.conf"
        self.parts_file = run_dir / FILE
        self.pid_file = run_dir / "supervisord.pid"
        self.log = run_dir / "log" / "supervisord.log"

    def log_of(self, part: str) -> Path:
        """Where a part's output goes."""
        return self.run_dir / "log" / f"{part}.log"

    @property
    def socket(self) -> Path:
        """The control socket; in a private folder of its own where the run folder's path is too long for one."""
        usual = self.run_dir / "supervisor.sock"
        if len(bytes(usual)) <= SOCKET_LIMIT:
            return usual
        try:
            return Path(self._note.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return usual  # nothing has been started

    @property
    def environment(self) -> dict[str, str]:
        """What supervisord's configuration, and `_part`, read of where all is."""
        return {MARK: str(self.run_dir), SOCKET: str(self.socket), PYTHON: shlex.quote(sys.executable)}

    @property
    def _note(self) -> Path:
        return self.run_dir / "socket"

    def _make_socket_folder(self) -> None:
        if len(bytes(self.run_dir / "supervisor.sock")) <= SOCKET_LIMIT:
            return
        if not (self._note.exists() and self.socket.parent.is_dir()):
            self._note.write_text(str(_short_folder() / "supervisor.sock"), encoding="utf-8")

    def forget(self) -> None:
        """Delete what only a running supervisord needs."""
        if self._note.exists():
            shutil.rmtree(self.socket.parent, ignore_errors=True)
            self._note.unlink()
        for leftover in (self.run_dir / "supervisor.sock", self.pid_file):
            leftover.unlink(missing_ok=True)

    @property
    def process(self) -> psutil.Process | None:
        """The running supervisord; `None` when there is none."""
        try:
            process = psutil.Process(int(self.pid_file.read_text()))
        except (OSError, ValueError, psutil.Error):
            return None
        return process if is_ours(process, self.run_dir) else None

    @property
    def rpc(self) -> Any:  # noqa: ANN401  # methods of the other side
        """Supervisor's own methods (http://supervisord.org/api.html)."""
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport).supervisor

    def info(self, part: str) -> dict[str, Any]:
        """What supervisord knows of a part; nothing when it does not run or does not know it."""
        if self.process is None:
            return {}
        try:
            answer: dict[str, Any] = self.rpc.getProcessInfo(part)
        except (OSError, xmlrpc.client.Error):
            return {}
        return answer

    def state(self, part: str) -> str:
        """Supervisord's word for how a part is, such as `RUNNING`; `STOPPED` when there is no supervisord."""
        return str(self.info(part).get("statename", "STOPPED"))

    def exits(self, part: str) -> list[str]:
        """How a part ended, each time that it did so by itself: supervisord starts it again and keeps no count."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        since = text.rfind("supervisord started with pid")
        found = re.findall(rf"exited: {re.escape(part)} \(([^)]*)\)", text[max(since, 0) :])
        return [how.removesuffix("; not expected").removesuffix("; expected") for how in found]

    def apply(self, parts: Sequence[Part]) -> list[str]:
        """Run supervisord with these parts; return those that were stopped because their definition has changed."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.process is None:
            self._make_socket_folder()
            self._write(parts)
            self._start()
            return []
        self._write(parts)
        ((added, changed, removed),) = self.rpc.reloadConfig()
        for name in reversed([*changed, *removed]):
            self.rpc.stopProcessGroup(name)
            self.rpc.removeProcessGroup(name)
        for name in (*added, *changed):
            self.rpc.addProcessGroup(name)
        return list(changed)

    def _start(self) -> None:
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.configuration)]
        environment = {**os.environ, **self.environment, "PYTHONUTF8": "1"}
        done = subprocess.run(  # noqa: S603  # our own command line
            command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                self.rpc.getState()
            except (OSError, xmlrpc.client.Error):
                time.sleep(0.05)
            else:
                return
        message = f"supervisord did not start: {done.stderr.strip() or done.stdout.strip() or f'see {self.log}'}"
        raise RuntimeError(message)

    def _write(self, parts: Sequence[Part]) -> None:
        commands = {
            part.name: {"command": part.command, "environment": {**part.environment, "PYTHONUNBUFFERED": "1"}}
            for part in parts
        }
        texts = {name: json.dumps(command, sort_keys=True) for name, command in commands.items()}
        digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
        self.parts_file.touch(mode=0o600)
        self.parts_file.write_text(json.dumps(commands), encoding="utf-8")
        with self.configuration.open("w", encoding="ascii") as file:
            configuration(parts, digests).write(file)


def _short_folder() -> Path:
    """Make a private folder with a path that is short enough for a socket in it."""
    usual = tempfile.gettempdir()
    place = usual if len(usual.encode()) < SOCKET_LIMIT // 2 else "/tmp"  # noqa: S108  # mkdtemp makes it private
    return Path(tempfile.mkdtemp(prefix="stack-", dir=place))


def configuration(parts: Sequence[Part], digests: Mapping[str, str]) -> RawConfigParser:
    """Return supervisord's configuration: no value in it comes from outside, as it could not hold every one.

    What does come from outside is read when supervisord reads this: `%(here)s` is this file's folder, `%(ENV_…)s` a
    variable of supervisord's own environment.

    Args:
        parts: what it is to run.
        digests: by the part's name, a word that changes with what `_part` reads: what has changed is restarted.
    """
    found = RawConfigParser()
    found["unix_http_server"] = {"file": f"%(ENV_{SOCKET})s", "chmod": "0700"}
    found["supervisord"] = {
        "logfile": "%(here)s/log/supervisord.log",
        "logfile_maxbytes": "1MB",
        "logfile_backups": "1",
        "pidfile": "%(here)s/supervisord.pid",
        "childlogdir": "%(here)s/log",
    }
    found["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    for place, part in enumerate(parts, start=1):
        found[f"program:{part.name}"] = {
            "command": f"%(ENV_{PYTHON})s -m stack._part {part.name}",
            "environment": f"{DIGEST}={digests[part.name]}",
            "priority": str(place),  # the lower ends later: OAP takes what the service sends at its end
            "autostart": "false",  # `up` starts what it wants and waits for it
            "autorestart": "true",
            "startsecs": "1",
            "startretries": "3",
            "stopwaitsecs": str(part.stop_seconds),
            "stopasgroup": "false",  # the service ends its tasks first
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": f"%%(here)s/log/{part.name}.log",  # the one value that supervisor expands twice
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": "1",
        }
    return found
