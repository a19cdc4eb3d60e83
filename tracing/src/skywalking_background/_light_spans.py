"""Spans made of few objects, and tags without a class each.

The agent makes a dozen objects for each span, and a request begins with the same two, a task with one. A task's span
stays open for long, and the garbage collector goes through all that belongs to it again and again: so what most spans
of a kind never need is shared, or made when somebody asks for it. They are spans of the agent's own classes all the
same: its plugins put their spans below these.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from skywalking_background._faults import safe_text
from skywalking_background._ids import new_id
from skywalking_background._internals import (
    Component,
    EntrySpan,
    Kind,
    Layer,
    NoopContext,
    NoopSpan,
    SegmentRef,
    Span,
    Tag,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from skywalking_background._internals import SpanContext

TASK_ADDRESS: Final = "background-task:1"
"""What a reference to this process's own request gives as the address that was called.

OAP from 10.2 on takes what is called without an address off its list of endpoints. `oap/config/gateways.yml` tells it
that nobody stands there (docs/upstream-last-ping.md).
"""


_naming = threading.Lock()


def _begin() -> None:
    global _naming  # noqa: PLW0603  # another thread of the parent may have held it
    _naming = threading.Lock()


os.register_at_fork(after_in_child=_begin)


class LightSpan:
    """Makes a span out of few objects: what most spans of its kind never have is shared, or made on demand."""

    pid = -1
    peer: str | None = None
    layer = Layer.Unknown
    inherit = Component.Unknown
    end_time = 0
    error_occurred = False
    segment_id: str | None = None
    """Its segment's, if that was named before there was a context."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # what the agent keeps there
        if name not in _ON_DEMAND:
            raise AttributeError(name)
        made = self.__dict__.setdefault(name, _ON_DEMAND[name](self))  # threads may ask at once
        if name == "context" and self.segment_id is not None:
            made.__dict__.setdefault("segment_id", self.segment_id)
        return made

    def made(self, name: str) -> Any:  # noqa: ANN401
        """Return an attribute if it was made, else `None`; a look into `__dict__` would make one, which stays."""
        try:
            return object.__getattribute__(self, name)
        except AttributeError:
            return None


_ON_DEMAND: Final[dict[str, Callable[[Any], Any]]] = {
    "context": lambda span: span.parent.go_on(span.op),
    "tags": lambda _span: defaultdict(list),
    "logs": lambda _span: [],
    "refs": lambda span: [] if span.context.parent is None or span.sid else [span.context.parent],
}


class Place(NamedTuple):
    """Where a task's span will be, and what it goes on from."""

    trace_id: str
    segment_id: str
    parent: SegmentRef | None
    endpoint: str


class TaskSpan(LightSpan, Span):  # type: ignore[misc]  # the agent has no types
    """The first span of a segment that goes on from its context's parent.

    Args:
        context: the segment's, or the place that it goes on from: of that the context is made when somebody asks for
            it, which of most tasks nobody does before their end.
        name: the operation name.
        now: when it begins, in ms.
    """

    sid = 0
    kind = Kind.Local
    component = Component.FastAPI
    strand: object = None
    """The asyncio task or thread that may put spans into the same segment: everybody else may outlive it."""

    def __init__(self, context: SpanContext | SegmentRef, name: str, now: int) -> None:
        if isinstance(context, SegmentRef):
            self.parent = context
        else:
            self.context = context
        self.op = name
        self.start_time = now
        self._depth = 1  # started
        # Now: as late attributes they would cost each task a whole dictionary.
        self.segment_id = None
        self.meter = None
        self.queued_since = self.ran_from = 0

    def place(self) -> Place:
        """Say where it will be, in any thread; without the context, which would stay with the task until its end."""
        context = self.made("context")
        if context is None:
            with _naming:
                segment_id = self.segment_id = self.segment_id or new_id()
            context = self.made("context")
            if context is None:
                return Place(self.parent.trace_id, segment_id, self.parent, self.op)
            context.__dict__.setdefault("segment_id", segment_id)  # it was made meanwhile
        return Place(context.trace_id, context.segment_id, context.parent, context.endpoint)


class RequestSpan(LightSpan, EntrySpan):  # type: ignore[misc]  # the agent has no types
    """A request's entry span. What outlives the request goes on from it."""

    sid = 0
    kind = Kind.Entry
    component = Component.FastAPI
    layer = Layer.Http
    strand = None
    _max_depth = 1

    def __init__(self, context: SpanContext, path: str, now: int, origin: SegmentRef) -> None:
        self.context = context
        self.op = path
        self.start_time = now
        self._depth = 1
        self.origin = origin


class HandlingSpan(LightSpan, Span):  # type: ignore[misc]  # the agent has no types
    """What the framework does between a request's first line and the last byte of its response."""

    sid = 1
    pid = 0
    kind = Kind.Local
    component = Component.FastAPI
    strand = None

    def __init__(self, entry: RequestSpan, name: str) -> None:
        self.context = entry.context
        self.op = name
        self.start_time = entry.start_time
        self._depth = 1
        self.origin = entry.origin  # tasks hang below the request, not below its handling


class Part(LightSpan, Span):  # type: ignore[misc]  # the agent has no types
    """What stands in a cut segment for a span that goes on."""

    kind = Kind.Local

    def __init__(self, span: Span, name: str, now: int) -> None:
        self.sid, self.pid, self.component = span.sid, span.pid, span.component
        self.op = f"{name} (part)"
        self.start_time, self.end_time = span.start_time, now
        self.refs = list(span.refs)


class LostSpan(LightSpan, Span):  # type: ignore[misc]  # the agent has no types
    """What stands for a task whose process was gone before its end."""

    sid = 0
    kind = Kind.Local
    component = Component.FastAPI
    peer = ""
    error_occurred = True

    def __init__(self, name: str, start: int, end: int, tags: dict[str, str]) -> None:
        self.op = name
        self.start_time, self.end_time = start, max(start, end)
        self.tags = {key: OwnTag(key, value) for key, value in tags.items()}
        self.logs: list[Any] = []
        self.refs: list[Any] = []


def noop_span() -> NoopSpan:
    """Make a span below which nothing is traced."""
    return NoopSpan(NoopContext())


class OwnTag(Tag):  # type: ignore[misc]  # the agent has no types
    """A tag without a class for its key."""

    def __init__(self, key: str, value: str) -> None:
        self.key = key
        self.val = value


class CommonTag(OwnTag):
    """A tag with one of a few values: all spans share it, of which each would keep one in memory."""


def set_tag(span: Span, key: str, value: object) -> None:
    """Tag an agent span without a class for every key."""
    span.tags[key] = OwnTag(key, safe_text(value))


@lru_cache(maxsize=256)
def common_tag(key: str, value: object) -> CommonTag:
    """Return the tag that all spans share."""
    return CommonTag(key, str(value))
