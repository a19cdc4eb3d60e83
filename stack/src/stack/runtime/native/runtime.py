"""The native runtime: the parts as processes under supervisord."""

from __future__ import annotations

import time
import xmlrpc.client
from typing import TYPE_CHECKING, Final

import psutil
from oap_embedded import OapEmbeddedError, fetch, forget
from rich.markup import escape

from stack import _marked
from stack._console import new_console
from stack._doctor import machine, ports_of, show
from stack._links import print_links
from stack._parts import Part, parts
from stack._run_dir import alone, clear
from stack._settings import UsageError
from stack._start import start
from stack._supervisor import ALIVE, Supervisor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from stack._doctor import Check
    from stack._settings import Settings

MARGIN: Final = 20
"""s that supervisord gets beyond the time that its parts may take to end."""


def up(settings: Settings) -> int:
    """Bring the stack up and wait until every part answers; 0 when all do. Running parts are left as they are."""
    console = new_console()
    began = time.monotonic()
    supervisor = Supervisor(settings.run_dir)
    with alone(settings.run_dir, console):
        if supervisor.process is None and (trouble := _marked.lost(settings.run_dir)):
            console.print(f"{escape(trouble)}: ending that first")
            _marked.end(settings.run_dir)
        every = parts(settings)
        alive = [part for part in every if supervisor.state(part.name) in ALIVE]
        wanted = [part for part in every if part in alive or not part.on_demand]
        if not _allowed(console, _checks(settings, wanted, [part for part in wanted if part not in alive])):
            return 1
        try:
            fetch()
            changed = supervisor.apply(every)
            settings.write_record()
        except (OapEmbeddedError, OSError, RuntimeError, xmlrpc.client.Error) as error:
            console.print(f"[red]the stack is not up:[/] {escape(str(error))}")
            return 1
        if changed:
            console.print(f"other settings than before: restarting {', '.join(changed)}")
        if not start(console, supervisor, settings, wanted):
            console.print("What did start runs on for you to look at; `make down` ends it.")
            return 1
    console.print(f"[green]up[/] after {time.monotonic() - began:.1f} s")
    print_links(console, settings, locust=supervisor.state("loadtest") in ALIVE)
    return 0


def start_part(settings: Settings, name: str) -> int:
    """Start one part of a running stack and wait for it; 0 when it answers."""
    return _with_running(settings, name, restart=False)


def restart(settings: Settings, name: str) -> int:
    """Stop one part, start it again and wait for it; 0 when it answers."""
    return _with_running(settings, name, restart=True)


def _with_running(settings: Settings, name: str, *, restart: bool) -> int:
    console = new_console()
    part = find(settings, name)
    supervisor = Supervisor(settings.run_dir)
    if supervisor.process is None:
        trouble = _marked.lost(settings.run_dir) or "the stack is not up"
        console.print(f"{escape(trouble)}: `make up` starts it anew")
        return 1
    with alone(settings.run_dir, console):
        if restart and supervisor.state(name) in ALIVE:
            with console.status(f"ending {name} (up to {part.stop_seconds} s)"):
                supervisor.rpc.stopProcess(name)
        if supervisor.state(name) not in ALIVE and not _allowed(console, ports_of(settings, [part])):
            return 1
        return 0 if start(console, supervisor, settings, [part]) else 1


def find(settings: Settings, name: str) -> Part:
    """Return the part of that name.

    Raises:
        UsageError: there is none; the message lists those that there are.
    """
    every = {part.name: part for part in parts(settings)}
    if name not in every:
        message = f"there is no part {name!r}: PART is one of {', '.join(every)}"
        raise UsageError(message)
    return every[name]


def down(settings: Settings) -> int:
    """End all that `up` has started and nothing else; 0 when nothing of it is left."""
    console = new_console()
    supervisor = Supervisor(settings.run_dir)
    if not settings.run_dir.is_dir() and not _marked.ours(settings.run_dir):
        console.print("nothing runs")
        return 0
    with alone(settings.run_dir, console):
        if not _marked.ours(settings.run_dir):
            _forget(settings, supervisor)
            console.print("nothing runs")
            return 0
        with console.status("ending the stack; running background tasks end first"):
            _shut_down(console, supervisor, sum(part.stop_seconds for part in parts(settings)) + MARGIN)
            left = _marked.end(settings.run_dir)
        if left:
            console.print(f"[red]not all has ended:[/] pid {', '.join(str(process.pid) for process in left)}")
            return 1
        _forget(settings, supervisor)
    console.print("down")
    return 0


def clean(settings: Settings) -> int:
    """End the stack and delete what it has written; 0 when nothing is left."""
    code = down(settings)
    if code == 0 and settings.run_dir.is_dir():
        clear(settings.run_dir)
        new_console().print(f"traces and logs in {escape(str(settings.run_dir))} are deleted")
    return code


def _shut_down(console: Console, supervisor: Supervisor, seconds: float) -> None:
    """Let supervisord end its parts and itself; what it does not end is left to others."""
    process = supervisor.process
    if process is None:
        return
    try:
        supervisor.rpc.shutdown()
        process.wait(seconds)
    except (OSError, xmlrpc.client.Error, psutil.Error) as error:
        console.print(f"supervisord does not end by itself ({error}): its processes are ended one by one")


def _forget(settings: Settings, supervisor: Supervisor) -> None:
    settings.record.unlink(missing_ok=True)
    supervisor.forget()
    forget(settings.run_dir / "oap")


def _checks(settings: Settings, wanted: Sequence[Part], starting: Sequence[Part]) -> list[Check]:
    checks = machine(settings, starting) if starting else []
    return checks + ports_of(settings, wanted)


def _allowed(console: Console, checks: Sequence[Check]) -> bool:
    """Say whether all is fine; show what is not."""
    fine = all(check.fine for check in checks)
    if not fine:
        show(console, checks)
        console.print("nothing was started")
    return fine
