"""The message queue by FastStream, over whichever broker there is."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faststream.rabbit import RabbitBroker
    from faststream.redis import RedisBroker

    from demo_service.queues.broker import Broker
    from demo_service.settings import Settings

RECONNECT_SECONDS: Final = 1.0
faststream_logger: Final = logging.getLogger(f"{__name__}.faststream")
faststream_logger.setLevel(logging.WARNING)  # it tells of each message and of each of its own steps


class MessageQueue(ABC):
    """A connection to the queue: of who sends to it, or who works on it."""

    client: RabbitBroker | RedisBroker
    """FastStream's own."""

    @abstractmethod
    def __init__(self, broker: Broker, settings: Settings) -> None: ...

    @abstractmethod
    async def connect(self) -> None:
        """Connect, and make what messages go to."""

    @abstractmethod
    async def publish(self, message: dict[str, Any]) -> None:
        """Send a message; when this returns, the broker has confirmed it.

        Raises:
            Exception: it has not.
        """

    @abstractmethod
    async def subscribe(self, work: Callable[[dict[str, Any], int], Awaitable[None]]) -> None:
        """Have `work` called with each message, and how often that was delivered; once connected.

        A message is acknowledged when its work is done. Where that raises, the message has failed for good.
        """
