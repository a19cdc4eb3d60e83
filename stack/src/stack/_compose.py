"""The compose runtime: the parts as containers."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from stack import _engine, _secrets
from stack._console import new_console
from stack._containers import containers
from stack._doctor import free_ports, show
from stack._engine import EngineError
from stack._links import print_links
from stack._project import Project
from stack._run_dir import alone, clear
from stack._settings import ROOT, UsageError
from stack._start import tail

if TYPE_CHECKING:
    from rich.console import Console

    from stack._settings import Settings

BASE_IMAGE: Final = "background-tracing-stack/base:bookworm"
"""As compose.local.yaml names it."""
START_SECONDS: Final = 420
"""How long all parts may take together: an empty BanyanDB gets its schema first."""
TAIL: Final = 20
"""Lines of a part's log that are shown when it fails."""


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
            _provide_images(console, project)
            settings.write_record()
            _start(console, project)
        except EngineError as error:
            console.print(f"[red]the stack is not up:[/] {error}", soft_wrap=True)
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
            console.print(f"[red]not all has ended:[/] {_engine.last_line(tail(project.log, TAIL))}")
            return 1
    console.print("down")
    return 0


def restart(settings: Settings, name: str) -> int:
    """Stop one part, start it again and wait until it is healthy; 0 when it is."""
    console = new_console()
    project = Project(settings)
    _find(project, name)
    if not containers(project):
        console.print("the stack is not up: `make up` starts it")
        return 1
    with alone(settings.run_dir, console), console.status(f"restarting {name}"):
        began = time.monotonic()
        code = project.run("restart", name, log=project.log) or _wait(project, name)
    if code:
        _show_failure(console, project)
        return 1
    console.print(f"{name} is healthy after {time.monotonic() - began:.1f} s")
    return 0


def start_part(settings: Settings, name: str) -> int:
    """Start one part of a running stack and wait for it; 0 when it is healthy."""
    console = new_console()
    project = Project(settings)
    _find(project, name)
    if not containers(project):
        console.print("the stack is not up: `make up` starts it")
        return 1
    if _wait(project, name):
        _show_failure(console, project)
        return 1
    return 0


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


def _provide_images(console: Console, project: Project) -> None:
    """Pull what is missing and build what is ours.

    Raises:
        EngineError: that can't be done.
    """
    if project.settings.images == "local":
        with console.status("making the base image (once)"):
            command = [str(ROOT / "stack" / "base-image.sh"), BASE_IMAGE]
            done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  # our own script
        if done.returncode:
            raise EngineError(f"there is no base image ({_engine.last_line(done.stderr)})", "see to that")
    else:
        code = project.run("pull", "--policy", "missing", "--ignore-buildable", log=None if _shown() else project.log)
        if code:
            reason = "" if _shown() else f" ({_engine.last_line(tail(project.log, TAIL))})"
            advice = "check the network, build them here with `make up IMAGES=local`"
            raise EngineError(f"the images can't be pulled{reason}", advice)
    with console.status("building images; the first time takes a minute"):
        code = project.run("build", log=project.log)
    if code:
        console.print(tail(project.log, TAIL), markup=False)
        raise EngineError(f"an image can't be built (its log is {project.log})", "check the network")


def _shown() -> bool:
    """Whether somebody looks on: a pull's progress is for them."""
    return sys.stdout.isatty()


def _start(console: Console, project: Project) -> None:
    words = ["up", "--detach", "--remove-orphans", "--wait", "--wait-timeout", str(START_SECONDS)]
    if not console.is_terminal:
        console.print(f"starting {', '.join(project.wanted)}")
    with console.status(f"waiting for {', '.join(project.wanted)}"):
        code = project.run(*words, *project.scale, log=project.log)
    if code:
        _show_failure(console, project)
        raise EngineError("not all parts are healthy", "look at `make status` and `make logs`, end it with `make down`")


def _wait(project: Project, name: str) -> int:
    words = ("up", "--detach", "--no-recreate", "--no-deps", "--wait", "--wait-timeout", str(START_SECONDS))
    return project.run(*words, name, log=project.log)


def _show_failure(console: Console, project: Project) -> None:
    """Name each part that is not healthy, with its last lines; without one, say what Compose said."""
    bad = [found for found in containers(project) if not found.healthy]
    for found in bad:
        console.print(f"[red]{found.part} is {found.state}.[/] Its last lines:")
        console.print(found.tail(TAIL), markup=False)
    if not bad:
        console.print(_engine.last_line(tail(project.log, TAIL)), markup=False)


def _print_login(console: Console, settings: Settings, made: list[str]) -> None:
    where = _secrets.file_of(settings)
    if "HORIZON_AUTH_LOCAL_USERS" in made:
        password = _secrets.load(settings)["HORIZON_PASSWORD"]
        console.print(f"Horizon's login, shown this once (kept in {where}): {_secrets.USER} [bold]{password}[/]")
    else:
        console.print(f"Horizon's login is in {where}, unless you set HORIZON_AUTH_LOCAL_USERS yourself")
