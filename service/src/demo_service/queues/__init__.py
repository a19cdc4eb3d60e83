"""Work that a broker keeps until it is done: Celery and a message queue, their publisher, worker and consumer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo_service.collector import paused
from demo_service.queues.broker import CELERY_TASK, MESSAGE_TASK, BrokerUnavailableError
from demo_service.queues.publisher import Publisher
from demo_service.queues.worker import run_worker

if TYPE_CHECKING:
    from demo_service.settings import Settings

__all__ = ["CELERY_TASK", "MESSAGE_TASK", "BrokerUnavailableError", "Publisher", "run_consumer", "run_worker"]


def run_consumer(settings: Settings) -> int:
    """Run the consumer; imported by nobody else, as it costs 20 MB."""
    with paused():
        from demo_service.queues.consumer import run_consumer as run  # noqa: PLC0415

    return run(settings)
