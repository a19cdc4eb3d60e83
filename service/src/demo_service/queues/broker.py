"""The broker that Celery and the message queue share: Redis or RabbitMQ, and the names of what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from demo_service.settings import Settings

CELERY_QUEUE: Final = "demo.celery"
MESSAGE_QUEUE: Final = "demo.queue"
"""A quorum queue in RabbitMQ, a stream in Redis."""
GROUP: Final = "workers"
"""The consumer group of the stream."""
DEAD_EXCHANGE: Final = "demo.dead"
"""RabbitMQ: takes what was rejected, or delivered too often, to `<queue>.dead`."""
MAX_DELIVERIES: Final = 5
"""How often work is begun whose process dies each time; then it is a dead letter."""
CELERY_TASK: Final = "celery_sleep"
MESSAGE_TASK: Final = "queue_sleep"
"""What dead letters call the work on a message."""
DEAD_MESSAGES: Final = 10_000
"""RabbitMQ: how many messages `<queue>.dead` keeps."""


class BrokerUnavailableError(Exception):
    """There is no broker, or it does not answer; the message shows no password."""

    def __init__(self, message: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class Broker:
    """Where it is."""

    url: str
    """With its password."""

    @property
    def speaks_amqp(self) -> bool:
        """Whether it is a RabbitMQ."""
        return self.url.startswith("amqp")


def broker_of(settings: Settings) -> Broker:
    """Return the broker that is set.

    Raises:
        BrokerUnavailableError: none is.
    """
    if settings.broker_url is None:
        message = "there is no broker: set BROKER_URL to redis://… or amqp://…, and start a worker and a consumer"
        raise BrokerUnavailableError(message)
    return Broker(settings.broker_url.get_secret_value())


def queue_arguments(queue: str) -> dict[str, Any]:
    """Return RabbitMQ's arguments for a queue whose messages must not be lost."""
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": MAX_DELIVERIES + 3,  # should ours not be counted
        "x-dead-letter-exchange": DEAD_EXCHANGE,
        "x-dead-letter-routing-key": f"{queue}.dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # what "at-least-once" needs
    }


def dead_queue_arguments() -> dict[str, Any]:
    """Return RabbitMQ's arguments for a queue of dead messages."""
    return {"x-queue-type": "quorum", "x-max-length": DEAD_MESSAGES}
