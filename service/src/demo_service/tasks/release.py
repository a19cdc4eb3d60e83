"""Freeing what an error holds as soon as it was handled, without waiting for a garbage collection."""

from __future__ import annotations


def release(error: BaseException | None) -> None:
    """Take the tracebacks off an error that nobody looks at any more, and off all that it came from.

    A traceback holds the frames that it leads through, a frame its variables, and one of those is often the error
    itself: a circle of 39 KB for each failed task. Full collections are rare here (see `app.py`), so nothing may wait
    for one.
    """
    known: set[int] = set()
    left = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in known:
            continue
        known.add(id(one))
        one.__traceback__ = None
        left += (one.__cause__, one.__context__)
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions
