"""Segments: which spans are open in each, when it is finished, and what goes on from it.

These stand in for the agent's own contexts, also below the spans of its plugins. Theirs can't go on once a segment is
sent, never send one before its last span has ended, and refer to themselves in circles: what is finished here is freed
at once, without the garbage collector.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from skywalking_background._faults import note
from skywalking_background._ids import new_id
from skywalking_background._internals import (
    Component,
    Kind,
    NoopContext,
    NoopSpan,
    Segment,
    SegmentRef,
    Span,
    SpanContext,
    agent,
    clean,
    config,
    open_spans,
    set_open_spans,
)
from skywalking_background._light_spans import TASK_ADDRESS, Part, noop_span
from skywalking_background._limits import SEGMENT_SECONDS, SEGMENT_SPANS
from skywalking_background._running import moved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_lock = threading.Lock()
"""Guards which spans are open in which context: threads share them, and the reporter's closes what waits too long."""

_waiting: Final[dict[int, Context]] = {}
"""By their `id`, the contexts with a finished span that waits for the end of the work around it."""

_begin: Callable[[], object] = bool
_begun = False


class Context(SpanContext):  # type: ignore[misc]  # the agent has no types
    """The context of one segment, which is the segment too as long as it is open.

    Args:
        endpoint: what the segment's log lines name as their endpoint; by default its first span's name.
        parent: the place that the segment goes on from; without one it begins a trace.
        spans: how many spans it begins with, which are open already.
    """

    profile_status = None
    create_time = 0
    is_size_limited = False
    timestamp = 0  # nobody reads it
    ended = False
    """Whether its segment was handed to the reporter."""
    since = 0.0
    """When the first span was finished that still waits, in seconds of `time.monotonic()`."""
    spans: Any = ()
    """The finished spans."""
    segment_id: str
    _correlation: dict[str, str]
    """What the caller's headers brought along, for all that this segment calls."""
    opened: list[Any] | None = None
    """The open spans, as soon as one was opened below those that the context began with."""

    def __init__(self, endpoint: str = "", parent: SegmentRef | None = None, spans: int = 0) -> None:
        self.endpoint = endpoint
        self.parent = parent
        self.trace_id = new_id() if parent is None else parent.trace_id
        if parent is not None and parent.correlation:
            self._correlation = dict(parent.correlation)
        self._nspans = self._numbered = spans  # open, and made

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # what the agent keeps there
        if name in {"segment", "primary_endpoint"}:
            return self
        if name == "segment_id":  # most tasks need it at their end only; threads may ask at once
            return self.__dict__.setdefault(name, new_id())
        if name == "_correlation":
            self._correlation = {}
            return self._correlation
        raise AttributeError(name)

    # What the agent asks its segments for.

    @property
    def related_traces(self) -> list[str]:
        """The trace's id, as the agent's plugins look for it."""
        return [self.trace_id]

    def relate(self, trace_id: object) -> None:
        """Join the trace that the first header names which a plugin found; a trace that goes on stays what it is."""
        if self.parent is None:
            self.trace_id = str(trace_id)

    # What the agent asks its `PrimaryEndpoint` for.

    def get_name(self) -> str:
        """Name the endpoint of the segment's log lines, as protobuf takes it."""
        return clean(self.endpoint)

    def set_primary_endpoint(self, span: Span) -> None:
        """Stay with the first endpoint."""

    @staticmethod
    def name_endpoint(entry: Span, endpoint: str) -> None:
        """Name a request's segment, and its entry span, as its route is known in the end."""
        with _lock:
            context = entry.context  # cut meanwhile, it is another one
            context.endpoint = entry.op = endpoint
            # The name will do: no circle, and no request kept by what outlives it.
            context.__dict__.pop("primary_endpoint", None)

    # The life of its spans.

    @staticmethod
    def close(*spans: Span) -> None:
        """Stop the spans that a context began with, the innermost first.

        The segment is finished when no other span is open in it. Which spans the running code is in afterwards is the
        caller's to say.
        """
        now = int(time.time() * 1000)
        for span in spans:
            span._depth = 0  # noqa: SLF001  # what the agent's `stop` sets
            span.end_time = max(now, span.start_time)  # a clock may be put back
        with _lock:
            context = spans[0].context
            if context._nspans == len(spans) and not context.spans:  # noqa: SLF001  # nearly all
                context.ended = True
                if context.opened is not None:
                    context.opened = None  # no circle: they know their context
                finished: Segment | None = _Segment(context, spans)
            else:
                finished = context._finish(spans)  # noqa: SLF001
        if finished is not None:
            _archive(finished)

    def new_span(self, parent: Span | None, SpanType: type, **kwargs: Any) -> Span:  # noqa: ANN401, N803  # the agent's
        """Make a span below the parent: in its segment while it is open, afterwards in one that goes on from it."""
        try:
            return _new_span(self, parent, SpanType, **kwargs)
        except Exception:  # noqa: BLE001  # a plugin asks, within a call of the user's
            note("opening a span")
            return noop_span()

    def start(self, span: Span) -> None:
        """Take the span in: it was made and begins now. Called by the span."""
        try:
            self._start(span)
        except Exception:  # noqa: BLE001  # a plugin's span, within a call of the user's
            note("starting a span")
            span.context = NoopContext()  # its end is not counted either

    def _start(self, span: Span) -> None:
        with _lock:
            context = self
            if self.ended:  # between the two its segment was sent
                origin = Origin(self, max(span.pid, 0), self.endpoint)
                context = span.context = Context(span.op, origin, 1)
                span.sid, span.pid = 0, -1
                span.refs.append(origin)
            else:
                self._nspans += 1
                if self._nspans > 1:
                    if self.opened is None:
                        self.opened = [one for one in open_spans() if one.depth and one.context is self]
                    self.opened.append(span)
        if not context.endpoint or (span.kind is Kind.Entry and span.sid == 0):
            context.endpoint = span.op
        spans = open_spans()
        if span not in spans:
            set_open_spans([*spans, span])

    def stop(self, span: Span) -> bool:
        """Take note of the span's end; `True` if the segment is finished with it. Called by the span."""
        try:
            span.end_time = max(int(time.time() * 1000), span.start_time)  # a clock may be put back
            set_open_spans([one for one in open_spans() if one is not span])
            with _lock:
                context = span.context  # cut meanwhile, it is another one
                finished = context._finish((span,))  # noqa: SLF001
                if finished is None and len(context.spans) >= SEGMENT_SPANS:
                    finished = context._cut()  # noqa: SLF001
            if finished is not None:
                _archive(finished)
            elif not _begun:
                _watch()
        except Exception:  # noqa: BLE001  # as above
            note("stopping a span")
            return False
        ended: bool = context.ended
        return ended

    def _finish(self, spans: tuple[Span, ...]) -> Segment | None:
        self._nspans -= len(spans)
        if self.spans:
            self.spans.extend(spans)
        else:
            self.spans = list(spans)
        if self._nspans <= 0:
            return None if self.ended else self._end()
        if self.opened is not None:
            self.opened = [one for one in self.opened if one not in spans]
        if not self.since:
            self.since = time.monotonic()
            _waiting[id(self)] = self
        return None

    def _end(self) -> Segment | None:
        self.ended = True
        self.opened = None  # no circle: they know their context
        if self.since:
            _waiting.pop(id(self), None)
        finished = _Segment(self, self.spans)
        self.spans = ()
        return finished

    def _cut(self) -> Segment | None:
        """Send what is finished. The spans that are still open go on in a segment of their own.

        In their place the finished segment gets parts, under the same numbers: a part begins with the span and ends
        now. The span itself keeps its name and its whole length, so that OAP's figures for it stay true.
        A call to another service that is under way has told its number away: it stays, and the segment waits for it.
        """
        moving: list[Span] = []
        for span in self.opened or ():
            if span.kind is not Kind.Exit and (span.pid < 0 or any(span.pid == one.sid for one in moving)):
                moving.append(span)
        self.since = 0.0
        _waiting.pop(id(self), None)
        if not moving or moving[0].sid:
            return None
        rest = Context.__new__(Context)
        rest.__dict__.update(self.__dict__, segment_id=new_id(), spans=(), opened=moving, _nspans=len(moving))
        moved(self.segment_id, rest.segment_id)
        now = int(time.time() * 1000)
        endpoint = self.primary_endpoint.get_name()  # a request's, before its entry span has it
        self.__dict__.pop("primary_endpoint", None)
        self.spans.extend(Part(span, endpoint if span.kind is Kind.Entry else span.op, now) for span in moving)
        for span in moving:
            span.context = rest
            if origin := span.__dict__.get("origin"):
                origin.segment_id = rest.segment_id
        self.opened = [one for one in self.opened or () if one not in moving]
        self._nspans -= len(moving)
        return self._end() if self._nspans <= 0 else None


