"""What is kept of a task that failed for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime

Reason = Literal["failed", "interrupted", "crashed"]


class StoreUnavailableError(Exception):
    """The database of the dead letters does not answer."""


@dataclass(frozen=True)
class Wanted:
    """Which letters: those to which all that is given applies."""

    name: str | None = None
    """The task's."""
    error: str | None = None
    """The error's type."""
    reason: Reason | None = None
    after: datetime | None = None
    """At or after which they died; with a timezone, as `before`."""
    before: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One task that failed for good."""

    id: str
    """That of the task."""
    name: str
    endpoint: str
    arguments: str
    """JSON, without secrets."""
    complete: bool
    """Whether all arguments are there, so that the task can be replayed."""
    error_type: str
    error_message: str
    error_stack: str
    attempts: int
    reason: Reason
    trace_id: str | None
    replay_of: str | None
    """The trace of the dead letter that this was the replay of."""
    died_at: str
    """ISO 8601 in UTC, which sorts by time as text."""
