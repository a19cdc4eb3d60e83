"""What the service writes on its spans, beyond what the tracing library does by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skywalking.trace.context import get_context
from skywalking.trace.tags import Tag
from skywalking_background import background_span, current_trace_id

if TYPE_CHECKING:
    from collections.abc import Mapping


def tag(key: str, value: object) -> None:
    """Tag the span that this code runs in, if there is one."""
    if current_trace_id() is not None:
        item = Tag(value)
        item.key = key
        get_context().active_span.tag(item)


def record_failed(name: str, began: float, error: Exception, tags: Mapping[str, object]) -> None:
    """Add a failed span that began in the past (`time.time`): whether it deserved one was not known before."""
    span = background_span(name, tags=tags)
    span.__enter__()
    if current_trace_id() is not None:
        get_context().active_span.start_time = int(began * 1000)
    span.__exit__(type(error), error, error.__traceback__)
