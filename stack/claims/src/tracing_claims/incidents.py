"""The guided incidents, as `make incident` and the console tell them; how each is played is in `stack.incidents`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Incident:
    """One incident, told in four steps: the symptom, the trace, the switch, the same picture again."""

    name: str
    title: str
    story: str
    """What people say when it happens."""
    scale: str
    """What is smaller here than in the story."""
    symptom: str
    """Where it is seen first."""
    search: str
    """What to look for in a trace."""
    before: str
    """The setting that leads to it, as it is typed."""
    after: str
    switch: str
    """What the one switch changes, and what it costs."""


INCIDENTS: Final = (
    Incident(
        "sequential",
        "The last task is an hour late",
        "An order leaves three tasks behind: the mail, the invoice, the parcel label. Each takes half an hour on a bad "
        "day. The label is printed an hour late, though nothing failed and every answer was quick.",
        "3 seconds stand for half an hour: 6 seconds late is an hour late.",
        "The delay between a task’s acceptance and its start, of task3: meter_background_task_queue_delay_ms in OAP. "
        "The alarm background_queue_delay_rule is on it. Response times show nothing.",
        "The three tasks are steps of a staircase: each begins where the one before has ended. The tag "
        "task.queue_delay_ms of task3 has the wait. Starlette runs the background tasks of one response one after the "
        "other, and a failure drops the rest.",
        "mode=sequential",
        "mode=parallel",
        "The tasks are given to ParallelTasks in the place of Starlette’s BackgroundTasks: they run side by side. It "
        "is for tasks that need neither the order nor each other’s results.",
    ),
    Incident(
        "threads",
        "The forty-first answer waits",
        "Mails are sent by a plain function, in a thread. When the mail server is slow, pages that have nothing to do "
        "with mail hang too, on a machine whose processor is idle.",
        "40 tasks block for 4 seconds each; the answers then ask for a thread.",
        "The response time of HTTP GET /plain, which does nothing at all: endpoint_resp_time in OAP.",
        "The entry span is long and there is nothing inside it: the request waits for a thread. At the same time "
        "exactly forty tasks run. AnyIO has forty threads for all that is no coroutine, endpoints and tasks alike.",
        "threads=shared",
        "threads=own",
        "The tasks get a limiter of their own, so that they can’t take the threads of the endpoints. The best switch "
        "is a coroutine, as in GET /test; this one is for code that can only block.",
    ),
    Incident(
        "neighbour",
        "A neighbour is away",
        "The payment service does not answer. Soon this service refuses orders that have nothing to do with "
        "payments, with 503, and goes on refusing after the neighbour is back.",
        "A limit of 2 seconds stands for the usual 30 to 90; there is room for 15 tasks and 5 that wait.",
        "The success rate of HTTP GET /test: endpoint_sla in OAP. The alarm endpoint_success_rate_rule is on it.",
        "A task that was accepted has three attempts, each as long as the limit allows, and holds its place all the "
        "while. Then the queue is full: a refused request is an entry span of 1 ms with the status 503.",
        "SERVICE_ATTEMPT_SECONDS=2",
        "SERVICE_ATTEMPT_SECONDS=0.3",
        "A limit near what the neighbour needs on a good day. The tasks fail all the same, but soon: they wait as dead "
        "letters for their replay, and nothing is refused.",
    ),
    Incident(
        "killed",
        "The process dies with two hundred tasks",
        "The kernel kills the service for want of memory. It is back after some seconds and all is green. Two hundred "
        "customers were told “ok”, and nothing of theirs was done.",
        "200 tasks of 30 seconds, and a kill after the first seconds.",
        "Tasks that have begun and have no end: meter_background_tasks_started less those that succeeded, failed or "
        "crashed, in OAP. With the journal the alarm background_crashed_tasks_rule is on it.",
        "Without a journal a trace has the request and nothing after it, and the console’s page Running lists the "
        "tasks under “Without news”. With it each task has a failed span with its true start, task.outcome=crashed.",
        "SERVICE_JOURNAL=off",
        "SERVICE_JOURNAL=written",
        "Accepted tasks are written down before the answer. The next start closes their spans and makes them dead "
        "letters, to be replayed by one press. “written” survives a kill, “synced” a power cut; both cost some "
        "microseconds to milliseconds for each request.",
    ),
)
BY_NAME: Final = {incident.name: incident for incident in INCIDENTS}
TONES: Final = {
    "answer": "the request, until its answer",
    "wait": "accepted, and waits",
    "task": "the task runs",
    "failed": "an attempt that fails",
    "refused": "refused with 503",
    "lost": "killed, and no trace has an end",
    "crashed": "killed: the trace says so, a dead letter waits",
}
"""What the pieces of a picture mean."""
