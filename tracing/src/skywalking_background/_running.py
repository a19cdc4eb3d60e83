"""Which tasks run: their open spans, for whoever looks at them now and then.

A task's span enters when it opens and leaves when it closes, each by one step into a dictionary: no object of its own
for a task that nobody has looked at yet, and none that the garbage collector would go through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from skywalking_background._faults import cancelled, logger, safe_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from skywalking_background._light_spans import TaskSpan

S = TypeVar("S")


LIMIT: Final = 50_000
"""Open tasks that one observer keeps; what exceeds them is counted and not watched."""


class Watch(Generic[S]):
    """The open tasks as one observer knows them: those that it has not looked at yet, and those that it has.

    Args:
        purpose: what the observer does, for the log line when there are too many.
        gone: called when a task that is known ends, by whoever ends it: with what `take` noted, and the error. Without
            it nobody needs to know of the end, and no task is known.
        moved: called with two segment ids when open spans go on in the second of them.
    """

    def __init__(
        self,
        purpose: str,
        gone: Callable[[TaskSpan, S, BaseException | None], object] | None = None,
        moved: Callable[[str, str], object] = lambda _old, _new: None,
    ) -> None:
        self.purpose = purpose
        self.gone = gone
        self.moved = moved
        self.fresh: dict[TaskSpan, None] = {}
        self.known: dict[TaskSpan, S] = {}
        self.missed = 0

    def take(self, state: S, began_before: float = float("inf"), most: int = LIMIT) -> list[TaskSpan]:
        """Move the fresh tasks that began before a time (ms since the epoch) to the known ones, and return them.

        At most so many of them: the others stay fresh.
        Tasks end meanwhile, in other threads. So a task is known before it leaves the fresh ones: what does not find it
        there any more has ended.
        """
        taken: list[TaskSpan] = []
        old = [span for span in list(self.fresh) if span.start_time < began_before]  # a clock may be put back: no order
        for span in old:
            if len(taken) >= most:
                break
            if self.gone is None:
                if self.fresh.pop(span, span) is None:
                    taken.append(span)
                continue
            if len(self.known) >= LIMIT:
                self.fresh.pop(span, None)
                self._miss()
                continue
            self.known[span] = state
            if self.fresh.pop(span, span) is span:
                self.known.pop(span, None)
            else:
                taken.append(span)
        return taken

    def _miss(self) -> None:
        self.missed += 1
        if str(self.missed).rstrip("0") == "1":
            text = "%d tasks run, more are not watched for %s (number %d)"
            logger.warning(text, LIMIT, self.purpose, self.missed)


_watches: tuple[Watch[Any], ...] = ()
_begin: Callable[[], object] = bool
_begun = False


def begun(span: TaskSpan) -> None:
    """Take note of a task's begin: called with each, so it does next to nothing."""
    for watch in _watches:
        watch.fresh[span] = None
    if not _begun:
        _wake()


def ended(span: TaskSpan, error: BaseException | None) -> None:
    """Take note of its end, before its segment is handed over."""
    for watch in _watches:
        if watch.fresh.pop(span, span) is None or watch.gone is None:
            continue
        if (state := watch.known.pop(span, None)) is not None:
            watch.gone(span, state, error)


def moved(old: str, new: str) -> None:
    """Take note that the open spans of a segment go on in another one."""
    for watch in _watches:
        watch.moved(old, new)


def _wake() -> None:
    global _begun  # noqa: PLW0603  # once per process
    _begun = True
    if _watches:
        _begin()


def watch_by(watches: tuple[Watch[Any], ...], begin: Callable[[], object]) -> None:
    """Have these watch all tasks from now on; `begin` is called before the first of them, and makes sure of a thread.

    In a forked process too, where what was open belongs to its parent.
    """
    global _watches, _begin, _begun  # one registry per process
    _watches, _begin, _begun = watches, begin, False


def task_id(span: TaskSpan, segment_id: str = "") -> str:
    """Name a task: by its tag `task.id`, or by the segment that it is, if the caller knows it already."""
    tag = (span.made("tags") or {}).get("task.id")
    last = tag[-1] if isinstance(tag, list) and tag else tag
    return safe_text(getattr(last, "val", "")) or segment_id or span.place().segment_id


def outcome(span: TaskSpan, error: BaseException | None) -> str:
    """Say how a task has ended: by its tag `task.outcome`, or by the error that left it."""
    tag = (span.made("tags") or {}).get("task.outcome")
    if tag is not None and not isinstance(tag, list):
        return safe_text(tag.val)
    if cancelled(error):
        return "cancelled"
    return "failed" if error is not None or span.error_occurred else "ended"
