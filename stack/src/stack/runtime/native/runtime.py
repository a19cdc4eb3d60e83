"""The native runtime: the parts as processes under supervisord."""

from __future__ import annotations

import time
import xmlrpc.client
from typing import TYPE_CHECKING, Final

import psutil
from oap_embedded import OapEmbeddedError, fetch, forget
from rich.console import Console
from rich.markup import escape

from stack.runtime.checks import (
    check_docker,
    check_environment,
    check_java,
    check_machine,
    check_ports,
    check_run_dir_disk,
    describe,
    show_checks,
)
from stack.runtime.links import print_links
from stack.runtime.native.broker import INSTALL, find_broker, prepare_broker
from stack.runtime.native.broker_check import check_broker
from stack.runtime.native.class_data import quicken_next_start
from stack.runtime.native.logs import show_logs
from stack.runtime.native.parts import Part, native_parts
from stack.runtime.native.skywalking_ui import UiUnavailableError, prepare
from stack.runtime.native.start import PartError, start
from stack.runtime.native.status import describe_parts, part_states, status_table
from stack.runtime.native.supervisor import ALIVE_STATES, Supervisor
from stack.runtime.processes import describe_orphans, end_processes, stack_processes
from stack.runtime.protocol import NOT_RUNNING
from stack.runtime.run_dir import clear, exclusive
from stack.runtime.scaling import is_worker, tell_scaled
from stack.settings import UsageError
from stack.terminal import new_console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stack.document import Found
    from stack.runtime.checks import Check
    from stack.settings import Settings

SUPERVISOR_GRACE_SECONDS: Final = 20
"""How long supervisord may take to end beyond the time that its parts may take."""


