"""Segments whose first spans are known beforehand: opened and closed in one step, and made of few objects.

The agent builds a span in a dozen calls, each of which asks again what is known here: a request begins with the same
two spans, a task with one. What comes of it are the agent's own classes: its plugins put their spans below these.

A task's span stays open for long, and the garbage collector goes through all that belongs to it again and again. So
what most tasks never need is made when somebody asks for it. And nothing here refers to itself in a circle, as the
agent's own contexts and spans do: what is finished is freed at once, without the collector.
"""

from __future__ import annotations

import time
from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from skywalking import Component, Kind, Layer, config
from skywalking.agent import agent
from skywalking.trace import ID
from skywalking.trace.context import PrimaryEndpoint, SpanContext, _spans, _spans_set
from skywalking.trace.segment import Segment, SegmentRef, _NewID
from skywalking.trace.span import Span
from skywalking.trace.tags import Tag
from skywalking.utils.counter import Counter

from skywalking_background._ids import new_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from skywalking_background._sw8 import Caller


class Context(SpanContext):  # type: ignore[misc]  # the agent has no types
    """The context of one segment.

    Args:
        endpoint: what the segment's log lines name as their endpoint.
        parent: the place that the segment goes on from; without one it begins a trace.
    """

    profile_status = None
    create_time = 0

    def __init__(self, endpoint: str, parent: Origin | Caller | None = None) -> None:
        self.endpoint = endpoint
        self.parent = parent
        self.trace_id = new_id() if parent is None else parent.trace_id
        self.segment_id = new_id()
        self._correlation = {} if parent is None else dict(parent.correlation)
        self._nspans = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # what the agent keeps there
        made = _LATE_OF_CONTEXT[name](self) if name in _LATE_OF_CONTEXT else object.__getattribute__(self, name)
        setattr(self, name, made)
        return made

    def open(self, *spans: Span) -> None:
        """Start the spans, the outermost first, as the only ones of the running code."""
        now = int(time.time() * 1000)
        for span in spans:
            span._depth = 1  # noqa: SLF001  # what the agent's `start` sets
            span.start_time = now
        self._nspans = len(spans)
        _spans_set(list(spans))

    def close(self, *spans: Span) -> None:
        """Stop the same spans, the innermost first; the segment is finished when no other span is open in it."""
        if self._nspans != len(spans):
            for span in spans:
                span.stop()
            return
        now = int(time.time() * 1000)
        for span in spans:
            span._depth = 0  # noqa: SLF001
            span.end_time = now
        self._nspans = 0
        segment = self.segment
        del self.segment  # who asks for it later gets its like, without the spans
        segment.spans.extend(spans)
        _spans_set([span for span in _spans() if span not in spans])
        agent.archive_segment(segment)


class _Segment(Segment):  # type: ignore[misc]  # the agent has no types
    is_size_limited = False
    timestamp = 0  # nobody reads it

    def __init__(self, context: Context) -> None:
        self.segment_id = ID(context.segment_id)
        # The agent's mark for a trace that begins here: the first header that a plugin finds may still replace it.
        self.related_traces = [(_NewID if context.parent is None else ID)(context.trace_id)]
        self.spans: list[Span] = []


def _numbering(context: Context) -> Counter:
    counter = Counter()
    counter.value = context._nspans - 1  # noqa: SLF001  # the numbers that `open`'s spans have
    return counter


_LATE_OF_CONTEXT: Final[dict[str, Callable[[Context], Any]]] = {
    "segment": _Segment,
    "_sid": _numbering,
    # Not the segment's first span itself, which refers to the context.
    "primary_endpoint": lambda context: PrimaryEndpoint(Span(None, op=context.endpoint, kind=Kind.Local)),
}


class TaskSpan(Span):  # type: ignore[misc]  # the agent has no types
    """The first span of a segment that goes on from its context's parent."""

    sid = 0
    pid = -1
    peer = None
    kind = Kind.Local
    component = Component.FastAPI
    layer = Layer.Unknown
    inherit = Component.Unknown
    end_time = 0
    error_occurred = False

    def __init__(self, context: Context, name: str) -> None:
        self.context = context
        self.op = name

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # what the agent keeps there
        made = _LATE_OF_SPAN[name](self) if name in _LATE_OF_SPAN else object.__getattribute__(self, name)
        setattr(self, name, made)
        return made


_LATE_OF_SPAN: Final[dict[str, Callable[[TaskSpan], Any]]] = {
    "tags": lambda _span: defaultdict(list),
    "logs": lambda _span: [],
    "refs": lambda span: [] if span.context.parent is None else [span.context.parent],
}


class Origin(SegmentRef):  # type: ignore[misc]  # the agent has no types
    """A place in a trace where new segments go on from: the reference that each of them gets.

    One object for all of them, so that they name the endpoint as it is known in the end.
    """

    trace_id: str
    correlation: dict[str, str]
    ref_type = "CrossThread"
    client_address = ""
    service = property(lambda _self: config.agent_name)
    service_instance = property(lambda _self: config.agent_instance_name)

    def __init__(self, span: Span, strand: int | None = None) -> None:
        context = span.context
        if isinstance(context, Context):
            self.trace_id, self.segment_id = context.trace_id, context.segment_id
        else:
            self.trace_id = str(context.segment.related_traces[0])
            self.segment_id = str(context.segment.segment_id)
        self.span_id = span.sid
        self.endpoint = span.op
        self.correlation = context._correlation  # noqa: SLF001  # what the caller's headers brought along
        self.strand = strand
        """The asyncio task or thread that may put spans into the same segment: everybody else may outlive it."""


class _Unsampled(Origin):
    def __init__(self) -> None:
        self.trace_id = ""
        self.strand = None


UNSAMPLED: Final = _Unsampled()
"""The origin of what is not to be traced."""


class _Tag(Tag):  # type: ignore[misc]  # the agent has no types
    def __init__(self, key: str, value: str) -> None:
        self.key = key
        self.val = value


def set_tag(span: Span, key: str, value: object) -> None:
    """Tag an agent span without a class for every key."""
    span.tags[key] = _Tag(key, str(value))


@lru_cache(maxsize=256)
def _shared_tag(key: str, value: object) -> _Tag:
    return _Tag(key, str(value))


def set_common_tag(span: Span, key: str, value: object) -> None:
    """Tag a span with one of a few values: all spans share the tag, of which each would keep one in memory."""
    span.tags[key] = _shared_tag(key, value)
