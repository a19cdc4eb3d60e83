"""The message queue by FastStream: a quorum queue in RabbitMQ, or a stream in Redis."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from faststream.rabbit import Channel, ExchangeType, QueueType, RabbitBroker, RabbitExchange, RabbitQueue
from faststream.redis import RedisBroker
from redis.exceptions import ResponseError
from skywalking_background.faststream import tracing

from demo_service.queues.broker import DEAD_EXCHANGE, GROUP, MESSAGE_QUEUE, dead_queue_arguments, queue_arguments

if TYPE_CHECKING:
    from faststream.rabbit.schemas.queue import QuorumQueueArgs

    from demo_service.queues.broker import Broker
    from demo_service.settings import Settings

RECONNECT_SECONDS: Final = 1.0
_faststream = logging.getLogger(f"{__name__}.faststream")
_faststream.setLevel(logging.WARNING)  # it tells of each message and of each of its own steps

QUEUE: Final = RabbitQueue(
    MESSAGE_QUEUE, QueueType.QUORUM, durable=True, arguments=cast("QuorumQueueArgs", queue_arguments(MESSAGE_QUEUE))
)
_DEAD_QUEUE: Final = RabbitQueue(
    f"{MESSAGE_QUEUE}.dead",
    QueueType.QUORUM,
    durable=True,
    arguments=cast("QuorumQueueArgs", dead_queue_arguments()),
)


def make_rabbit(broker: Broker, settings: Settings) -> RabbitBroker:
    """Make the client of a RabbitMQ: it confirms what it publishes, and comes back by itself."""
    return RabbitBroker(
        broker.url,
        reconnect_interval=RECONNECT_SECONDS,
        default_channel=Channel(settings.consumer_tasks, publisher_confirms=True, on_return_raises=True),
        graceful_timeout=settings.drain_seconds,
        middlewares=[tracing(broker.url)],
        logger=_faststream,
    )


def make_redis(broker: Broker, settings: Settings) -> RedisBroker:
    """Make the client of a Redis."""
    return RedisBroker(
        broker.url,
        socket_connect_timeout=2.0,
        socket_timeout=settings.publish_seconds,
        socket_keepalive=True,
        graceful_timeout=settings.drain_seconds,
        middlewares=[tracing(broker.url)],
        logger=_faststream,
    )


async def declare_queues(rabbit: RabbitBroker) -> None:
    """Make the queue, so that a message finds it, and the place of its dead messages."""
    exchange = await rabbit.declare_exchange(RabbitExchange(DEAD_EXCHANGE, ExchangeType.DIRECT, durable=True))
    dead = await rabbit.declare_queue(_DEAD_QUEUE)
    await dead.bind(exchange, routing_key=_DEAD_QUEUE.name)
    await rabbit.declare_queue(QUEUE)


async def make_group(client: Any) -> None:  # noqa: ANN401  # redis' own client
    """Make the stream and its consumer group, which gets all messages from the first on."""
    with suppress(ResponseError):  # it is there
        await client.xgroup_create(MESSAGE_QUEUE, GROUP, id="0", mkstream=True)


async def publish(messages: RabbitBroker | RedisBroker, message: dict[str, Any]) -> None:
    """Send a message; when this returns, the broker has confirmed it.

    Raises:
        Exception: it has not.
    """
    if isinstance(messages, RabbitBroker):
        await messages.publish(message, queue=MESSAGE_QUEUE, persist=True, mandatory=True)
    else:
        await messages.publish(message, stream=MESSAGE_QUEUE)


async def connect(broker: Broker, settings: Settings) -> RabbitBroker | RedisBroker:
    """Connect a publisher, and make what its messages go to."""
    if broker.speaks_amqp:
        rabbit = make_rabbit(broker, settings)
        await rabbit.connect()
        await declare_queues(rabbit)
        return rabbit
    redis = make_redis(broker, settings)
    await make_group(await redis.connect())
    return redis
