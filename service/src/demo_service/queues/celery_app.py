"""The Celery app: how its messages are sent, kept, given again and buried. Its one task is in `celery_task`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from celery import Celery
from kombu import Exchange, Queue
from skywalking_background.celery import instrument

from demo_service.queues.broker import (
    CELERY_QUEUE,
    DEAD_EXCHANGE,
    broker_of,
    dead_queue_arguments,
    queue_arguments,
)

if TYPE_CHECKING:
    from demo_service.settings import Settings

CONNECT_SECONDS: Final = 2.0
"""How long a connection to the broker may take."""
MAX_WORK_SECONDS: Final = 75
"""After how long a task's process is ended: longer than the longest work (60 s)."""
RESTORE_SECONDS: Final = 2
"""Redis: how often a worker looks for messages that nobody has acknowledged in time."""


def make_app(settings: Settings) -> Celery:
    """Make the app, traced.

    Raises:
        BrokerUnavailableError: no broker is set.
    """
    broker = broker_of(settings)
    app = Celery("demo", broker=broker.url, set_as_current=False)
    app.conf.update(
        task_default_queue=CELERY_QUEUE,
        task_queues=[_queue(CELERY_QUEUE, amqp=broker.speaks_amqp)],
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        # Nothing is lost with a process: acknowledged when done, given again when its process dies, one at a time.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure_or_timeout=not broker.speaks_amqp,  # what fails for good goes to the dead-letter exchange
        # On Redis a worker fetches a message when a process is free. A prefetch count besides is a trap there: when the
        # broker restarts under as many tasks, none of which can be acknowledged any more, the worker never reads again.
        worker_prefetch_multiplier=1 if broker.speaks_amqp else 0,
        worker_disable_prefetch=not broker.speaks_amqp,
        task_time_limit=MAX_WORK_SECONDS,
        # Nobody asks for results, events or remote control.
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_timeout=CONNECT_SECONDS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_amqp_options() if broker.speaks_amqp else _redis_options(settings),
        # Delayed messages (retries) wait in 28 queues: the cheaper kind, durable as well.
        broker_native_delayed_delivery_queue_type="classic",
        task_publish_retry=True,
        task_publish_retry_policy={"max_retries": 3, "interval_start": 0.1, "interval_step": 0.3, "interval_max": 1.0},
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )
    return instrument(app)


def declare_dead_queue(app: Celery) -> None:
    """RabbitMQ: make the exchange and the queue of the dead messages."""
    exchange = Exchange(DEAD_EXCHANGE, type="direct", durable=True)
    name = f"{CELERY_QUEUE}.dead"
    queue = Queue(name, exchange, routing_key=name, queue_arguments=dead_queue_arguments())
    with app.connection_for_write(connect_timeout=CONNECT_SECONDS) as connection, connection.channel() as channel:
        queue(channel).declare()


def _queue(name: str, *, amqp: bool) -> Queue:
    exchange = Exchange(name, type="direct", durable=True) if not amqp else Exchange(name, type="topic", durable=True)
    return Queue(name, exchange, routing_key=name, queue_arguments=queue_arguments(name) if amqp else {})


def _amqp_options() -> dict[str, Any]:
    return {"confirm_publish": True}


def _redis_options(settings: Settings) -> dict[str, Any]:
    return {
        "visibility_timeout": settings.visibility_seconds,
        "unacked_restore_interval": RESTORE_SECONDS,
        "unacked_restore_throttle": 1,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": settings.publish_seconds,
        "socket_keepalive": True,
    }