def _new_span(context: Context, parent: Span | None, span_class: type, **kwargs: Any) -> Span:  # noqa: ANN401
    origin = None
    if parent is None:
        if context.ended or context._numbered:  # noqa: SLF001  # somebody kept it
            origin = Origin(context, 0, context.endpoint)
    elif isinstance(parent, NoopSpan):
        return NoopSpan(parent.context)
    elif not parent.depth:
        origin = origin_of(parent)
    else:
        context = parent.context
    if origin is not None:
        context = Context(kwargs["op"], origin)
    with _lock:
        number = context._numbered  # noqa: SLF001
        context._numbered += 1  # noqa: SLF001
    below = parent.sid if parent is not None and origin is None else -1
    span = span_class(context=context, sid=number, pid=below, **kwargs)
    if origin is not None:
        span.refs.append(origin)
    return span


def _archive(segment: Segment) -> None:
    try:
        agent.archive_segment(segment)
    except Exception:  # noqa: BLE001
        note("handing over a segment")


def _watch() -> None:
    global _begun  # noqa: PLW0603  # once per process
    _begun = True
    _begin()


def send_what_waits(now: float | None = None) -> None:
    """Cut the segments in which a finished span waits too long for the work around it; called now and then."""
    due = (time.monotonic() if now is None else now) - SEGMENT_SECONDS
    for context in list(_waiting.values()):
        finished = None
        try:
            with _lock:
                if context.since and context.since <= due:
                    finished = context._cut()  # noqa: SLF001
        except Exception:  # noqa: BLE001  # the reporter goes on, with the others
            note("cutting a segment")
            _waiting.pop(id(context), None)
        if finished is not None:
            _archive(finished)


