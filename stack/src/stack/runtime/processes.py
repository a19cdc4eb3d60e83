"""The stack's processes, known by a variable in their environment: also those whose supervisord was killed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from pathlib import Path

RUN_DIR_VARIABLE: Final = "TRACING_STACK_RUN_DIR"
"""Every process of a stack has it, with the stack's run folder as its value: so two stacks stay apart."""
GRACE_SECONDS: Final = 90
"""How long a process may take to end by itself before it is killed: the service waits for its tasks."""


def belongs_to_stack(process: psutil.Process, run_dir: Path) -> bool:
    """Whether the stack of that run folder has started the process."""
    try:
        return process.pid != psutil.Process().pid and process.environ().get(RUN_DIR_VARIABLE) == str(run_dir)
    except (psutil.Error, OSError):  # another user's, or gone by now
        return False


def stack_processes(run_dir: Path) -> list[psutil.Process]:
    """Return the processes of the stack of that run folder, supervisord among them."""
    return [process for process in psutil.process_iter() if belongs_to_stack(process, run_dir)]


def describe_orphans(run_dir: Path) -> str:
    """Describe processes of the stack that have no known supervisord; an empty text when there are none."""
    found = stack_processes(run_dir)
    if not found:
        return ""
    pids = ", ".join(str(process.pid) for process in found)
    if any(_is_supervisord(process) for process in found):
        return (
            f"the run folder {run_dir} was deleted or moved while the stack was running, and it still runs (pid {pids})"
        )
    return f"supervisord was killed, but its processes still run (pid {pids})"


def _is_supervisord(process: psutil.Process) -> bool:
    try:
        return "supervisor.supervisord" in process.cmdline()
    except psutil.Error:
        return False


def end_processes(run_dir: Path, grace_seconds: float = GRACE_SECONDS) -> list[psutil.Process]:
    """End all processes of the stack; return those that could not be ended.

    A supervisord ends its children itself and in order, so a process is asked to end only when its parent has ended.

    Args:
        run_dir: the run folder of the stack to end.
        grace_seconds: how long each process may take before it is killed.
    """
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        while family := stack_processes(run_dir):
            pids = {process.pid for process in family}
            heads = [process for process in family if _parent(process) not in pids]
            for process in heads:
                with suppress(psutil.Error):
                    ask(process)
            _, alive = psutil.wait_procs(heads, timeout=grace_seconds)
            if alive:
                break
    return stack_processes(run_dir)


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.Error:
        return 0
