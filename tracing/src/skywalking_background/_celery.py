"""What happens in Celery, by its signals: a message is sent, a task runs, a process is lost.

Instead of the agent's plugin, which replaces each task's function by one of its own (its signature is gone, and with it
Celery's check of arguments and `pydantic=True`), takes a retry for an error and sees neither the queue nor the delay.

Few functions are wrapped, as there is no signal for them: `send_task`, which may fail before or after it has sent, and
what the worker's main process calls when a process of its pool is gone.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from celery import Celery, signals
from celery.events.dispatcher import EventDispatcher
from celery.exceptions import Retry, TimeLimitExceeded, WorkerLostError
from celery.worker.pidbox import gPidbox
from celery.worker.request import Request

from skywalking_background import _agent, _life_events, _messages, _meters
from skywalking_background._faults import note
from skywalking_background._internals import Component, NoopSpan, open_spans, set_open_spans
from skywalking_background._light_spans import noop_span, set_tag
from skywalking_background._messages import Broker, broker_at
from skywalking_background._spans import enter, keep, leave, record_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from skywalking_background._internals import Span

_OUTCOMES: Final = {
    "SUCCESS": "succeeded",
    "FAILURE": "failed",
    "RETRY": "retried",
    "IGNORED": "ignored",
    "REJECTED": "rejected",
}
_DELAYED: Final = re.compile(r"(?:[01]\.){28}")
"""What Celery's delayed delivery on RabbitMQ writes in front of a routing key."""

_MARK: Final = "_skywalking_background"
_AGENTS_PLUGIN: Final = "sw_celery"

_brokers: Final[WeakKeyDictionary[Any, tuple[object, Broker]]] = WeakKeyDictionary()
_sending: Final[ContextVar[tuple[Celery, Span] | None]] = ContextVar("sending", default=None)
_running: Final[ContextVar[_Run | None]] = ContextVar("running", default=None)


def install() -> None:
    """Trace Celery in this process; once.

    Raises:
        RuntimeError: the agent's own plugin does already.
    """
    if hasattr(Celery.send_task, _MARK):
        return
    if Celery.send_task.__module__.rpartition(".")[2] == _AGENTS_PLUGIN:
        message = "the agent runs with its Celery plugin: start it with SW_AGENT_DISABLE_PLUGINS=sw_celery"
        raise RuntimeError(message)
    for signal, receiver in (
        (signals.before_task_publish, _on_publish),
        (signals.task_prerun, _on_start),
        (signals.task_failure, _on_failure),
        (signals.task_postrun, _on_end),
        (signals.task_revoked, _on_revoked),
        (signals.task_unknown, _on_unknown),
        (signals.worker_init, _on_worker),
        (signals.worker_process_init, _on_process),
        (signals.worker_process_shutdown, _on_process_end),
        (signals.worker_ready, _on_ready),
        (signals.worker_shutdown, _on_worker_end),
    ):
        signal.connect(receiver, weak=False, dispatch_uid=__name__)
    # What the worker says and hears besides tasks; with gevent both run outside of its own loop.
    gPidbox.loop = _unseen(gPidbox.loop)
    EventDispatcher._publish = _unseen(EventDispatcher._publish)  # noqa: SLF001  # below all of its public ones
    Request.on_failure = _before(Request.on_failure, _on_lost)
    Request.on_timeout = _before(Request.on_timeout, _on_timeout)
    Celery.send_task = _traced(Celery.send_task)


class _Run:
    """A task that runs here now."""

    __slots__ = ("above", "error", "outer", "span", "task_id")

    def __init__(self, task_id: str, span: Span | None, outer: Any, above: _Run | None) -> None:  # noqa: ANN401
        self.task_id = task_id
        self.span = span
        self.outer = outer
        self.above = above
        self.error = False
        """Whether the span has its error."""


