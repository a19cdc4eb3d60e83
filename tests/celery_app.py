"""A Celery app with a task for each case, and what a client does in each: `python -m celery_app NAME…`.

Run so, it sends what belongs to the cases and prints the trace of each, and what came of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

import skywalking_background as sw
from celery import Celery, Task, chain, chord, group
from celery.exceptions import Ignore, Reject
from kombu import Exchange, Queue
from pydantic import BaseModel
from skywalking_background.celery import instrument

if TYPE_CHECKING:
    from collections.abc import Callable

app = Celery("cases", broker=os.environ["BROKER_URL"], backend=os.environ.get("RESULT_URL"))
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    task_queues=[Queue("celery"), Queue("films", Exchange("media", type="topic"), routing_key="media.film")],
    worker_prefetch_multiplier=1,
)


@app.task(name="early")
def early() -> None:
    """Do nothing; declared before the app is instrumented."""


assert instrument(app) is app
assert instrument(app) is app


@app.task(name="add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="total", ignore_result=False)
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="slow_add", ignore_result=False)
def slow_add(x: int, y: int) -> int:
    time.sleep(0.3)
    return x + y


@app.task(name="quick_add", ignore_result=False)
def quick_add(x: int, y: int) -> int:
    return x + y


@app.task(name="failing")
def failing() -> None:
    message = "no luck"
    raise ValueError(message)


@app.task(name="flaky", bind=True, max_retries=1)
def flaky(self: Task, times: int = 1) -> None:
    if self.request.retries < times:
        self.retry(countdown=0.1, exc=ValueError("still no luck"))


@app.task(name="flaky_by_itself", autoretry_for=(ValueError,), bind=True, default_retry_delay=0.1, max_retries=2)
def flaky_by_itself(self: Task) -> None:
    if not self.request.retries:
        failing()


@app.task(name="ignoring")
def ignoring() -> None:
    raise Ignore


@app.task(name="rejecting", acks_late=True)
def rejecting() -> None:
    raise Reject("not for me", requeue=False)


@app.task(name="replacing", bind=True)
def replacing(self: Task) -> None:
    self.replace(add.s(1, 2))


@app.task(name="working")
def working() -> None:
    with sw.background_span("piece"):
        add.delay(1, 2)


class Film(BaseModel):
    title: str


@app.task(name="show", pydantic=True)
def show(film: Film) -> None:
    sw.tag("film", film.title)


@app.task(name="dying", bind=True, acks_late=True, reject_on_worker_lost=True)
def dying(self: Task) -> None:
    time.sleep(0.2)
    if not self.request.delivery_info["redelivered"]:
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="endless", time_limit=1)
def endless() -> None:
    time.sleep(30)


@app.task(name="headed", bind=True)
def headed(self: Task) -> None:
    sw.tag("colour", self.request.get("colour"))


def wrong_arguments() -> str:
    try:
        add.delay(1)
    except TypeError as error:
        return str(error)
    return "nothing was checked"


def in_an_untraced_place() -> None:
    with sw.untraced():
        working.delay()


CASES: dict[str, Callable[[], Any]] = {
    "delay": lambda: add.delay(1, 2),
    "declared before": early.delay,
    "countdown": lambda: add.apply_async((1, 2), countdown=1),
    "by name": lambda: app.send_task("add", (1, 2)),
    "another queue": lambda: add.apply_async((1, 2), exchange="media", routing_key="media.film"),
    "headers of the user's": lambda: headed.apply_async(headers={"colour": "green"}),
    "protocol": wrong_arguments,
    "pydantic": lambda: show.delay({"title": "Brazil"}),
    "failing": failing.delay,
    "retry": flaky.delay,
    "retries exhausted": lambda: flaky.delay(2),
    "retry by itself": flaky_by_itself.delay,
    "ignore": ignoring.delay,
    "reject": rejecting.delay,
    "replace": replacing.delay,
    "chain": chain(add.s(1, 2), add.s(3)).delay,
    "group": group(add.s(1, 2), early.si()).delay,
    "chord": chord([slow_add.s(1, 2), quick_add.s(3, 4)], total.s()).delay,
    "link": lambda: add.apply_async((1, 2), link=add.s(3)),
    "work inside": working.delay,
    "eager": lambda: add.apply((1, 2)),
    "eager and failing": failing.apply,
    "eager retry": flaky.apply,
    "eager in eager": working.apply,
    "untraced": in_an_untraced_place,
    "not registered": lambda: app.send_task("nowhere"),
    "expired": lambda: add.apply_async((1, 2), countdown=1.5, expires=0.5),
    "killed": dying.delay,
    "hard time limit": endless.delay,
}


def main(names: list[str]) -> None:
    told = {}
    for name in names:
        with sw.background_span(name):
            answer = CASES[name]()
            told[name] = [sw.current_trace_id(), answer if isinstance(answer, str) else ""]
    deadline = time.monotonic() + 60
    while not sw.flush(30):  # a busy OAP may not be reached by the one try that one which was never there gets
        assert time.monotonic() < deadline
    print(json.dumps({"told": told, "faults": sw.faults()}))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Exception:
        traceback.print_exc()
        raise
