"""Faults of tracing itself: they are logged and counted, and never reach the user's code."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import Counter
from typing import Any, Final

_seen: Counter[tuple[str, str]] = Counter()
_busy: Final = threading.local()


class _Lines(logging.LoggerAdapter[logging.Logger]):
    """Log lines that never raise, whatever handlers and filters of the user's they pass."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ANN401  # as in `logging`
        try:
            super().log(level, msg, *args, stacklevel=2, **kwargs)
        except Exception as error:  # noqa: BLE001  # there is nobody left to tell
            _seen["writing a log line", type(error).__name__] += 1


logger: Final = _Lines(logging.getLogger("skywalking_background"))
"""All that this library says passes here."""


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
    finally:
        _busy.noting = False


def faults() -> dict[str, int]:
    """Count what failed in tracing itself since the process's start, by what it was doing."""
    found: Counter[str] = Counter()
    for (doing, _), count in _seen.items():
        found[doing] += count
    return dict(found)


def cancelled(error: BaseException | None) -> bool:
    """Say whether an error is how asyncio, or Trio, ends a task."""
    if isinstance(error, asyncio.CancelledError):
        return True
    return isinstance(error, getattr(sys.modules.get("trio"), "Cancelled", ()))


def is_order(error: BaseException) -> bool:
    """Say whether an error tells the process, a task or a coroutine to end, and must get there.

    All other errors are those of the work, also where a library does not derive its own from `Exception`.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(is_order(one) for one in error.exceptions)
    return isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)) or cancelled(error)


def safe_text(value: object) -> str:
    """Turn any value into text, even one whose own `__str__` raises."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001  # whatever a user's class does
        return f"<{type(value).__name__} without text>"