class NativeRuntime:
    """Runs the parts as processes of this machine.

    Args:
        settings: of the stack to start, or of the one that runs.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._supervisor = Supervisor(settings.run_dir)
        self._console = new_console()

    @property
    def is_up(self) -> bool:
        """Whether supervisord runs."""
        return self._supervisor.process is not None

    @property
    def has_broker(self) -> bool:
        """Whether the endpoints that need a broker work."""
        return bool(find_broker(self._settings).url)

    def pids(self) -> dict[str, int]:
        """Return the process ids of the running parts, by their names."""
        return {name: info["pid"] for name, info in self._supervisor.infos().items() if info["pid"]}

    def up(self) -> int:
        """Start the stack and wait until every part answers; 0 when all do. Running parts are left as they are."""
        console, supervisor, settings = self._console, self._supervisor, self._settings
        began = time.monotonic()
        with exclusive(settings.run_dir, console):
            if not self.is_up and (trouble := describe_orphans(settings.run_dir)):
                console.print(f"{escape(trouble)}: they are ended first")
                end_processes(settings.run_dir)
            if settings.skywalking_ui:
                try:
                    prepare(console, settings)
                except (UiUnavailableError, OapEmbeddedError) as error:
                    console.print(
                        f"[yellow]SkyWalking's UI is left out:[/] {escape(str(error))}; the console works without it"
                    )
            prepare_broker(settings)
            parts = native_parts(settings)
            alive = self._alive()
            changing, workers = time.time(), sum(map(is_worker, alive))
            wanted = [part for part in parts if part.name in alive or not part.on_demand]
            if not self._all_fine(self._checks(wanted, [part for part in wanted if part.name not in alive])):
                return 1
            try:
                fetch(hashed=False)  # OAP's own start reads them
                changed = supervisor.apply(parts)
                settings.write_record()
                if changed:
                    console.print(f"settings have changed: restarting {', '.join(changed)}")
                start(console, supervisor, settings, wanted)
                tell_scaled(console, settings, workers, sum(map(is_worker, self._alive())), changing)
            except PartError as error:
                self._show(error)
                console.print("The other parts keep running, so that you can look at them; `make down` ends them.")
                return 1
            except (OapEmbeddedError, OSError, RuntimeError, xmlrpc.client.Error) as error:
                console.print(f"[red]the stack is not up:[/] {escape(str(error))}")
                return 1
        console.print(f"[green]up[/] after {time.monotonic() - began:.1f} s")
        if any(part.name == "oap" and part.name not in alive for part in wanted):
            quicken_next_start(settings)
        if settings.wants_broker and not self.has_broker:
            console.print(f"no broker, so /test/celery and /test/queue answer 503: {INSTALL}")
        print_links(console, settings, locust="loadtest" in self._alive())
        return 0

    def down(self) -> int:
        """End all processes that `up` has started, and no others; 0 when none is left."""
        console, run_dir = self._console, self._settings.run_dir
        if not run_dir.is_dir() and not stack_processes(run_dir):
            console.print("nothing runs")
            return 0
        with exclusive(run_dir, console):
            if not stack_processes(run_dir):
                self._forget()
                console.print("nothing runs")
                return 0
            with console.status("ending the stack; running background tasks may end first"):
                self._shut_down()
                left = end_processes(run_dir)
            if left:
                console.print(f"[red]these processes have not ended:[/] {', '.join(str(one.pid) for one in left)}")
                return 1
            self._forget()
        console.print("down")
        return 0

    def clean(self) -> int:
        """End the stack and delete what it has written; 0 when nothing is left."""
        code, run_dir = self.down(), self._settings.run_dir
        if code == 0 and run_dir.is_dir():
            clear(run_dir)
            self._console.print(f"traces and logs in {escape(str(run_dir))} are deleted")
        return code

    def status(self, found: Found | None = None) -> int:
        """Show every part; 0 when all that should run are healthy, 1 when one is not, 3 when nothing runs."""
        found = {} if found is None else found
        found.update(runtime="native", up=self.is_up, healthy=False, memory_mb=None, parts=[])
        if not self.is_up:
            if trouble := describe_orphans(self._settings.run_dir):
                self._console.print(
                    f"[red]{escape(trouble)}:[/] `make down` ends them, `make up` starts the stack again"
                )
                return 1
            self._console.print("the stack is not up: `make up` starts it")
            return NOT_RUNNING
        states = part_states(self._supervisor, native_parts(self._settings))
        problems = {one.part: one.problem for one in states if one.problem}
        found.update(healthy=not problems, memory_mb=sum(one.memory_mb for one in states), parts=describe_parts(states))
        self._console.print(status_table(states))
        for part, problem in problems.items():
            self._console.print(f"[red]{part} {escape(problem)}[/]: `make logs PART={part}` may show why")
        disk = check_run_dir_disk(self._settings)
        if problems and not disk.fine:
            # H2 closes its database on a full disk and opens it only at the next start.
            self._console.print(f"[red]{escape(disk.finding)}:[/] free some disk space, then `make restart PART=oap`")
        return 1 if problems else 0

    def logs(self, part: str | None, lines: int, *, follow: bool) -> int:
        """Print the last lines of one part's log or of all logs; `follow` goes on with new lines."""
        chosen = [self._find(part)] if part else native_parts(self._settings)
        files = {one.name: self._supervisor.log_of(one.name) for one in chosen}
        show_logs(self._console, files, lines, names=part is None, follow=follow)
        return 0

    def doctor(self, found: Found | None = None) -> int:
        """Show every check; 0 when all are fine."""
        parts, alive = native_parts(self._settings), self._alive()
        checks = [
            check_docker(needed=False),
            check_java(),
            *check_machine(self._settings, [part for part in parts if part.name not in alive and not part.on_demand]),
            *check_environment(self._settings),
            check_broker(self._settings),
            *check_ports(self._settings, parts),
        ]
        fine = all(check.fine for check in checks)
        if found is not None:
            found.update(runtime="native", fine=fine, checks=describe(checks))
        show_checks(self._console, checks)
        return 0 if fine else 1

    def start_part(self, part: str) -> int:
        """Start one part of a running stack and wait for it; 0 when it answers."""
        return self._start_one(part, restart=False)

    def restart(self, part: str) -> int:
        """Stop one part, start it again and wait for it; 0 when it answers."""
        return self._start_one(part, restart=True)

    def restart_quietly(self, part: str, *, pause_seconds: float = 0.0) -> None:
        """Stop one part, pause, start it again and wait for it, without printing anything.

        Raises:
            PartError: it does not answer.
        """
        try:
            if part in self._alive():
                self._supervisor.rpc.stopProcess(part)
            time.sleep(pause_seconds)
            start(Console(quiet=True), self._supervisor, self._settings, [self._find(part)])
        except (OSError, xmlrpc.client.Error) as error:
            raise PartError(part, f"supervisord can't restart it ({error})", "") from error

    def _start_one(self, name: str, *, restart: bool) -> int:
        console, part = self._console, self._find(name)
        if not self.is_up:
            trouble = describe_orphans(self._settings.run_dir) or "the stack is not up"
            console.print(f"{escape(trouble)}: `make up` starts it again")
            return 1
        with exclusive(self._settings.run_dir, console):
            if restart and name in self._alive():
                with console.status(f"ending {name} (up to {part.stop_seconds} s)"):
                    self._supervisor.rpc.stopProcess(name)
            if name not in self._alive() and not self._all_fine(check_ports(self._settings, [part])):
                return 1
            try:
                start(console, self._supervisor, self._settings, [part])
            except PartError as error:
                self._show(error)
                return 1
        return 0

    def _find(self, name: str) -> Part:
        parts = {part.name: part for part in native_parts(self._settings)}
        if name not in parts:
            raise UsageError(f"there is no part {name!r}: PART is one of {', '.join(parts)}")
        return parts[name]

    def _alive(self) -> set[str]:
        """Return the names of the parts that run, or that supervisord is starting."""
        return {name for name, info in self._supervisor.infos().items() if info["statename"] in ALIVE_STATES}

    def _show(self, error: PartError) -> None:
        self._console.print(f"[red]{error.name} is not up:[/] {escape(error.reason)}. Its last lines:")
        self._console.print(error.last_lines or "(none)", markup=False)

    def _shut_down(self) -> None:
        """Let supervisord end its parts and itself; the caller ends what is left."""
        process = self._supervisor.process
        if process is None:
            return
        seconds = sum(part.stop_seconds for part in native_parts(self._settings)) + SUPERVISOR_GRACE_SECONDS
        try:
            self._supervisor.rpc.shutdown()
            process.wait(seconds)
        except (OSError, xmlrpc.client.Error, psutil.Error) as error:
            self._console.print(f"supervisord does not end ({error}): its processes are ended one by one")

    def _forget(self) -> None:
        self._settings.record.unlink(missing_ok=True)
        self._supervisor.forget()
        forget(self._settings.run_dir / "oap")

    def _checks(self, wanted: Sequence[Part], starting: Sequence[Part]) -> list[Check]:
        checks = [*check_machine(self._settings, starting), check_broker(self._settings)] if starting else []
        return checks + check_ports(self._settings, wanted)

    def _all_fine(self, checks: Sequence[Check]) -> bool:
        """Whether all checks are fine; show them when one is not."""
        fine = all(check.fine for check in checks)
        if not fine:
            show_checks(self._console, checks)
            self._console.print("nothing was started")
        return fine
