"""All that touches private parts of the SkyWalking agent (1.3).

The rest of the library knows the agent by these names only. `check()` compares them with what the agent really has: a
newer agent that changed one is told apart by one sentence instead of by wrong traces.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, Final

from skywalking import Component, Kind, Layer, Log, LogItem, config, plugins, sampling
from skywalking.agent import agent
from skywalking.log import sw_logging
from skywalking.protocol.common.Common_pb2 import KeyStringValuePair
from skywalking.protocol.logging.Logging_pb2 import TextLog
from skywalking.trace import ID
from skywalking.trace import context as _context
from skywalking.trace.carrier import Carrier
from skywalking.trace.context import NoopContext, SpanContext
from skywalking.trace.segment import Segment, SegmentRef
from skywalking.trace.span import EntrySpan, ExitSpan, NoopSpan, Span
from skywalking.trace.tags import Tag

from skywalking_background._faults import note, safe_text
from skywalking_background._limits import LOG_CHARS, TAG_VALUE_CHARS, cut, cut_middle

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar

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
    "plugins",
    "sampled",
    "set_open_spans",
    "use_ids",
]

_USERS_LOGGING: Final = {logging.Logger.callHandlers.__code__, logging.Filterer.filter.__code__}

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


def use_safe_values() -> None:
    """Let no value that a plugin or a log line brings raise in the call of the user's that it belongs to.

    Texts that protobuf refuses are replaced and long ones cut; a tag's value that can't be shown is named by its type.
    """
    if Tag.__init__ is _init_tag:
        return
    Tag.__init__ = _init_tag
    sw_logging.TextLog = _safe_text_log
    sw_logging.KeyStringValuePair = _safe_pair
    if (handle := logging.Logger.handle).__module__ == sw_logging.__name__:
        logging.Logger.handle = _contained(handle)  # type: ignore[method-assign]


def _init_tag(self: Tag, val: object) -> None:
    self.val = safe_text(val)


def _safe_text_log(text: str) -> TextLog:
    return TextLog(text=clean(cut_middle(text, LOG_CHARS)))


def _safe_pair(key: str, value: str) -> KeyStringValuePair:
    return KeyStringValuePair(key=clean(key), value=clean(cut(value, TAG_VALUE_CHARS)))


def clean(text: str) -> str:
    r"""Return the text as UTF-8 and databases take it: surrogates and NUL become `\udcff` and `\x00`."""
    return text.encode(errors="backslashreplace").replace(b"\0", rb"\x00").decode()


def _contained(handle: Callable[[logging.Logger, logging.LogRecord], None]) -> Callable[..., None]:
    """Wrap the agent's copy of a log line: what fails in it is not the business of who logs."""

    @functools.wraps(handle)
    def contained(logger: logging.Logger, record: logging.LogRecord) -> None:
        try:
            handle(logger, record)
        except Exception as error:
            frame = error.__traceback__
            while frame is not None:
                if frame.tb_frame.f_code in _USERS_LOGGING:  # in one of the user's own handlers or filters
                    raise
                frame = frame.tb_next
            note("copying a log line")

    return contained


def use_ids(new_id: Callable[[], str]) -> None:
    """Let the agent, and with it all of its plugins, take its ids from this function."""

    def make(self: ID, raw_id: str | None = None) -> None:
        self.value = raw_id or new_id()

    ID.__init__ = make
