"""Making the next start of OAP faster, once all parts answer."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import psutil
from oap_embedded import cache_directory

from stack.runtime.processes import RUN_DIR_VARIABLE

if TYPE_CHECKING:
    from pathlib import Path

    from stack.settings import Settings

MEMORY_MEGABYTES: Final = 600
"""So much must be free: what makes it takes 500 MB for some seconds."""


def quicken_next_start(settings: Settings) -> None:
    """Let Java's class-data archive of OAP be made in the background, at the lowest priority, where there is none.

    It goes on when this command has ended; `make down` ends it. What comes of it is in `log/class-data.log`.
    """
    data, log = settings.run_dir / "oap", settings.run_dir / "log" / "class-data.log"
    if not (data / "classes.txt").exists() or psutil.virtual_memory().available < MEMORY_MEGABYTES * 2**20:
        return
    caches = {"OAP_EMBEDDED_CACHE": str(cache_directory().absolute()), RUN_DIR_VARIABLE: str(settings.run_dir)}
    with suppress(OSError), log.open("wb") as output:  # the stack is up, with it or without
        subprocess.Popen(  # noqa: S603  # our own command line
            command_for(data),
            env={**os.environ, **caches},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # it does not end with the terminal
        )


def command_for(data: Path) -> list[str]:
    """Return the command that makes the archive of what OAP, with this data folder, has loaded."""
    return [sys.executable, "-m", "oap_embedded", "archive", "--data", str(data)]
