"""Programs that send messages and work on them, by `messaging` alone: `python -m messaging_app NAME URL`.

Each prints the trace that it began with. The recipes of the library's README are here word for word.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from queue import Queue
from typing import Any

import skywalking_background as sw
from skywalking_background import background_span
from skywalking_background.messaging import consumer_span, extract, inject, producer_span

SECONDS = 60.0  # until a message must have come


async def faststream(url: str) -> None:
    """Publish three messages and consume them: one is handled, one fails, one is refused."""
    from faststream.exceptions import RejectMessage
    from skywalking_background.faststream import tracing

    if url.startswith("amqp"):
        from faststream.rabbit import RabbitBroker

        broker: Any = RabbitBroker(url, middlewares=[tracing(url)])
        subscriber, where = broker.subscriber("orders"), {"queue": "orders"}
    else:
        from faststream.redis import RedisBroker, StreamSub

        broker = RedisBroker(url, middlewares=[tracing(url)])
        stream = StreamSub("orders", group="workers", consumer="one")
        subscriber, where = broker.subscriber(stream=stream), {"stream": "orders"}
    left, done = {"good", "bad", "refused"}, asyncio.Event()

    @subscriber
    async def handle(order: str) -> None:
        with background_span("piece"):
            await asyncio.sleep(0.01)
        left.discard(order)
        if not left:
            done.set()
        if order == "bad":
            raise ValueError(order)
        if order == "refused":
            raise RejectMessage

    async with broker:
        await broker.start()
        with background_span("client"):
            print(sw.current_trace_id())
            for order in ("good", "bad", "refused"):
                await broker.publish(order, **where)
        await asyncio.wait_for(done.wait(), SECONDS)
        await asyncio.sleep(0.2)  # the last one's span


async def taskiq(_url: str) -> None:
    """Run a task by Taskiq."""
    from taskiq import InMemoryBroker, TaskiqMessage, TaskiqMiddleware, TaskiqResult

    class Tracing(TaskiqMiddleware):
        def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
            inject(message.labels)
            return message

        def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
            span = background_span(message.task_name, parent=extract(message.labels))
            running[message.task_id] = span.__enter__()
            return message

        def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
            error = result.error
            running.pop(message.task_id).__exit__(type(error) if error else None, error, None)

    running: dict[str, background_span] = {}
    broker = InMemoryBroker().with_middlewares(Tracing())

    @broker.task(task_name="resize")
    async def resize(path: str) -> None:
        with background_span("piece"):
            await asyncio.sleep(0)
        if not path:
            raise ValueError(path)

    await broker.startup()
    with background_span("client"):
        print(sw.current_trace_id())
        for path in ("a.png", ""):
            await (await resize.kiq(path)).wait_result(timeout=SECONDS)
    await broker.shutdown()


def apscheduler(_url: str) -> None:
    """Run a job by APScheduler: one that a request has asked for, and one that is nobody's."""
    from apscheduler.schedulers.background import BackgroundScheduler

    def job(headers: dict[str, str]) -> None:
        with background_span("report", parent=extract(headers)):
            done.put(sw.current_trace_id())

    done: Queue[str | None] = Queue()
    scheduler = BackgroundScheduler()
    scheduler.start()
    with background_span("client"):
        print(sw.current_trace_id())
        headers: dict[str, str] = {}
        inject(headers)
        scheduler.add_job(job, args=[headers])
    first = done.get(timeout=SECONDS)
    scheduler.add_job(job, args=[{}])
    second = done.get(timeout=SECONDS)
    scheduler.shutdown()
    assert first != second


def thread(_url: str) -> None:
    """Hand a message to a thread's loop, as to a broker of one's own."""
    messages: Queue[dict[str, str] | None] = Queue()

    def loop() -> None:
        while (headers := messages.get()) is not None:
            with consumer_span("orders", headers, queue="orders", broker="memory://here"):
                pass

    worker = threading.Thread(target=loop)
    worker.start()
    with background_span("client"):
        print(sw.current_trace_id())
        with producer_span("orders publish", queue="orders", broker="memory://here"):
            headers: dict[str, str] = {}
            inject(headers)
            messages.put(headers)
    messages.put(None)
    worker.join(SECONDS)


def main(name: str, url: str) -> None:
    sw.start()
    run = {"faststream": faststream, "taskiq": taskiq, "apscheduler": apscheduler, "thread": thread}[name]
    coroutine = run(url)
    if coroutine is not None:
        asyncio.run(coroutine)
    deadline = time.monotonic() + 60
    while not sw.flush(30):  # a busy OAP may not be reached by the one try that one which was never there gets
        assert time.monotonic() < deadline
    assert sw.faults() == {}


if __name__ == "__main__":
    main(*sys.argv[1:])
