"""The native runtime: the parts as processes under supervisord."""

from __future__ import annotations

import fcntl
import time
import xmlrpc.client
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import httpx
import psutil
from oap_embedded import OapEmbeddedError, fetch
from rich.console import Console
from rich.table import Table

from stack._doctor import examine, show
from stack._parts import Part, parts
from stack._settings import UsageError
from stack._supervisor import MARK, Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stack._settings import Settings

TAIL: Final = 20
"""Lines of a part's log that are shown when it fails."""
DEAD: Final = frozenset({"FATAL", "EXITED", "BACKOFF", "STOPPED"})


def up(settings: Settings) -> int:
    """Bring the stack up and wait until every part answers; 0 when all do. Running parts are left as they are."""
    console = Console()
    began = time.monotonic()
    every = parts(settings)
    supervisor = Supervisor(settings.run_dir)
    with _alone(settings.run_dir, console):
        running = [part for part in every if supervisor.state(part.name) == "RUNNING"]
        checks = examine(settings, [name for part in every if part not in running for name in part.ports])
        if not all(check.fine for check in checks):
            show(console, checks)
            return 1
        try:
            fetch()
            supervisor.apply(every)
        except (OapEmbeddedError, OSError, RuntimeError) as error:
            console.print(f"[red]the stack is not up:[/] {error}")
            return 1
        if not _start(console, supervisor, [part for part in every if not part.on_demand or part in running]):
            console.print("What did start runs on for you to look at; `make down` ends it.")
            return 1
    console.print(f"[green]up[/] after {time.monotonic() - began:.1f} s")
    print_links(console, settings)
    return 0


def start_part(settings: Settings, name: str) -> int:
    """Start one part of a running stack and wait for it; 0 when it answers."""
    return _with_running(settings, name, restart=False)


def restart(settings: Settings, name: str) -> int:
    """Stop one part, start it again and wait for it; 0 when it answers."""
    return _with_running(settings, name, restart=True)


def _with_running(settings: Settings, name: str, *, restart: bool) -> int:
    console = Console()
    part = find(settings, name)
    supervisor = Supervisor(settings.run_dir)
    if supervisor.process is None:
        console.print("the stack is not up: `make up` starts it")
        return 1
    if restart and supervisor.state(name) == "RUNNING":
        supervisor.rpc.stopProcess(name)
    return 0 if _start(console, supervisor, [part]) else 1


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
    console = Console()
    supervisor = Supervisor(settings.run_dir)
    if not settings.run_dir.exists():
        console.print("nothing runs")
        return 0
    with _alone(settings.run_dir, console):
        process = supervisor.process
        if process is not None:
            with console.status("ending the stack; running background tasks end first"):
                try:
                    supervisor.rpc.shutdown()
                    process.wait(sum(part.stop_seconds for part in parts(settings)) + TAIL)
                except (OSError, xmlrpc.client.Error, psutil.TimeoutExpired) as error:
                    console.print(f"supervisord does not end by itself ({error}): its processes are ended one by one")
        left = _end_orphans(settings.run_dir)
    console.print("down" if process is not None or left else "nothing runs")
    return 0


def _end_orphans(run_dir: Path) -> int:
    """End what carries our mark and has lost its supervisord; return how many there were."""
    orphans = [process for process in psutil.process_iter() if _is_ours(process, run_dir)]
    for process in orphans:
        process.terminate()
    _, alive = psutil.wait_procs(orphans, timeout=40)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=10)
    return len(orphans)


def _is_ours(process: psutil.Process, run_dir: Path) -> bool:
    try:
        return process.pid != psutil.Process().pid and process.environ().get(MARK) == str(run_dir)
    except psutil.Error:  # another user's, or gone by now
        return False


def answers(part: Part) -> bool:
    """Say whether the part's health URL answers with success."""
    try:
        return bool(httpx.get(part.health, timeout=2, trust_env=False).is_success)
    except httpx.HTTPError:
        return False


def _start(console: Console, supervisor: Supervisor, wanted: Sequence[Part]) -> bool:
    """Start parts side by side and wait for each; say which one fails, why, and what it said last."""
    for part in wanted:
        if supervisor.state(part.name) in DEAD:
            supervisor.rpc.startProcess(part.name, False)
    began = time.monotonic()
    waiting = list(wanted)
    with console.status("") as status:
        while waiting:
            seconds = time.monotonic() - began
            status.update(f"waiting for {', '.join(part.name for part in waiting)} ({seconds:.0f} s)")
            for part in list(waiting):
                if supervisor.state(part.name) == "RUNNING" and answers(part):
                    console.print(f"{part.name} answers after {seconds:.1f} s")
                    waiting.remove(part)
                elif reason := _failure(supervisor, part, seconds):
                    console.print(f"[red]{part.name} is not up:[/] {reason}. Its last lines:")
                    console.print(tail(supervisor.log_of(part.name), TAIL), markup=False, highlight=False)
                    return False
            time.sleep(0.1)
    return True


def _failure(supervisor: Supervisor, part: Part, seconds: float) -> str | None:
    if supervisor.state(part.name) == "FATAL":
        return f"it ended each time it was started ({supervisor.exits(part.name)[-1]})"
    if seconds > part.start_seconds:
        return f"{part.health} does not answer after {part.start_seconds} s"
    return None


def tail(path: Path, lines: int) -> str:
    """Return the last lines of a text file; nothing when there is no file."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def print_links(console: Console, settings: Settings) -> None:
    """Print where to look."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("service", f"{settings.service_url}/test", "answers at once; a 10 s task runs on")
    table.add_row("API", f"{settings.service_url}/docs", "every endpoint, to try out")
    table.add_row("OAP", f"{settings.oap_url}/graphql", "SkyWalking's query API")
    table.add_row("Locust", settings.locust_url, "after `make load-ui`")
    console.print(table)
    console.print("next: `make verify` sends a request to every endpoint and draws its trace")


@contextmanager
def _alone(run_dir: Path, console: Console) -> Iterator[None]:
    """Let one `up` or `down` work at a time; a second one waits."""
    run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (run_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("another `make up` or `make down` is at work, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