def when_something_waits(begin: Callable[[], object]) -> None:
    """Have `begin` called before a process's first finished span waits: it makes sure of `send_what_waits`."""
    global _begin  # noqa: PLW0603  # one reporter per process
    _begin = begin


def forget_all() -> None:
    """Begin anew in a forked process: what was open belongs to its parent."""
    global _lock, _begun  # noqa: PLW0603  # another thread of the parent may have held it
    _lock = threading.Lock()
    _begun = False
    _waiting.clear()
    set_open_spans([])


class _Segment(Segment):  # type: ignore[misc]  # the agent has no types
    """What the reporter gets: a finished segment."""

    is_size_limited = False
    timestamp = 0

    def __init__(self, context: Context, spans: Sequence[Span]) -> None:
        self.segment_id = context.segment_id
        self.related_traces = [context.trace_id]
        self.spans = spans


class Origin(SegmentRef):  # type: ignore[misc]  # the agent has no types
    """A place in a trace where new segments go on from: the reference that each of them gets.

    One object for all of them, so that they name the endpoint as it is known in the end. It also stands in the list of
    open spans for the one that ended there: what is opened in that place finds where it belongs.
    """

    # One stays with each running task.
    __slots__ = ("correlation", "ended", "endpoint", "segment_id", "span_id", "trace_id")

    trace_id: str
    correlation: dict[str, str] | None
    ref_type = "CrossThread"
    client_address = TASK_ADDRESS
    service = property(lambda _self: config.agent_name)
    service_instance = property(lambda _self: config.agent_instance_name)

    # As a span that has ended.
    depth = 0
    kind = Kind.Local
    component = inherit = Component.Unknown
    strand = None
    sid = property(lambda self: self.span_id)
    op = property(lambda self: self.endpoint)

    def __init__(self, context: Context, span_id: int, endpoint: str) -> None:
        self.trace_id, self.segment_id = context.trace_id, context.segment_id
        self.span_id = span_id
        self.endpoint = endpoint
        self.ended = 0
        """When its request ended, in ms since the epoch."""
        self.correlation = context.__dict__.get("_correlation")
        """What the caller's headers brought along."""

    # By identity: the agent's own comparison raises beside a span.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def context(self) -> Context:
        """A context as it is after its end: what is opened in it goes on from here."""
        ended = Context.__new__(Context)
        ended.endpoint, ended.parent = self.endpoint, self
        ended.trace_id, ended.segment_id = self.trace_id, self.segment_id
        ended._correlation = self.correlation or {}  # noqa: SLF001
        ended._nspans, ended._numbered, ended.ended = 0, 1, True  # noqa: SLF001
        return ended

    def go_on(self, name: str) -> Context:
        """Begin a segment that goes on from here, with one open span."""
        return Context(name, self, 1)

    def export(self) -> Exported:
        """Write the place down for another process."""
        service, instance = self.service, self.service_instance
        return self.trace_id, self.segment_id, self.span_id, self.endpoint, self.correlation, service, instance


