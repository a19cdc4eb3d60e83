"""The ways to run work beside a request: one table for endpoints, console, `make compare`, `make crash` and docs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

MAX_SECONDS: Final = 60.0
"""The longest work of a request."""
MAX_CPU_SECONDS: Final = 5.0
"""The longest work that computes: in some variants nobody else is served meanwhile."""


Fault = Literal["kill", "term", "broker"]
FAULTS: Final[dict[Fault, str]] = {
    "kill": "kill -9 of the process that does the work",
    "term": "SIGTERM, and a new process",
    "broker": "restart of the broker",
}
"""What `make crash` lets happen, by the names it knows them by."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to run the work."""

    name: str
    """As ledger, tables and pages call it."""
    title: str
    path: str
    """`GET`; takes `?duration=` (s, up to `MAX_SECONDS`) and `?work=sleep|cpu` (cpu: up to `MAX_CPU_SECONDS`)."""
    span: str
    """The name of the span that the work itself is."""
    how: str
    """How it runs, in a sentence."""
    limit: str
    """How much of it runs at the same time."""
    survives_term: bool
    """Whether no work that was accepted is lost when the process that does it gets SIGTERM."""
    survives_kill: bool
    """Whether no work that was accepted is lost when the process that does it is killed (SIGKILL, out of memory)."""
    process: Literal["service", "pool", "worker", "consumer"] = "service"
    """The process that does it: `pool` is a child of the service."""
    broker: bool = False
    """Whether it needs `BROKER_URL`, and thus also has to survive a restart of the broker."""

    @property
    def faults(self) -> dict[Fault, bool]:
        """What can happen to it, and whether it promises to lose nothing then."""
        found: dict[Fault, bool] = {"kill": self.survives_kill, "term": self.survives_term}
        return {**found, "broker": self.survives_kill} if self.broker else found


BLOCKING: Final = Variant(
    name="blocking",
    title="In the request",
    path="/test/blocking",
    span="HTTP GET /test/blocking",
    how="The client waits until the work is done.",
    limit="one for each open connection; work that computes blocks all others",
    survives_term=True,
    survives_kill=True,
)
"""It survives as nothing is accepted before it is done: the client sees that its request failed."""
BACKGROUND_TASK: Final = Variant(
    name="background-task",
    title="BackgroundTasks",
    path="/test",
    span="background_sleep_task",
    how="FastAPI runs it in the service's event loop when the answer is sent; failures are retried.",
    limit="SERVICE_MAX_RUNNING (10,000); work that computes blocks all others",
    survives_term=True,
    survives_kill=False,
)
CREATE_TASK: Final = Variant(
    name="create-task",
    title="asyncio.create_task",
    path="/test/create-task",
    span="create_task_sleep",
    how="An asyncio task that nobody waits for: no retries, no dead letters, no drain.",
    limit="SERVICE_MAX_RUNNING (10,000); work that computes blocks all others",
    survives_term=False,
    survives_kill=False,
)
THREADING: Final = Variant(
    name="threading",
    title="Threads",
    path="/test/threading",
    span="threaded_sleep_task",
    how="A thread of the service does it; failures are retried.",
    limit="100 threads; work that computes shares one core",
    survives_term=True,
    survives_kill=False,
)
PROCESS: Final = Variant(
    name="process",
    title="Process pool",
    path="/test/process",
    span="process_sleep_task",
    how="A process of the service's pool does it; retried when that process is killed, lost with the service.",
    limit="SERVICE_POOL_PROCESSES (2)",
    survives_term=True,
    survives_kill=True,
    process="pool",
)
CELERY: Final = Variant(
    name="celery",
    title="Celery",
    path="/test/celery",
    span="celery/celery_sleep",
    how="A process of a Celery worker's prefork pool does it; acknowledged when it is done.",
    limit="SERVICE_WORKER_PROCESSES (4) for each worker",
    survives_term=True,
    survives_kill=True,
    process="worker",
    broker=True,
)
QUEUE: Final = Variant(
    name="queue",
    title="Message queue",
    path="/test/queue",
    span="demo.queue",
    how="A consumer (FastStream) does it in its event loop; acknowledged when it is done.",
    limit="SERVICE_CONSUMER_TASKS (1,000) for each consumer; what computes does so in 4 threads",
    survives_term=True,
    survives_kill=True,
    process="consumer",
    broker=True,
)

VARIANTS: Final = (BLOCKING, BACKGROUND_TASK, CREATE_TASK, THREADING, PROCESS, CELERY, QUEUE)
"""All of them, from the simplest to the safest."""
BY_NAME: Final = {variant.name: variant for variant in VARIANTS}
