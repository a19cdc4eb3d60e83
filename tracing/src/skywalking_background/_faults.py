"""Faults of tracing itself: they are logged and counted, and never reach the user's code."""

from __future__ import annotations

import logging
import sys
import threading
from collections import Counter
from typing import Final

logger = logging.getLogger("skywalking_background")

_seen: Counter[tuple[str, str]] = Counter()
_busy: Final = threading.local()


def note(doing: str) -> None:
    """Count the exception that is being handled, and log it: the first of its kind, the 10th, the 100th, ….

    Args:
        doing: what failed, as in "opening a span".
    """
    if getattr(_busy, "noting", False):
        return  # the log line itself met the fault: the agent reads along with every logger
    _busy.noting = True
    try:
        kind = (doing, type(sys.exception()).__name__)
        _seen[kind] += 1
        count = _seen[kind]
        if str(count).rstrip("0") == "1":
            logger.warning(
                "tracing failed at %s (number %d); the request or task goes on without",
                doing,
                count,
                exc_info=sys.exception(),
            )
    except Exception:  # noqa: BLE001, S110  # a logger of the user's that raises: there is nobody left to tell
        pass
    finally:
        _busy.noting = False


def faults() -> dict[str, int]:
    """Count what failed in tracing itself since the process's start, by what it was doing."""
    found: Counter[str] = Counter()
    for (doing, _), count in _seen.items():
        found[doing] += count
    return dict(found)


def safe_text(value: object) -> str:
    """Turn any value into text, even one whose own `__str__` raises."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001  # whatever a user's class does
        return f"<{type(value).__name__} without text>"
