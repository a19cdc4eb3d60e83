"""Sending work to the broker: confirmed, in bounded time, and without holding up the event loop."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from demo_service.queues.broker import CELERY_TASK, MESSAGE_TASK, BrokerUnavailableError, broker_of

if TYPE_CHECKING:
    from celery import Task

    from demo_service.queues.message_queue import MessageQueue
    from demo_service.settings import Settings

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS: Final = 5
"""When a client may ask again whose message could not be sent."""
CELERY_THREADS: Final = 8
"""Celery publishes by blocking calls: how many at once."""


class Publisher:
    """Sends work to the Celery worker and to the consumer; connects when it is used for the first time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(CELERY_THREADS, thread_name_prefix="celery-publish")
        self._task: Task | None = None
        self._queue: MessageQueue | None = None
        self._connecting = asyncio.Lock()
        if settings.broker_url is not None:
            # Imports take 0.6 s: only with a broker, and not while requests wait.
            from demo_service.queues.backends import queue_maker  # noqa: PLC0415
            from demo_service.queues.celery_app import make_app  # noqa: PLC0415
            from demo_service.queues.celery_task import add_task  # noqa: PLC0415

            self._task = add_task(make_app(settings), settings)
            self._make_queue = queue_maker(settings)

    async def send_to_celery(self, work_id: str, **arguments: Any) -> None:  # noqa: ANN401  # JSON
        """Send a Celery task.

        Raises:
            BrokerUnavailableError: no broker is set, or it has not confirmed the message in time.
        """
        broker_of(self._settings)
        assert self._task is not None  # noqa: S101  # there is a broker
        send = partial(
            self._task.apply_async, kwargs=arguments, task_id=work_id, confirm_timeout=self._settings.publish_seconds
        )
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._settings.publish_seconds):
                await loop.run_in_executor(self._threads, copy_context().run, send)
        except Exception as error:
            raise _unavailable(error) from error

    async def send_message(self, work_id: str, **arguments: Any) -> None:  # noqa: ANN401  # JSON
        """Send a message to the queue.

        Raises:
            BrokerUnavailableError: no broker is set, or it has not confirmed the message in time.
        """
        broker_of(self._settings)
        try:
            async with asyncio.timeout(self._settings.publish_seconds):
                queue = await self._connected()
                await queue.publish({"id": work_id, **arguments})
        except Exception as error:
            await self._disconnect()
            raise _unavailable(error) from error

    async def send_again(self, name: str, arguments: dict[str, Any]) -> str:
        """Send what has become a dead letter of this name as new work; return its id.

        Raises:
            BrokerUnavailableError: no broker is set, or it has not confirmed the message in time.
        """
        send = {CELERY_TASK: self.send_to_celery, MESSAGE_TASK: self.send_message}[name]
        work_id = uuid4().hex
        await send(work_id, **arguments)
        return work_id

    async def close(self) -> None:
        """Leave the broker."""
        await self._disconnect()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _connected(self) -> MessageQueue:
        async with self._connecting:
            if self._queue is None:
                queue = self._make_queue()
                try:
                    await queue.connect()
                except BaseException:
                    await _leave(queue)  # it would go on trying
                    raise
                self._queue = queue
            return self._queue

    async def _disconnect(self) -> None:
        """Begin anew with the next message: the queue may have gone with the broker's data."""
        queue, self._queue = self._queue, None
        if queue is not None:
            await _leave(queue)


async def _leave(queue: MessageQueue) -> None:
    try:
        async with asyncio.timeout(1):
            await queue.client.stop()
    except Exception:  # it is left anyway
        logger.debug("The connection to the broker could not be closed", exc_info=True)


def _unavailable(error: Exception) -> BrokerUnavailableError:
    """Say in the log why, once for each request that gets 503, and to the client what to do."""
    logger.warning("The broker has not taken a message: %s: %s", type(error).__name__, error)
    message = f"the broker does not answer: nothing was accepted, try again in {RETRY_AFTER_SECONDS} s"
    return BrokerUnavailableError(message, RETRY_AFTER_SECONDS)
