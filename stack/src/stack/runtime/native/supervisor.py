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

from stack.runtime.native import become
from stack.runtime.processes import RUN_DIR_VARIABLE, belongs_to_stack
from stack.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stack.runtime.native.parts import Part

SOCKET_PATH_LIMIT_BYTES: Final = 90
"""A unix socket's path may be so long on every system, with room for the suffix that supervisord adds for a while."""
START_SECONDS: Final = 60
ALIVE_STATES: Final = frozenset({"STARTING", "RUNNING", "BACKOFF"})
"""The states in which supervisord itself takes care of a part's start."""
SOCKET_VARIABLE: Final = "TRACING_STACK_SOCKET"
BECOME_VARIABLE: Final = "TRACING_STACK_BECOME"
DIGEST_VARIABLE: Final = "TRACING_STACK_PART"
EXIT: Final = re.compile(r"exited: ([^ ]+) \(([^)]*?)(?:; (?:not )?expected)?\)")
"""A line of supervisord's log about a part that has ended by itself: its name, and how."""


class Supervisor:
    """The supervisord of one run folder, running or not."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.configuration = run_dir / "supervisord.conf"
        self.parts_file = run_dir / "parts.json"
        self.pid_file = run_dir / "supervisord.pid"
        self.log = run_dir / "log" / "supervisord.log"

    def log_of(self, part: str) -> Path:
        """Where a part's output goes."""
        return self.run_dir / "log" / f"{part}.log"

    @property
    def socket(self) -> Path:
        """The control socket; in a private folder of its own where the run folder's path is too long for one."""
        usual = self.run_dir / "supervisor.sock"
        if len(bytes(usual)) <= SOCKET_PATH_LIMIT_BYTES:
            return usual
        try:
            return Path(self._note.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return usual  # nothing has been started

    @property
    def environment(self) -> dict[str, str]:
        """The variables that supervisord's configuration refers to, and the one by which our processes are known."""
        become_part = [sys.executable, "-P", become.__file__, str(self.parts_file)]
        return {
            RUN_DIR_VARIABLE: str(self.run_dir),
            SOCKET_VARIABLE: str(self.socket),
            BECOME_VARIABLE: shlex.join(become_part),
        }

    @property
    def _note(self) -> Path:
        return self.run_dir / "socket"

    def _make_socket_folder(self) -> None:
        if len(bytes(self.run_dir / "supervisor.sock")) <= SOCKET_PATH_LIMIT_BYTES:
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
        return process if belongs_to_stack(process, self.run_dir) else None

    @property
    def rpc(self) -> Any:  # noqa: ANN401  # methods of the other side
        """Supervisor's own methods (http://supervisord.org/api.html)."""
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport).supervisor

    def infos(self) -> dict[str, dict[str, Any]]:
        """What supervisord knows of each part, by its name; nothing when it does not run."""
        if self.process is None:
            return {}
        try:
            return {info["name"]: info for info in self.rpc.getAllProcessInfo()}
        except (OSError, xmlrpc.client.Error):
            return {}

    def exits(self) -> dict[str, list[str]]:
        """How parts have ended by themselves, by their names: supervisord starts them again and keeps no count."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        since = max(text.rfind("supervisord started with pid"), 0)
        found: dict[str, list[str]] = {}
        for part, how in EXIT.findall(text, since):
            found.setdefault(part, []).append(how)
        return found

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
                time.sleep(0.01)
            else:
                return
        message = f"supervisord did not start: {done.stderr.strip() or done.stdout.strip() or f'see {self.log}'}"
        raise RuntimeError(message)

    def _write(self, parts: Sequence[Part]) -> None:
        commands = {
            part.name: {
                "command": part.command,
                "environment": {**part.environment, "PYTHONUNBUFFERED": "1"},
                "stdin": str(part.stdin) if part.stdin else "",
            }
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
    place = usual if len(usual.encode()) < SOCKET_PATH_LIMIT_BYTES // 2 else "/tmp"  # noqa: S108  # mkdtemp makes it private
    return Path(tempfile.mkdtemp(prefix="stack-", dir=place))


def configuration(parts: Sequence[Part], digests: Mapping[str, str]) -> RawConfigParser:
    """Return supervisord's configuration. It holds no value that users choose, as its format can't hold every value.

    Such values are inserted when supervisord reads it: `%(here)s` is its folder, `%(ENV_…)s` a variable of
    supervisord's own environment.

    Args:
        parts: the parts to run.
        digests: by the part's name, a word that changes with its command or environment: a changed part is restarted.
    """
    found = RawConfigParser()
    found["unix_http_server"] = {"file": f"%(ENV_{SOCKET_VARIABLE})s", "chmod": "0700"}
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
    place = 0
    for part in parts:
        place += not part.name.startswith("worker-")  # another worker must not move, and so restart, what follows
        found[f"program:{part.name}"] = {
            "command": f"%(ENV_{BECOME_VARIABLE})s {part.name}",
            "environment": f"{DIGEST_VARIABLE}={digests[part.name]}",
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
