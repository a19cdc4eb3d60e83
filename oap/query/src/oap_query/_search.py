"""Many traces at a glance: one row per segment, whichever of its two trace APIs OAP's storage has."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from oap_query._errors import reads_answers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from oap_query._client import Oap

BATCH: Final = 25
"""Traces asked for in one query."""

_ROWS: Final = """query ($condition: TraceQueryCondition) { data: queryBasicTraces(condition: $condition) {
    traces { segmentId traceIds endpointNames start duration isError } } }"""
_WHOLE: Final = """query ($condition: TraceQueryCondition) { data: queryTraces(condition: $condition) { traces { spans {
    traceId segmentId spanId startTime endTime endpointName type layer isError serviceCode } } } }"""


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
    service: str = ""
    """Empty where OAP's rows do not say."""

    @property
    def end(self) -> int:
        """When it ended, in ms since the epoch."""
        return self.start + self.duration


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list says of a whole trace; times in ms (since the epoch)."""

    trace_id: str
    segments: tuple[Segment, ...]
    """The earliest first."""

    @property
    def name(self) -> str:
        """The name of what the trace began with."""
        return self.segments[0].name

    @property
    def start(self) -> int:
        """When the first segment began."""
        return self.segments[0].start

    @property
    def duration(self) -> int:
        """From the first segment's start to the last one's end."""
        return max(segment.end for segment in self.segments) - self.start

    @property
    def error(self) -> bool:
        """Whether any of its segments failed."""
        return any(segment.error for segment in self.segments)

    @property
    def services(self) -> list[str]:
        """The names of the services that took part, as far as OAP said."""
        return sorted({segment.service for segment in self.segments} - {""})

    @property
    def tasks(self) -> int:
        """How many of its segments are background work."""
        return sum(not segment.request for segment in self.segments)


def is_request(name: str) -> bool:
    """Tell a request's segment from background work by its name, where a row has nothing else.

    `skywalking_background` names every entry span `HTTP GET /route` or `WebSocket /route`, and an open WebSocket
    `WebSocket /route connection`; a task has the name of its function, which has no space.
    """
    return name.startswith("HTTP ") or (name.startswith("WebSocket ") and not name.endswith(" connection"))


@reads_answers
def segments(  # noqa: PLR0913  # each narrows the search
    oap: Oap,
    start: datetime,
    end: datetime | None = None,
    *,
    service: str | None = None,
    least: int = 0,
    tag: tuple[str, str] | None = None,
) -> Iterator[list[Segment]]:
    """Yield pages of the segments that started in that time (both with a timezone), the newest first.

    Args:
        oap: whom to ask.
        start: the first moment.
        end: the last one; now by default.
        service: of this service only. On BanyanDB: of the traces that it has a part in.
        least: only segments that lasted at least so many ms. On BanyanDB: of traces that did.
        tag: only segments with a span of that tag and value, which must be searchable. On BanyanDB: traces with one.

    Raises:
        OapError: OAP does not answer, or refuses.
    """
    condition: dict[str, Any] = {"traceState": "ALL", "queryOrder": "BY_START_TIME"}
    if service is not None:
        condition["serviceId"] = oap.service_id(service)
        if condition["serviceId"] is None:
            return
    if least:
        condition["minTraceDuration"] = least
    if tag is not None:
        condition["tags"] = [{"key": tag[0], "value": tag[1]}]
    if oap.has_whole_traces:
        for traces in oap.pages(_WHOLE, condition, start, end):
            yield [segment for trace in traces for segment in _of_spans(trace["spans"])]
    else:
        for rows in oap.pages(_ROWS, condition, start, end):
            yield [_of_row(row) for row in rows]


def summaries(found: Iterable[Segment]) -> list[Summary]:
    """Join segments to traces, the newest first."""
    ordered = sorted({segment.segment_id: segment for segment in found}.values(), key=attrgetter("trace_id"))
    traces = [
        Summary(trace_id, tuple(sorted(group, key=lambda segment: (segment.start, not segment.request))))
        for trace_id, group in groupby(ordered, attrgetter("trace_id"))
    ]
    return sorted(traces, key=lambda trace: trace.start, reverse=True)


@reads_answers
def services(oap: Oap) -> list[str]:
    """Return the names of the services that OAP knows."""
    return sorted(item["name"] for item in oap.query('{ found: listServices(layer: "GENERAL") { name } }')["found"])


@reads_answers
def whole(oap: Oap, trace_ids: Sequence[str]) -> list[Summary]:
    """Return a few traces with all their segments, those that have any, the newest first."""
    fields = "traceId segmentId spanId startTime endTime endpointName type layer isError serviceCode"
    traces = _spans_of(oap, trace_ids, fields).values()
    return summaries(segment for spans in traces for segment in _of_spans(spans))


@reads_answers
def failed(oap: Oap, trace_ids: Sequence[str]) -> dict[str, str]:
    """Return the segments of a few traces that failed as a whole, since their first span did; each with its outcome.

    A row's `error` says only that some span failed, as the first attempt of a task that succeeded in the end does.
    The outcome is the tag `task.outcome` (`crashed`, `dead`, ...), or `failed` without that tag.
    """
    traces = _spans_of(oap, trace_ids, "segmentId spanId isError tags { key value }").values()
    return {
        span["segmentId"]: next((tag["value"] for tag in span["tags"] or () if tag["key"] == "task.outcome"), "failed")
        for spans in traces
        for span in spans
        if span["spanId"] == 0 and span["isError"]
    }


def _spans_of(oap: Oap, trace_ids: Sequence[str], fields: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for first in range(0, len(trace_ids), BATCH):
        batch = {f"t{number}": trace_id for number, trace_id in enumerate(trace_ids[first : first + BATCH])}
        parameters = ", ".join(f"${name}: ID!" for name in batch)
        parts = " ".join(f"{name}: queryTrace(traceId: ${name}) {{ spans {{ {fields} }} }}" for name in batch)
        answer = oap.query(f"query ({parameters}) {{ {parts} }}", **batch)
        found |= {trace_id: answer[name]["spans"] for name, trace_id in batch.items()}
    return found


def _of_row(row: dict[str, Any]) -> Segment:
    name = row["endpointNames"][0] if row["endpointNames"] else ""
    return Segment(
        row["traceIds"][0], row["segmentId"], name, int(row["start"]), row["duration"], row["isError"], is_request(name)
    )


def _of_spans(spans: list[dict[str, Any]]) -> Iterator[Segment]:
    """Make one row of each segment among the spans of a whole trace, as the other API does."""
    ordered = sorted(spans, key=lambda span: (span["segmentId"], span["spanId"]))
    for segment_id, group in groupby(ordered, lambda span: span["segmentId"]):
        members = list(group)
        first = members[0]
        start = first["startTime"]
        yield Segment(
            first["traceId"],
            segment_id,
            first["endpointName"],
            start,
            max(span["endTime"] for span in members) - start,
            any(span["isError"] for span in members),
            first["type"] == "Entry" and first["layer"] == "Http",
            first["serviceCode"],
        )
