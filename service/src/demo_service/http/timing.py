"""How long the work of a request takes: a query parameter within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from tracing_claims.variants import MAX_SECONDS

from demo_service.http.query import Parameters

if TYPE_CHECKING:
    from fastapi import Request


class Timing(Parameters):
    """How long the tasks of a request run."""

    duration: Annotated[
        float | None, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False, description="How long a task runs, in s.")
    ] = None

    def seconds_or_default(self, request: Request) -> float:
        """Return the duration, or the one that is set."""
        default: float = request.app.state.settings.task_seconds
        return default if self.duration is None else self.duration
