"""What is kept of a task that failed for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
    reason: Literal["failed", "interrupted"]
    trace_id: str | None
    replay_of: str | None
    """The trace of the dead letter that this was the replay of."""
    died_at: str
    """ISO 8601 in UTC, which sorts by time as text."""
