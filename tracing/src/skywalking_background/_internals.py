"""All that touches private parts of the SkyWalking agent (1.3).

The rest of the library knows the agent by these names only. `check()` compares them with what the agent really has: a
newer agent that changed one is told apart by one sentence instead of by wrong traces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from skywalking import Component, Kind, Layer, Log, LogItem, config, sampling
from skywalking.agent import agent
from skywalking.trace import ID
from skywalking.trace import context as _context
from skywalking.trace.carrier import Carrier
from skywalking.trace.context import NoopContext, SpanContext
from skywalking.trace.segment import Segment, SegmentRef
from skywalking.trace.span import EntrySpan, ExitSpan, NoopSpan, Span
from skywalking.trace.tags import Tag

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ID",
    "Carrier",
    "Component",
    "EntrySpan",
    "ExitSpan",
    "Kind",
    "Layer",
    "Log",
    "LogItem",
    "NoopContext",
    "NoopSpan",
    "Segment",
    "SegmentRef",
    "Span",
    "SpanContext",
    "Tag",
    "agent",
    "config",
    "inherited_spans",
    "open_spans",
    "sampled",
    "set_open_spans",
    "use_ids",
]

open_spans: Final[Callable[[], list[Any]]] = _context._spans  # noqa: SLF001
"""The spans that the running code is in, the innermost last; the agent keeps them in a context variable."""

_variable: Final[ContextVar[list[Any]]] = vars(_context)["__spans"]


def inherited_spans() -> list[Any] | None:
    """The same list, without making one where there is none."""
    return _variable.get(None)


set_open_spans: Final[Callable[[list[Any]], object]] = _context._spans_set  # noqa: SLF001


def sampled() -> bool:
    """Ask the agent's sampler about a trace that begins here."""
    service = sampling.sampling_service
    return service is None or bool(service.try_sampling())


def use_context_class(made: type[SpanContext]) -> None:
    """Let the agent make contexts of this class for the spans that its plugins open outside of ours."""
    _context.SpanContext = made


def use_ids(new_id: Callable[[], str]) -> None:
    """Let the agent, and with it all of its plugins, take its ids from this function."""

    def make(self: ID, raw_id: str | None = None) -> None:
        self.value = raw_id or new_id()

    ID.__init__ = make
