"""`python -m demo_service consumer`: works on the messages of the queue, and acknowledges what is done."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from skywalking_background import current_trace_id, event, flush, tag
from tracing_claims import variants

from demo_service import ledger
from demo_service.dead_letters import Redactor
from demo_service.logging import configure_logging, task_id
from demo_service.queues.backends import queue_maker
from demo_service.queues.broker import MAX_DELIVERIES, MESSAGE_TASK
from demo_service.queues.health import serve_health
from demo_service.queues.message_queue import RECONNECT_SECONDS
from demo_service.tasks import Interrupted, Retry, Work, compute, letter_of, log, log_failed_attempt, parse_fault
from demo_service.tasks import Task as TaskRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo_service.dead_letters.store import DeadLetters
    from demo_service.queues.message_queue import MessageQueue
    from demo_service.settings import Settings

logger = logging.getLogger(__name__)

RETRY: Final = Retry()
"""As all other variants; the message stays unacknowledged meanwhile."""
LOOK_SECONDS: Final = 2.0
"""How often the connection is tried."""
CPU_THREADS: Final = 4
START_SECONDS: Final = 10.0
"""How long connecting and declaring may take."""


class Consumer:
    """Works on messages; what has failed for good is a dead letter."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._letters: DeadLetters | None = None
        self._redactor = Redactor(settings.redact)
        self._threads = ThreadPoolExecutor(CPU_THREADS)
        self.trouble: str | None = "the consumer waits for its broker"

    async def work(self, body: dict[str, Any], deliveries: int) -> None:
        """Do what a message asks for.

        Raises:
            Exception: what it failed with for good; it is a dead letter by then.
        """
        token = task_id.set(body["id"])
        tag("task.id", body["id"])
        attempt = 0
        try:
            if deliveries > MAX_DELIVERIES:
                message = f"its process died in each of {MAX_DELIVERIES} deliveries"
                raise Interrupted(message)  # noqa: TRY301  # as any other failure
            for attempt in range(1, RETRY.attempts + 1):
                try:
                    await self._attempt(body, attempt)
                    break
                except RETRY.on as error:
                    log_failed_attempt(attempt, RETRY.attempts, MESSAGE_TASK, error)
                    if attempt == RETRY.attempts:
                        raise
                    await asyncio.sleep(RETRY.wait_seconds(attempt))
            ledger.note("done", variants.QUEUE.name, body["id"])
        except Exception as error:
            await self._bury(body, attempt, error)
            raise
        finally:
            if attempt > 1:
                tag("task.attempts", attempt)
            task_id.reset(token)

    async def close(self) -> None:
        """Store what is still to be stored."""
        if self._letters is not None:
            await self._letters.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _attempt(self, body: dict[str, Any], attempt: int) -> None:
        if body.get("fault"):
            await parse_fault(body["fault"]).strike(attempt)
        ledger.note("begun", variants.QUEUE.name, body["id"])
        log("started", MESSAGE_TASK)
        if body["work"] == Work.CPU:
            await asyncio.get_running_loop().run_in_executor(self._threads, compute, body["seconds"])
        else:
            await asyncio.sleep(body["seconds"])
        log("completed", MESSAGE_TASK)

    async def _bury(self, body: dict[str, Any], attempts: int, error: Exception) -> None:
        """Write the letter into the store that the service reads, before the message is acknowledged."""
        ledger.note("dead", variants.QUEUE.name, body["id"])
        task = TaskRecord(body["id"], MESSAGE_TASK, f"GET {variants.QUEUE.path}", current_trace_id(), None)
        task.attempts = attempts
        arguments = {name: body[name] for name in ("seconds", "work")}
        kept = self._redactor.kept(arguments, self._settings.max_argument_bytes)
        if self._letters is None:  # most processes never need it
            store = await asyncio.to_thread(import_module, "demo_service.dead_letters.store")
            self._letters = self._letters or store.DeadLetters(self._settings)
        self._letters.put(letter_of(task, kept, error, interrupted=isinstance(error, Interrupted)))
        await self._letters.settled()


def run_consumer(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT; what then runs gets `drain_seconds`, and goes to others if that is too short.

    Returns:
        The exit code: 1 if the broker has lost its data, so that a supervisor starts this anew.

    Raises:
        BrokerUnavailableError: no broker is set.
    """
    configure_logging()
    ledger.keep(settings.ledger_dir, "consumer")
    return asyncio.run(_consume(settings, queue_maker(settings)))


async def _consume(settings: Settings, make: Callable[[], MessageQueue]) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    consumer = Consumer(settings)
    serve_health(settings, lambda: consumer.trouble)
    queue = await _start(settings, make, consumer, stopping)
    exit_code = 0
    while queue is not None and not stopping.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await stopping.wait()
        if not all(subscriber.running for subscriber in queue.client.subscribers):
            logger.error("The stream of messages is gone from the broker: this process ends and must be started again")
            exit_code = 1
            break
        consumer.trouble = None if await queue.client.ping(LOOK_SECONDS) else "the broker does not answer"
    consumer.trouble = "the consumer is about to end"
    if queue is not None:
        await queue.client.stop()
    await consumer.close()
    event("Shutdown", f"process {os.getpid()} takes no more messages")
    await asyncio.to_thread(flush)
    return exit_code


async def _start(
    settings: Settings, make: Callable[[], MessageQueue], consumer: Consumer, stopping: asyncio.Event
) -> MessageQueue | None:
    """Connect and begin to consume, as soon as the broker is there; `None` if this process has to end before."""
    while not stopping.is_set():
        queue = make()
        try:
            async with asyncio.timeout(START_SECONDS):
                await queue.connect()
                await queue.subscribe(consumer.work)
                await queue.client.start()
        except Exception as error:  # noqa: BLE001  # whatever it is, it may pass
            logger.warning("The broker does not answer (%s: %s): trying again", type(error).__name__, error)
            with suppress(Exception):
                await queue.client.stop()
            with suppress(TimeoutError):
                async with asyncio.timeout(RECONNECT_SECONDS):
                    await stopping.wait()
        else:
            consumer.trouble = None
            event("Start", f"process {os.getpid()} takes messages")
            logger.info("Consumer is ready: up to %d messages at once", settings.consumer_tasks)
            return queue
    return None
