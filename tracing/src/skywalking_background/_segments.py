"""Segments whose first spans are known beforehand, opened and closed in one step.

The agent builds a span in a dozen calls, each of which asks again what is known here: a request begins with the same
two spans, a task with one. What comes of it are the agent's own objects: its plugins put their spans below these.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from skywalking import config
from skywalking.agent import agent
from skywalking.trace import ID
from skywalking.trace.context import PrimaryEndpoint, SpanContext, _spans, _spans_set
from skywalking.trace.segment import SegmentRef
from skywalking.trace.tags import Tag

if TYPE_CHECKING:
    from skywalking.trace.span import Span


class Context(SpanContext):  # type: ignore[misc]  # the agent has no types
    """The context of one segment."""

    def open(self, *spans: Span) -> None:
        """Start the spans, the outermost first, as the only ones of the running code."""
        now = int(time.time() * 1000)
        for span in spans:
            span._depth = 1  # noqa: SLF001  # what the agent's `start` sets
            span.start_time = now
        self._nspans = len(spans)
        self._sid.value = len(spans) - 1
        self.primary_endpoint = PrimaryEndpoint(spans[0])
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
        self.segment.spans.extend(spans)
        _spans_set([span for span in _spans() if span not in spans])
        agent.archive_segment(self.segment)


class Origin(SegmentRef):  # type: ignore[misc]  # the agent has no types
    """Where new segments come from: the reference that each of them gets.

    One object for all of them, so that they name the endpoint as it is known in the end.
    """

    ref_type = "CrossThread"
    client_address = ""
    service = property(lambda _self: config.agent_name)
    service_instance = property(lambda _self: config.agent_instance_name)

    def __init__(self, context: SpanContext, span: Span) -> None:
        segment = context.segment
        self.trace_id = str(segment.related_traces[0])
        self.segment_id = str(segment.segment_id)
        self.span_id = span.sid
        self.endpoint = span.op
        self.correlation = context._correlation  # noqa: SLF001  # what the caller's headers brought along

    def lead_to(self, context: SpanContext, span: Span) -> None:
        """Make a segment, whose first span this is, a part of the same trace."""
        span.refs.append(self)
        context.segment.related_traces = [ID(self.trace_id)]
        context._correlation = dict(self.correlation)  # noqa: SLF001


class _Unsampled(Origin):
    def __init__(self) -> None:
        self.trace_id = ""


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
