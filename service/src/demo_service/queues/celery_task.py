"""The work as a Celery task, and what becomes of it when it fails."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

import redis
from celery import Task
from skywalking_background import current_trace_id
from tracing_claims import variants

from demo_service import ledger
from demo_service.dead_letters import Redactor
from demo_service.logging import task_id
from demo_service.queues.broker import CELERY_QUEUE, CELERY_TASK, MAX_DELIVERIES, broker_of
from demo_service.tasks import Interrupted, Retry, Work, do, letter_of, log_failed_attempt, parse_fault
from demo_service.tasks import Task as TaskRecord

if TYPE_CHECKING:
    from celery import Celery

    from demo_service.settings import Settings


COUNTED_SECONDS: Final = 24 * 3600
"""Redis: how long it is remembered how often a task was begun."""
RETRY: Final = Retry()
"""As all other variants."""


def add_task(app: Celery, settings: Settings) -> Task:
    """Give the app its task."""

    class Buried(Task):  # type: ignore[misc]  # Celery has no types
        """A task that leaves a dead letter when it has failed for good."""

        def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:  # noqa: ANN401, ARG002
            """Write the letter into the store that the service reads."""
            ledger.note("dead", variants.CELERY.name, task_id)
            asyncio.run(_bury(settings, self.request, kwargs, exc))

    @app.task(base=Buried, bind=True, name=CELERY_TASK, max_retries=RETRY.attempts - 1)  # type: ignore[untyped-decorator]
    def celery_sleep(self: Task, seconds: float, work: str = Work.SLEEP, fault: str | None = None) -> None:
        token = task_id.set(self.request.id)
        attempt = self.request.retries + 1
        try:
            _refuse_deadly(settings, self.request)
            if fault:
                asyncio.run(parse_fault(fault).strike(attempt))
            ledger.note("begun", variants.CELERY.name, self.request.id)
            do(CELERY_TASK, seconds, work)
        except RETRY.on as error:
            log_failed_attempt(attempt, RETRY.attempts, CELERY_TASK, error)
            if attempt == RETRY.attempts:
                raise
            raise self.retry(exc=error, countdown=_countdown_seconds(attempt)) from error
        else:
            ledger.note("done", variants.CELERY.name, self.request.id)
        finally:
            task_id.reset(token)

    return celery_sleep


def _refuse_deadly(settings: Settings, request: Any) -> None:  # noqa: ANN401  # Celery's
    """Refuse a task whose process has died too often.

    Raises:
        Interrupted: it has.
    """
    if not request.delivery_info.get("redelivered"):
        return
    broker = broker_of(settings)
    if broker.speaks_amqp:
        deliveries = int(request.get("x-delivery-count") or 0) + 1
    else:
        with redis.from_url(broker.url, socket_timeout=settings.publish_seconds) as client:
            key = f"{CELERY_QUEUE}.deliveries.{request.id}"
            deliveries = int(client.incr(key)) + 1
            client.expire(key, COUNTED_SECONDS)
    if deliveries > MAX_DELIVERIES:
        message = f"its process died in each of {MAX_DELIVERIES} deliveries"
        raise Interrupted(message)


def _countdown_seconds(failed: int) -> int:
    """Return how long to wait after so many failed attempts: whole seconds, as RabbitMQ's delayed delivery counts."""
    return round(RETRY.wait_seconds(failed)) + random.randint(0, 1)  # noqa: S311  # no secret


async def _bury(settings: Settings, request: Any, arguments: dict[str, Any], error: Exception) -> None:  # noqa: ANN401
    from demo_service.dead_letters.store import DeadLetters  # noqa: PLC0415  # most processes never need it

    task = TaskRecord(request.id, CELERY_TASK, f"GET {variants.CELERY.path}", current_trace_id(), None)
    task.attempts = request.retries + 1
    letters = DeadLetters(settings)
    arguments = {name: value for name, value in arguments.items() if name != "fault"}  # a replay has none
    kept = Redactor(settings.redact).kept(arguments, settings.max_argument_bytes)
    letters.put(letter_of(task, kept, error, interrupted=isinstance(error, Interrupted)))
    await letters.close()
