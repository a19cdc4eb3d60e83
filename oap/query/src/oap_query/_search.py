"""Many traces at a glance: one row per segment, whichever of its two trace APIs OAP's storage has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from oap_query._client import Oap

_ROWS: Final = """query ($condition: TraceQueryCondition) { data: queryBasicTraces(condition: $condition) {
    traces { segmentId traceIds endpointNames start duration isError } } }"""
_WHOLE: Final = """query ($condition: TraceQueryCondition) { data: queryTraces(condition: $condition) { traces { spans {
    traceId segmentId spanId startTime endTime endpointName isError } } } }"""


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a trace: a request, or work that it left behind; `start` in ms since the epoch."""

    trace_id: str
    segment_id: str
    name: str
    start: int
    duration: int
    """In ms."""
    error: bool
    """Whether one of its spans failed: also an attempt of a task that succeeded in the end."""
    request: bool

    @property
    def end(self) -> int:
        """When it ended, in ms since the epoch."""
        return self.start + self.duration


def segments(oap: Oap, start: datetime, end: datetime | None = None, *, service: str) -> Iterator[list[Segment]]:
    """Yield pages of the service's segments that started in that time (both with a timezone), the newest first.

    Without an `end`: up to now. On BanyanDB: all segments of the traces that the service has a part in.

    Raises:
        OapError: OAP does not answer, or refuses.
    """
    service_id = oap.service_id(service)
    if service_id is None:
        return
    condition = {
        "serviceId": service_id,
        "queryDuration": oap.duration(start, end),
        "traceState": "ALL",
        "queryOrder": "BY_START_TIME",
    }
    if oap.has_whole_traces:
        for traces in oap.pages(_WHOLE, condition):
            yield [_of_span(span) for trace in traces for span in trace["spans"] if span["spanId"] == 0]
    else:
        for rows in oap.pages(_ROWS, condition):
            yield [_of_row(row) for row in rows]


def _of_row(row: dict[str, Any]) -> Segment:
    name: str = row["endpointNames"][0]
    times = (int(row["start"]), row["duration"])
    error: bool = row["isError"]
    return Segment(row["traceIds"][0], row["segmentId"], name, *times, error, name.startswith("HTTP "))


def _of_span(span: dict[str, Any]) -> Segment:
    name: str = span["endpointName"]
    times = (span["startTime"], span["endTime"] - span["startTime"])
    error: bool = span["isError"]
    return Segment(span["traceId"], span["segmentId"], name, *times, error, name.startswith("HTTP "))
