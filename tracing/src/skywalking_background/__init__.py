"""True SkyWalking traces for FastAPI and Starlette background tasks.

``instrument(app)`` is all that an app needs. The other names are for tasks that are not Starlette's own.
"""

from skywalking_background import _protocol  # noqa: F401  # first: all others import what it provides
from skywalking_background._agent import counts, flush, start
from skywalking_background._faults import faults
from skywalking_background._instrument import instrument
from skywalking_background._life_events import event
from skywalking_background._reporter import Counts
from skywalking_background._spans import background_span, carry, current_trace_id, tag, untraced
from skywalking_background._tasks import ParallelTasks

__all__ = [
    "Counts",
    "ParallelTasks",
    "background_span",
    "carry",
    "counts",
    "current_trace_id",
    "event",
    "faults",
    "flush",
    "instrument",
    "start",
    "tag",
    "untraced",
]
