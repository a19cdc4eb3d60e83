"""For FastStream, whichever broker it speaks to: `RabbitBroker(url, middlewares=[tracing(url)])`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from faststream import BaseMiddleware
from faststream.exceptions import IgnoredException, NackMessage, RejectMessage

from skywalking_background import _agent
from skywalking_background._plugins import Messages
from skywalking_background.messaging import consumer_span, inject, producer_span

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from faststream import PublishCommand, StreamMessage

__all__ = ["tracing"]

_NAMES = ("routing_key", "subject", "topic", "channel")
"""Where FastStream's brokers say what a message was sent to."""


def tracing(broker: str, *, enabled: bool | None = None) -> Callable[..., BaseMiddleware[Any, Any]]:
    """Make the middleware that traces what a FastStream broker publishes and consumes; starts the agent if nobody has.

    `NackMessage`, `RejectMessage` and their like are no errors: they are the tag `task.outcome`.

    Args:
        broker: its address. User, password and options in it are kept out of the trace.
        enabled: `False` leaves messages and process as if this library were not there; by default the variable
            `SKYWALKING_BACKGROUND_ENABLED` says so with `false`, `0`, `no` or `off`.

    Raises:
        RuntimeError: a setting of the agent's that can't be served.
    """
    if not _agent.switch(on=enabled):
        return BaseMiddleware
    _agent.start()
    Messages.ours = True
    return functools.partial(_Tracing, broker=broker)


class _Tracing(BaseMiddleware[Any, Any]):
    __slots__ = ("broker",)

    def __init__(self, msg: Any, /, *, broker: str, **rest: Any) -> None:  # noqa: ANN401  # FastStream's
        super().__init__(msg, **rest)
        self.broker = broker

    async def publish_scope(self, call_next: Callable[[Any], Awaitable[Any]], cmd: PublishCommand) -> Any:  # noqa: ANN401
        queue = cmd.destination or "unnamed"
        with producer_span(f"{queue} publish", queue=queue, broker=self.broker):
            cmd.headers = dict(cmd.headers)
            inject(cmd.headers)
            return await call_next(cmd)

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]) -> Any:  # noqa: ANN401
        queue = _queue(msg.raw_message)
        tags = {"mq.redelivered": "true"} if getattr(msg.raw_message, "redelivered", None) is True else None
        with consumer_span(queue, msg.headers, queue=queue, broker=self.broker, tags=tags) as span:
            try:
                result = await call_next(msg)
            except IgnoredException as signal:  # how a handler says what is to become of the message
                span.tag("task.outcome", _outcome(signal))
                said = signal
            except BaseException:
                span.tag("task.outcome", "failed")
                raise
            else:
                span.tag("task.outcome", "succeeded")
                return result
        raise said


def _outcome(signal: IgnoredException) -> str:
    if isinstance(signal, RejectMessage):
        return "rejected"
    return "retried" if isinstance(signal, NackMessage) else "succeeded"


def _queue(raw: Any) -> str:  # noqa: ANN401  # a message as the client library has it, or a batch of them
    raw = raw[0] if isinstance(raw, (list, tuple)) and raw else raw
    fields: Mapping[str, Any] | None = raw if isinstance(raw, dict) else None
    for name in _NAMES:
        value = fields.get(name) if fields is not None else getattr(raw, name, None)
        value = value() if callable(value) else value
        if value:
            return value.decode() if isinstance(value, bytes) else str(value)
    return "unnamed"
