"""The console's log."""

from __future__ import annotations

import logging
from typing import Final

logger: Final = logging.getLogger("tracing_console")

_warned: Final[set[str]] = set()


def warn_once(message: str) -> None:
    """Log a warning, unless it was logged before: pages refresh every few seconds."""
    if message not in _warned:
        _warned.add(message)
        logger.warning("%s", message)
