"""Which class speaks with the message queue of the broker that is set."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from demo_service.collector import paused
from demo_service.queues.broker import broker_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo_service.queues.message_queue import MessageQueue
    from demo_service.settings import Settings


def queue_maker(settings: Settings) -> Callable[[], MessageQueue]:
    """Return what makes a connection to the queue. Another broker's client is not imported: it takes 0.1 s and 3 MB.

    Raises:
        BrokerUnavailableError: no broker is set.
    """
    broker = broker_of(settings)
    with paused():
        if broker.speaks_amqp:
            from demo_service.queues.rabbitmq import QuorumQueue  # noqa: PLC0415

            return partial(QuorumQueue, broker, settings)
        from demo_service.queues.redis_stream import RedisStream  # noqa: PLC0415

        return partial(RedisStream, broker, settings)
