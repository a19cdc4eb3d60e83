"""A task's name and id on each log line that it writes, by which OAP searches where these tags are searchable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from skywalking_background._faults import note, safe_text
from skywalking_background._internals import clean, open_spans
from skywalking_background._light_spans import TaskSpan
from skywalking_background._limits import cut
from skywalking_background._running import task_id

if TYPE_CHECKING:
    from skywalking.protocol.logging.Logging_pb2 import LogData

_CHARS: Final = 500


def tag_with_task(log: LogData) -> None:
    """Tag a line with the task that writes it, if it is one, as its start report has it; never raises."""
    try:
        spans = open_spans()
        if not spans or not isinstance(spans[0], TaskSpan) or not log.traceContext.traceSegmentId:
            return
        for key, value in (("task.name", safe_text(spans[0].op)), ("task.id", task_id(spans[0]))):
            log.tags.data.add(key=key, value=clean(cut(value, _CHARS)))
    except Exception:  # noqa: BLE001  # the line goes on without
        note("tagging a log line with its task")
