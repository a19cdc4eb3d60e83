"""Our processes, known by a mark in their environment: also those whose supervisord was killed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import psutil

from stack._part import RUN_DIR

if TYPE_CHECKING:
    from pathlib import Path

MARK: Final = RUN_DIR
"""The environment variable; its value is the run folder, so that two stacks stay apart."""
PATIENCE: Final = 90
"""s that processes get to end by themselves: the service waits for its tasks."""


def is_ours(process: psutil.Process, run_dir: Path) -> bool:
    """Say whether the stack of that run folder has started the process."""
    try:
        return process.pid != psutil.Process().pid and process.environ().get(MARK) == str(run_dir)
    except (psutil.Error, OSError):  # another user's, or gone by now
        return False


def ours(run_dir: Path) -> list[psutil.Process]:
    """Return the processes of the stack of that run folder, supervisord among them."""
    return [process for process in psutil.process_iter() if is_ours(process, run_dir)]


def lost(run_dir: Path) -> str:
    """Say why a stack runs of which the run folder knows no supervisord; nothing when none does."""
    found = ours(run_dir)
    if not found:
        return ""
    pids = ", ".join(str(process.pid) for process in found)
    if any(_is_supervisord(process) for process in found):
        return f"the run folder {run_dir} was deleted or moved while the stack ran, which still does (pid {pids})"
    return f"supervisord was killed, its processes still run (pid {pids})"


def _is_supervisord(process: psutil.Process) -> bool:
    try:
        return "supervisor.supervisord" in process.cmdline()
    except psutil.Error:
        return False


def end(run_dir: Path, patience: float = PATIENCE) -> list[psutil.Process]:
    """End whatever carries the mark; return what could not be ended.

    A supervisord ends its children itself and in order, so each process is asked only once its parent has gone.

    Args:
        run_dir: the run folder of the stack to end.
        patience: s that each process gets before it is killed.
    """
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        while family := ours(run_dir):
            pids = {process.pid for process in family}
            heads = [process for process in family if _parent(process) not in pids]
            for process in heads:
                with suppress(psutil.Error):
                    ask(process)
            _, alive = psutil.wait_procs(heads, timeout=patience)
            if alive:
                break
    return ours(run_dir)


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.Error:
        return 0
