"""Showing the logs of the parts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from stack.terminal import last_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rich.console import Console

LOOK_SECONDS: Final = 0.3
"""Time between two looks at a log that is followed."""


def show_logs(console: Console, files: Mapping[str, Path], lines: int, *, names: bool, follow: bool) -> None:
    """Print the last lines of these logs.

    Args:
        console: where they are printed.
        files: the logs by the names of their parts.
        lines: how many of each.
        names: begin each line with the name of its part.
        follow: go on with new lines, until Ctrl+C.
    """
    width = max(map(len, files))

    def show(part: str, line: str) -> None:
        prefix = f"{part:<{width}} | " if names else ""
        console.print(prefix + line, markup=False, soft_wrap=True)

    followers = [_Follower(part, path) for part, path in files.items()]
    for part, path in files.items():
        for line in last_lines(path, lines).splitlines():
            show(part, line)
    if not any(path.exists() for path in files.values()):
        console.print("no logs yet: `make up` starts the stack")
    try:
        while follow:
            for follower in followers:
                follower.show_new(show)
            time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        pass


class _Follower:
    """A position in one log file."""

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