Exported = tuple[str, str, int, str, dict[str, str] | None, str, str] | str
"""A place in a trace as it can be pickled, or the name of one of the two below."""


class _Nowhere(Origin):
    def __init__(self, name: str) -> None:
        self.trace_id = ""
        self.name = name

    def export(self) -> Exported:
        return self.name


UNSAMPLED: Final = _Nowhere("unsampled")
"""The origin of what is not to be traced."""

NEW_TRACE: Final = _Nowhere("new trace")
"""The origin of what begins a trace, wherever it runs."""


class _Elsewhere(Origin):
    """A place in another process of this service."""

    ref_type = "CrossProcess"
    service = service_instance = ""  # not this process's

    def __init__(self, exported: tuple[str, str, int, str, dict[str, str] | None, str, str]) -> None:
        self.trace_id, self.segment_id, self.span_id, self.endpoint, self.correlation, *rest = exported
        self.service, self.service_instance = rest


def imported(exported: Exported) -> Origin:
    """Read a place in a trace that another process wrote down."""
    if isinstance(exported, str):
        return UNSAMPLED if exported == UNSAMPLED.name else NEW_TRACE
    return _Elsewhere(exported)


def origin_of(span: Any) -> Origin:  # noqa: ANN401  # a span of the agent's or of ours, or an origin
    """Say where work goes on from that comes from this span, whether it is open or has ended."""
    if isinstance(span, Origin):
        return span
    if isinstance(span.context, NoopContext):
        return span.__dict__.get("origin") or UNSAMPLED  # it may stand above one that is traced
    found: Origin | None = span.__dict__.get("origin")
    if found is None:
        context = span.context
        if isinstance(context, Context):
            found = span.origin = Origin(context, span.sid, span.op)
        else:  # made before this library was started
            copied = Context(span.op)
            copied.trace_id, copied.segment_id = map(
                str, (context.segment.related_traces[0], context.segment.segment_id)
            )
            copied._correlation = context._correlation  # noqa: SLF001
            found = Origin(copied, span.sid, span.op)
    return found
