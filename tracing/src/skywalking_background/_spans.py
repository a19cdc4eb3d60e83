"""Spans that outlive the request they came from."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import time
import traceback
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast

from skywalking import Component, Log, LogItem, config, sampling
from skywalking.trace.context import NoopContext, _spans, _spans_set

from skywalking_background._segments import UNSAMPLED, Context, Origin, TaskSpan, set_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from skywalking.trace.span import Span

P = ParamSpec("P")
T = TypeVar("T")

# What a new segment refers to: the request's entry span, or the background span around. `None` outside of both.
origin: ContextVar[Origin | None] = ContextVar("skywalking_background.origin", default=None)


def enter_root() -> None:
    """Forget every span that this context inherited.

    The agent keeps its open spans in a context variable. uvicorn can start a request in the context of the one before
    it on the same connection (pipelining, large bodies), whose background task may still run.
    """
    _spans_set([])
    origin.set(None)


def current_trace_id() -> str | None:
    """The id of the trace that this code runs in, as SkyWalking shows it; `None` outside of one or when not sampled."""
    here = _here()
    return here.trace_id or None if here is not None else None


def tag(key: str, value: object) -> None:
    """Tag the span that this code runs in; without one nothing happens."""
    if (spans := _spans()) and spans[-1].depth:
        set_tag(spans[-1], key, value)


def _here() -> Origin | None:
    """Say what a segment that begins now goes on from."""
    here = origin.get()
    # In no request of ours, but in a span of one of the agent's plugins: a Celery task, a message of a queue.
    if here is None and (outer := _spans()) and outer[-1].depth:
        here = UNSAMPLED if isinstance(outer[-1].context, NoopContext) else Origin(outer[-1])
    return here


def record_error(span: Span, error: BaseException) -> None:
    """Mark a span as failed and log the error on it, in the keys that SkyWalking's own agents use.

    Not the agent's `span.raised()`: it leaves cancellation out and dates every log with the import of the agent.
    """
    span.error_occurred = True
    stack = "".join(traceback.format_exception(error, limit=-config.agent_cause_exception_depth))
    items = [
        LogItem("event", "error"),
        LogItem("error.kind", type(error).__qualname__),
        LogItem("message", str(error)),
        LogItem("stack", stack),
    ]
    span.logs.append(Log(timestamp=time.time(), items=items))


def _strand() -> int:
    """Identify what runs now: the asyncio task, or the thread where there is none."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.get_ident() if task is None else id(task)


class background_span:  # noqa: N801  # reads as a keyword: `with background_span("resize"):`
    """A span for work that runs on after its request was answered.

    It gets a segment of its own, with a CROSS_THREAD reference to the request (or to the background span) it came from.
    Directly inside another background span it becomes a child in the same segment, so that the attempts of a retried
    task lie below the task. Outside of any trace it starts one. An error, cancellation included, is recorded and
    goes on.

    Args:
        name: the span's operation name; keep it to a few values, SkyWalking makes an endpoint of each.
        tags: string tags by key.
        parent: what `carry` took along; by default the trace that this code runs in.
        began: when the work began, in seconds as of `time.time()`, if that was before this span is entered: for what
            turned out only afterwards to deserve a span.
    """

    __slots__ = ("_began", "_here", "_name", "_outer", "_parent", "_span", "_tags")

    def __init__(
        self,
        name: str,
        *,
        tags: Mapping[str, object] | None = None,
        parent: Origin | None = None,
        began: float | None = None,
    ) -> None:
        self._name = name
        self._tags = tags
        self._parent = parent
        self._began = began

    def tag(self, key: str, value: object) -> None:
        """Add a tag to the open span."""
        set_tag(self._span, key, value)

    def record_error(self, error: BaseException) -> None:
        """Mark the open span as failed by an error that was handled; one that leaves the span is recorded anyway."""
        record_error(self._span, error)

    def __enter__(self) -> Self:
        outer, here, strand = _spans(), origin.get(), _strand()
        self._outer, self._here = outer or None, here  # an empty list would be one more object of each running task
        if self._parent is None and outer and outer[-1].depth and here is not None and here.strand == strand:
            span = outer[-1].context.new_local_span(self._name)
            span.component = Component.FastAPI
            span.start()
        else:
            span = self._open_segment(self._parent or _here())
        origin.set(UNSAMPLED if isinstance(span.context, NoopContext) else Origin(span, strand))
        for key, value in (self._tags or {}).items():
            set_tag(span, key, value)
        if self._began is not None:
            span.start_time = int(self._began * 1000)
        self._span = span
        return self

    def _open_segment(self, parent: Origin | None) -> Span:
        # The decision to sample was the request's: a task without its request, or the reverse, is half a trace.
        if parent is UNSAMPLED or (parent is None and not sampled()):
            _spans_set([])
            span = NoopContext().new_local_span(self._name)
            span.start()
            return span
        context = Context(self._name, parent)
        span = TaskSpan(context, self._name)
        context.open(span)
        return span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        span = self._span
        if error is not None:
            record_error(span, error)
        if isinstance(span, TaskSpan):
            span.context.close(span)
        else:
            span.stop()
        _spans_set(self._outer or [])
        origin.set(self._here)


def untraced() -> background_span:
    """Keep what runs inside of it out of every trace, together with the spans of the agent's plugins.

    For work that is nobody's in particular, such as one write to a database for many tasks at once.
    """
    return background_span("untraced", parent=UNSAMPLED)


def sampled() -> bool:
    """Ask the agent's sampler about a trace that begins here."""
    return sampling.sampling_service is None or bool(sampling.sampling_service.try_sampling())


def span_name(func: Callable[..., Any]) -> str:
    """Name a span after a function: `resize`, `Mailer.send`; the class for a callable object."""
    while isinstance(func, functools.partial):
        func = func.func
    name: str = getattr(func, "__qualname__", None) or type(func).__qualname__
    return name.rpartition("<locals>.")[2]


def carry(func: Callable[P, T], *, name: str | None = None) -> Callable[P, T]:
    """Take the trace along into a thread, an executor or an event loop of another thread.

    Each call of the result, plain or coroutine, runs in a background span that refers to the place where `carry` was
    called. `asyncio.create_task` and Starlette's tasks need no `carry`: a `background_span` in them is enough.
    """
    parent = origin.get()
    label = name or span_name(func)

    @functools.wraps(func)
    async def run_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401  # whatever func returns
        with background_span(label, parent=parent):
            return await cast("Any", func(*args, **kwargs))

    @functools.wraps(func)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with background_span(label, parent=parent):
            return func(*args, **kwargs)

    return cast("Callable[P, T]", run_coroutine) if inspect.iscoroutinefunction(func) else run
