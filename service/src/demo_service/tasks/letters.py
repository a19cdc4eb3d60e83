"""The dead letter of a task."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from demo_service.dead_letters import DeadLetter, storable

if TYPE_CHECKING:
    from demo_service.accepted import Accepted
    from demo_service.tasks.registry import Task


def letter_of_crashed(accepted: Accepted) -> DeadLetter:
    """Write down that a task has ended with its process."""
    how_far = f"in attempt {accepted.attempts}" if accepted.attempts else "before it began"
    again = f", in its run {accepted.run}" if accepted.run > 1 else ""
    return DeadLetter(
        id=accepted.id,
        name=accepted.name,
        endpoint=accepted.endpoint,
        arguments=accepted.arguments,
        complete=bool(accepted.complete),
        error_type="Crashed",
        error_message=f"the process that ran it ended {how_far}{again}",
        error_stack="",
        attempts=accepted.attempts,
        reason="crashed",
        trace_id=accepted.trace_id,
        replay_of=accepted.replay_of,
        died_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


def letter_of(task: Task, arguments: tuple[str, bool], error: BaseException, *, interrupted: bool) -> DeadLetter:
    """Write down how a task ended.

    Args:
        task: what failed for good.
        arguments: as JSON, and whether all of them are in it.
        error: what it failed with.
        interrupted: whether it was ended from outside.
    """
    text, complete = arguments
    return DeadLetter(
        id=task.id,
        name=task.name,
        endpoint=task.endpoint,
        arguments=text,
        complete=complete,
        error_type=type(error).__name__,
        error_message=storable(str(error)),
        error_stack=storable("".join(traceback.format_exception(error))),
        attempts=task.attempts,
        reason="interrupted" if interrupted else "failed",
        trace_id=task.trace_id,
        replay_of=task.replay_of,
        died_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
