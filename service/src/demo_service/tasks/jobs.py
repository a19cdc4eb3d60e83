"""What can run in the background: a function with a name that it is replayed by, and its retry policy."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass(frozen=True)
class Retry:
    """How often an attempt is made, and how long (s) to wait before the next: twice as long each time, with jitter."""

    attempts: int = 3
    on: tuple[type[Exception], ...] = (OSError,)
    """What may pass by itself: connections, timeouts, files. A programming error never does."""
    wait_initial: float = 0.5
    wait_max: float = 10.0
    wait_jitter: float = 0.5

    def wait(self, failed: int) -> float:
        """Return how long (s) to wait after so many failed attempts.

        Our own, as tenacity (and stamina, which is built on it) leaves a circle of 49 objects behind each retried call.
        """
        jitter = random.uniform(0, self.wait_jitter)  # noqa: S311  # no secret
        return min(self.wait_max, self.wait_initial * 2.0 ** min(failed - 1, 32) + jitter)


@dataclass(frozen=True)
class Job:
    """A function that can run in the background."""

    run: Callable[..., Awaitable[None]]
    retry: Retry

    @property
    def name(self) -> str:
        """The name of its span and its dead letters."""
        return self.run.__name__


JOBS: dict[str, Job] = {}
"""Every job by its name."""


def job(retry: Retry | None = None) -> Callable[[Callable[..., Awaitable[Any]]], Job]:
    """Make a function a job. Its arguments must be JSON values, so that a dead letter can hold them."""

    def register(run: Callable[..., Awaitable[Any]]) -> Job:
        found = Job(run, retry or Retry())
        JOBS[found.name] = found
        return found

    return register
