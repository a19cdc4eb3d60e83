"""The compose runtime: the parts as containers."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich.markup import escape

from stack.runtime import passwords
from stack.runtime.checks import check_docker, check_environment, check_free_ports, describe, show_checks
from stack.runtime.compose.containers import containers, describe_parts, memory_megabytes, status_table
from stack.runtime.compose.images import provide_images
from stack.runtime.compose.project import Project
from stack.runtime.engine import EngineError, last_line
from stack.runtime.links import print_links
from stack.runtime.protocol import NOT_RUNNING
from stack.runtime.run_dir import clear, exclusive
from stack.runtime.scaling import is_worker, tell_scaled
from stack.settings import UsageError
from stack.terminal import FAILURE_LINES, last_lines, new_console

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack.document import Found
    from stack.settings import Settings

LOOK_SECONDS: Final = 0.5
"""Time between two looks at the containers."""


class ComposeRuntime:
    """Runs the parts as containers.

    Args:
        settings: of the stack to start, or of the one that runs.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._project = Project(settings)
        self._console = new_console()

    @property
    def is_up(self) -> bool:
        """Whether there are containers of the stack, ended ones too.

        Raises:
            EngineError: the engine does not say.
        """
        return bool(containers(self._project))

    @property
    def has_broker(self) -> bool:
        """Whether the endpoints that need a broker work."""
        return self._settings.wants_broker

    def up(self) -> int:
        """Start the stack and wait until every part is healthy; 0 when all are. Running parts are left as they are."""
        console, project, settings = self._console, self._project, self._settings
        began = time.monotonic()
        with exclusive(settings.run_dir, console):
            made = passwords.make_missing(settings)
            try:
                if not self.is_up:
                    checks = check_free_ports(settings, project.port_names)
                    if not all(check.fine for check in checks):
                        show_checks(console, checks)
                        console.print("nothing was started")
                        return 1
                provide_images(console, project)
                settings.write_record()
                changing, workers = time.time(), self._workers()
                self._start()
                tell_scaled(console, settings, workers, self._workers(), changing)
            except EngineError as error:
                console.print(f"[red]the stack is not up:[/] {escape(str(error))}", soft_wrap=True)
                return 1
        console.print(f"[green]up[/] after {time.monotonic() - began:.1f} s")
        print_links(console, settings, locust=True)
        if settings.ui == "horizon":
            self._print_login(made)
        return 0

    def down(self) -> int:
        """End and remove all containers of the stack; 0 when none is left. What they stored is kept."""
        return self._down()

    def clean(self) -> int:
        """End the stack and delete what it has written, volumes included; 0 when nothing is left."""
        code = self._down("--volumes")
        if code == 0 and self._settings.run_dir.is_dir():
            clear(self._settings.run_dir)
            self._console.print("traces, logs and passwords are deleted")
        return code

    def _down(self, *options: str) -> int:
        console, project = self._console, self._project
        with exclusive(self._settings.run_dir, console):
            if not self.is_up and not options:
                console.print("nothing runs")
                return 0
            with console.status("ending the stack; running background tasks may end first"):
                code = project.run("down", "--remove-orphans", *options, log=project.log)
            if code:
                console.print(f"[red]not all containers have ended:[/] {escape(last_line(last_lines(project.log)))}")
                return 1
        console.print("down")
        return 0

    def status(self, found: Found | None = None) -> int:
        """Show every container; 0 when all are healthy, 1 when one is not, 3 when nothing runs."""
        found = {} if found is None else found
        there = containers(self._project)
        found.update(runtime="compose", up=bool(there), healthy=False, memory_mb=None, parts=[])
        if not there:
            self._console.print("the stack is not up: `make up` starts it")
            return NOT_RUNNING
        used = memory_megabytes(there)
        healthy = all(one.healthy for one in there)
        found.update(healthy=healthy, memory_mb=sum(used.values()), parts=describe_parts(there, used))
        self._console.print(status_table(there, used))
        return 0 if healthy else 1

    def restart(self, part: str) -> int:
        """Stop one part, start it again and wait until it is healthy; 0 when it is."""
        began = time.monotonic()
        code = self._wait_for_one(part, lambda: self._project.run("restart", part, log=self._project.log) == 0)
        if code == 0:
            self._console.print(f"{part} is healthy after {time.monotonic() - began:.1f} s")
        return code

    def start_part(self, part: str) -> int:
        """Wait until one part is healthy, as `up` starts all of them; 0 when it is."""
        return self._wait_for_one(part, lambda: True)

    def doctor(self, found: Found | None = None) -> int:
        """Show every check; 0 when all are fine."""
        checks = [check_docker(needed=True), *check_environment(self._settings)]
        if checks[0].fine and not self.is_up:
            checks += check_free_ports(self._settings, self._project.port_names)
        fine = all(check.fine for check in checks)
        if found is not None:
            found.update(runtime="compose", fine=fine, checks=describe(checks))
        show_checks(self._console, checks)
        return 0 if fine else 1

    def logs(self, part: str | None, lines: int, *, follow: bool) -> int:
        """Print the last lines of one part's log or of all logs; `follow` goes on with new lines."""
        words = ["logs", "--tail", str(lines)]
        if part:
            self._check_name(part)
            words += ["--no-log-prefix", part]
        if follow:
            words.append("--follow")
        try:
            return self._project.run(*words)
        except KeyboardInterrupt:
            return 0

    def _wait_for_one(self, name: str, act: Callable[[], bool]) -> int:
        """Do something to a part of a running stack and wait until the part is healthy; 0 when it is."""
        console = self._console
        self._check_name(name)
        if not self.is_up:
            console.print("the stack is not up: `make up` starts it")
            return 1
        began = datetime.now(UTC)
        with exclusive(self._settings.run_dir, console), console.status(f"waiting for {name}"):
            good = act() and self._becomes_healthy(name)
        if not good:
            self._show_failure(began)
            return 1
        return 0

    def _check_name(self, part: str) -> None:
        services = self._project.services
        if part not in services:
            raise UsageError(f"there is no part {part!r}: PART is one of {', '.join(services)}")

    def _workers(self) -> int:
        return sum(is_worker(one.part) and one.healthy for one in containers(self._project))

    def _start(self) -> None:
        console, project = self._console, self._project
        words = ["up", "--detach", "--remove-orphans", "--wait", "--wait-timeout", str(self._settings.start_seconds)]
        if not console.is_terminal:
            console.print(f"starting {', '.join(project.wanted)}")
        began = datetime.now(UTC)
        with console.status(f"waiting for {', '.join(project.wanted)}"):
            code = project.run(*words, *project.scale, log=project.log)
        if code:
            self._show_failure(began)
            advice = "look at `make status` and `make logs`, end it with `make down`"
            raise EngineError("not all parts are healthy", advice)

    def _becomes_healthy(self, name: str) -> bool:
        """Wait until the containers of a part are healthy; false when that takes too long."""
        deadline = time.monotonic() + self._settings.start_seconds
        while not all(found.healthy for found in containers(self._project) if found.part == name):
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS)
        return True

    def _show_failure(self, began: datetime) -> None:
        """Show each part that is not healthy, with its last lines of this start; without one, what Compose printed."""
        unhealthy = [found for found in containers(self._project) if not found.healthy]
        for found in unhealthy:
            self._console.print(f"[red]{found.part} is {found.state}.[/] Its last lines:")
            self._console.print(found.last_lines(FAILURE_LINES, began), markup=False)
        if not unhealthy:
            self._console.print(last_line(last_lines(self._project.log)), markup=False)

    def _print_login(self, made: list[str]) -> None:
        file = escape(str(passwords.file_of(self._settings)))
        if "HORIZON_AUTH_LOCAL_USERS" in made:
            password = passwords.load(self._settings)["HORIZON_PASSWORD"]
            login = f"{passwords.HORIZON_USER} [bold]{password}[/]"
            self._console.print(f"Horizon's login, shown only once (it is kept in {file}): {login}")
        else:
            self._console.print(f"Horizon's login is in {file}, unless you have set HORIZON_AUTH_LOCAL_USERS yourself")
