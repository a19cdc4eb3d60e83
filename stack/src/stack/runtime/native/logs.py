"""`make logs`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from stack._console import new_console
from stack._native import find
from stack._parts import parts
from stack._progress import tail
from stack._supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stack._settings import Settings

PAUSE: Final = 0.3
"""s between two looks at a log that is followed."""


def logs(settings: Settings, name: str | None, lines: int, *, follow: bool) -> int:
    """Print the last lines of one part's log or of all, and go on with what comes if asked to."""
    console = new_console()
    supervisor = Supervisor(settings.run_dir)
    chosen = [find(settings, name)] if name else parts(settings)
    files = {part.name: supervisor.log_of(part.name) for part in chosen}
    width = max(map(len, files))

    def show(part: str, line: str) -> None:
        prefix = "" if name else f"{part:<{width}} | "
        console.print(prefix + line, markup=False, soft_wrap=True)

    followers = [_Follower(part, path) for part, path in files.items()]
    for part, path in files.items():
        for line in tail(path, lines).splitlines():
            show(part, line)
    if not any(path.exists() for path in files.values()):
        console.print("no logs yet: `make up` starts the stack")
    try:
        while follow:
            for follower in followers:
                follower.show_new(show)
            time.sleep(PAUSE)
    except KeyboardInterrupt:
        pass
    return 0


class _Follower:
    """Where in one log file we are."""

    def __init__(self, part: str, path: Path) -> None:
        self.part = part
        self.path = path
        self.position = path.stat().st_size if path.exists() else 0
        self.unfinished = b""

    def show_new(self, show: Callable[[str, str], None]) -> None:
        """Show the lines that were finished since the last look."""
        if not self.path.exists():
            return
        if self.path.stat().st_size < self.position:  # rotated
            self.position = 0
        with self.path.open("rb") as file:
            file.seek(self.position)
            *lines, self.unfinished = (self.unfinished + file.read()).split(b"\n")
            self.position = file.tell()
        for line in lines:
            show(self.part, line.decode(errors="replace"))
