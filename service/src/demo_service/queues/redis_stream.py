"""The message queue in Redis: a stream with a consumer group."""

import asyncio
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from faststream import AckPolicy
from faststream.redis import RedisBroker, StreamSub
from faststream.redis.annotations import RedisStreamMessage
from redis.exceptions import RedisError, ResponseError
from skywalking_background import tag
from skywalking_background.faststream import tracing

from demo_service.queues.broker import GROUP, MESSAGE_QUEUE
from demo_service.queues.message_queue import MessageQueue, faststream_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from demo_service.queues.broker import Broker
    from demo_service.settings import Settings

FINISH_TRIES: Final = 15
"""How often, once a second, a message is tried to be acknowledged."""


class RedisStream(MessageQueue):
    """Its messages stay in the stream until they are acknowledged."""

    client: RedisBroker

    def __init__(self, broker: "Broker", settings: "Settings") -> None:
        self._settings = settings
        self.client = RedisBroker(
            broker.url,
            socket_connect_timeout=2.0,
            socket_timeout=settings.publish_seconds,
            socket_keepalive=True,
            graceful_timeout=settings.drain_seconds,
            middlewares=[tracing(broker.url)],
            logger=faststream_logger,
        )

    async def connect(self) -> None:
        """Connect, and make the stream and its consumer group, which gets all messages from the first on."""
        redis = await self.client.connect()
        with suppress(ResponseError):  # it is there
            await redis.xgroup_create(MESSAGE_QUEUE, GROUP, id="0", mkstream=True)

    async def publish(self, message: dict[str, Any]) -> None:
        """Send a message; when this returns, the broker has confirmed it."""
        await self.client.publish(message, stream=MESSAGE_QUEUE)

    async def subscribe(self, work: "Callable[[dict[str, Any], int], Awaitable[None]]") -> None:
        """Acknowledge a message when its work has ended; take over what others have not acknowledged in time."""
        redis: Any = await self.client.connect()
        name = f"{socket.gethostname()}-{os.getpid()}"
        new = StreamSub(MESSAGE_QUEUE, group=GROUP, consumer=name, max_records=100)
        left = StreamSub(
            MESSAGE_QUEUE,
            group=GROUP,
            consumer=name,
            min_idle_time=round(self._settings.visibility_seconds * 1000),
            polling_interval=1000,
        )

        async def run(body: dict[str, Any], message_id: bytes, deliveries: int) -> None:
            try:
                await work(body, deliveries)
            except Exception:
                await _finish(redis, message_id)
                raise
            await _finish(redis, message_id)

        @self.client.subscriber(stream=new, ack_policy=AckPolicy.MANUAL, max_workers=self._settings.consumer_tasks)
        async def handle(body: dict[str, Any], message: RedisStreamMessage) -> None:
            await run(body, message.raw_message["message_ids"][0], 1)

        @self.client.subscriber(stream=left, ack_policy=AckPolicy.MANUAL, max_workers=self._settings.consumer_tasks)
        async def handle_again(body: dict[str, Any], message: RedisStreamMessage) -> None:
            tag("mq.redelivered", "true")
            message_id = message.raw_message["message_ids"][0]
            pending = await redis.xpending_range(MESSAGE_QUEUE, GROUP, message_id, message_id, 1)
            await run(body, message_id, pending[0]["times_delivered"] if pending else 1)


async def _finish(redis: Any, message_id: bytes) -> None:  # noqa: ANN401  # redis' own client
    """Acknowledge and delete in one step: what is only acknowledged would stay in the stream for ever."""
    for tried in range(FINISH_TRIES):  # the broker may be about to come back
        try:
            async with redis.pipeline(transaction=True) as pipeline:
                pipeline.xack(MESSAGE_QUEUE, GROUP, message_id)
                pipeline.xdel(MESSAGE_QUEUE, message_id)
                await pipeline.execute()
        except (RedisError, OSError):
            if tried == FINISH_TRIES - 1:
                raise
            await asyncio.sleep(1)
        else:
            return
