"""What can run in the background: a function, its name (a replay finds it by that) and its retry policy."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass(frozen=True)
class Retry:
    """How many attempts a job gets, and the wait between them: twice as long each time, with jitter."""

    attempts: int = 3
    on: tuple[type[Exception], ...] = (OSError,)
    """Errors that may pass: connections, timeouts, files. A programming error never does."""
    initial_wait_seconds: float = 0.5
    max_wait_seconds: float = 10.0
    jitter_seconds: float = 0.5

    def wait_seconds(self, failed: int) -> float:
        """Return how long to wait after so many failed attempts.

        Our own, as tenacity (and stamina, which is built on it) leaves a circle of 49 objects behind each retried call.
        """
        jitter = random.uniform(0, self.jitter_seconds)  # noqa: S311  # no secret
        return min(self.max_wait_seconds, self.initial_wait_seconds * 2.0 ** min(failed - 1, 32) + jitter)


@dataclass(frozen=True)
class Job:
    """A function that can run in the background."""

    run: Callable[..., Awaitable[None]]
    retry: Retry
    runs: int = 1
    """How often it may run when its process ends each time before it does; then it is a dead letter.

    More than 1 is for idempotent jobs only: how far the run before came is not known.
    """

    @property
    def name(self) -> str:
        """The name of its span and its dead letters."""
        return self.run.__name__


JOBS: dict[str, Job] = {}
"""Every job by its name."""


def job(
    retry: Retry | None = None, *, idempotent: bool = False, runs: int = 1
) -> Callable[[Callable[..., Awaitable[Any]]], Job]:
    """Make a function a job. Its arguments must be JSON values, so that a dead letter can hold them.

    Args:
        retry: what becomes of a run that fails.
        idempotent: whether a second run after a first one that was cut short does no harm.
        runs: how often it may run when its process ends before it does; more than once only what is idempotent.
    """
    if runs > 1 and not idempotent:
        message = "only an idempotent job may run again after a crash"
        raise ValueError(message)

    def register(run: Callable[..., Awaitable[Any]]) -> Job:
        found = Job(run, retry or Retry(), runs)
        JOBS[found.name] = found
        return found

    return register
