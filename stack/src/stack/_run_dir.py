"""The run folder: everything that the running stack writes."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from stack._settings import DEFAULT_RUN_DIR, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console

CONTENT: Final = (
    "oap",
    "service",
    "log",
    "load",
    "report",
    "supervisord.conf",
    "settings.json",
    "secrets.json",
    "socket",
)
"""What `clean` deletes: nothing that somebody else may have put there."""


def prepare(run_dir: Path) -> None:
    """Make the folder, for nobody else to write in.

    Raises:
        UsageError: it can't be made, or belongs to others too.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if run_dir == DEFAULT_RUN_DIR:
            run_dir.chmod(0o700)
        found = run_dir.stat()
    except FileExistsError as error:
        raise UsageError(f"RUN_DIR={run_dir} is no folder: name another one") from error
    except OSError as error:
        raise UsageError(f"RUN_DIR={run_dir} can't be made or used ({error.strerror}): name another folder") from error
    if os.geteuid() not in {0, found.st_uid}:
        raise UsageError(f"RUN_DIR={run_dir} belongs to another user: name another folder")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(f"RUN_DIR={run_dir} can be written by others: name a folder of its own, such as one inside it")
    if not os.access(run_dir, os.W_OK | os.X_OK):
        raise UsageError(f"RUN_DIR={run_dir} is not writable: name another folder")


@contextmanager
def alone(run_dir: Path, console: Console) -> Iterator[None]:
    """Let one command at a time change what runs; a second one waits, and says so."""
    prepare(run_dir)
    with (run_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("another `make up` or `make down` is at work, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def clear(run_dir: Path) -> None:
    """Delete storage, logs and what else the stack has left."""
    for name in CONTENT:
        path = run_dir / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
