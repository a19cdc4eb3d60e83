"""The message queue in RabbitMQ: a quorum queue."""

from typing import TYPE_CHECKING, Any, Final, cast

from faststream import AckPolicy
from faststream.rabbit import Channel, ExchangeType, QueueType, RabbitBroker, RabbitExchange, RabbitQueue
from faststream.rabbit.annotations import RabbitMessage
from skywalking_background.faststream import tracing

from demo_service.queues.broker import DEAD_EXCHANGE, MESSAGE_QUEUE, dead_queue_arguments, queue_arguments
from demo_service.queues.message_queue import RECONNECT_SECONDS, MessageQueue, faststream_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faststream.rabbit.schemas.queue import QuorumQueueArgs

    from demo_service.queues.broker import Broker
    from demo_service.settings import Settings

_QUEUE: Final = RabbitQueue(
    MESSAGE_QUEUE, QueueType.QUORUM, durable=True, arguments=cast("QuorumQueueArgs", queue_arguments(MESSAGE_QUEUE))
)
_DEAD_QUEUE: Final = RabbitQueue(
    f"{MESSAGE_QUEUE}.dead",
    QueueType.QUORUM,
    durable=True,
    arguments=cast("QuorumQueueArgs", dead_queue_arguments()),
)


class QuorumQueue(MessageQueue):
    """Its client confirms what it publishes, and comes back by itself."""

    client: RabbitBroker

    def __init__(self, broker: "Broker", settings: "Settings") -> None:
        self.client = RabbitBroker(
            broker.url,
            reconnect_interval=RECONNECT_SECONDS,
            default_channel=Channel(settings.consumer_tasks, publisher_confirms=True, on_return_raises=True),
            graceful_timeout=settings.drain_seconds,
            middlewares=[tracing(broker.url)],
            logger=faststream_logger,
        )

    async def connect(self) -> None:
        """Connect, and make the queue, so that a message finds it, and the place of its dead messages."""
        await self.client.connect()
        exchange = await self.client.declare_exchange(RabbitExchange(DEAD_EXCHANGE, ExchangeType.DIRECT, durable=True))
        dead = await self.client.declare_queue(_DEAD_QUEUE)
        await dead.bind(exchange, routing_key=_DEAD_QUEUE.name)
        await self.client.declare_queue(_QUEUE)

    async def publish(self, message: dict[str, Any]) -> None:
        """Send a message; when this returns, the broker has confirmed it."""
        await self.client.publish(message, queue=MESSAGE_QUEUE, persist=True, mandatory=True)

    async def subscribe(self, work: "Callable[[dict[str, Any], int], Awaitable[None]]") -> None:
        """Acknowledge a message when it is done; one that fails for good goes to the dead-letter exchange."""

        @self.client.subscriber(_QUEUE, ack_policy=AckPolicy.MANUAL)
        async def handle(body: dict[str, Any], message: RabbitMessage) -> None:
            try:
                await work(body, int(message.headers.get("x-delivery-count") or 0) + 1)
            except Exception:
                await message.reject()
                raise
            await message.ack()
