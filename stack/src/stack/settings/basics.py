"""What every other module needs to know first: where the repository is, and how a wrong request is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[4]
"""The top of the repository."""
HOST: Final = "127.0.0.1"
"""Nothing of the stack listens anywhere else: it has no passwords."""


class UsageError(Exception):
    """One sentence that says what was asked for and why it can't be done."""
