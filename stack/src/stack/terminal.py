"""Printing: where the commands print, and the last lines of a log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from rich.console import Console

if TYPE_CHECKING:
    from pathlib import Path

WIDTH_COLUMNS: Final = 160
"""Where there is no terminal: a log of CI should not break lines at 80."""
FAILURE_LINES: Final = 20
"""How many lines of a log are shown when something fails."""


def new_console() -> Console:
    """Return a console for standard output: colours and live lines on a terminal, plain lines elsewhere."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_COLUMNS)


def last_lines(path: Path, count: int = FAILURE_LINES, *, start_byte: int = 0) -> str:
    """Return the last lines of a text file, from `start_byte` on; an empty text when there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(start_byte)
            return "\n".join(file.read().decode(errors="replace").splitlines()[-count:])
    except FileNotFoundError:
        return ""
