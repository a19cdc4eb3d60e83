"""Where the commands print."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console

WIDTH: Final = 160
"""Columns where there is no terminal: a log of CI should not break lines at 80."""


def new_console() -> Console:
    """Return a console for standard output: colours and live lines on a terminal, plain lines elsewhere."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
