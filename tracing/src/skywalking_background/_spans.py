"""Spans that outlive the request they came from."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast

from skywalking_background import _agent, _meters
from skywalking_background._faults import note, safe_text
from skywalking_background._internals import (
    Component,
    Log,
    LogItem,
    NoopContext,
    NoopSpan,
    config,
    open_spans,
    sampled,
    set_open_spans,
)
from skywalking_background._light_spans import TaskSpan, noop_span, set_tag
from skywalking_background._limits import ERROR_TEXT_CHARS, STACK_CHARS, cut, cut_middle
from skywalking_background._names import span_name, task_name
from skywalking_background._running import begun, ended
from skywalking_background._segments import NEW_TRACE, UNSAMPLED, Context, Origin, imported, origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from skywalking_background._internals import Span
    from skywalking_background._segments import Exported
    from skywalking_background._sw8 import Caller

P = ParamSpec("P")
T = TypeVar("T")


def current_trace_id() -> str | None:
    """The id of the trace that this code runs in, as SkyWalking shows it; `None` outside of one or when not sampled."""
    try:
        here = place()
    except Exception:  # noqa: BLE001
        note("looking for the trace id")
        return None
    return here.trace_id or None if here is not None else None


def tag(key: str, value: object) -> None:
    """Tag the span that this code runs in; without one, or after its end, nothing happens.

    Args:
        key: the tag's name.
        value: anything; its text is kept up to 4,000 characters.
    """
    try:
        if (spans := open_spans()) and spans[-1].depth:
            set_tag(spans[-1], key, value)
    except Exception:  # noqa: BLE001
        note("tagging a span")


def place() -> Origin | None:
    """Say where this code is: what a segment that begins now goes on from. `None` outside of any trace."""
    spans = open_spans()
    return origin_of(spans[-1]) if spans else None


def record_error(span: Span, error: BaseException) -> None:
    """Mark a span as failed and log the error on it, in the keys that SkyWalking's own agents use.

    Not the agent's `span.raised()`: it leaves cancellation out and dates every log with the import of the agent. Only
    texts are kept: an error refers to the frames it went through, and those to everything.
    """
    span.error_occurred = True
    message = safe_text(error)
    try:
        stack = "".join(traceback.format_exception(error, limit=-config.agent_cause_exception_depth))
    except Exception:  # noqa: BLE001  # an error that can't be shown
        stack = message
    items = [
        LogItem("event", "error"),
        LogItem("error.kind", type(error).__qualname__),
        LogItem("message", cut(message, ERROR_TEXT_CHARS)),
        LogItem("stack", cut_middle(stack, STACK_CHARS)),
    ]
    span.logs.append(Log(timestamp=time.time(), items=items))


def strand_here() -> object:
    """Identify what runs now: the task of asyncio or Trio, or the thread where there is none."""
    loop = asyncio._get_running_loop()  # noqa: SLF001  # documented for event loops: does not raise without one
    task = _trio_task() if loop is None else asyncio.current_task(loop)
    return threading.get_ident() if task is None else id(task)


def _trio_task() -> object:
    current: Callable[[], object] | None = getattr(sys.modules.get("trio.lowlevel"), "current_task", None)
    try:
        return None if current is None else current()
    except RuntimeError:  # not in Trio, but in a thread of its own
        return None


class background_span:  # noqa: N801  # reads as a keyword: `with background_span("resize"):`
    """A span for work that runs on after its request was answered.

    It gets a segment of its own, with a CROSS_THREAD reference to the request (or to the span) it came from. Directly
    inside another background span it becomes a child in the same segment, so that the attempts of a retried task lie
    below the task. Outside of any trace it starts one. An error, cancellation included, is recorded and goes on.

    Args:
        name: the span's operation name; keep it to a few values, SkyWalking makes an endpoint of each.
        tags: tags by key; any value, as text of up to 4,000 characters.
        parent: a place in a trace that `messaging.extract` found; by default the trace that this code runs in.
        began: when the work began, in seconds as of `time.time()`, if that was before this span is entered: for what
            turned out only afterwards to deserve a span.
    """

    __slots__ = ("_began", "_name", "_outer", "_parent", "_span", "_tags")

    _span: Span | None
    is_task = True
    """Whether it counts among the background tasks."""

    def __init__(
        self,
        name: str,
        *,
        tags: Mapping[str, object] | None = None,
        parent: Origin | Caller | None = None,
        began: float | None = None,
    ) -> None:
        self._name = name
        self._tags = tags
        self._parent = parent
        self._began = began

    def tag(self, key: str, value: object) -> None:
        """Add a tag to the open span."""
        try:
            if self._span is not None:
                set_tag(self._span, key, value)
        except Exception:  # noqa: BLE001
            note("tagging a span")

    def record_error(self, error: BaseException) -> None:
        """Mark the open span as failed by an error that was handled; one that leaves the span is recorded anyway."""
        try:
            if self._span is not None:
                record_error(self._span, error)
        except Exception:  # noqa: BLE001
            note("recording an error")

    def hand_over(self) -> background_span:
        """Let another asyncio task go on in this span: a `with` block around the result, there, ends it.

        So a task that waits for its retry need not keep its request in memory. This code is outside of the span from
        now on, and the end of the `with` block that opened the span does nothing to it.
        """
        heir = _HandedOver(self._name)
        heir._span, self._span = self._span, None  # noqa: SLF001  # one of its own
        if heir._span is not None:  # noqa: SLF001
            _go_on_in(self._outer)
        return heir

    def __enter__(self) -> Self:
        outer = open_spans()
        self._outer = keep(outer)
        self._span = enter(self._name, outer, self._parent, task=self.is_task)
        try:
            self._add_tags()
            if self._began is not None and self._span is not None:
                self._span.start_time = int(self._began * 1000)
        except Exception:  # noqa: BLE001  # tags that are no mapping, a time that is none
            note("opening a background span")
        return self

    def _add_tags(self) -> None:
        for key, value in (self._tags or {}).items():
            self.tag(key, value)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        span, self._span = self._span, None
        leave(span, self._outer, error)
        self._outer = None


class _HandedOver(background_span):
    """An open span that this code did not open."""

    __slots__ = ()

    def __enter__(self) -> Self:
        self._outer = None
        try:
            if self._span is not None:
                self._outer = keep(open_spans())
                if hasattr(self._span, "strand"):  # else it records nothing
                    self._span.strand = strand_here()
                set_open_spans([self._span])
        except Exception:  # noqa: BLE001
            note("going on in a background span")
        return self


Outer = list[Any] | Origin | None
"""The spans around one, kept until it ends: mostly none, or the place that its request has left behind."""


def keep(outer: list[Any]) -> Outer:
    """Return the spans that this code is in, as the few objects that a running task should keep."""
    if len(outer) == 1 and outer[0].__class__ is Origin:
        return outer[0]
    return outer or None


def enter(name: str, outer: list[Any], parent: Origin | Caller | None = None, *, task: bool = True) -> Span | None:
    """Open a background span; `None` if that failed, which the work is not to notice.

    Args:
        name: its operation name.
        outer: the spans that this code is in.
        parent: where it goes on from, if not from those.
        task: whether it counts among the background tasks, unless it is part of one.
    """
    try:
        return _enter(name, outer, parent, task)
    except Exception:  # noqa: BLE001
        note("opening a background span")
        return None


def _enter(name: str, outer: list[Any], parent: Origin | Caller | None, task: bool) -> Span:
    if name.__class__ is not str:
        name = safe_text(name)
    strand = strand_here()
    task = task and parent is not UNSAMPLED
    if parent is None and outer:
        inner = outer[-1]
        if inner.depth and _strand_of(outer) == strand:
            return _enter_below(inner, name, strand)
        parent = origin_of(inner)
        task = task and not (isinstance(inner, NoopSpan) and getattr(inner, "strand", None) == strand)
    if task:
        name = task_name(name)
    now = int(time.time() * 1000)
    if parent.__class__ is not Origin and _untraced(parent):
        span = noop_span()
        span.start_time = now
        task = task and _agent.tracing()
    else:
        place = parent
        if parent is NEW_TRACE or not isinstance(parent, Origin):  # nowhere, or with the caller
            place = Context(name, None if parent is NEW_TRACE else parent, spans=1)
        span = TaskSpan(place, name, now)
        begun(span)
    span.strand = strand
    set_open_spans([span])
    if task:
        _meters.begin(span, name)
    return span


def _enter_below(outer: Span, name: str, strand: object) -> Span:
    span = outer.context.new_local_span(name)
    span.component = Component.FastAPI
    span.strand = strand
    span.start()
    return span


def leave(span: Span | None, outer: Outer, error: BaseException | None) -> None:
    """Close what `enter` opened, and go on in the spans that `keep` kept."""
    if span is None:
        return
    try:
        if error is not None:
            record_error(span, error)
        if isinstance(span, TaskSpan):
            ended(span, error)
            Context.close(span)
        elif not isinstance(span.context, NoopContext):
            span.stop()
        _meters.end(span, error)
    except Exception:  # noqa: BLE001  # the work is done
        note("closing a background span")
    _go_on_in(outer)


def _go_on_in(outer: Outer) -> None:
    """Leave a span for those that `keep` kept."""
    set_open_spans(outer if isinstance(outer, list) else [] if outer is None else [outer])


def _strand_of(spans: list[Any]) -> object:
    """Say which asyncio task or thread opened the innermost of these spans that is not one of the agent's plugins'."""
    for span in reversed(spans):
        if (strand := getattr(span, "strand", span)) is not span:
            return strand
    return None


def _untraced(parent: Origin | Caller | None) -> bool:
    # The decision to sample was the request's: a task without its request, or the reverse, is half a trace.
    if parent is UNSAMPLED or not _agent.tracing():
        return True
    return (parent is None or parent is NEW_TRACE) and not sampled()


def untraced() -> background_span:
    """Keep what runs inside of it out of every trace, together with the spans of the agent's plugins.

    For work that is nobody's in particular, such as one write to a database for many tasks at once.
    """
    return background_span("untraced", parent=UNSAMPLED)


def carry(func: Callable[P, T], *, name: str | None = None) -> Callable[P, T]:
    """Take the trace along into a thread, an executor, a queue, an event loop of another thread, or a process pool.

    Each call of the result, plain or coroutine, runs in a background span that refers to the place where `carry` was
    called; outside of any trace, each begins one. `asyncio.create_task` and Starlette's tasks need no `carry`: a
    `background_span` in them is enough.

    Args:
        func: what is to run there.
        name: the span's operation name; by default the function's.
    """
    try:
        parent = place() or NEW_TRACE
    except Exception:  # noqa: BLE001
        note("taking a trace along")
        return func
    carried = _Carried(func, name or span_name(func), parent)
    if not inspect.iscoroutinefunction(func):
        return carried

    @functools.wraps(func)
    async def run(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401  # whatever func returns
        with background_span(carried.name, parent=parent):
            return await cast("Any", func(*args, **kwargs))

    return cast("Callable[P, T]", run)


class _Carried:
    """A function that takes its place in a trace along; it can be pickled if the function can."""

    def __init__(self, func: Callable[..., Any], name: str, parent: Origin) -> None:
        functools.update_wrapper(self, func, updated=())
        self.func = func
        self.name = name
        self.parent = parent

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with background_span(self.name, parent=self.parent):
            return self.func(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self.func, self.name, self.parent.export())


def _unpickle(func: Callable[..., Any], name: str, exported: Exported) -> _Carried:
    _agent.start_in_child()
    return _Carried(func, name, imported(exported))
