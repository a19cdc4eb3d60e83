"""The tasks that are known: all unfinished ones and the latest finished ones."""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator


class State(StrEnum):
    """How far a task has come."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    FAILED = "failed"
    """An attempt failed, the next one waits."""
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    """It failed for good, and is a dead letter."""
    CANCELLED = "cancelled"
    """Somebody has asked for its end."""


_LAST: Final = (State.SUCCEEDED, State.DEAD, State.CANCELLED)


class Task:
    """One task; times are seconds of `time.monotonic`, but for `accepted_at`, which is of `time.time`."""

    __slots__ = (
        "accepted",
        "accepted_at",
        "attempts",
        "ended",
        "endpoint",
        "error",
        "id",
        "name",
        "replay_of",
        "run",
        "started",
        "state",
        "trace_id",
    )

    def __init__(self, task_id: str, name: str, endpoint: str, trace_id: str | None, replay_of: str | None) -> None:
        self.id = task_id
        self.name = name
        self.endpoint = endpoint
        self.trace_id = trace_id
        self.replay_of = replay_of
        self.run = 1
        """More, if processes that ran it have ended before it did."""
        self.state = State.ACCEPTED
        self.attempts = 0
        self.accepted_at = time.time()
        self.accepted = time.monotonic()
        self.started: float | None = None
        self.ended: float | None = None
        self.error: str | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.ended is not None

    @property
    def queue_delay_ms(self) -> float | None:
        """From its acceptance to its first attempt."""
        return None if self.started is None else (self.started - self.accepted) * 1000

    @property
    def run_time_ms(self) -> float | None:
        """From its first attempt to its end, or until now."""
        return None if self.started is None else ((self.ended or time.monotonic()) - self.started) * 1000


class Registry:
    """The tasks of this process by id; of the finished ones the oldest are forgotten first."""

    def __init__(self, kept: int) -> None:
        self.counts: Counter[State] = Counter()
        self._kept = kept
        self._tasks: dict[str, Task] = {}
        self._finished: deque[str] = deque()

    def add(self, task: Task) -> None:
        """Take a new task in."""
        self._tasks[task.id] = task
        self.counts[task.state] += 1

    def move(self, task: Task, state: State) -> None:
        """Note that a task has come to another state."""
        self.counts[task.state] -= 1
        self.counts[state] += 1
        task.state = state
        if state in _LAST:
            task.ended = time.monotonic()
            self._finished.append(task.id)
            if len(self._finished) > self._kept:
                forgotten = self._tasks.pop(self._finished.popleft())
                self.counts[forgotten.state] -= 1

    def get(self, task_id: str) -> Task | None:
        """Return a task; `None` for one that is unknown or forgotten."""
        return self._tasks.get(task_id)

    def newest(self, state: State | None, limit: int) -> Iterator[Task]:
        """Go through the tasks, the last accepted first."""
        every = (task for task in reversed(self._tasks.values()) if state is None or task.state is state)
        return itertools.islice(every, limit)
