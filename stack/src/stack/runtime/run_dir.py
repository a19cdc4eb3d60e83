"""The run folder: everything that the running stack writes."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from stack.settings import DEFAULT_RUN_DIR, ROOT, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console

MARKER: Final = ".background-tracing-stack"
"""The file by which a run folder is known."""
CONTENT: Final = (
    "oap",
    "service",
    "log",
    "load",
    "report",
    "verify",
    "verify-killed",
    "compare",
    "incidents",
    "broker",
    "parts.json",
    "supervisord.conf",
    "settings.json",
    "secrets.json",
    "alarm-secret",
    "ui",
    "socket",
)
"""What `clean` deletes. Files of anybody else are left alone."""
KEPT: Final = ("lock", "supervisord.pid", "supervisor.sock", "uv", "jars", MARKER)


def prepare(run_dir: Path) -> None:
    """Make the folder, where only this user may write.

    Raises:
        UsageError: it can't be made, others may write in it, or it has other files in it.
    """
    examine(run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if run_dir == DEFAULT_RUN_DIR:
            run_dir.chmod(0o700)
        marker = run_dir / MARKER
        if not marker.exists():
            marker.write_text("The stack of `make up` keeps its data in this folder; `make clean` deletes it.\n")
    except OSError as error:
        raise UsageError(f"RUN_DIR={run_dir} can't be made or used ({error.strerror}): name another folder") from error
    if stat.S_IMODE(run_dir.stat().st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(f"RUN_DIR={run_dir} can be written by others: name a folder of its own, such as one inside it")


def examine(run_dir: Path) -> None:
    """Check that the folder belongs to the stack alone; where it does not exist, check the folders above it.

    Raises:
        UsageError: somebody else uses the folder, or could replace it.
    """
    try:
        _examine_above(run_dir)
        found = run_dir.stat()
        names = {path.name for path in run_dir.iterdir()}
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise UsageError(f"RUN_DIR={run_dir} is no folder: name another one") from error
    except OSError as error:
        raise UsageError(f"RUN_DIR={run_dir} can't be made or used ({error.strerror}): name another folder") from error
    if found.st_uid != os.geteuid():
        raise UsageError(f"RUN_DIR={run_dir} belongs to another user: name another folder")
    if not os.access(run_dir, os.W_OK | os.X_OK):
        raise UsageError(f"RUN_DIR={run_dir} is not writable: name another folder")
    before = bool(names & {"lock", "settings.json"}) and names <= {*CONTENT, *KEPT}  # there was no marker once
    ours = MARKER in names or before
    if names and not ours and run_dir != DEFAULT_RUN_DIR:
        raise UsageError(f"RUN_DIR={run_dir} holds other files: name a folder of its own, such as {run_dir}/run")


def _examine_above(run_dir: Path) -> None:
    """Refuse a place where somebody else could put another folder under this name."""
    for folder in run_dir.parents:
        if folder == ROOT:  # whoever may write there changes what runs in any case
            return
        try:
            found = folder.stat()
        except FileNotFoundError:
            continue
        open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        if open_to_all or found.st_uid not in {0, os.geteuid()}:
            who = "everybody may write in" if open_to_all else "another user owns"
            raise UsageError(f"RUN_DIR={run_dir} is in {folder}, which {who}: name a folder in a place of your own")


@contextmanager
def exclusive(run_dir: Path, console: Console) -> Iterator[None]:
    """Let one command at a time change the stack; a second one says that it waits."""
    prepare(run_dir)
    with (run_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("waiting for another `make up` or `make down` to end")
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
