"""The compose runtime: the parts as containers."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich.markup import escape

from stack import _engine, _secrets
from stack._console import new_console
from stack._containers import containers
from stack._doctor import docker, environment, free_ports, show
from stack._engine import EngineError
from stack._images import provide_images
from stack._links import print_links
from stack._progress import tail
from stack._project import Project
from stack._run_dir import alone, clear
from stack._settings import UsageError
from stack._start import TAIL

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from stack._settings import Settings

PAUSE: Final = 0.5
"""s between two looks."""


def up(settings: Settings) -> int:
    """Bring the stack up and wait until every part is healthy; 0 when all are. Running parts are left as they are."""
    console = new_console()
    began = time.monotonic()
    with alone(settings.run_dir, console):
        made = _secrets.make_missing(settings)
        project = Project(settings)
        try:
            if not containers(project):
                checks = free_ports(settings, project.port_names)
                if not all(check.fine for check in checks):
                    show(console, checks)
                    console.print("nothing was started")
                    return 1
            provide_images(console, project)
            settings.write_record()
            _start(console, project)
        except EngineError as error:
            console.print(f"[red]the stack is not up:[/] {escape(str(error))}", soft_wrap=True)
            return 1
    console.print(f"[green]up[/] after {time.monotonic() - began:.1f} s")
    print_links(console, settings, locust=True)
    if settings.ui == "horizon":
        _print_login(console, settings, made)
    return 0


def down(settings: Settings) -> int:
    """End and remove all containers of the stack; 0 when none is left. What they stored is kept."""
    return _down(settings)


def clean(settings: Settings) -> int:
    """End the stack and delete what it has written, volumes included; 0 when nothing is left."""
    code = _down(settings, "--volumes")
    if code == 0 and settings.run_dir.is_dir():
        clear(settings.run_dir)
        new_console().print("traces, logs and passwords are deleted")
    return code


def _down(settings: Settings, *options: str) -> int:
    console = new_console()
    project = Project(settings)
    with alone(settings.run_dir, console):
        if not containers(project) and not options:
            console.print("nothing runs")
            return 0
        with console.status("ending the stack; running background tasks end first"):
            code = project.run("down", "--remove-orphans", *options, log=project.log)
        if code:
            console.print(f"[red]not all has ended:[/] {escape(_engine.last_line(tail(project.log, TAIL)))}")
            return 1
    console.print("down")
    return 0


def restart(settings: Settings, name: str) -> int:
    """Stop one part, start it again and wait until it is healthy; 0 when it is."""
    began = time.monotonic()
    code = _with_running(settings, name, lambda project: project.run("restart", name, log=project.log) == 0)
    if code == 0:
        new_console().print(f"{name} is healthy after {time.monotonic() - began:.1f} s")
    return code


def start_part(settings: Settings, name: str) -> int:
    """Wait for one part, as all of them are started by `up`; 0 when it is healthy."""
    return _with_running(settings, name, lambda _: True)


def _with_running(settings: Settings, name: str, act: Callable[[Project], bool]) -> int:
    """Do something to a part of a running stack and wait until the part is healthy; 0 when it is."""
    console = new_console()
    project = Project(settings)
    _find(project, name)
    if not containers(project):
        console.print("the stack is not up: `make up` starts it")
        return 1
    began = datetime.now(UTC)
    with alone(settings.run_dir, console), console.status(f"waiting for {name}"):
        good = act(project) and _healthy(project, name)
    if not good:
        _show_failure(console, project, began)
        return 1
    return 0


def doctor(settings: Settings) -> int:
    """Show what is looked at before `up`; 0 when all is fine."""
    checks = [docker(needed=True), *environment(settings)]
    project = Project(settings)
    if checks[0].fine and not containers(project):
        checks += free_ports(settings, project.port_names)
    show(new_console(), checks)
    return 0 if all(check.fine for check in checks) else 1


def logs(settings: Settings, name: str | None, lines: int, *, follow: bool) -> int:
    """Print the last lines of one part's log or of all, and go on with what comes if asked to."""
    project = Project(settings)
    words = ["logs", "--tail", str(lines)]
    if name:
        _find(project, name)
        words += ["--no-log-prefix", name]
    if follow:
        words.append("--follow")
    try:
        return project.run(*words)
    except KeyboardInterrupt:
        return 0


def _find(project: Project, name: str) -> None:
    if name not in project.services:
        message = f"there is no part {name!r}: PART is one of {', '.join(project.services)}"
        raise UsageError(message)


def _start(console: Console, project: Project) -> None:
    words = ["up", "--detach", "--remove-orphans", "--wait", "--wait-timeout", str(project.settings.start_seconds)]
    if not console.is_terminal:
        console.print(f"starting {', '.join(project.wanted)}")
    began = datetime.now(UTC)
    with console.status(f"waiting for {', '.join(project.wanted)}"):
        code = project.run(*words, *project.scale, log=project.log)
    if code:
        _show_failure(console, project, began)
        raise EngineError("not all parts are healthy", "look at `make status` and `make logs`, end it with `make down`")


def _healthy(project: Project, name: str) -> bool:
    """Wait until the containers of a part are healthy; false when that takes too long."""
    deadline = time.monotonic() + project.settings.start_seconds
    while not all(found.healthy for found in containers(project) if found.part == name):
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE)
    return True


def _show_failure(console: Console, project: Project, began: datetime) -> None:
    """Name each part that is not healthy, with its last lines of this start; without one, say what Compose said."""
    bad = [found for found in containers(project) if not found.healthy]
    for found in bad:
        console.print(f"[red]{found.part} is {found.state}.[/] Its last lines:")
        console.print(found.tail(TAIL, began), markup=False)
    if not bad:
        console.print(_engine.last_line(tail(project.log, TAIL)), markup=False)


def _print_login(console: Console, settings: Settings, made: list[str]) -> None:
    where = escape(str(_secrets.file_of(settings)))
    if "HORIZON_AUTH_LOCAL_USERS" in made:
        password = _secrets.load(settings)["HORIZON_PASSWORD"]
        console.print(f"Horizon's login, shown this once (kept in {where}): {_secrets.USER} [bold]{password}[/]")
    else:
        console.print(f"Horizon's login is in {where}, unless you set HORIZON_AUTH_LOCAL_USERS yourself")
