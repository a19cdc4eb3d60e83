"""The requests of `make verify`, each with the answer and the span tree that it must give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4


@dataclass(frozen=True)
class Case:
    """A request, the answer and the span tree that it must give, and how long each of its tasks runs."""

    method: str
    path: str
    answer: object
    outline: str
    task_seconds: float
    params: dict[str, str] = field(default_factory=dict)
    body: object = None
    blocking: bool = False
    after_response: bool = True
    """Whether the task begins only when the response has been sent; work elsewhere may begin earlier."""
    broker: bool = False
    """Whether it needs a broker."""
    sequential: bool = False

    @property
    def title(self) -> str:
        """The request, as it is shown."""
        query = "&".join(f"{key}={value}" for key, value in self.params.items())
        return f"{self.method} {self.path}" + (f"?{query}" if query else "")

    @property
    def size(self) -> int:
        """How many spans the complete trace has."""
        return self.outline.count("\n") + 1


def span_tree(request: str, *tasks: str) -> str:
    """Return the span tree of the trace contract: the request, its handling, and each task in a segment of its own."""
    lines = [f"Entry HTTP {request} 200", "  Local FastAPI request handling 200"]
    return "\n".join(lines + [f"  Local {task} CROSS_THREAD" for task in tasks])


def _through_broker(path: str, published: str, consumed: str) -> Case:
    """Return the case of work that another process takes from a broker."""
    spans = f"\n    Exit {published}\n      Entry {consumed} CROSS_PROCESS"
    tree = span_tree(f"GET {path}") + spans
    return Case("GET", path, "ok", tree, 2, SHORT_TASKS, after_response=False, broker=True)


THREE_TASKS: Final = ("task1", "task2", "task3")
ORDER: Final = f"order-{uuid4().hex[:8]}"  # a new one each time: a known one would start no task
SHORT_TASKS: Final = {"duration": "2"}
CASES: Final = (
    Case("GET", "/test", "ok", span_tree("GET /test", "background_sleep_task"), 10),
    Case("GET", "/test/blocking", "ok", span_tree("GET /test/blocking"), 2, SHORT_TASKS, blocking=True),
    Case(
        "GET",
        "/test/threading",
        "ok",
        span_tree("GET /test/threading", "threaded_sleep_task") + "\n    Local sleep_in_thread CROSS_THREAD",
        2,
        SHORT_TASKS,
    ),
    Case("GET", "/plain", "ok", span_tree("GET /plain"), 0),
    Case(
        "GET",
        "/test/create-task",
        "ok",
        span_tree("GET /test/create-task", "create_task_sleep"),
        2,
        SHORT_TASKS,
        after_response=False,
    ),
    Case(
        "GET",
        "/test/process",
        "ok",
        span_tree("GET /test/process", "process_sleep_task") + "\n    Local do_in_process CROSS_PROCESS",
        2,
        SHORT_TASKS,
    ),
    _through_broker("/test/celery", "celery/celery_sleep", "celery/celery_sleep"),
    _through_broker("/test/queue", "demo.queue publish", "demo.queue"),
    Case("POST", "/action", {"status": "processing"}, span_tree("POST /action", "long_running_task"), 2, SHORT_TASKS),
    Case(
        "POST",
        "/complex-action",
        {"status": "processing", "tasks": 3},
        span_tree("POST /complex-action", *THREE_TASKS),
        2,
        {**SHORT_TASKS, "mode": "parallel"},
    ),
    Case(
        "POST",
        "/complex-action",
        {"status": "processing", "tasks": 3},
        span_tree("POST /complex-action", *THREE_TASKS),
        2,
        {**SHORT_TASKS, "mode": "sequential"},
        sequential=True,
    ),
    Case(
        "POST",
        "/process",
        {"status": "accepted", "id": ORDER},
        span_tree("POST /process", "process_data"),
        2,
        SHORT_TASKS,
        body={"id": ORDER, "lines": 3},
    ),
)