def _contained(receiver: Callable[..., None]) -> Callable[..., None]:
    """Keep what fails in a receiver out of Celery, whose log would show it as the user's."""

    @functools.wraps(receiver)
    def contained(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        try:
            receiver(*args, **kwargs)
        except Exception:  # noqa: BLE001
            note("following Celery")

    return contained


def _before(method: Callable[..., Any], look: Callable[..., None]) -> Callable[..., Any]:
    """Have a look at what a method is called with, before it runs."""

    @functools.wraps(method)
    def looked_at(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        look(*args, **kwargs)
        return method(*args, **kwargs)

    return looked_at


def _unseen(method: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what a method asks of the broker out of every trace."""

    @functools.wraps(method)
    def unseen(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        spans = open_spans()
        set_open_spans([noop_span()])
        try:
            return method(*args, **kwargs)
        finally:
            set_open_spans(spans)

    return unseen


# Sending.


def _traced(send_task: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(send_task)
    def traced(app: Celery, name: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        spans = open_spans()
        outer = keep(spans)
        span = _open_exit(app, name, kwargs)
        if span is None:
            return send_task(app, name, *args, **kwargs)
        _messages.shade(span)  # also over the connection and the result backend, which are made ready for it
        token = _sending.set((app, span))
        try:
            result = send_task(app, name, *args, **kwargs)
        except BaseException as error:
            leave(span, outer, error)
            raise
        else:
            leave(span, outer, None)
            return result
        finally:
            _sending.reset(token)

    setattr(traced, _MARK, True)
    return traced


def _open_exit(app: Celery, name: str, options: Mapping[str, Any]) -> Span | None:
    try:
        producer = options.get("producer")
        connection = options.get("connection") or (producer.connection if producer is not None else None)
        broker = _broker(app) if connection is None else broker_at(connection.as_uri())
    except Exception:  # noqa: BLE001
        note("looking for Celery's broker")
        broker = Broker("unknown", "unknown")
    return _messages.open_exit(f"celery/{name}", broker, Component.Celery)


def _broker(app: Celery, *, read: bool = False) -> Broker:
    """Say where an app's messages go to, or come from."""
    setting = app.conf.broker_read_url if read else app.conf.broker_write_url
    setting = setting or app.conf.broker_url
    known = _brokers.get(app)
    if known is not None and known[0] == setting:
        return known[1]
    connection = app.connection_for_read() if read else app.connection_for_write()
    found = broker_at(connection.as_uri())
    _brokers[app] = (setting, found)
    return found


@_contained
def _on_publish(*, exchange: object, routing_key: str | None, headers: dict[str, Any], **_: object) -> None:
    """Write into the message where it comes from: queue and headers are final now."""
    sending = _sending.get()
    if sending is None:
        return
    app, span = sending
    if not isinstance(span, NoopSpan):
        set_tag(span, "mq.queue", _queue(app, exchange, routing_key))
    _messages.write(headers)


def _queue(app: Celery, exchange: object, routing_key: str | None) -> str:
    """Name the queue that a message goes through: of those that the app knows, else by what it was sent with."""
    exchange = getattr(exchange, "name", exchange)
    key = _DELAYED.sub("", routing_key or "", count=1)
    if exchange:
        for queue in app.amqp.queues.values():
            if queue.exchange is not None and (queue.exchange.name, queue.routing_key) == (exchange, key):
                return str(queue.name)
    return key or str(exchange or "")


# Running.


@_contained
def _on_start(*, task_id: str, task: Any, **_: object) -> None:  # noqa: ANN401
    request = vars(task.request)
    outer = open_spans()
    if request.get("is_eager"):  # no message: a piece of the caller's work
        span = enter(f"celery/{task.name}", outer)
        if span is not None and not isinstance(span, NoopSpan):
            span.component = Component.Celery
    else:
        span = _open_entry(task.app, f"celery/{task.name}", request)
    _running.set(_Run(task_id, span, keep(outer), _running.get()))
    _tag_task(span, task.name, request)


def _open_entry(app: Celery, operation: str, request: Mapping[str, Any], began: float | None = None) -> Span | None:
    received = _messages.read(request)
    span = _messages.open_entry(operation, received, _broker(app, read=True), Component.Celery, began)
    if span is None or isinstance(span, NoopSpan):
        return span
    delivery = request.get("delivery_info") or {}
    set_tag(span, "mq.queue", _queue(app, delivery.get("exchange"), delivery.get("routing_key")))
    if delivery.get("redelivered"):
        set_tag(span, "mq.redelivered", "true")
    _messages.tag_delay(span, received.sent, _due(request.get("eta")))
    return span


def _due(eta: object) -> float | None:
    """Read the time from which a task may run, in ms since the epoch."""
    if not eta:
        return None
    when = eta if isinstance(eta, datetime) else datetime.fromisoformat(str(eta))
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000


def _tag_task(span: Span | None, name: str, request: Mapping[str, Any]) -> None:
    if span is None or isinstance(span, NoopSpan):
        return
    set_tag(span, "task.name", name)
    set_tag(span, "task.id", request.get("id"))
    set_tag(span, "task.attempt", int(request.get("retries") or 0) + 1)


@_contained
def _on_failure(*, task_id: str, exception: BaseException, **_: object) -> None:
    """Record a task's error while it still has its stack trace."""
    run = _running.get()
    if run is not None and run.task_id == task_id:
        _fail(run, exception)


def _fail(run: _Run, error: BaseException) -> None:
    if not run.error and run.span is not None and not isinstance(run.span, NoopSpan):
        run.error = True
        record_error(run.span, error)


@_contained
def _on_end(*, task_id: str, task: Any, state: str | None, retval: object, **_: object) -> None:  # noqa: ANN401
    run = _running.get()
    while run is not None and run.task_id != task_id:
        run = run.above  # one whose end was not told
    if run is None:
        return
    _running.set(run.above)
    error = sys.exception() if state is None else None  # it leaves the worker's own frame
    if isinstance(error, SystemExit) and _is_over_its_time(task, run.span):
        leave(noop_span(), run.outer, None)  # the pool ends this process, and has told of it
        return
    if error is not None:
        outcome = "retried" if isinstance(error, Retry) else "failed"  # a caller that runs it eagerly gets either
    else:
        outcome = _OUTCOMES.get(state or "", (state or "unknown").lower())
    if outcome == "failed":
        failure = error if error is not None else retval
        _fail(run, failure if isinstance(failure, BaseException) else RuntimeError(str(failure)))
    if run.span is not None and not isinstance(run.span, NoopSpan):
        set_tag(run.span, "task.outcome", outcome)
    leave(run.span, run.outer, None)
    if outcome == "retried":
        _meters.count("retried", f"celery/{task.name}", 1)


def _is_over_its_time(task: Any, span: Span | None) -> bool:  # noqa: ANN401
    limit = (task.request.timelimit or (None,))[0] or task.time_limit
    return span is not None and bool(limit) and time.time() * 1000 - span.start_time >= limit * 1000


# What ends otherwise, seen from the worker's main process.


@_contained
def _on_lost(request: Request, exc_info: Any, *_: object, **__: object) -> None:  # noqa: ANN401  # Celery's ExceptionInfo
    """A process of the pool was killed under its task: what it knew of its span is gone with it."""
    error = getattr(exc_info.exception, "exc", exc_info.exception)
    if isinstance(error, WorkerLostError):
        _record(request.task, request.request_dict, "crashed", error, request.time_start)


@_contained
def _on_timeout(request: Request, soft: bool, timeout: float | None, **_: object) -> None:
    """The hard time limit: the pool ends the process."""
    if not soft:
        _record(request.task, request.request_dict, "timed out", TimeLimitExceeded(timeout), request.time_start)


@_contained
def _on_revoked(*, sender: Any, request: Any, terminated: bool, expired: bool, **_: object) -> None:  # noqa: ANN401
    """A task that was told not to run, or was not run in time."""
    if not terminated:  # what is ended while it runs tells so itself
        _record(sender, vars(request), "expired" if expired else "revoked")


def _record(
    task: Any,  # noqa: ANN401
    request: Mapping[str, Any],
    outcome: str,
    error: BaseException | None = None,
    began: float | None = None,
) -> None:
    outer = keep(open_spans())
    span = _open_entry(task.app, f"celery/{task.name}", request, began or time.time())
    _tag_task(span, task.name, request)
    if span is not None and not isinstance(span, NoopSpan):
        set_tag(span, "task.outcome", outcome)
    leave(span, outer, error)
    if error is not None:
        _meters.count("crashed", f"celery/{task.name}", 1)


@_contained
def _on_unknown(*, sender: Any, message: Any, exc: BaseException, name: str, **_: object) -> None:  # noqa: ANN401
    """A message for a task that is not registered: Celery throws it away."""
    outer = keep(open_spans())
    request = {**(message.headers or {}), "delivery_info": message.delivery_info}
    span = _open_entry(sender.app, "celery/unregistered task", request, time.time())
    _tag_task(span, name, request)
    if span is not None and not isinstance(span, NoopSpan):
        set_tag(span, "task.outcome", "rejected")
    leave(span, outer, exc)


# The worker's processes.


@_contained
def _on_worker(**_: object) -> None:
    """Keep the worker's own talk with its broker out of every trace: the pool's tasks have traces of their own."""
    set_open_spans([noop_span()])


@_contained
def _on_process(**_: object) -> None:
    """Let an idle process of the pool appear in SkyWalking."""
    _starts()


@_contained
def _on_process_end(**_: object) -> None:
    """What is queued is delivered after this, see `_fork`."""
    _ends()


@_contained
def _on_ready(*, sender: Any = None, **_: object) -> None:  # noqa: ANN401
    """Let the worker appear, where it does the work itself instead of processes that it forks."""
    if not _forks(sender):
        _starts()


@_contained
def _on_worker_end(*, sender: Any = None, **_: object) -> None:  # noqa: ANN401
    if not _forks(sender):
        _ends()


def _forks(worker: Any) -> bool:  # noqa: ANN401
    """Say whether a worker has its work done by processes that it forks."""
    return type(getattr(worker, "pool", None)).__module__ == "celery.concurrency.prefork"


def _starts() -> None:
    _life_events.event("Start", f"process {os.getpid()} takes tasks")
    _agent.begin_reporting()


def _ends() -> None:
    _life_events.event("Shutdown", f"process {os.getpid()} takes no more tasks")
